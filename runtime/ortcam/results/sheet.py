"""Sheet: one picture of an image's explanations, a row per class and a column per method."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError, OutputError
from ortcam.images.crop import CropGeometry
from ortcam.images.encoding import encode_png
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import Blend, Rendering, as_uint8, draw_map, heatmap, opacity
from ortcam.methods import METHODS
from ortcam.results.explanation import Explanation
from ortcam.results.lettering import ascent, can_draw, draw, fitted, line_height, width
from ortcam.results.saved import MANIFEST, OccupiedError, image_sha256, read_manifest
from ortcam.support.files import write_whole

__all__ = ["DAMAGED", "SavedResult", "is_sheet", "save", "sheet"]

_INK, _QUIET, _LINE, _TRACK, _BAR = (17, 24, 39), (96, 104, 118), (214, 218, 224), (229, 232, 237), (71, 85, 105)
_README: Final = 830  # pixels that a README gives a picture: its text is to be read there
_MOST_CLASSES, _MOST_METHODS = 20, 12
_FEW_PIXELS: Final = 8  # times that a tiny photograph is enlarged before its pixels are shown as squares
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = 33  # bytes of a PNG file's signature and its first chunk
_MARK: Final = b"Software\0ortcam sheet"
_LONGEST_SIDE: Final = 1 << 20  # pixels of a photograph, as `ortcam.images.decoding` has it
# What reading a folder may raise whose manifest or maps somebody has changed.
DAMAGED: Final = (
    *(OccupiedError, OptionError, OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError),
    cv2.error,
)
_ORDER: Final = {method.name: place for place, method in enumerate(METHODS)}


@dataclass(frozen=True)
class _Class:
    """A row of the sheet."""

    index: int
    label: str
    probability: float


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
    classes: tuple[_Class, ...]
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
        maps = {index: np.load(folder / f"class-{index}.npy", "r", allow_pickle=False) for index in targets}
        result = _result(manifest, maps)
        return dataclasses.replace(result, maps={index: np.array(saliency) for index, saliency in maps.items()})


def sheet(
    explanations: Sequence[Explanation],
    *,
    title: str | None = None,
    colormap: str = "turbo",
    blend: Blend = "rising",
    alpha: float | None = None,
) -> NDArray[np.uint8]:
    """Draw explanations of one image as one picture: a row per class, a column per method.

    Each row says label, index and probability, each column method, forward passes and time. The first column is the
    photograph. Where two explanations disagree on a probability, as two models do, the first one counts.

    Args:
        explanations: of one image, by any methods, classes and models. At most 12 columns and 20 rows are drawn; the
            last line says how many are not.
        title: first line; None is the name of the image's file, "" is none.
        colormap: "turbo", "viridis" or "jet".
        blend: "rising" or "flat", as of `Explanation.overlay`.
        alpha: opacity where the map is highest, in [0, 1]; None is the usual one of `blend`.

    Returns:
        uint8 RGB [h, w, 3].

    Raises:
        OptionError: no explanation, several images, or a value that is not accepted.

    Example:
        >>> ortcam.sheet([explainer.explain("cat.jpg", method=m) for m in ("scorecam", "cam")])  # doctest: +SKIP
    """
    if not explanations:
        raise OptionError("a sheet of no explanations: accepted is one or more")
    first = explanations[0].image
    for other in explanations[1:]:
        if other.image is not first and not np.array_equal(other.image, first):
            raise OptionError("a sheet of several images: accepted are explanations of one image")
    columns = [_result(e.summary(), {target: e.maps[n] for n, target in enumerate(e.targets)}) for e in explanations]
    name = _file_name(explanations[0].provenance["image"]) if title is None else title
    return _drawn(first, columns, name, Rendering(colormap, blend, alpha))


def save(
    folder: Path,
    explanations: Sequence[Explanation],
    *,
    colormap: str = "turbo",
    blend: Blend = "rising",
    alpha: float | None = None,
) -> Path:
    """Write the sheet of an image as `FOLDER.png`: `OUT/cat.png` beside `OUT/cat/`.

    It shows all that is saved in the folder for this image, by earlier runs, too: columns in the order of
    `ortcam methods`, rows in the order in which the columns have them. A file that is no sheet of ortcam's is never
    replaced: the sheet is then `OUT/cat-sheet.png`, or `OUT/cat-sheet-2.png` and so on.

    Args:
        folder: of the image, with a folder per method in which `Explanation.save` has just saved the explanations.
        explanations: of the image, at least one.
        colormap: as of `sheet`.
        blend: as of `sheet`.
        alpha: as of `sheet`.

    Returns:
        The path of the file.

    Raises:
        OptionError: no explanation, or a value that is not accepted.
        OutputError: it cannot be written.
    """
    if not explanations:
        raise OptionError("a sheet of no explanations: accepted is one or more")
    rendering = Rendering(colormap, blend, alpha)
    record = explanations[0].provenance["image"]
    try:
        columns = _saved_results(folder, image_sha256(record), explanations[0].image.shape[:2])
        picture = _drawn(explanations[0].image, columns, _file_name(record), rendering) if columns else None
        encoded = encode_png(sheet(explanations, **_arguments(rendering)) if picture is None else picture)
        path = _free_path(folder)
        write_whole(path, _marked(encoded), durable=True)
    except OSError as error:
        raise OutputError(f"{folder}.png: cannot be written: {error.strerror or error}") from error
    return path


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet that ortcam wrote, and so no photograph to explain.

    Example:
        >>> is_sheet(Path("photograph.jpg"))
        False
    """
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_HEADER + 8 + len(_MARK))
    except OSError:
        return False
    return start.startswith(_SIGNATURE) and start.endswith(_MARK)


def _marked(png: bytes) -> bytes:
    """A PNG file with a chunk that says that ortcam wrote it (PNG specification, 11.3.3.2: tEXt)."""
    body = b"tEXt" + _MARK
    chunk = len(_MARK).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:_HEADER] + chunk + png[_HEADER:]


def _free_path(folder: Path) -> Path:
    """The first name that nothing has, or a sheet."""
    names = [f"{folder.name}.png", f"{folder.name}-sheet.png"]
    number = 1
    while True:
        path = folder.with_name(names[number - 1] if number <= len(names) else f"{folder.name}-sheet-{number - 1}.png")
        if is_sheet(path) or not (path.exists() or path.is_symlink()):
            return path
        number += 1


def _arguments(rendering: Rendering) -> dict[str, Any]:
    return rendering.record()


def _saved_results(folder: Path, digest: str | None, size: tuple[int, ...]) -> list[SavedResult]:
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


def _result(summary: Mapping[str, Any], maps: Mapping[int, NDArray[np.float32]]) -> SavedResult:
    """A column, from what the manifest of an explanation says.

    Raises:
        one of `DAMAGED`: it is none.
    """
    stats, cut = summary["stats"], summary["cut"]
    method = next((m for m in METHODS if m.name == summary["method"]), None)
    preprocessing = Preprocessing(**summary["preprocessing"])
    height, width_ = (int(side) for side in summary["photograph_size"])
    cells = int(cut["height"]), int(cut["width"])
    classes = tuple(_Class(int(t["index"]), str(t["label"]), float(t["probability"])) for t in summary["targets"])
    if not (1 <= min(height, width_) <= max(height, width_) <= _LONGEST_SIDE and min(cells) >= 1):
        raise ValueError("no size of a photograph or a layer")
    if not all(0 <= one.probability < 2 for one in classes):  # rounding may exceed 1
        raise ValueError("no probability")
    for saliency in maps.values():
        if saliency.shape != (preprocessing.height, preprocessing.width) or saliency.dtype != np.float32:
            raise ValueError("no map of this explanation")
    passes = (
        f"{stats['head_passes']} passes of the head" if stats["head_passes"] else f"{stats['passes']} forward passes"
    )
    notes = [f"{passes} · {_seconds(stats['seconds'])}"]
    if stats["scored_channels"] < stats["live_channels"]:
        scored = f"{stats['scored_channels']} of {stats['live_channels']} channels"
        error = stats["estimated_error"]
        if error is None:
            notes.append(scored)
        else:
            notes += [f"{scored}, error {max(error):.2f}"] if max(error) < 1 else [scored, "error not known yet"]
    given = summary["options"]
    usual = {} if method is None else {option.name: option.default for option in method.options}
    special = [f"{name} {_short(value)}" for name, value in given.items() if name in usual and value != usual[name]]
    if special:
        notes.append(", ".join(special))
    return SavedResult(
        name=_file_name(summary["image"]),
        order=_ORDER.get(summary["method"], len(_ORDER)),
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


def _seconds(seconds: float) -> str:
    """A duration as a reader wants it.

    Example:
        >>> _seconds(0.0123), _seconds(1.234), _seconds(83.0)
        ('12 ms', '1.2 s', '83 s')
    """
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def _file_name(record: Mapping[str, Any]) -> str:
    path = record.get("path")
    if path is None:
        return "preprocessed input" if record.get("preprocessed") else ""
    return str(path).replace("\\", "/").rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class _Layout:
    """Measures of a sheet in pixels.

    Attributes:
        panel: width and height of a panel.
        text: size of its text.
        gap: between panels.
        margin: around all.
    """

    panel: tuple[int, int]
    text: float
    gap: int
    margin: int


def _layout(shape: tuple[int, int], rows: int, columns: int) -> _Layout:
    """Panels as large as their number allows, of the photograph's proportions; text to be read in a README."""
    side = min(max(1500 / columns, 190), 460, max(2400 / rows, 190))
    proportion = np.sqrt(min(max(shape[1] / shape[0], 0.5), 2.0))
    panel = round(side * proportion), round(side / proportion)
    panel = panel[0], max(1, min(panel[1], round(panel[0] * shape[0] / shape[1])))
    gap = max(10, round(panel[0] / 24))
    total = columns * (panel[0] + gap)
    return _Layout(panel, float(np.clip(total * 12 / _README, 14, max(15, panel[0] / 12.5))), gap, round(gap * 1.5))


def _drawn(
    image: NDArray[np.uint8], columns: Sequence[SavedResult], title: str, rendering: Rendering
) -> NDArray[np.uint8]:
    """The picture of a sheet."""
    found: dict[tuple[int, str], _Class] = {}
    for one in (c for column in columns for c in column.classes):
        found.setdefault((one.index, one.label), one)  # the first method counts
    classes = list(found.values())
    shown, rows = columns[:_MOST_METHODS], classes[:_MOST_CLASSES]
    left_out = [
        f"{count} more {name}"
        for count, name in ((len(columns) - len(shown), "methods"), (len(classes) - len(rows), "classes"))
        if count
    ]
    layout = _layout(image.shape[:2], len(rows), 1 + len(shown))
    models = {column.model: None for column in columns}
    photograph = _fitted_image(image, layout.panel)
    size = f"{image.shape[1]} × {image.shape[0]} pixels"
    heads = [("Image", (size,)), *((c.title, (*c.notes, *([c.model] if len(models) > 1 else []))) for c in shown)]
    blocks = [_title(title, next(iter(models)) if len(models) == 1 else "", layout, len(heads))]
    blocks.append(_heads(heads, layout))
    room = blocks[1].shape[1]
    indent = max((w for row in rows if (w := width(_label(row), layout.text, "bold")) <= room / 3), default=0.0)
    for row in rows:
        blocks.append(_row_title(row, indent, layout, len(heads)))
        panels: list[NDArray[np.uint8] | None] = [photograph]
        for column in shown:
            explained = any(c.index == row.index and c.label == row.label for c in column.classes)
            panels.append(
                draw_map(photograph, column.maps[row.index], column.geometry, cells=column.cells, rendering=rendering)
                if explained
                else None
            )
        blocks.append(_panels(panels, layout))
    cropped = any(column.geometry.seen() != (0, 0, *image.shape[:2]) for column in shown)
    blocks.append(_foot(rendering, layout, len(heads), cropped=cropped, left_out=left_out))
    margin = layout.margin
    return as_uint8(
        cv2.copyMakeBorder(
            np.vstack([block for block in blocks if len(block)]),
            margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(255, 255, 255),
        )
    )  # fmt: skip


def _blank(height: float, layout: _Layout, columns: int) -> NDArray[np.uint8]:
    width_ = columns * layout.panel[0] + (columns - 1) * layout.gap
    return np.full((max(0, round(height)), width_, 3), 255, np.uint8)


def _fitted_image(image: NDArray[np.uint8], panel: tuple[int, int]) -> NDArray[np.uint8]:
    """The photograph as large as a panel has room for."""
    height, width_ = image.shape[:2]
    scale = min(panel[0] / width_, panel[1] / height)
    size = max(1, round(width_ * scale)), max(1, round(height * scale))
    if scale < 1:
        return as_uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    # Few pixels are shown as squares: interpolating them would invent a photograph.
    enlarge = cv2.INTER_NEAREST if scale > _FEW_PIXELS else cv2.INTER_CUBIC
    return as_uint8(cv2.resize(image, size, interpolation=enlarge))


def _title(title: str, model: str, layout: _Layout, columns: int) -> NDArray[np.uint8]:
    """The name of the file, and at the right that of the model."""
    if not title and not model:
        return _blank(0, layout, columns)
    size = layout.text * 1.3
    canvas = _blank(line_height(size) + layout.text * 0.9, layout, columns)
    room = canvas.shape[1]
    model = fitted(model, room * (0.45 if title else 1), layout.text)
    taken = width(model, layout.text)
    title = fitted(title, room - taken - layout.text, size, "bold")
    draw(canvas, title, left=0, baseline=ascent(size), size=size, ink=_INK, weight="bold")
    draw(canvas, model, left=room - taken, baseline=ascent(size), size=layout.text, ink=_QUIET)
    return canvas


def _heads(heads: Sequence[tuple[str, Sequence[str]]], layout: _Layout) -> NDArray[np.uint8]:
    """Title and notes of each column."""
    small = layout.text * 0.85
    lines = max(len(notes) for _, notes in heads)
    canvas = _blank(line_height(layout.text) + lines * 1.3 * small + layout.text * 0.25, layout, len(heads))
    for n, (title, notes) in enumerate(heads):
        left, room = n * (layout.panel[0] + layout.gap), layout.panel[0]
        baseline: float = ascent(layout.text)
        draw(
            canvas, fitted(title, room, layout.text, "bold"),
            left=left, baseline=baseline, size=layout.text, ink=_INK, weight="bold",
        )  # fmt: skip
        for note in notes:
            baseline += 1.3 * small
            size = min(small, max(0.8 * small, small * room / max(1.0, width(note, small))))
            draw(canvas, fitted(note, room, size), left=left, baseline=baseline, size=size, ink=_QUIET)
    return canvas


def _label(row: _Class) -> str:
    return row.label if row.label.strip() and can_draw(row.label) else f"class {row.index}"


def _row_title(row: _Class, indent: float, layout: _Layout, columns: int) -> NDArray[np.uint8]:
    """A line, then label, probability with its bar, and index of a class.

    Args:
        row: the class.
        indent: where the bar begins, unless the label reaches further.
        layout: of the sheet.
        columns: of the sheet.
    """
    text, small = layout.text, layout.text * 0.85
    canvas = _blank(line_height(text) + text * 0.75, layout, columns)
    canvas[round(text * 0.2)] = _LINE
    baseline = round(text * 0.45) + ascent(text)
    label = _label(row)
    percent, index = f"{row.probability:.1%}" if row.probability >= 0.001 else "below 0.1%", f"class {row.index}"
    bar, space = text * 5, text * 0.6
    taken = bar + width("below 0.1%", text) + width(index, small) + 3 * space
    end = draw(
        canvas, fitted(label, canvas.shape[1] - taken, text, "bold"),
        left=0, baseline=baseline, size=text, ink=_INK, weight="bold",
    )  # fmt: skip
    left, top, bottom = round(max(end, indent) + space), round(baseline - text * 0.6), round(baseline - text * 0.1)
    canvas[top:bottom, left : left + round(bar)] = _TRACK
    canvas[top:bottom, left : left + max(2, round(bar * min(1.0, row.probability)))] = _BAR
    end = draw(canvas, percent, left=left + bar + space, baseline=baseline, size=text, ink=_INK)
    if label != index:
        draw(canvas, index, left=end + space, baseline=baseline, size=small, ink=_QUIET)
    return canvas


def _panels(panels: Sequence[NDArray[np.uint8] | None], layout: _Layout) -> NDArray[np.uint8]:
    """Pictures side by side; None is a place that says that this class was not explained."""
    width_, height = layout.panel
    canvas = _blank(height + layout.gap * 0.7, layout, len(panels))
    for n, panel in enumerate(panels):
        left = n * (width_ + layout.gap)
        if panel is None:
            canvas[:height, left : left + width_] = (246, 247, 249)
            words, size = "not explained", layout.text * 0.85
            draw(
                canvas, words,
                left=left + (width_ - width(words, size)) / 2, baseline=height / 2, size=size, ink=_QUIET,
            )  # fmt: skip
            continue
        top, indent = (height - panel.shape[0]) // 2, (width_ - panel.shape[1]) // 2
        if panel.shape[:2] != (height, width_):
            canvas[:height, left : left + width_] = (246, 247, 249)
        canvas[top : top + panel.shape[0], left + indent : left + indent + panel.shape[1]] = panel
    return canvas


def _foot(
    rendering: Rendering, layout: _Layout, columns: int, *, cropped: bool, left_out: Sequence[str]
) -> NDArray[np.uint8]:
    """The colour bar, on the white of the sheet, and what the picture leaves to be said."""
    size = layout.text * 0.85
    canvas = _blank(line_height(size) + size * 0.4, layout, columns)
    baseline = round(size * 0.4) + ascent(size)
    top, bottom = round(baseline - size * 0.72), round(baseline + size * 0.02)
    levels = np.linspace(0, 1, max(2, round(size * 9)), dtype=np.float32)[None]
    assert rendering.alpha is not None
    shade = opacity(levels, rendering.alpha) if rendering.blend == "rising" else np.full_like(levels, rendering.alpha)
    bar = np.rint(255 + shade[..., None] * (heatmap(levels, rendering.colormap).astype(np.float32) - 255))
    end = draw(canvas, "low", left=0, baseline=baseline, size=size, ink=_QUIET) + size * 0.5
    start, stop = round(end), min(canvas.shape[1], round(end) + bar.shape[1])
    canvas[top:bottom, start:stop] = bar[:, : stop - start]
    for edge in (
        canvas[top, start:stop],
        canvas[bottom, start:stop],
        canvas[top:bottom, start],
        canvas[top:bottom, stop - 1],
    ):
        edge[:] = _LINE
    end = draw(canvas, "high", left=stop + size * 0.5, baseline=baseline, size=size, ink=_QUIET) + size * 1.5
    said = []
    if cropped:
        said.append("Dark: cropped away, not seen by the model" if rendering.blend == "rising" else "")
    said += [f"Not shown: {', '.join(left_out)}"] if left_out else []
    words = fitted(" · ".join(filter(None, said)), canvas.shape[1] - end, size)
    draw(canvas, words, left=end, baseline=baseline, size=size, ink=_QUIET)
    return canvas
