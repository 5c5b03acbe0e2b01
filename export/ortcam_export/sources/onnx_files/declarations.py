"""What an `.onnx` file says of its classes and its image, in its metadata or in the files beside it.

1. Ultralytics: `names`, `imgsz` and `task` in the metadata. Its validation scales the short side to `imgsz`, crops the
   centre, and takes pixels in [0,1]: what the metadata do not say is an assumption.
2. ONNX's own keys for images, `Image.BitmapPixelFormat` and `Image.NominalPixelRange`, as Custom Vision writes them.
3. The classes of a ZipMap at the end, as Custom Vision and converters of scikit-learn write them.
4. Hugging Face: `config.json` with `id2label`, `preprocessor_config.json`.
5. `labels.txt` beside the file, as Custom Vision and Teachable Machine write it.
"""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.models.identity import BESIDE, MOST_BESIDE
from ortcam_export.errors import ExportError
from ortcam_export.sources.labels import names_by_index, parse_labels
from ortcam_export.sources.libraries import from_config
from ortcam_export.sources.types import ChannelOrder, DeclaredPreprocessing, order_of

__all__ = ["FileDeclarations", "declarations_of"]

_CONFIG, _PROCESSOR, _LABELS = BESIDE
_WORDS: Final = {"rgb": "RGB", "grey": "grey"}
_LONGEST: Final = 2**20  # characters of a literal in its metadata: Python takes some 200 times as much to read one
# ONNX's documentation, MetadataProps.md: what white becomes, mean and std.
_RANGES: Final = {
    "NominalRange_0_255": (255.0, 0.0, 1.0),
    "Normalized_0_1": (1.0, 0.0, 1.0),
    "Normalized_1_1": (1.0, 0.5, 0.5),
}
_ORDERS: Final[dict[str, ChannelOrder]] = {"Rgb8": "rgb", "Bgr8": "bgr", "Gray8": "grey"}


@dataclass(frozen=True)
class FileDeclarations:
    """What was found; None where nothing was.

    Attributes:
        labels: names of the classes.
        labels_source: where they were found, in words.
        preprocessing: from a photograph to the model's input.
        assumed: what of it nobody has said, in words.
    """

    labels: tuple[str, ...] | None = None
    labels_source: str = ""
    preprocessing: DeclaredPreprocessing | None = None
    assumed: str | None = None


def declarations_of(
    path: Path,
    metadata: Mapping[str, str],
    classes: tuple[str, ...] | None,
    size: tuple[int | None, int | None],
    channels: int = 3,
) -> FileDeclarations:
    """What a file and its neighbours say; what cannot be read says nothing.

    Args:
        path: of the model.
        metadata: of the model.
        classes: those of a ZipMap at its end.
        size: (H, W) of its input, None where it is open.
        channels: of its input; a preprocessing of another number says nothing.
    """
    labels, source = _labels(path, metadata, classes)
    for read in (_ultralytics, _image_keys):
        if (found := read(metadata, size, channels)) is not None:
            return FileDeclarations(labels, source, *found)
    declared = _hugging_face(path, size)
    fits = declared is not None and declared.preprocessing.channels == channels
    return FileDeclarations(labels, source, declared if fits else None)


def _labels(
    path: Path, metadata: Mapping[str, str], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, str]:
    parsed = _literal(metadata.get("names", ""))
    if isinstance(parsed, list):
        parsed = dict(enumerate(parsed))
    if isinstance(parsed, dict) and (found := names_by_index(parsed)) is not None:
        return found, "`names` in its metadata"
    if classes is not None:
        return classes, "the ZipMap at its end"
    config = _json(path.with_name(_CONFIG))
    if isinstance(config.get("id2label"), dict) and (found := names_by_index(config["id2label"])) is not None:
        placeholders = tuple(f"LABEL_{index}" for index in range(len(found)))
        if found != placeholders:
            return found, "config.json beside it"
    beside = path.with_name(_LABELS)
    try:
        text = _text(beside)
        return (None, "") if text is None else (parse_labels(text, beside), "labels.txt beside it")
    except ExportError:
        return None, ""


def _ultralytics(
    metadata: Mapping[str, str], size: tuple[int | None, int | None], channels: int
) -> tuple[DeclaredPreprocessing, str] | None:
    if metadata.get("task") != "classify" or "names" not in metadata:
        return None
    sides = _literal(metadata.get("imgsz", ""))
    sides = [sides, sides] if isinstance(sides, int) else sides
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(side, int) for side in sides)):
        sides = [side or 224 for side in size]
    height, width = (said if open_side is None else open_side for said, open_side in zip(sides, size, strict=True))
    made = _preprocessing(height, width, max(height, width), (1.0, 0.0, 1.0), order_of(channels), channels)
    if made is None:
        return None
    what = _WORDS.get(made.channel_order, "bands")
    assumed = (
        f"Ultralytics' own preprocessing: short side to {made.resize}, centre crop {height} x {width}, {what} in "
        "[0,1]; --resize, --mean, --std say otherwise"
    )
    return DeclaredPreprocessing(made, "Ultralytics' metadata"), assumed


def _image_keys(
    metadata: Mapping[str, str], size: tuple[int | None, int | None], channels: int
) -> tuple[DeclaredPreprocessing, str] | None:
    values = _RANGES.get(metadata.get("Image.NominalPixelRange", ""))
    order = _ORDERS.get(metadata.get("Image.BitmapPixelFormat", ""))
    height, width = size
    if values is None or order is None or height is None or width is None:
        return None
    made = _preprocessing(height, width, None, values, order, channels)
    if made is None:
        return None
    what = f"the image is resized straight to {height} x {width}; --resize N scales its short side and crops"
    return DeclaredPreprocessing(made, "Image.* in its metadata"), what


def _preprocessing(
    height: int,
    width: int,
    resize: int | None,
    values: tuple[float, float, float],
    order: ChannelOrder,
    channels: int,
) -> Preprocessing | None:
    """The same scale, mean and std for all channels; None where the order is that of another number."""
    scale, mean, std = values
    try:
        return Preprocessing(
            height, width, resize, (mean,) * channels, (std,) * channels, channel_order=order, scale=scale
        )
    except OptionError:
        return None


def _hugging_face(path: Path, size: tuple[int | None, int | None]) -> DeclaredPreprocessing | None:
    """What `preprocessor_config.json` says, where it fits the graph and `Preprocessing` can represent it."""
    config = _json(path.with_name(_PROCESSOR))
    if not config:
        return None
    try:
        declared = from_config(SimpleNamespace(**config), str(config.get("image_processor_type", "")))
    except (ExportError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError):
        return None
    made = declared.preprocessing
    fits = all(there in (None, said) for there, said in zip(size, (made.height, made.width), strict=True))
    return declared if fits else None


def _literal(text: str) -> Any:
    """What a literal of Python stands for; None where the text is none, or too long for one of names or sizes."""
    if len(text) > _LONGEST:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        text = _text(path)
        parsed = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _text(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > MOST_BESIDE:
            return None
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
