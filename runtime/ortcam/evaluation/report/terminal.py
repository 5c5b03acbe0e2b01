"""An evaluation for a terminal: the verdict, then the table of means, then what to open."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.report.verdict import Standing, Verdict
from ortcam.evaluation.results import Results, Summary, median_of_known
from ortcam.support.words import counted

__all__ = ["in_words"]

_SIGNS: Final = {"higher": " +", "lower": " -", None: ""}
_BEST: Final = "*"
_BEATEN: Final = "!"
_GAP: Final = 2  # spaces between columns
_NARROW: Final = 9  # characters to which a column's title is wrapped


def in_words(results: Results, summary: Summary, verdict: Verdict, page: str, width: int = 80) -> str:
    """The lines to print.

    Args:
        results: every number.
        summary: their means.
        verdict: what they say.
        page: where report.html is.
        width: of the terminal, in columns.
    """
    lines: list[str] = []
    for sentence in verdict.short:
        lines += textwrap.wrap(sentence, width, subsequent_indent="  ")
    metrics = [metric for metric in results.metrics if any(metric.name in row for row in summary.table.values())]
    standings = {standing.metric: standing for standing in verdict.standings}
    columns = [[entry.title, *_column(entry.name, results, summary, metrics, standings)] for entry in results.variants]
    in_percent = any(metric.unit == "percent" for metric in metrics)
    head = ["mean in percent" if in_percent else "mean", *(metric.title + _SIGNS[metric.better] for metric in metrics)]
    lines += ["", *_table([*head, "seconds per image", "forward passes"], columns, width), ""]
    for note in _notes(results, summary, metrics, set().union(*(cell for _, *column in columns for cell in column))):
        lines += textwrap.wrap(note, width, subsequent_indent="  ")
    return "\n".join([*lines, "", f"Open {page}"])


def _column(
    name: str,
    results: Results,
    summary: Summary,
    metrics: Sequence[Metric],
    standings: Mapping[str, Standing],
) -> Iterator[str]:
    """The cells of a method or baseline: a number, and a mark behind it."""
    for metric in metrics:
        interval, standing = summary.table[name].get(metric.name), standings.get(metric.name)
        mark = ""
        if standing is not None and standing.best == name:
            mark += _BEST
        if standing is not None and name in standing.beaten:
            mark += _BEATEN
        yield _figure(None if interval is None else interval.mean, ".2f" if metric.unit == "percent" else ".4g") + mark
    yield _figure(median_of_known(results.seconds[name]), ".3f")
    yield _figure(median_of_known(results.passes[name]), ".0f")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _table(first: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Columns beside the first one; what does not fit into the width follows below, beside the first one again.

    Args:
        first: the head and the names of the rows.
        columns: the head and the cells of each other column.
        width: of the terminal.
    """
    indent = max(map(len, first))
    rest = [_Column(head, cells) for head, *cells in columns]
    while rest:
        fit = 1
        while fit < len(rest) and indent + sum(_GAP + column.width for column in rest[: fit + 1]) <= width:
            fit += 1
        some, rest = rest[:fit], rest[fit:]
        height = max(len(column.head) for column in some)
        heads = [[""] * (height - len(column.head)) + column.head for column in some]
        rows = [
            *zip([""] * (height - 1) + [first[0]], *heads, strict=True),
            *zip(first[1:], *(column.cells for column in some), strict=True),
        ]
        for name, *cells in rows:
            padded = (cell.rjust(column.width) for cell, column in zip(cells, some, strict=True))
            yield (" " * _GAP).join([name.ljust(indent), *padded]).rstrip()
        if rest:
            yield ""


class _Column:
    """A column: its head in lines, and cells whose numbers stand below each other, marks behind them."""

    def __init__(self, head: str, cells: Sequence[str]) -> None:
        self.head = textwrap.wrap(head, _NARROW, break_long_words=False, break_on_hyphens=False)
        marks = max(len(cell) - len(cell.rstrip(_BEST + _BEATEN)) for cell in cells)
        numbers = [cell.rstrip(_BEST + _BEATEN) for cell in cells]
        self.cells = [number + cell[len(number) :].ljust(marks) for number, cell in zip(numbers, cells, strict=True)]
        self.width = max(map(len, [*self.head, *self.cells]))


def _notes(results: Results, summary: Summary, metrics: Sequence[Metric], marks: set[str]) -> Iterator[str]:
    """How to read the table."""
    count = len(results.images)
    note = f"{counted(count, 'image')}; + higher is better, - lower is better"
    note += f"; {_BEST} better than every other method" if _BEST in marks else ""
    note += f"; {_BEATEN} a baseline is better" if _BEATEN in marks else ""
    yield f"{note}."
    own = [metric.title for metric in metrics if metric.unit != "percent"]
    if own:
        yield f"In the unit of the score, as its mean while pixels change: {', '.join(own)}."
    fewer = {
        metric.title: row[metric.name].n for metric in metrics for row in summary.table.values() if metric.name in row
    }
    some = [f"{title} {n}" for title, n in fewer.items() if n != count]
    if some:
        yield f"Measured on fewer images: {', '.join(some)}."
    missing = [metric for metric in results.metrics if metric not in metrics]
    if missing:
        boxes = " (the pointing games need boxes)" if any(metric.group == "pointing" for metric in missing) else ""
        yield f"Not measured: {', '.join(metric.title for metric in missing)}{boxes}."
