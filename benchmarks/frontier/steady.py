"""The rate of a stream with a deadline: whether each map is ready in time, and how evenly maps come.

The frames are those of a pan. Each is given when it is asked for, as a camera gives its newest; the clock runs from
there to its map. Results go to benchmarks/results/stream-rate.md and .json. Run it on a machine that does nothing else,
as `python -m benchmarks.frontier.steady`; needs scikit-image, and $ORTCAM_TEST_DATA for all models but shapes.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.frontier.scenes import pan
from benchmarks.frontier.stream import MODELS, PHOTOGRAPHS, bundle_of

__all__ = ["Rate", "figures", "in_a_table", "main", "measure_rate"]

DEADLINES: Final = (200, 500, 1000)  # milliseconds
SETTLING: Final = 3  # frames that are not counted: the speed of the machine becomes known

REPORT: Final = """\
# Streams: a steady rate

`explain_stream(frames, deadline=...)` on a pan over a photograph, scorecam, timed from when a frame is taken to its
map. "In time" is the share of frames whose map came within the deadline, "jitter" the distance from the 10th to the
90th percentile. The first {settling} frames are not counted. How exact such maps are: [stream.md](stream.md).

{rates}

{run}
"""


@dataclasses.dataclass(frozen=True)
class Rate:
    """Frames with one deadline.

    Attributes:
        deadline: in milliseconds.
        milliseconds: of every frame, from when it was taken to its map.
        passes: of every frame.
        channels: that are active, of every frame.
    """

    deadline: int
    milliseconds: tuple[float, ...]
    passes: tuple[int, ...]
    channels: tuple[int, ...]


def measure_rate(bundle: Path, photograph: str, deadline: int, *, count: int, threads: int) -> Rate:
    """Explain the frames of a pan with a deadline.

    Args:
        bundle: of the classifier.
        photograph: its name in scikit-image.
        deadline: in milliseconds.
        count: frames that are counted; a few more come before them.
        threads: for an operator.
    """
    import ortcam

    frames = list(pan(photograph, count + SETTLING))
    taken = 0.0

    def camera() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in frames:
            taken = time.perf_counter()
            yield frame

    with ortcam.load(bundle, providers=["cpu"], threads=threads) as explainer:
        (target,) = explainer.explain(frames[0], method="scorecam", deadline=deadline).targets
        stream = explainer.explain_stream(camera(), method="scorecam", target=target, deadline=deadline)
        found = [(1000 * (time.perf_counter() - taken), e.stats.passes, e.stats.live_channels) for e in stream]
    milliseconds, passes, channels = zip(*found[SETTLING:], strict=True)
    return Rate(deadline, milliseconds, passes, channels)


def in_a_table(rates: Sequence[tuple[str, Rate]]) -> str:
    """Rates by name as a Markdown table."""
    rows = []
    for name, rate in rates:
        low, middle, high = np.percentile(rate.milliseconds, [10, 50, 90])
        share = np.median(np.array(rate.passes) / np.array(rate.channels))
        rows.append(
            [
                name,
                f"{rate.deadline} ms",
                f"{np.mean(np.array(rate.milliseconds) <= rate.deadline):.0%}",
                f"{middle:.0f} ms",
                f"{high - low:.0f} ms",
                f"{max(rate.milliseconds):.0f} ms",
                f"{np.median(rate.passes):.0f} ({share:.0%})",
            ]
        )
    head = ["model", "deadline", "in time", "median", "jitter", "slowest", "passes per frame"]
    return table(head, rows)


def figures(rates: Sequence[tuple[str, Rate]]) -> Iterator[Figure]:
    """The series of rates by name."""
    for name, rate in rates:
        label = f"{name} / deadline {rate.deadline}"
        yield Figure(f"{label} / frame to map", "s", tuple(value / 1000 for value in rate.milliseconds))
        yield Figure(f"{label} / passes", "passes", tuple(map(float, rate.passes)), "higher")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, write the results."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier.steady", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    parser.add_argument(
        "--deadlines", nargs="+", type=whole_number, default=DEADLINES, help="in milliseconds (default: 200 500 1000)"
    )
    parser.add_argument("--count", type=whole_number, default=48, help="frames that are timed (default %(default)s)")
    parser.add_argument("--bundles", type=Path, help="folder that keeps bundles (default: a temporary one)")
    add_threads(parser)
    add_output(parser, "stream-rate")
    settings = parser.parse_args(arguments)
    run = describe_run("benchmarks.frontier.steady", arguments)
    rates: list[tuple[str, Rate]] = []
    with tempfile.TemporaryDirectory(prefix="ortcam-stream-") as temporary:
        for model, deadline in itertools.product(settings.models, settings.deadlines):
            bundle = bundle_of(model, settings.bundles or Path(temporary))
            rate = measure_rate(bundle, PHOTOGRAPHS[0], deadline, count=settings.count, threads=settings.threads)
            say(f"{model}, deadline {deadline} ms: median {np.median(rate.milliseconds):.0f} ms")
            rates.append((model, rate))
    words = run_in_words(run, f"float32, CPU, {settings.threads} threads, {settings.count} frames")
    text = REPORT.format(settling=SETTLING, rates=in_a_table(rates), run=words)
    write_text(settings.output.with_suffix(".md"), text)
    write_results(
        settings.output,
        run=run,
        raw={"rates": [(name, dataclasses.asdict(rate)) for name, rate in rates]},
        figures=figures(rates),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
