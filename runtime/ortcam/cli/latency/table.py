"""The table of `ortcam benchmark`, and how it came about."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from ortcam.benchmarking import Row, Timings
from ortcam.support.terminal import printable
from ortcam.support.words import measured_time

__all__ = ["in_words"]

_WIDTH: Final = 80  # columns of what is printed
_SHORT: Final = {"float32": "fp32", "float16": "fp16"}


def in_words(timings: Timings) -> str:
    """The table and how it came about, at most 80 columns wide where names allow it."""
    wrapped = [
        line
        for text in [*_legend(timings), "", *_facts(timings)]
        for line in (textwrap.wrap(printable(text), _WIDTH, subsequent_indent="  ", break_long_words=False) or [""])
    ]
    return "\n".join([*map(printable, _table(timings.rows)), "", *wrapped])


def _table(measured: Sequence[Row]) -> list[str]:
    head = ("method", "type", "batch", "passes", "median", "p95", "bare", "overhead")
    rows = [head, *(_cells(row) for row in measured)]
    if not _has_several_precisions(measured):
        rows = [(row[0], *row[2:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * len(widths) - 2 <= _WIDTH else " "
    return [
        gap.join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _legend(timings: Timings) -> Iterator[str]:
    """What the columns mean."""
    yield "median, p95: time per explanation, from the image file to the map."
    yield "bare: the same number of forward passes alone, in float32. overhead: what an explanation takes beyond these."
    if any(row.is_scaled for row in timings.rows):
        yield "~ scaled up: only a part of the passes was measured. A larger --seconds measures more of them."
    if any(row.head_passes for row in timings.rows):
        yield "head: passes of the head alone, which are cheap."
    if any(row.gradient_passes for row in timings.rows):
        yield "back: backward passes of the head."
    yield from timings.notes


def _facts(timings: Timings) -> Iterator[str]:
    """What was measured, and where."""
    machine, rows = timings.machine, timings.rows
    providers = ", ".join(dict.fromkeys(row.providers[0] for row in rows if row.providers))
    precision = "" if _has_several_precisions(rows) or not rows else f"{rows[0].precision}, "
    yield f"model: {timings.model} ({timings.bundle['path']})"
    yield f"image: {timings.image}"
    yield f"runs: {timings.runs} per row, after one to warm up"
    yield f"on: {providers}, {precision}threads {timings.threads or 'automatic'}"
    yield f"machine: {machine['processor']}, {machine['logical_cores']} logical cores, {machine['system']}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in timings.versions.items())}"
    if timings.peak_memory_bytes is not None:
        yield f"peak memory: {timings.peak_memory_bytes / 1e6:.0f} MB of this process so far, with all methods"


def _has_several_precisions(rows: Sequence[Row]) -> bool:
    return len({row.precision for row in rows}) > 1


def _cells(row: Row) -> tuple[str, ...]:
    about = "~" if row.is_scaled else ""
    passes = f"{row.passes}/{row.all_passes}" if about else str(row.passes)
    if row.head_passes:
        passes = f"{row.head_passes} head"
    elif row.gradient_passes:
        passes = f"{row.gradient_passes} back"
    bare = None if row.bare_seconds is None else row.bare_seconds * row.all_passes
    return (
        row.method,
        _SHORT.get(row.precision, row.precision),
        str(row.batch_size),
        passes,
        f"{about}{measured_time(row.median)}",
        f"{about}{measured_time(row.p95)}",
        "-" if bare is None else f"{about}{measured_time(bare)}",
        "-" if row.overhead is None else f"{100 * row.overhead:+.0f} %",
    )
