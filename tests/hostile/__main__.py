"""Measures all bombs, or those whose names contain a word, and prints a table: `python -m tests.hostile [WORD ...]`.

Per kind: how many files, the largest memory and CPU that one took, and its budget. A file that breaks its rules is
named below the table.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.images import BOMBS, MB, Bomb
from tests.hostile.measuring import Measuring
from tests.hostile.test_images import check, measure


def main(words: Sequence[str]) -> int:
    """Print the table; 1 where a bomb breaks its rules."""
    rows: dict[str, list[tuple[Bomb, float, float, float]]] = defaultdict(list)
    broken = []
    with tempfile.TemporaryDirectory() as folder, Measuring() as measuring:
        for bomb in BOMBS:
            if words and not any(word in bomb.name for word in words):
                continue
            size, measured = measure(bomb, measuring, Path(folder))
            family = bomb.name.split("-")[0]
            budget = bomb.memory_budget(size)
            rows[f"{family} | {bomb.kind}"].append((bomb, measured.memory / MB, budget / MB, measured.cpu))
            try:
                check(bomb, size, measured)
            except AssertionError as error:
                reason = str(error).splitlines()[0][:200] if str(error) else "what came of it"
                got = measured.message or measured.error or measured.result
                broken.append(f"{bomb.name}: {reason}: {measured.memory / MB:.0f} MB, {measured.cpu:.1f} s; {got}")
                sys.stderr.write(broken[-1] + "\n")
    sys.stdout.write(
        "| format | kind | files | memory, MB | of budget | CPU, s | of budget |\n|---|---|---|---|---|---|---|\n"
    )
    for kind, found in rows.items():
        memory = max(found, key=lambda row: row[1] / row[2])
        cpu = max(found, key=lambda row: row[3] / row[0].cpu_budget())
        figures = f"{memory[1]:.1f} | {memory[2]:.0f} | {cpu[3]:.2f} | {cpu[0].cpu_budget():.0f}"
        sys.stdout.write(f"| {kind} | {len(found)} | {figures} |\n")
    sys.stdout.write("\n" + "\n".join(broken) + "\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
