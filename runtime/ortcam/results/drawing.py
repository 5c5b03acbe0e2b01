"""How a sheet is drawn: title, heads of columns, a row of panels per class, and the colour bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.images.rendering import Rendering, as_uint8, draw_map, heatmap, opacity
from ortcam.results.columns import SavedResult, SheetClass
from ortcam.results.lettering import ascent, can_draw, draw, fitted, line_height, width

__all__ = ["draw_sheet"]

_INK, _QUIET, _LINE, _TRACK, _BAR = (17, 24, 39), (96, 104, 118), (214, 218, 224), (229, 232, 237), (71, 85, 105)
_README: Final = 830  # pixels that a README gives an image: its text is to be read there
_MOST_CLASSES, _MOST_METHODS = 20, 12
_FEW_PIXELS: Final = 8  # times that a tiny photograph is enlarged before its pixels are shown as squares


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


def draw_sheet(
    image: NDArray[np.uint8], columns: Sequence[SavedResult], title: str, rendering: Rendering
) -> NDArray[np.uint8]:
    """Draw a sheet: uint8 RGB [h, w, 3]."""
    found: dict[tuple[int, str], SheetClass] = {}
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


def _label(row: SheetClass) -> str:
    return row.label if row.label.strip() and can_draw(row.label) else row.of


def _row_title(row: SheetClass, indent: float, layout: _Layout, columns: int) -> NDArray[np.uint8]:
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
    percent, index = row.value, row.of
    bar, space = text * 5 if row.is_probability else 0.0, text * 0.6
    taken = bar + width("below 0.1%", text) + width(index, small) + 3 * space
    end = draw(
        canvas, fitted(label, canvas.shape[1] - taken, text, "bold"),
        left=0, baseline=baseline, size=text, ink=_INK, weight="bold",
    )  # fmt: skip
    left, top, bottom = round(max(end, indent) + space), round(baseline - text * 0.6), round(baseline - text * 0.1)
    if row.is_probability:
        canvas[top:bottom, left : left + round(bar)] = _TRACK
        canvas[top:bottom, left : left + max(2, round(bar * min(1.0, row.probability)))] = _BAR
    end = draw(canvas, percent, left=left + bar + space, baseline=baseline, size=text, ink=_INK)
    if label != index:
        draw(canvas, index, left=end + space, baseline=baseline, size=small, ink=_QUIET)
    return canvas


def _panels(panels: Sequence[NDArray[np.uint8] | None], layout: _Layout) -> NDArray[np.uint8]:
    """Images side by side; None is a place that says that this class was not explained."""
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
    """The colour bar, on the white of the sheet, and what the image leaves to be said."""
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
