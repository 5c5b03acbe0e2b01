"""A column of a sheet: what one method says about each class, as it was saved or is about to be."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError
from ortcam.images.limits import LONGEST_SIDE
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.resampling.crop import CropGeometry
from ortcam.methods import METHODS
from ortcam.results.saved import MANIFEST, OccupiedError, image_sha256, read_manifest, stem
from ortcam.support.words import passes_in_words, sheet_time

__all__ = ["DAMAGED", "SavedResult", "SheetClass", "column_of", "columns_in", "image_name"]

# What reading a folder may raise whose manifest or maps somebody has changed.
DAMAGED: Final = (
    *(OccupiedError, OptionError, OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError),
    cv2.error,
)


@dataclass(frozen=True)
class SheetClass:
    """A row of the sheet: a class with its probability, or a score (-1) or an output with its value."""

    index: int
    label: str
    probability: float
    is_probability: bool = True

    @property
    def value(self) -> str:
        """The probability in percent, or the value."""
        if not self.is_probability:
            return f"{self.probability:.4g}"
        return f"{self.probability:.1%}" if self.probability >= 0.001 else "below 0.1%"

    @property
    def of(self) -> str:
        """What it is: "class 3", "output 3" or "score"."""
        return "score" if self.index < 0 else f"{'class' if self.is_probability else 'output'} {self.index}"


@dataclass(frozen=True)
class SavedResult:
    """A column of the sheet: what one method says about each class, as it was saved or is about to be.

    Attributes:
        name: of the image's file, or "".
        order: place of the method among all.
        title: of the method.
        notes: lines below it.
        model: its name.
        classes: those explained.
        maps: float32 [H, W] by class index.
        geometry: where the maps lie in the photograph.
        cells: rows and columns of the layer.
    """

    name: str
    order: int
    title: str
    notes: tuple[str, ...]
    model: str
    classes: tuple[SheetClass, ...]
    maps: Mapping[int, NDArray[np.float32]]
    geometry: CropGeometry
    cells: tuple[int, int]

    @classmethod
    def read(cls, folder: Path, manifest: Mapping[str, Any]) -> "SavedResult":
        """Read what is saved in a folder.

        Args:
            folder: of one explanation.
            manifest: its content.

        Raises:
            one of `DAMAGED`: the manifest or a map is damaged, or cannot be read.
        """
        targets = [int(target["index"]) for target in manifest["targets"]]
        # Mapped, so that a file that only says that it is large takes no memory.
        maps = {index: np.load(folder / f"{stem(index)}.npy", "r", allow_pickle=False) for index in targets}
        result = column_of(manifest, maps)
        return dataclasses.replace(result, maps={index: np.array(saliency) for index, saliency in maps.items()})


def columns_in(folder: Path, digest: str | None, size: tuple[int, ...]) -> list[SavedResult]:
    """What is saved for an image of this hash and size, in the order of the methods; what is damaged is left out.

    Raises:
        OSError: the folder cannot be read.
    """
    found: list[SavedResult] = []
    for below in sorted(path for path in folder.iterdir() if (path / MANIFEST).is_file()):
        try:
            manifest = read_manifest(below)
            if manifest is None or image_sha256(manifest["image"]) != digest:
                continue
            result = SavedResult.read(below, manifest)
        except DAMAGED:
            continue
        if (result.geometry.height, result.geometry.width) == size:
            found.append(result)
    return sorted(found, key=lambda result: result.order)


def column_of(summary: Mapping[str, Any], maps: Mapping[int, NDArray[np.float32]]) -> SavedResult:
    """A column, from what the manifest of an explanation says.

    Raises:
        one of `DAMAGED`: it is none.
    """
    stats, cut = summary["stats"], summary["cut"]
    if not isinstance(summary["method"], str):
        raise TypeError(summary["method"])
    method = METHODS.find(summary["method"])
    preprocessing = Preprocessing(**summary["preprocessing"])
    height, width_ = (int(side) for side in summary["photograph_size"])
    cells = int(cut["height"]), int(cut["width"])
    of_probabilities = bool(summary.get("are_probabilities", True))
    classes = tuple(
        SheetClass(int(t["index"]), str(t["label"]), float(t["probability"]), of_probabilities)
        for t in summary["targets"]
    )
    if not (1 <= min(height, width_) <= max(height, width_) <= LONGEST_SIDE and min(cells) >= 1):
        raise ValueError("no size of a photograph or a layer")
    if not all(0 <= one.probability < 2 for one in classes if one.is_probability):  # rounding may exceed 1
        raise ValueError("no probability")
    if not all(math.isfinite(one.probability) for one in classes):
        raise ValueError("no value")
    for saliency in maps.values():
        if saliency.shape != (preprocessing.height, preprocessing.width) or saliency.dtype != np.float32:
            raise ValueError("no map of this explanation")
    counts = stats["passes"], stats["head_passes"], stats.get("gradient_passes", 0)
    notes = [sheet_time(stats["seconds"])]
    if any(counts):  # what a batch has stored does not say how often the head was run
        notes = [f"{passes_in_words(*counts)} · {notes[0]}"]
    if stats.get("copies", 1) > 1:
        notes.append(f"{stats['copies']} copies of the image")
    notes += _accuracy(stats)
    given = summary["options"]
    usual = {} if method is None else {option.name: option.default for option in method.options}
    special = [f"{name} {_short(value)}" for name, value in given.items() if name in usual and value != usual[name]]
    of_classes = any(one.index >= 0 for one in classes)  # else the score is the label
    if isinstance(score := summary.get("score"), str) and of_classes:
        special.append(f"score {score}")
    if special:
        notes.append(", ".join(special))
    return SavedResult(
        name=image_name(summary["image"]),
        order=METHODS.place(method),
        title=str(summary["method"]) if method is None else method.title,
        notes=tuple(notes),
        model=str(summary["model"]["name"]).rpartition(":")[2],  # of `package.module:callable`
        classes=classes,
        maps=maps,
        geometry=preprocessing.geometry(height, width_),
        cells=cells,
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def image_name(record: Mapping[str, Any]) -> str:
    """Name an image in a sheet by the record of its source: the name of its file, or "" if it has none."""
    path = record.get("path")
    if path is None:
        return "preprocessed input" if record.get("preprocessed") else ""
    return str(path).replace("\\", "/").rstrip("/").rpartition("/")[2]


def _accuracy(stats: Mapping[str, Any]) -> list[str]:
    """How many channels were scored, where it was not all of them, and the estimated error."""
    error = stats["estimated_error"]
    if "scored_channels" not in stats:  # rows of a batch do not tell
        scored = []
        if not error or max(error) == 0:
            return []
    elif stats["scored_channels"] < stats["live_channels"]:
        scored = [f"{stats['scored_channels']} of {stats['live_channels']} channels"]
        if error is None:
            return scored
    else:
        return []
    return [", ".join([*scored, f"error {max(error):.2f}"])] if max(error) < 1 else [*scored, "error not known yet"]
