"""The plots of the page as SVG has them: curves of insertion and deletion, and differences between methods."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.report.looks import Look
from ortcam.evaluation.report.numbers import number, signed
from ortcam.evaluation.results import Band, Summary
from ortcam.evaluation.statistics import Difference

__all__ = ["BANDS_AT_ONCE", "VIEW", "Apart", "Line", "Pair", "Panel", "Plot", "apart", "panel"]

Floats = NDArray[np.float64]

# Of a panel of curves, in units of its view box.
_WIDTH, _HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 418, 12, 244
VIEW: Final = (_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM)
_POINTS: Final = 101  # of a curve at most
_MARKS_A_CURVE: Final = 6
BANDS_AT_ONCE: Final = 2  # methods up to which the bands of all of them are shown
_PAIRS_AT_ONCE: Final = 10  # that are shown of a metric without being asked for
_MARGIN: Final = 0.06  # left and right of what a plot of differences shows, of its width


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve: points of the line and of its band, where it has one, as SVG has them, and where its marks are.

    The area under it is in percent; None where the method was not measured on all images.
    """

    look: Look
    area: float | None
    line: str
    band: str | None
    marks: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves of one metric; ticks are places in the view box and what is written there. Curves of deletion fall."""

    metric: Metric
    falls: bool
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    across: str
    in_words: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """A difference; `at`, `low` and `high` are places in percent of the plot's width."""

    first: Look
    second: Look
    better: Look | None
    difference: Difference
    at: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Plot:
    """Differences on one scale; places as in `Pair`. It is shown at once, or where the reader opens it."""

    title: str
    opened: bool
    pairs: list[Pair]
    ticks: list[tuple[float, str]]
    zero: float


@dataclasses.dataclass(frozen=True)
class Apart:
    """The differences of a metric: between methods, and between methods and baselines."""

    metric: Metric
    n: int
    plots: list[Plot]


def panel(metric: Metric, bands: Mapping[str, Band], summary: Summary, looks: Mapping[str, Look]) -> Panel:
    """All curves of a metric; the vertical axis has 0, and ends above the highest of them, or at it for values."""
    low, top = _axis(metric, bands)

    def x(share: Floats) -> Floats:
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(confidence: Floats) -> Floats:
        return _BOTTOM - (_BOTTOM - _TOP) * np.clip((confidence - low) / (top - low), 0, 1)

    lines = []
    for name, band in bands.items():
        kept = np.unique(np.linspace(0, len(band.share) - 1, _POINTS).round().astype(np.intp))
        across, mean, around = x(band.share[kept]), y(band.mean[kept]), None
        if band.half is not None:
            ends = [y((band.mean + sign * band.half)[kept]) for sign in (-1, 1)]
            around = _points(np.concatenate([across, across[::-1]]), np.concatenate([ends[0], ends[1][::-1]]))
        look = looks[name]
        # Each curve has its marks a bit further on, so that they do not hide each other.
        places = (np.arange(_MARKS_A_CURVE) + (look.number + 0.5) / len(looks)) / _MARKS_A_CURVE
        at = (places * (len(kept) - 1)).round().astype(np.intp)
        lines.append(
            Line(
                look,
                area.mean if (area := summary.table[name].get(metric.name)) is not None else None,
                _points(across, mean),
                around,
                [(round(float(across[i]), 1), round(float(mean[i]), 1)) for i in at],
            )
        )
    inserts, of_share = metric.name.startswith("insertion"), metric.unit == "percent"

    def written(tick: float) -> str:
        return f"{tick:.0%}" if of_share else f"{tick + 0.0:.4g}".replace("-", "−")

    areas = ", ".join(
        f"{looks[name].title} {number(row[metric.name].mean, metric.unit)}"
        for name, row in summary.table.items()
        if metric.name in row
    )
    return Panel(
        metric,
        not inserts,
        lines,
        [(float(x(np.array(share))), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        [(float(y(np.array(tick))), written(tick)) for tick in _ticks(low, top)],
        f"share of the pixels {'shown' if inserts else 'taken away'}",
        f"Mean {'confidence' if of_share else 'score'} against the "
        f"{'share of pixels shown' if inserts else 'share of pixels taken away'}. "
        f"{'Area under the curves, in percent' if of_share else 'Mean of the curves'}: {areas}.",
    )


def _axis(metric: Metric, bands: Mapping[str, Band]) -> tuple[float, float]:
    """The ends of the vertical axis."""
    highest = max(float(band.mean.max()) for band in bands.values())
    if metric.unit == "percent":
        return 0.0, min(1.0, max(0.1, math.ceil(10 * highest) / 10))
    low, high = min(0.0, *(float(band.mean.min()) for band in bands.values())), max(0.0, highest)
    return (low, high) if low < high else (0.0, 1.0)


def apart(metric: Metric, differences: Sequence[Difference], looks: Mapping[str, Look], *, primary: bool) -> Apart:
    """Differences between methods, and those to baselines; what is between baselines is left out."""
    plots: list[Plot] = []
    for title, baselines in (("Between methods", 0), ("Against baselines", 1)):
        some = [item for item in differences if looks[item.first].baseline + looks[item.second].baseline == baselines]
        if some:
            # Long lists are folded, except for one metric; so are the baselines beside methods.
            opened = not plots and (primary or len(some) <= _PAIRS_AT_ONCE)
            plots.append(_plot(title, some, looks, opened=opened))
    return Apart(metric, differences[0].interval.n, plots)


def _plot(title: str, differences: Sequence[Difference], looks: Mapping[str, Look], *, opened: bool) -> Plot:
    ends = [0.0]
    for item in differences:
        ends += [end for end in (item.interval.mean, item.interval.low, item.interval.high) if end is not None]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = -1.0, 1.0
    ticks = _ticks(low, high)

    def place(value: float) -> float:
        return round(100 * (_MARGIN + (1 - 2 * _MARGIN) * (value - low) / (high - low)), 2)

    pairs = [
        Pair(
            looks[item.first],
            looks[item.second],
            None if item.better is None else looks[item.better],
            item,
            place(item.interval.mean),
            None if item.interval.low is None else place(item.interval.low),
            None if item.interval.high is None else place(item.interval.high),
        )
        for item in differences
    ]
    return Plot(title, opened, pairs, [(place(tick), signed(tick, "g")) for tick in ticks], place(0))


def _points(x: Floats, y: Floats) -> str:
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))


def _ticks(low: float, high: float) -> list[float]:
    """Choose about three to six round numbers from low to high, with zero if it lies between."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5.5)
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
