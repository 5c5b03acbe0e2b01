"""Fresh results beside the committed ones, figure by figure, as ratios: how a regression is seen.

Every result in benchmarks/results that has figures is compared with the same file at a commit (HEAD by default). The
noise of a ratio is what the quartiles of the two series say of it: half the distance between them, relative to the
median, of both series together, and at least `--floor`. A figure is flagged where its ratio is further from 1 than
`--threshold` times that noise. Run as `python -m benchmarks.compare.changes [FILE.json ...]`.
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.arguments import say
from benchmarks.common.figures import Summary, read_summaries, table
from benchmarks.common.results import ROOT, figure_files

THRESHOLD: Final = 3.0
FLOOR: Final = 0.02


@dataclasses.dataclass(frozen=True)
class Change:
    """A figure then and now.

    Attributes:
        figure: its name.
        unit: of the medians.
        then: median in the committed result.
        now: median in the fresh one.
        noise: of the ratio, relative.
        better: which way is good.
    """

    figure: str
    unit: str
    then: float
    now: float
    noise: float
    better: str

    @property
    def ratio(self) -> float:
        """Now by then; infinite where there was nothing."""
        return self.now / self.then if self.then else math.inf

    def verdict(self, threshold: float) -> str:
        """What the change amounts to: "worse", "better", or nothing where it is within the noise."""
        if self.now == self.then:
            return ""
        if self.ratio > 0 and math.isfinite(self.ratio) and abs(math.log(self.ratio)) <= threshold * self.noise:
            return ""
        return "worse" if (self.now > self.then) == (self.better == "lower") else "better"


def changes(then: Mapping[str, Summary], now: Mapping[str, Summary], *, floor: float = FLOOR) -> list[Change]:
    """The figures that both have, in the order of the fresh result."""
    return [
        Change(
            name,
            figure.unit,
            then[name].median,
            figure.median,
            max(floor, math.hypot(then[name].noise, figure.noise)),
            figure.better,
        )
        for name, figure in now.items()
        if name in then
    ]


def report(found: Iterable[Change], *, threshold: float, only_flagged: bool = False) -> str:
    """The changes as a Markdown table."""
    rows = [
        [
            change.figure,
            change.unit,
            f"{change.then:.4g}",
            f"{change.now:.4g}",
            f"{change.ratio:.3f}",
            f"{change.noise:.1%}",
            change.verdict(threshold),
        ]
        for change in found
        if change.verdict(threshold) or not only_flagged
    ]
    return table(["figure", "unit", "committed", "fresh", "ratio", "noise", ""], rows) if rows else "nothing changed"


def committed(path: Path, revision: str) -> dict[str, Any] | None:
    """A result as it is at a commit; None where it is not there."""
    name = path.resolve().relative_to(ROOT).as_posix()
    shown = subprocess.run(["git", "show", f"{revision}:{name}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        return None
    document: dict[str, Any] = json.loads(shown.stdout)
    return document


def main(arguments: Sequence[str]) -> int:
    """Print a table a result; 1 where a figure is worse than the noise explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.json", help="default: all in benchmarks/results")
    parser.add_argument("--against", default="HEAD", metavar="REVISION", help="commit to compare with (%(default)s)")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="in units of the noise (%(default)s)")
    parser.add_argument("--floor", type=float, default=FLOOR, help="the least relative noise (%(default)s)")
    parser.add_argument("--all", action="store_true", help="also the figures that did not change")
    options = parser.parse_args(arguments)
    worse = 0
    for path in options.files or figure_files():
        try:
            fresh = json.loads(path.read_text("utf-8"))
            then = committed(path, options.against)
        except (OSError, ValueError) as error:
            say(f"{path}: cannot be compared: {error}")
            return 2
        if not read_summaries(fresh):
            continue
        print(f"## {path.name}\n")
        if then is None or not read_summaries(then):
            print(f"nothing to compare with at {options.against}\n")
            continue
        for key in ("cpu", "cores"):
            if (before := then["machine"].get(key)) != (after := fresh["machine"].get(key)):
                print(f"Another machine: {key} {before} then, {after} now.\n")
        found = changes(read_summaries(then), read_summaries(fresh), floor=options.floor)
        worse += sum(change.verdict(options.threshold) == "worse" for change in found)
        print(f"{then['date']} at {options.against}, and {fresh['date']}; {len(found)} figures\n")
        print(report(found, threshold=options.threshold, only_flagged=not options.all) + "\n")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
