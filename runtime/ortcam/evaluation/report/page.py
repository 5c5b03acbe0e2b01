"""`report.html`: verdict, means, curves, differences and images of an evaluation, on one self-contained page."""

import base64
import dataclasses
import datetime as dt
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OrtcamError
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.report.verdict import MEANING, Standing, Verdict
from ortcam.evaluation.results import Band, Results, Summary, median_of_known
from ortcam.evaluation.statistics import FEWEST, Difference, Interval
from ortcam.images.photograph import read_photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import overlay
from ortcam.support.files import write_whole

__all__ = ["write_report"]

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_TEMPLATE: Final = "report.html.j2"

_PHOTOGRAPHS: Final = 24  # in the gallery at most
_PICTURES: Final = 360  # photographs and overlays together at most, so that the page stays below some 4 MB
_SIDE: Final = 160  # pixels of the longer side of a picture
_QUALITY: Final = 80  # of its JPEG
_FAILURES: Final = 500  # listed at most; summary.json has all

# The gallery is chosen by the first of these that is measured. The first three are printed below each picture.
_TELLING: Final = ("adcc", "insertion-zero", "average-drop", "deletion-zero")
_BELOW_PICTURES: Final = 3

# Okabe and Ito's colours without black and yellow, as in all plots of this project, and paler ones for a dark page.
_COLOURS: Final = (
    ("#0072B2", "#4DA6E8"),
    ("#D55E00", "#F0803C"),
    ("#009E73", "#2BBF94"),
    ("#CC79A7", "#E09BC3"),
    ("#E69F00", "#E69F00"),
    ("#56B4E9", "#8CCBF0"),
)
_GREYS: Final = (("#3C4148", "#D5D9DF"), ("#6E747C", "#A9AFB8"), ("#92989F", "#858B94"))  # of baselines
_DASHES: Final = ("none", "8 3", "2 2.5", "9 3 2 3", "5 2.5", "12 3 2 3 2 3", "1 3")
# Outlines around (0,0): circle, square, triangle, diamond, triangle upside down, plus, cross.
_MARKS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.6 3.4H-4.6z",
    "M0-5.2L5.2 0L0 5.2L-5.2 0z",
    "M0 4.8L4.6-3.4H-4.6z",
    "M-1.6-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "M-4.6-2.4L-2.4-4.6L0-2.2L2.4-4.6L4.6-2.4L2.2 0L4.6 2.4L2.4 4.6L0 2.2L-2.4 4.6L-4.6 2.4L-2.2 0z",
)

# Of a panel of curves, in units of its view box.
_WIDTH, _HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 418, 12, 244
_POINTS: Final = 101  # of a curve at most
_MARKS_A_CURVE: Final = 6
_BANDS_AT_ONCE: Final = 2  # methods up to which the bands of all of them are shown
_PAIRS_AT_ONCE: Final = 10  # that are shown of a metric without being asked for
_MARGIN: Final = 0.06  # left and right of what a plot of differences shows, of its width


@dataclasses.dataclass(frozen=True)
class _Look:
    """A variant, and its look in all plots.

    Attributes:
        number: its place among the variants.
        name: of the variant.
        title: of the variant.
        baseline: whether it is a baseline.
        colour: on a light page.
        pale: colour on a dark page.
        dash: of its line, as SVG has it.
        mark: place of its mark in `_MARKS`.
    """

    number: int
    name: str
    title: str
    baseline: bool
    colour: str
    pale: str
    dash: str
    mark: int


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A mean in the table.

    Attributes:
        interval: the mean with its interval; None where the variant was not measured.
        best: whether the method is better than every other method.
        beaten: titles of the baselines that are better than the method.
    """

    interval: Interval | None
    best: bool
    beaten: list[str]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A variant in the table."""

    look: _Look
    cells: list[_Cell]
    seconds: float | None
    passes: float | None
    flat: int


@dataclasses.dataclass(frozen=True)
class _Place:
    """How the variants stand on a metric.

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
    best: _Look | None
    leading: list[_Look]
    behind: list[_Look]
    beaten: list[tuple[_Look, list[_Look]]]


@dataclasses.dataclass(frozen=True)
class _Line:
    """A curve: points of the line and of its band, where it has one, as SVG has them, and where its marks are.

    The area under it is in percent; None where the method was not measured on all images.
    """

    look: _Look
    area: float | None
    line: str
    band: str | None
    marks: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class _Panel:
    """Curves of one metric; ticks are places in the view box and what is written there. Curves of deletion fall."""

    metric: Metric
    falls: bool
    lines: list[_Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    across: str
    in_words: str


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A difference; `at`, `low` and `high` are places in percent of the plot's width."""

    first: _Look
    second: _Look
    better: _Look | None
    difference: Difference
    at: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class _Plot:
    """Differences on one scale; places as in `_Pair`. It is shown at once, or where the reader opens it."""

    title: str
    opened: bool
    pairs: list[_Pair]
    ticks: list[tuple[float, str]]
    zero: float


@dataclasses.dataclass(frozen=True)
class _Apart:
    """The differences of a metric: between methods, and between methods and baselines."""

    metric: Metric
    n: int
    plots: list[_Plot]


@dataclasses.dataclass(frozen=True)
class _Card:
    """A photograph of the gallery.

    Attributes:
        index: its row in the results.
        name: of the example.
        rank: "best 1", "worst 1" and so on.
        target: the class explained.
        probability: of it.
        label: of the image, where it is known.
        agrees: whether that is the target.
        width: of its pictures.
        height: of its pictures.
        photograph: data URI.
        maps: data URI by variant, of those that were measured.
        flat: names of the variants whose maps are flat.
    """

    index: int
    name: str
    rank: str
    target: str
    probability: float
    label: str | None
    agrees: bool
    width: int
    height: int
    photograph: str
    maps: dict[str, str]
    flat: set[str]


def write_report(
    path: Path,
    results: Results,
    summary: Summary,
    verdict: Verdict,
    journal: Journal,
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    more: Mapping[str, Any],
    *,
    max_pixels: int,
    white: int | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write the page. Images that can no longer be read are left out of the gallery.

    Args:
        path: of the page, which is replaced as a whole.
        results: every number.
        summary: means, intervals and differences.
        verdict: the findings in sentences.
        journal: has the thumbnails of the maps.
        examples: where the images are.
        preprocessing: of the model; the gallery shows its crop.
        more: what summary.json has beside results and summary: settings, protocol, model, providers, versions,
            failures, and randomized where that was checked.
        max_pixels: larger images are left out.
        white: as of `read_image`.
        labels: names of the classes; classes without one are called by their index.

    Raises:
        OSError: the page cannot be written.
    """
    looks = {look.name: look for look in _looks(results)}
    metrics = [metric for metric in results.metrics if any(metric.name in row for row in summary.table.values())]
    telling = [metric for name in _TELLING for metric in metrics if metric.name == name] or metrics
    primary = telling[0] if telling else None
    standings = {standing.metric: standing for standing in verdict.standings}
    cards = []
    if primary is not None:
        chosen = _choose(results, primary, min(_PHOTOGRAPHS, max(2, _PICTURES // (len(looks) + 1))))
        cards = list(_cards(chosen, results, journal, examples, preprocessing, labels, max_pixels, white))
    page = _template().render(
        results=results,
        looks=list(looks.values()),
        marks=_MARKS,
        metrics=metrics,
        measured={name: item.n for row in summary.table.values() for name, item in row.items()},
        verdict=verdict,
        meaning=MEANING,
        places=_places(verdict, metrics, looks),
        rows=_rows(results, summary, standings, metrics, looks),
        panels=[
            _panel(metric, results.bands[metric.name], summary, looks)
            for metric in metrics
            if metric.name in results.bands
        ],
        view=(_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
        bands=sum(not look.baseline for look in looks.values()) <= _BANDS_AT_ONCE,
        disagreements=any(item.disagrees for items in summary.differences.values() for item in items),
        apart=[
            _apart(metric, summary.differences[metric.name], looks, primary=metric == primary)
            for metric in metrics
            if summary.differences.get(metric.name)
        ],
        primary=primary,
        below=telling[:_BELOW_PICTURES],
        cards=cards,
        values=_values(cards, results, metrics),
        counts=_counts(results),
        fewest=FEWEST,
        listed_failures=more["failures"][:_FAILURES],
        more=more,
        written=dt.datetime.now(dt.UTC),
    )
    # The name of a file need not be Unicode; other bytes become question marks.
    write_whole(path, page.encode(errors="replace"), durable=True)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "sha256": _sha256,
        "number": _number,
        "signed": _signed,
        "seconds": _seconds,
        "p_value": _p_value,
    }
    return environment.get_template(_TEMPLATE)


def _sha256(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _looks(results: Results) -> Iterator[_Look]:
    count = {True: 0, False: 0}
    for number, variant in enumerate(results.variants):
        baseline = variant.baseline is not None
        colours = _GREYS if baseline else _COLOURS
        # Past the last colour they begin again, with other dashes and marks.
        again, place = divmod(count[baseline], len(colours))
        count[baseline] += 1
        yield _Look(
            number,
            variant.name,
            variant.title,
            baseline,
            *colours[place],
            _DASHES[(place + again + baseline) % len(_DASHES)],
            (place + 2 * again + 4 * baseline) % len(_MARKS),
        )


def _rows(
    results: Results,
    summary: Summary,
    standings: Mapping[str, Standing],
    metrics: Sequence[Metric],
    looks: Mapping[str, _Look],
) -> list[_Row]:
    def cell(name: str, metric: str) -> _Cell:
        interval, standing = summary.table[name].get(metric), standings.get(metric)
        if standing is None:
            return _Cell(interval, best=False, beaten=[])
        beaten = [looks[baseline].title for baseline in standing.beaten.get(name, ())]
        return _Cell(interval, standing.best == name, beaten)

    return [
        _Row(
            look,
            [cell(name, metric.name) for metric in metrics],
            median_of_known(results.seconds[name]),
            median_of_known(results.passes[name]),
            int(results.flat[name].sum()),
        )
        for name, look in looks.items()
    ]


def _places(verdict: Verdict, metrics: Sequence[Metric], looks: Mapping[str, _Look]) -> list[_Place]:
    standings = {standing.metric: standing for standing in verdict.standings}
    return [
        _Place(
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


def _panel(metric: Metric, bands: Mapping[str, Band], summary: Summary, looks: Mapping[str, _Look]) -> _Panel:
    """All curves of a metric; the vertical axis begins at 0 and ends above the highest of them."""
    top = min(1.0, max(0.1, math.ceil(10 * max(float(band.mean.max()) for band in bands.values())) / 10))

    def x(share: Floats) -> Floats:
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(confidence: Floats) -> Floats:
        return _BOTTOM - (_BOTTOM - _TOP) * np.clip(confidence / top, 0, 1)

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
            _Line(
                look,
                area.mean if (area := summary.table[name].get(metric.name)) is not None else None,
                _points(across, mean),
                around,
                [(round(float(across[i]), 1), round(float(mean[i]), 1)) for i in at],
            )
        )
    inserts = metric.name.startswith("insertion")
    areas = ", ".join(
        f"{looks[name].title} {_number(row[metric.name].mean)}"
        for name, row in summary.table.items()
        if metric.name in row
    )
    return _Panel(
        metric,
        not inserts,
        lines,
        [(float(x(np.array(share))), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        [(float(y(np.array(tick))), f"{tick:.0%}") for tick in _ticks(0, top)],
        f"share of the pixels {'shown' if inserts else 'taken away'}",
        f"Mean confidence against the {'share of pixels shown' if inserts else 'share of pixels taken away'}. "
        f"Area under the curves, in percent: {areas}.",
    )


def _apart(metric: Metric, differences: Sequence[Difference], looks: Mapping[str, _Look], *, primary: bool) -> _Apart:
    """Differences between methods, and those to baselines; what is between baselines is left out."""
    plots: list[_Plot] = []
    for title, baselines in (("Between methods", 0), ("Against baselines", 1)):
        some = [item for item in differences if looks[item.first].baseline + looks[item.second].baseline == baselines]
        if some:
            # Long lists are folded, except for one metric; so are the baselines beside methods.
            opened = not plots and (primary or len(some) <= _PAIRS_AT_ONCE)
            plots.append(_plot(title, some, looks, opened=opened))
    return _Apart(metric, differences[0].interval.n, plots)


def _plot(title: str, differences: Sequence[Difference], looks: Mapping[str, _Look], *, opened: bool) -> _Plot:
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
        _Pair(
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
    return _Plot(title, opened, pairs, [(place(tick), _signed(tick, "g")) for tick in ticks], place(0))


def _choose(results: Results, metric: Metric, count: int) -> list[tuple[int, str]]:
    """Rows of the results, best and worst in turn, and their ranks; all of them if they are no more than `count`."""
    methods = [variant.name for variant in results.variants if variant.baseline is None]
    stacked = np.stack([results.values[name][metric.name] for name in methods])
    known = ~np.isnan(stacked)
    mean = np.where(known, stacked, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    rows = np.flatnonzero(known.any(axis=0))
    order = rows[np.argsort(mean[rows] if metric.better == "lower" else -mean[rows], kind="stable")]
    half = (min(count, len(order)) + 1) // 2
    best, worst = order[:half], order[half:][::-1][: count - half]
    chosen = []
    for rank in range(half):
        chosen.append((int(best[rank]), f"best {rank + 1}"))
        if rank < len(worst):
            chosen.append((int(worst[rank]), f"worst {rank + 1}"))
    return chosen


def _cards(
    chosen: Sequence[tuple[int, str]],
    results: Results,
    journal: Journal,
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    labels: Sequence[str],
    max_pixels: int,
    white: int | None,
) -> Iterator[_Card]:
    """Make the gallery. Memory holds one photograph at a time, and the thumbnails of those chosen."""
    names = {results.images[index] for index, _ in chosen}
    thumbnails: dict[str, dict[str, Pixels]] = {name: {} for name in names}
    for measurement in journal.measurements():
        if measurement.image in names:
            thumbnails[measurement.image][measurement.variant] = measurement.thumbnail
    paths = {example.name: example.path for example in examples}
    for index, rank in chosen:
        name = results.images[index]
        if name not in paths:
            continue
        try:
            photograph = read_photograph(paths[name], preprocessing, max_pixels=max_pixels, white=white)
        except OrtcamError:
            continue
        crop = _small(_crop(photograph.model_input, preprocessing))
        height, width = crop.shape[:2]
        label, target = int(results.label[index]), int(results.target[index])
        yield _Card(
            index=index,
            name=name,
            rank=rank,
            target=_class_name(target, labels),
            probability=float(results.probability[index]),
            label=None if label < 0 else _class_name(label, labels),
            agrees=label == target,
            width=width,
            height=height,
            photograph=_data_uri(crop),
            maps={
                variant.name: _data_uri(overlay(crop, _enlarged(thumbnails[name][variant.name], height, width)))
                for variant in results.variants
                if variant.name in thumbnails[name]
            },
            flat={variant.name for variant in results.variants if results.flat[variant.name][index]},
        )


def _values(cards: Sequence[_Card], results: Results, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """What the script sorts the cards by, in their order: numbers by METRIC/VARIANT, METRIC/mean, METRIC/difference."""
    methods = [variant.name for variant in results.variants if variant.baseline is None]
    found = []
    for card in cards:
        numbers: dict[str, float] = {"probability": card.probability}
        for metric in metrics:
            row = {name: float(column[metric.name][card.index]) for name, column in results.values.items()}
            known = [row[name] for name in methods if not math.isnan(row[name])]
            numbers |= {f"{metric.name}/{name}": value for name, value in row.items() if not math.isnan(value)}
            if known:
                numbers[f"{metric.name}/mean"] = sum(known) / len(known)
                numbers[f"{metric.name}/difference"] = max(known) - min(known)
        found.append({"name": card.name, "numbers": {key: round(value, 6) for key, value in numbers.items()}})
    return found


def _counts(results: Results) -> dict[str, int]:
    labelled = results.label >= 0
    return {
        "images": len(results.images),
        "labelled": int(labelled.sum()),
        "agreeing": int((results.label == results.target)[labelled].sum()),
    }


def _crop(model_input: NDArray[np.float32], preprocessing: Preprocessing) -> Pixels:
    """The picture that a model's input [1,3,H,W] was made of, uint8 RGB [H,W,3]."""
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    levels = (model_input[0] * std + mean) * 255 / preprocessing.scale
    planes = levels[::-1] if preprocessing.channel_order == "bgr" else levels
    return np.ascontiguousarray(np.rint(planes).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _small(picture: Pixels) -> Pixels:
    """The picture with a longer side of `_SIDE` pixels."""
    height, width = picture.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)


def _enlarged(thumbnail: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """A map of a journal, float32 [height,width] in [0,1]."""
    laid = cv2.resize(thumbnail.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return laid.astype(np.float32, copy=False)


def _data_uri(picture: Pixels) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _class_name(index: int, labels: Sequence[str]) -> str:
    return labels[index] if index < len(labels) else f"class {index}"


def _points(x: Floats, y: Floats) -> str:
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))


def _ticks(low: float, high: float) -> list[float]:
    """Choose about three to six round numbers from low to high, with zero if it lies between."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5.5)
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number(value: float | None) -> str:
    """Two decimals, and a typographic minus."""
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _signed(value: float, form: str = ".2f") -> str:
    """With its sign, unless it is zero."""
    text = f"{value:{form}}"
    return f"{value:+{form}}".replace("-", "−") if float(text) else text.lstrip("-")


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
