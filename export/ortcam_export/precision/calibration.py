"""The images that variants are calibrated and measured on: a folder of the user's, or those that ortcam ships."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle.shipped import sample_images
from ortcam.errors import ImageError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image
from ortcam.images.samples import read_samples
from ortcam.scoring.upsampling import upsample
from ortcam_export.errors import ExportError

__all__ = ["MOST_IMAGES", "CalibrationImages", "check_folder", "masked_inputs", "read_calibration"]

# Images of a folder that are read: the first ones by name. More of them changed the maps of real models no further.
MOST_IMAGES: Final = 64
_MOST_MEASURED: Final = 8
_NAMES_IN_A_NOTE: Final = 3
_MASKED_PER_IMAGE: Final = 3


@dataclasses.dataclass(frozen=True)
class CalibrationImages:
    """Preprocessed images, each float32 [1,C,H,W].

    Attributes:
        calibrating: what the ranges of integers are taken from.
        measuring: what maps are compared on, at most 8.
        held_out: whether these are other images than those.
        words: what the ranges come from, for the manifest; of a folder its name alone.
    """

    calibrating: tuple[NDArray[np.float32], ...]
    measuring: tuple[NDArray[np.float32], ...]
    held_out: bool
    words: str


def check_folder(folder: Path) -> Path:
    """Check that a folder has files that are not hidden.

    Raises:
        ExportError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ExportError(f"calibration {folder}: {what}; accepted is a folder with pictures")
    if not _files(folder):
        raise ExportError(f"calibration {folder}: no files in it; accepted is a folder with pictures")
    return folder


def read_calibration(
    folder: Path | None, preprocessing: Preprocessing, say: Callable[[str], None], *, integers: bool
) -> CalibrationImages:
    """Read the images of a folder, at most the first 64 by name, or else the shipped ones.

    Of eight images or more, every fourth is held out to measure on, at most eight.

    Args:
        folder: of the images; None takes crops of those that ortcam ships.
        preprocessing: from an image to the model's input.
        say: told what was left out.
        integers: whether ranges are taken from the images, and not only maps compared on them.

    Raises:
        ExportError: no such folder, or no image in it that can be read.
    """
    if folder is None:
        doing = "calibrating" if integers else "comparing maps"
        say(
            f"warning: {doing} on the few drawings that come with ortcam; photographs of your own kind are better: "
            "--calibration DIR"
        )
        inputs = [_input_of(crop, preprocessing) for path in sample_images() for crop in _crops(read_image(path))]
        words = f"{len(inputs)} crops of the drawings that come with ortcam"
    else:
        inputs = _read_folder(folder, preprocessing, say)
        words = f"{len(inputs)} pictures of {folder.resolve().name}"
    if len(inputs) < 2 * 4:
        return CalibrationImages(tuple(inputs), tuple(inputs), False, words)
    measuring = inputs[3::4][:_MOST_MEASURED]
    calibrating = [image for index, image in enumerate(inputs) if index % 4 != 3 or index // 4 >= _MOST_MEASURED]
    others = folder is not None  # the crops are all of the same few drawings
    held_out = f" ({len(measuring)} held out)" if others else ""
    return CalibrationImages(tuple(calibrating), tuple(measuring), others, f"{len(calibrating)} of {words}{held_out}")


def masked_inputs(
    image: NDArray[np.float32], maps: NDArray[np.float32], generator: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Make what scorers see of an image: the image itself, and masked by some of its own maps.

    Args:
        image: float32 [1,C,H,W], preprocessed.
        maps: float32 [C,h,w], of this image.
        generator: picks the maps.

    Yields:
        float32 [1,C,H,W]: the clean image, then masked by min-max, tanh and min-max.
    """
    yield image
    active = np.flatnonzero(maps.max(axis=(1, 2)) > maps.min(axis=(1, 2)))
    if not len(active):
        return
    chosen = generator.choice(active, size=min(_MASKED_PER_IMAGE, len(active)), replace=False)
    for index, channel in enumerate(chosen):
        upsampled = upsample(maps[channel], *image.shape[2:])
        low, high = upsampled.min(), upsampled.max()
        mask = np.tanh(upsampled) if index % 2 else (upsampled - low) / max(high - low, np.finfo(np.float32).tiny)
        yield (mask * image).astype(np.float32)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise ExportError(f"calibration {folder}: cannot be read: {error.strerror}") from None


def _input_of(drawing: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The model's input of a drawing; where it takes samples that keep their depth, its colours stand for the bands."""
    if not preprocessing.needs_samples:
        return preprocessing(drawing)
    plain = Preprocessing(preprocessing.height, preprocessing.width, None, (0.0,) * 3, (1.0,) * 3)
    colours = plain.to_pixels(plain(drawing))
    return preprocessing.of_levels(np.ascontiguousarray(colours[..., np.arange(preprocessing.channels) % 3]))


def _read_folder(folder: Path, preprocessing: Preprocessing, say: Callable[[str], None]) -> list[NDArray[np.float32]]:
    inputs: list[NDArray[np.float32]] = []
    skipped: list[str] = []
    files = _files(check_folder(folder))
    for path in files:
        if len(inputs) == MOST_IMAGES:
            break
        try:
            inputs.append(preprocessing(read_samples(path, preprocessing, max_pixels=DEFAULT_MAX_PIXELS)))
        except ImageError:
            skipped.append(path.name)
    if skipped:
        names = ", ".join(skipped[:_NAMES_IN_A_NOTE]) + (" ..." if len(skipped) > _NAMES_IN_A_NOTE else "")
        say(f"calibration: {len(skipped)} files are no pictures that can be read, skipped: {names}")
    if not inputs:
        raise ExportError(f"calibration {folder}: none of its {len(files)} files is a picture that can be read")
    return inputs


def _crops(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """An image, its mirror image and its four corners, each two thirds of its sides: uint8 RGB."""
    height, width = (2 * side // 3 for side in image.shape[:2])
    yield image
    yield np.ascontiguousarray(image[:, ::-1])
    for rows in (slice(height), slice(-height, None)):
        for columns in (slice(width), slice(-width, None)):
            yield np.ascontiguousarray(image[rows, columns])
