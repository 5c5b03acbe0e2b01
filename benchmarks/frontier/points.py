"""Points of the frontier: what a configuration gave on one model, and which of them is the fastest."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from benchmarks.common.fidelity import COMPLETED, EXACT, FAMILIES, SAMPLED, TOLERANCE
from benchmarks.common.figures import Figure, median

PRECISIONS: Final = ("fp32", "fp16", "int8")


@dataclasses.dataclass(frozen=True)
class Point:
    """A configuration on one model.

    Attributes:
        family: of FAMILIES.
        precision: of the masked passes.
        options: of the explanation.
        pearson: with the exact map, a photograph each.
        shares: passes by those of the exact map, a photograph each.
        seconds: of the timed explanations.
        speedups: torch-cam's time by each of them.
    """

    family: str
    precision: str
    options: dict[str, Any]
    pearson: list[float]
    shares: list[float]
    seconds: list[float]
    speedups: list[float]

    @property
    def mean(self) -> float:
        """Mean correlation."""
        return float(np.mean(self.pearson))


Points = dict[str, Point]


def fastest_at(points: Points, precisions: set[str], *, aim: float = 0.99) -> str | None:
    """The configuration with the largest speed-up among those of a mean correlation of at least `aim`."""
    enough = [
        name
        for name, point in points.items()
        if point.family in (EXACT, COMPLETED, TOLERANCE, SAMPLED)
        and point.precision in precisions
        and point.mean >= aim
    ]
    return max(enough, key=lambda name: median(points[name].speedups), default=None)


def in_order(points: Points) -> Points:
    """As `configurations` has them, wherever they were measured; the exact one first."""

    def place(item: tuple[str, Point]) -> tuple[float, ...]:
        point = item[1]
        amounts = (float(point.options.get(key, 0)) for key in ("sampling_error", "tolerance", "budget"))
        return (FAMILIES.index(point.family), PRECISIONS.index(point.precision), *amounts)

    return dict(sorted(points.items(), key=place))


def figures(models: Mapping[str, Points]) -> Iterable[Figure]:
    """What is compared between commits."""
    for model, points in models.items():
        for name, point in points.items():
            yield Figure(f"{model} / {name} / mean Pearson", "Pearson", (point.mean,), "higher")
            yield Figure(f"{model} / {name} / least Pearson", "Pearson", (min(point.pearson),), "higher")
            yield Figure(f"{model} / {name} / latency", "s", tuple(point.seconds))
            yield Figure(f"{model} / {name} / speed-up over torch-cam", "x", tuple(point.speedups), "higher")
