"""The gallery of the page: which photographs it shows, with the maps of all methods beside them."""

import base64
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OrtcamError
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.metrics import Metric
from ortcam.evaluation.results import Results
from ortcam.images.encoding import encode_jpeg
from ortcam.images.photograph import Photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import overlay

__all__ = ["Card", "Photographs", "cards_of", "choose", "values_of"]

Pixels = NDArray[np.uint8]

_PHOTOGRAPHS: Final = 24  # in the gallery at most
_IMAGES: Final = 360  # photographs and overlays together at most, so that the page stays below some 4 MB
_SIDE: Final = 160  # pixels of the longer side of an image
_QUALITY: Final = 80  # of its JPEG
# The preprocessing of a rendering, which is RGB whatever the model takes.
_OF_RENDERING: Final[dict[str, Any]] = {
    "channel_order": "rgb",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "scale": 1.0,
    "value_range": None,
    "display": None,
}


@dataclasses.dataclass(frozen=True)
class Card:
    """A photograph of the gallery.

    Attributes:
        index: its row in the results.
        name: of the example.
        rank: "best 1", "worst 1" and so on.
        target: the class, or the score, that is explained.
        probability: of it; its value, where that is no probability.
        label: of the image, where it is known.
        agrees: whether that is the target.
        width: of its images.
        height: of its images.
        photograph: data URI.
        maps: data URI by entry, of those that were measured.
        flat: names of the entries whose maps are flat.
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


@dataclasses.dataclass(frozen=True)
class Photographs:
    """The images that the gallery may show.

    Attributes:
        examples: where they are.
        read: decodes and preprocesses one, or raises an OrtcamError.
        preprocessing: of the model; the gallery shows its crop.
        labels: names of the classes; classes without one are called by their index.
        score: that is explained instead of a class, as a text.
    """

    examples: Sequence[Example]
    read: Callable[[Path], Photograph]
    preprocessing: Preprocessing
    labels: Sequence[str] = ()
    score: str | None = None

    def class_name(self, index: int) -> str:
        """What a class is called; the score where there is none."""
        if index < 0 and self.score is not None:
            return self.score
        return self.labels[index] if index < len(self.labels) else f"class {index}"


def choose(results: Results, metric: Metric) -> list[tuple[int, str]]:
    """Rows of the results, best and worst in turn, and their ranks; all of them if they are no more than fit."""
    count = min(_PHOTOGRAPHS, max(2, _IMAGES // (len(results.variants) + 1)))
    methods = [entry.name for entry in results.variants if entry.baseline is None]
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


def cards_of(
    chosen: Sequence[tuple[int, str]], results: Results, journal: Journal, photographs: Photographs
) -> Iterator[Card]:
    """Make the gallery. Memory holds one photograph at a time, and the thumbnails of those chosen.

    Args:
        chosen: rows of the results, and their ranks.
        results: every number.
        journal: has the thumbnails of the maps.
        photographs: where the images are; those that can no longer be read are left out.
    """
    names = {results.images[index] for index, _ in chosen}
    thumbnails: dict[str, dict[str, Pixels]] = {name: {} for name in names}
    for measurement in journal.measurements():
        if measurement.image in names:
            thumbnails[measurement.image][measurement.variant] = measurement.thumbnail
    paths = {example.name: example.path for example in photographs.examples}
    for index, rank in chosen:
        name = results.images[index]
        if name not in paths:
            continue
        try:
            photograph = photographs.read(paths[name])
        except OrtcamError:
            continue
        crop = _small(_seen(photograph, photographs.preprocessing))
        height, width = crop.shape[:2]
        label, target = int(results.label[index]), int(results.target[index])
        yield Card(
            index=index,
            name=name,
            rank=rank,
            target=photographs.class_name(target),
            probability=float(results.probability[index]),
            label=None if label < 0 else photographs.class_name(label),
            agrees=label == target,
            width=width,
            height=height,
            photograph=_data_uri(crop),
            maps={
                entry.name: _data_uri(overlay(crop, _enlarged(thumbnails[name][entry.name], height, width)))
                for entry in results.variants
                if entry.name in thumbnails[name]
            },
            flat={entry.name for entry in results.variants if results.flat[entry.name][index]},
        )


def values_of(cards: Sequence[Card], results: Results, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """What the script sorts the cards by, in their order: numbers by METRIC/VARIANT, METRIC/mean, METRIC/difference."""
    methods = [entry.name for entry in results.variants if entry.baseline is None]
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


def _seen(photograph: Photograph, preprocessing: Preprocessing) -> Pixels:
    """What the model sees of a photograph, uint8 RGB [H,W,3]: of other channels than RGB, of their rendering."""
    if not preprocessing.needs_samples and preprocessing.channels == 3:
        return preprocessing.to_pixels(photograph.model_input)
    shown = dataclasses.replace(preprocessing, **_OF_RENDERING)
    return shown.to_pixels(shown(photograph.pixels))


def _small(image: Pixels) -> Pixels:
    """The image with a longer side of `_SIDE` pixels."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)


def _enlarged(thumbnail: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """A map of a journal, float32 [height,width] in [0,1]."""
    laid = cv2.resize(thumbnail.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return laid.astype(np.float32, copy=False)


def _data_uri(image: Pixels) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, _QUALITY)).decode()}"
