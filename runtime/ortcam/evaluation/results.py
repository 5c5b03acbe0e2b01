"""The numbers of an evaluation: values by image, method and metric, their summary, and the files they are saved in."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ortcam.evaluation.entries import Entry
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.metrics import METRICS, Metric
from ortcam.evaluation.protocols import Protocol
from ortcam.evaluation.statistics import FEWEST, Difference, Interval, adcc_intervals, differences, intervals
from ortcam.support.files import replacing
from ortcam.support.strict_json import encode_json

__all__ = [
    "Band",
    "Results",
    "Summary",
    "as_cell",
    "as_json",
    "collect",
    "median_of_known",
    "summarise",
    "write_tables",
]

Floats = NDArray[np.float64]

_ADCC_PARTS: Final = ("coherency", "complexity", "average-drop")
_ROWS_AT_ONCE: Final = 50_000
_SCHEMA: Final = pa.schema(
    {
        "image": pa.string(),
        "label": pa.int64(),
        "target": pa.int64(),
        "probability": pa.float64(),
        "method": pa.string(),
        "metric": pa.string(),
        "value": pa.float64(),
        "flat": pa.bool_(),
        "seconds": pa.float64(),
    }
)
# Where values are no probabilities `probability` is null, and a column behind it has the value.
_VALUE: Final = pa.field("score", pa.float64())
_TEXTS: Final = [field.name for field in _SCHEMA if field.type == pa.string()]
# Beginnings of a cell that a spreadsheet takes for a formula, also in full width, and the mark that prevents it.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_TEXT_MARK: Final = "'"
_NORMAL: Final = 1.96  # half a 95 % interval, in standard errors


@dataclasses.dataclass(frozen=True)
class Band:
    """A mean curve of insertion or deletion, with the 95 % interval of the mean at every step.

    Attributes:
        share: float64 [n], share of the pixels that have changed.
        mean: float64 [n], mean confidence.
        half: float64 [n], half the width of the interval; None with fewer than 10 images.
    """

    share: Floats
    mean: Floats
    half: Floats | None


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything measured. Arrays have one row per image, NaN where something was not measured.

    Attributes:
        images: their names.
        variants: the entries in the order asked for, baselines last.
        metrics: those measured.
        values: float64 [n] by entry and metric, each in the unit of the metric.
        label: int64 [n], -1 if unknown.
        target: int64 [n]; -1 where a score is explained.
        probability: float64 [n], of the target; its value, or that of the score, where these are no probabilities.
        masked: float64 [n] by entry: O.
        seconds: float64 [n] by entry, time of an explanation.
        passes: float64 [n] by entry.
        flat: bool [n] by entry.
        bands: by metric and entry.
        are_probabilities: whether `probability` has probabilities.
    """

    images: list[str]
    variants: list[Entry]
    metrics: list[Metric]
    values: dict[str, dict[str, Floats]]
    label: NDArray[np.int64]
    target: NDArray[np.int64]
    probability: Floats
    masked: dict[str, Floats]
    seconds: dict[str, Floats]
    passes: dict[str, Floats]
    flat: dict[str, NDArray[np.bool_]]
    bands: dict[str, dict[str, Band]]
    are_probabilities: bool = True


@dataclasses.dataclass(frozen=True)
class Summary:
    """Means and differences.

    Attributes:
        table: mean with its interval by entry and metric, over the images that all entries have.
        differences: between all pairs of entries, by metric.
    """

    table: dict[str, dict[str, Interval]]
    differences: dict[str, list[Difference]]


def collect(
    journal: Journal,
    images: Collection[str],
    entries: Sequence[Entry],
    wanted: Sequence[str],
    share: Floats,
    *,
    are_probabilities: bool = True,
) -> Results:
    """Read a journal. Curves are averaged while they are read, so that memory holds one number per metric.

    Args:
        journal: of the run.
        images: names of the images to report on, in the order of the rows, so that numbers do not depend on the order
            in which images were measured.
        entries: to report on, baselines last.
        wanted: names of metrics.
        share: float64 [n], share of the pixels that have changed at each step of the curves.
        are_probabilities: whether the curves are of probabilities.
    """
    measured = {image for image, _ in journal.measured()}
    place = {image: index for index, image in enumerate(image for image in images if image in measured)}
    names = [entry.name for entry in entries]
    metrics = [metric if are_probabilities else metric.of_values() for metric in METRICS if metric.name in wanted]
    count = len(place)
    values = {name: {metric.name: np.full(count, np.nan) for metric in metrics} for name in names}
    masked, seconds, passes = ({name: np.full(count, np.nan) for name in names} for _ in range(3))
    flat = {name: np.zeros(count, np.bool_) for name in names}
    label, target = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    probability = np.zeros(count)
    moments: dict[str, dict[str, _Moments]] = {}
    for found in journal.measurements():
        if found.image not in place or found.variant not in values:
            continue
        name, index = found.variant, place[found.image]
        label[index] = -1 if found.label is None else found.label
        target[index], probability[index] = found.target, found.probability
        for metric in metrics:
            values[name][metric.name][index] = found.scores.get(metric.name, np.nan)
        masked[name][index] = math.nan if found.masked is None else found.masked
        seconds[name][index], passes[name][index], flat[name][index] = found.seconds, found.passes, found.flat
        for curve_name, curve in found.curves.items():
            moments.setdefault(curve_name, {}).setdefault(name, _Moments()).add(np.asarray(curve))
    if "win" in wanted:
        competing = [item.name for item in entries if item.baseline is None and not np.isnan(masked[item.name]).all()]
        for name, won in _wins({name: masked[name] for name in competing}).items():
            values[name]["win"] = won
    return Results(
        images=list(place),
        variants=list(entries),
        metrics=metrics,
        values=values,
        label=label,
        target=target,
        probability=probability,
        masked=masked,
        seconds=seconds,
        passes=passes,
        flat=flat,
        bands={
            metric.name: {name: item.band(share) for name, item in moments[metric.name].items()}
            for metric in metrics
            if metric.name in moments
        },
        are_probabilities=are_probabilities,
    )


def _wins(masked: dict[str, Floats]) -> dict[str, Floats]:
    """Give 100 to the highest O of an image, shared by those that tie; NaN if one of them was not measured."""
    if not masked:
        return {}
    stacked = np.stack(list(masked.values()))
    best = stacked == stacked.max(axis=0)
    complete = ~np.isnan(stacked).any(axis=0)
    won = np.where(complete, 100 * best / np.maximum(best.sum(axis=0), 1), np.nan)
    return dict(zip(masked, won, strict=True))


def summarise(results: Results, protocol: Protocol, *, seed: int) -> Summary:
    """Compute intervals and differences, each over the images on which every entry has the metric.

    Raises:
        AssertionError: Average Drop and Increase in Confidence add up to more than 100, which the protocol forbids.
    """
    table: dict[str, dict[str, Interval]] = {entry.name: {} for entry in results.variants}
    apart: dict[str, list[Difference]] = {}
    for metric in results.metrics:
        measured = {
            name: by_metric[metric.name]
            for name, by_metric in results.values.items()
            if not np.isnan(by_metric[metric.name]).all()
        }
        if not measured:
            continue
        complete = ~np.isnan(np.stack(list(measured.values()))).any(axis=0)
        if not complete.any():
            continue
        values = {name: column[complete] for name, column in measured.items()}
        parts = None
        if metric.name == "adcc":
            parts = {name: np.stack([results.values[name][part][complete] for part in _ADCC_PARTS]) for name in values}
        found = intervals(values, seed=seed) if parts is None else adcc_intervals(parts, seed=seed)
        for name, interval in found.items():
            table[name][metric.name] = interval
        if metric.better is not None:
            apart[metric.name] = differences(values, metric, seed=seed, adcc_parts=parts)
    if protocol.bounds_drop:
        for name, row in table.items():
            if {"average-drop", "increase"} <= row.keys():
                total = row["average-drop"].mean + row["increase"].mean
                if total > 100 + 1e-9:
                    raise AssertionError(f"{name}: Average Drop and Increase in Confidence add up to {total}")
    return Summary(table, apart)


class _Moments:
    """Mean and variance of curves, added one after the other (Welford 1962)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, curve: Floats) -> None:
        self._count += 1
        step = curve - self._mean
        self._mean = self._mean + step / self._count
        self._squares = self._squares + step * (curve - self._mean)

    def band(self, share: Floats) -> Band:
        half = None
        if self._count >= FEWEST:
            half = _NORMAL * np.sqrt(self._squares / (self._count - 1) / self._count)
        return Band(share, np.asarray(self._mean), half)


def write_tables(results: Results, folder: Path) -> None:
    """Write results.csv and results.parquet, with one row per image, method and metric.

    Texts in results.csv are escaped by `as_cell`; those in results.parquet are not.

    Raises:
        OSError: they cannot be written.
    """
    schema = _SCHEMA
    if not results.are_probabilities:
        schema = _SCHEMA.insert(_SCHEMA.get_field_index("probability") + 1, _VALUE)
    with (
        replacing(folder / "results.csv", durable=True) as csv_path,
        replacing(folder / "results.parquet", durable=True) as parquet_path,
        pacsv.CSVWriter(csv_path, schema) as text,
        pq.ParquetWriter(parquet_path, schema) as parquet,
    ):
        rows = _rows(results)
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            part = pa.Table.from_pylist(some, schema)
            cells = [row | {name: as_cell(row[name]) for name in _TEXTS} for row in some]
            text.write_table(pa.Table.from_pylist(cells, schema))
            parquet.write_table(part)


def as_cell(text: str) -> str:
    """Escape a text for a CSV, so that no spreadsheet takes it for a formula: an apostrophe is put before it.

    A text that begins with an apostrophe gets another one. A reader gets the text back by removing one apostrophe.

    Example:
        >>> as_cell("=1+1.png"), as_cell("'quoted'.png"), as_cell("cat.jpg")
        ("'=1+1.png", "''quoted'.png", 'cat.jpg')
    """
    return _TEXT_MARK + text if text.startswith((*_FORMULA, _TEXT_MARK)) else text


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    for index, image in enumerate(results.images):
        for entry in results.variants:
            for metric in results.metrics:
                value = float(results.values[entry.name][metric.name][index])
                if math.isnan(value):
                    continue
                label, clean = int(results.label[index]), float(results.probability[index])
                yield {
                    "image": image,
                    "label": None if label < 0 else label,
                    "target": int(results.target[index]),
                    "probability": clean if results.are_probabilities else None,
                    "score": clean,
                    "method": entry.name,
                    "metric": metric.name,
                    "value": value,
                    "flat": bool(results.flat[entry.name][index]),
                    "seconds": float(results.seconds[entry.name][index]),
                }


def as_json(results: Results, summary: Summary, more: dict[str, Any]) -> bytes:
    """Encode summary.json: settings, verdict, table, differences."""
    labelled = results.label >= 0
    content = more | {
        "images": {
            "measured": len(results.images),
            "labelled": int(labelled.sum()),
            "classified_as_labelled": int((results.label == results.target)[labelled].sum()),
        },
        "methods": [
            {
                "name": entry.name,
                "title": entry.title,
                "baseline": entry.baseline is not None,
                "median_seconds": median_of_known(results.seconds[entry.name]),
                "median_passes": median_of_known(results.passes[entry.name]),
                "flat_maps": int(results.flat[entry.name].sum()),
            }
            for entry in results.variants
        ],
        "metrics": [dataclasses.asdict(metric) for metric in results.metrics],
        "table": {
            name: {metric: dataclasses.asdict(interval) for metric, interval in row.items()}
            for name, row in summary.table.items()
        },
        "differences": {
            metric: [dataclasses.asdict(item) for item in items] for metric, items in summary.differences.items()
        },
    }
    return (encode_json(content, ascii_only=True) + "\n").encode()


def median_of_known(values: Floats) -> float | None:
    """Compute the median of the values that are not NaN; None if all are."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else None
