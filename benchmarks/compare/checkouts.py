"""Two checkouts of ortcam in pairs of processes: is the one slower than the other on this machine?

Each round starts a process of each, in turn, on one thread and with a fixed batch size. It prints the median of both,
and the median of the ratios of the pairs. So it needs no figures of an earlier run on the same machine. Each checkout
has an environment of its own (`make test` makes it). Run as `python -m benchmarks.compare.checkouts BEFORE`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.common.results import ROOT

# What a process measures, with names that every version has: the smallest of several times, in seconds.
_MEASURE: Final = """
import json, sys, time
start = time.perf_counter()
import ortcam
seconds = {"import": time.perf_counter() - start}

def measure(name, call, runs):
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    seconds[name] = min(times)

image, *bundles = sys.argv[1:]
for bundle in bundles:
    stem = bundle.replace("\\\\", "/").rsplit("/", 1)[-1].removesuffix(".ortcam")
    start = time.perf_counter()
    explainer = ortcam.load(bundle, threads=1)
    seconds[f"{stem}: load"] = time.perf_counter() - start
    read = explainer.read(image)
    measure(f"{stem}: read", lambda: explainer.read(image), 10)
    measure(f"{stem}: read and predict", lambda: explainer.predict(explainer.read(image)), 10)
    gated = {"method": "scorecam++", "batch_size": 8}
    measure(f"{stem}: scorecam++, all channels", lambda: explainer.explain(read, **gated), 2)
    measure(f"{stem}: scorecam++, budget 0.12", lambda: explainer.explain(read, **gated, budget=0.12), 4)
    for method in ("recipro-cam", "eigen-cam"):
        measure(f"{stem}: {method}", lambda: explainer.explain(read, method=method), 10)
print(json.dumps(seconds))
"""


def measured(checkout: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Seconds by name, as a process of one checkout takes them.

    Raises:
        SystemExit: the process failed; the message has its last line.
    """
    python = checkout / ".venv" / "bin" / "python"
    if not python.is_file():
        raise SystemExit(f"{checkout}: has no environment (.venv); `make test` in it makes one")
    environment = {**os.environ, "ORTCAM_CACHE": "off"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or what is compiled anew is measured
    command = [str(python), "-c", _MEASURE, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir(), check=False
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def main() -> None:
    """Print a line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout, such as a `git worktree` of an earlier commit")
    parser.add_argument("--bundle", type=Path, action="append", help="default: the shipped one; several are accepted")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of processes (default 7)")
    options = parser.parse_args()
    shapes = ROOT / "models" / "shapes.ortcam"
    image = ROOT / "models" / "shapes" / "samples" / "mug-umbrella.png"
    arguments = [str(image), *(str(bundle.resolve()) for bundle in options.bundle or [shapes])]
    checkouts = [options.before.resolve(), ROOT]
    pairs: list[tuple[dict[str, float], ...]] = []
    for number in range(options.rounds):
        turns = checkouts if number % 2 == 0 else checkouts[::-1]
        found = {checkout: measured(checkout, arguments) for checkout in turns}
        pairs.append(tuple(found[checkout] for checkout in checkouts))
        sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    print(f"{'ms, median':50}{'before':>10}{'now':>10}{'ratio':>8}")
    for name in pairs[0][0]:
        before, now = (statistics.median(pair[side][name] for pair in pairs) * 1000 for side in (0, 1))
        ratio = statistics.median(pair[1][name] / pair[0][name] for pair in pairs)
        print(f"{name:50}{before:10.2f}{now:10.2f}{ratio:8.3f}")


if __name__ == "__main__":
    main()
