"""Figures of a benchmark: named series, what a committed result keeps of them, and how tables show them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figure:
    """A series of one quantity.

    Attributes:
        name: unique within its file, the coarse part first: "resnet18 / torch-cam / latency".
        unit: "s", "B", "x", "Pearson".
        values: in the order they were taken; one where the quantity does not vary.
        better: which way is good.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    better: Literal["lower", "higher"] = "lower"

    @property
    def summary(self) -> "Summary":
        """What a committed result keeps."""
        low, middle, high = np.percentile(self.values, [25, 50, 75]).tolist()
        return Summary(self.name, self.unit, middle, (low, high), len(self.values), self.better)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A figure without its series.

    Attributes:
        name: of the figure.
        unit: of the figure.
        median: of the series.
        quartiles: the first and the third.
        count: how many values there were.
        better: which way is good.
    """

    name: str
    unit: str
    median: float
    quartiles: tuple[float, float]
    count: int
    better: Literal["lower", "higher"] = "lower"

    @property
    def noise(self) -> float:
        """Half the distance between the quartiles, relative to the median; 0 for a single value."""
        low, high = self.quartiles
        return (high - low) / (2 * abs(self.median)) if self.median else 0.0

    def as_json(self) -> dict[str, Any]:
        """One line of a result; of a single value no quartiles."""
        spread = {"quartiles": list(self.quartiles), "count": self.count} if self.count > 1 else {}
        return {"name": self.name, "unit": self.unit, "better": self.better, "median": self.median, **spread}


def read_summaries(document: Mapping[str, Any]) -> dict[str, Summary]:
    """The figures of a result by name; none of a file that has no such figures."""
    found = {}
    for item in document.get("figures", ()):
        if "median" not in item:  # a result of before 2026-11-26 has the series
            summary = Figure(**{**item, "values": tuple(item["values"])}).summary
        else:
            low, high = item.get("quartiles", (item["median"],) * 2)
            summary = Summary(
                item["name"], item["unit"], item["median"], (low, high), item.get("count", 1), item["better"]
            )
        found[summary.name] = summary
    return found


def median(values: Sequence[float]) -> float:
    """The middle of a series."""
    return float(np.median(values))


def with_quartiles(values: Sequence[float], digits: int = 2) -> str:
    """The median and, in brackets, the quartiles; the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def megabytes(values: Sequence[float]) -> str:
    """The median of a series of bytes, in MB."""
    return f"{np.median(values) / 1e6:.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
