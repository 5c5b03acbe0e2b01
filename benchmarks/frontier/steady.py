"""The rate of a stream with a deadline: whether each map is ready in time, and how evenly maps come.

The frames are those of a pan. Each is given when it is asked for, as a camera gives its newest, and the clock runs from
there to its map.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.common.figures import Figure, table
from benchmarks.frontier.scenes import pan

__all__ = ["DEADLINES", "Rate", "figures", "in_a_table", "measure_rate"]

DEADLINES: Final = (200, 500, 1000)  # milliseconds
SETTLING: Final = 3  # frames that are not counted: the speed of the machine becomes known


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
