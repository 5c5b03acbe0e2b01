"""The table of means, and the places of the methods on each metric."""

import dataclasses
from collections.abc import Mapping, Sequence

from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.report.looks import Look
from ortcam.evaluation.report.verdict import Verdict
from ortcam.evaluation.results import Results, Summary, median_of_known
from ortcam.evaluation.statistics import Interval

__all__ = ["Cell", "Place", "Row", "places_of", "rows_of"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A mean in the table.

    Attributes:
        interval: the mean with its interval; None where the entry was not measured.
        best: whether the method is better than every other method.
        beaten: titles of the baselines that are better than the method.
    """

    interval: Interval | None
    best: bool
    beaten: list[str]


@dataclasses.dataclass(frozen=True)
class Row:
    """An entry in the table."""

    look: Look
    cells: list[Cell]
    seconds: float | None
    passes: float | None
    flat: int


@dataclasses.dataclass(frozen=True)
class Place:
    """How the entries stand on a metric.

    Attributes:
        metric: it.
        n: images compared.
        decided: whether these are enough.
        best: the method that is better than every other one.
        leading: methods that no other method is better than; without the best one.
        behind: methods that another method is better than.
        beaten: methods, each with the baselines that are better than it.
    """

    metric: Metric
    n: int
    decided: bool
    best: Look | None
    leading: list[Look]
    behind: list[Look]
    beaten: list[tuple[Look, list[Look]]]


def rows_of(
    results: Results,
    summary: Summary,
    verdict: Verdict,
    metrics: Sequence[Metric],
    looks: Mapping[str, Look],
) -> list[Row]:
    """The rows of the table of means, one per entry."""
    standings = {standing.metric: standing for standing in verdict.standings}

    def cell(name: str, metric: str) -> Cell:
        interval, standing = summary.table[name].get(metric), standings.get(metric)
        if standing is None:
            return Cell(interval, best=False, beaten=[])
        beaten = [looks[baseline].title for baseline in standing.beaten.get(name, ())]
        return Cell(interval, standing.best == name, beaten)

    return [
        Row(
            look,
            [cell(name, metric.name) for metric in metrics],
            median_of_known(results.seconds[name]),
            median_of_known(results.passes[name]),
            int(results.flat[name].sum()),
        )
        for name, look in looks.items()
    ]


def places_of(verdict: Verdict, metrics: Sequence[Metric], looks: Mapping[str, Look]) -> list[Place]:
    """How the entries stand on each metric that has a better side."""
    standings = {standing.metric: standing for standing in verdict.standings}
    return [
        Place(
            metric,
            found.n,
            found.decided,
            None if found.best is None else looks[found.best],
            [looks[name] for name in found.leading if name != found.best],
            [looks[name] for name in found.behind],
            [(looks[name], [looks[baseline] for baseline in others]) for name, others in found.beaten.items()],
        )
        for metric in metrics
        if (found := standings.get(metric.name)) is not None
    ]
