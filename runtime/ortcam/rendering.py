"""Pictures of maps: a heatmap, its blend with the photograph, and a figure of captioned panels."""

import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError

__all__ = ["COLORMAPS", "LONGEST_SIDE", "figure", "heatmap", "overlay", "shrunk"]

LONGEST_SIDE = 8192  # pixels of an overlay in a file: any photograph of 24 megapixels stays as large as it is
COLORMAPS = ("jet", "turbo", "viridis")
_OPENCV_COLORMAPS = {"jet": cv2.COLORMAP_JET, "turbo": cv2.COLORMAP_TURBO, "viridis": cv2.COLORMAP_VIRIDIS}


def heatmap(saliency: NDArray[np.float32], colormap: str = "jet") -> NDArray[np.uint8]:
    """Colour a map.

    Args:
        saliency: float32 [H, W] in [0, 1]; values outside are clipped.
        colormap: One of `COLORMAPS`. "jet" is what the papers print; "viridis" is perceptually uniform.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        OptionError: An unknown colormap.
        ImageError: The map is not a matrix.
    """
    if colormap not in _OPENCV_COLORMAPS:
        raise OptionError(f"colormap {colormap!r}: expected one of {', '.join(COLORMAPS)}")
    if saliency.ndim != 2 or saliency.size == 0:
        raise ImageError(f"a map is float32 [H, W], not {saliency.dtype} {list(saliency.shape)}")
    levels = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, _OPENCV_COLORMAPS[colormap])
    return _uint8(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB))


def overlay(
    image: NDArray[np.uint8],
    saliency: NDArray[np.float32],
    *,
    colormap: str = "jet",
    alpha: float = 0.5,
    covered: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Blend a photograph with the heatmap of a map: (1 - alpha) * image + alpha * heatmap.

    Args:
        image: uint8 [H, W, 3], RGB.
        saliency: float32 [H, W] in [0, 1].
        colormap: One of `COLORMAPS`.
        alpha: Weight of the heatmap, in [0, 1]; 0 is the photograph, 1 the heatmap.
        covered: bool [H, W], where the map says something, as from `CropGeometry.to_original`; all other pixels stay
            as they are in the photograph. None covers all.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        OptionError: An unknown colormap, or alpha outside [0, 1].
        ImageError: The image is not uint8 [H, W, 3], or the map or `covered` is of another size.
    """
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha={alpha!r}: expected a number from 0 (the photograph) to 1 (the heatmap)")
    _check_rgb(image, "the image to blend with")
    for name, array in (("map", saliency), ("covered", covered)):
        if array is not None and array.shape != image.shape[:2]:
            raise ImageError(f"{name} is {list(array.shape)}, but the image is {list(image.shape[:2])}")
    blend = _uint8(cv2.addWeighted(heatmap(saliency, colormap), alpha, image, 1 - alpha, 0))
    if covered is not None:
        np.copyto(blend, image, where=~covered[..., None])
    return blend


def shrunk(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """A picture with sides of at most so many pixels, its proportions kept; the same one where it has them already.

    Args:
        image: uint8 [H, W, 3].
        longest_side: in pixels.

    Raises:
        OptionError: `longest_side` below 1.
    """
    if isinstance(longest_side, bool) or not isinstance(longest_side, int | np.integer) or longest_side < 1:
        raise OptionError(f"longest_side={longest_side!r}: accepted is a whole number from 1, or None for no limit")
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


_INK, _QUIET_INK, _FRAME = (24, 24, 24), (96, 96, 96), (208, 208, 208)
_MARGIN, _GAP = 18, 14
_REGULAR, _BOLD = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
_SHRINK = (1.0, 0.9, 0.8)  # below this text is hard to read, so it is shortened instead
_WIDEST = 2.5  # width of the widest panel, in panel heights
_NARROWEST = 120  # pixels that any caption may use, however narrow its panel


def figure(
    panels: Sequence[tuple[str, NDArray[np.uint8]]],
    *,
    title: str | None = None,
    columns: int | None = None,
    panel_height: int = 300,
) -> NDArray[np.uint8]:
    """Set captioned panels side by side on white.

    A caption's first line stands out and further lines (after a newline) explain it. A line too long for its panel is
    set smaller, and shortened with "..." if that is not enough.

    Args:
        panels: Caption and uint8 RGB [H, W, 3] of each; of any sizes, scaled to `panel_height` with their proportions.
        title: A line above all panels.
        columns: Panels per row; None sets up to five in a row, and more in rows that are equally full.
        panel_height: Height of each panel in pixels, at least 32.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        OptionError: No panels, or `columns` or `panel_height` out of range.
        ImageError: A panel is not uint8 [H, W, 3].
    """
    if not panels:
        raise OptionError("a figure needs at least one panel")
    if columns is not None and columns < 1:
        raise OptionError(f"columns={columns!r}: expected an integer >= 1")
    if panel_height < 32:
        raise OptionError(f"panel_height={panel_height!r}: expected an integer >= 32")
    if columns is None:
        columns = math.ceil(len(panels) / math.ceil(len(panels) / 5))
    cells = [_cell(caption, image, panel_height) for caption, image in panels]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(min(columns, len(cells)))]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    width = sum(widths) + _GAP * (len(widths) - 1) + 2 * _MARGIN
    head = None if title is None else _line(title, width - 2 * _MARGIN, 0.75, _BOLD, _INK)
    top = _MARGIN + (0 if head is None else head.shape[0] + _GAP)
    canvas = np.full((top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN, width, 3), 255, np.uint8)
    if head is not None:
        _paste(canvas, head, _MARGIN, _MARGIN)
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for cell, cell_width in zip(row, widths, strict=False):
            _paste(canvas, cell, top + height - cell.shape[0], left)
            left += cell_width + _GAP
        top += height + _GAP
    return canvas


def _cell(caption: str, image: NDArray[np.uint8], panel_height: int) -> NDArray[np.uint8]:
    """A framed panel under its caption."""
    _check_rgb(image, f"panel {caption!r}")
    height, width = image.shape[:2]
    scale = min(panel_height / height, _WIDEST * panel_height / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Few pixels are shown as squares: interpolating them would invent a picture.
    enlarge = cv2.INTER_NEAREST if scale > 8 else cv2.INTER_CUBIC
    panel = _uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else enlarge))
    panel = _uint8(cv2.copyMakeBorder(panel, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_FRAME))
    room = max(panel.shape[1], panel_height * 2 // 3, _NARROWEST)
    lines = [
        _line(text, room, *((0.55, _BOLD, _INK) if n == 0 else (0.45, _REGULAR, _QUIET_INK)))
        for n, text in enumerate(caption.split("\n"))
    ]
    above = sum(line.shape[0] for line in lines) + 4
    cell = np.full((above + max(panel.shape[0], panel_height + 2), room, 3), 255, np.uint8)
    y = 0
    for line in lines:
        _paste(cell, line, y, 0)
        y += line.shape[0]
    _paste(cell, panel, above + (cell.shape[0] - above - panel.shape[0]) // 2, 0)
    return cell


def _line(text: str, room: int, scale: float, font: int, ink: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One line of text on white, at most `room` pixels wide, with room for what hangs below the line."""
    text = _drawable(text)
    fitting = next((s for s in _SHRINK if _text_width(text, font, s * scale) <= room), None)
    if fitting is None:
        fitting = _SHRINK[-1]
        while text and _text_width(text + "...", font, fitting * scale) > room:
            text = text[:-1]
        text = text.rstrip() + "..." if text else ""
    above, below = math.ceil(30 * scale), math.ceil(14 * scale)  # of accents and of descenders, in both font sets
    line = np.full((above + below, max(1, min(room, _text_width(text, font, fitting * scale))), 3), 255, np.uint8)
    cv2.putText(line, text, (2, above), font, fitting * scale, ink, 1, cv2.LINE_AA)
    return line


def _text_width(text: str, font: int, scale: float) -> int:
    return cv2.getTextSize(text, font, scale, 1)[0][0] + 4  # strokes and smoothing reach past the measured box


def _drawable(text: str) -> str:
    """The text in one line, and without accents before OpenCV 5, whose stroke fonts know ASCII only."""
    text = " ".join(text.split())
    if int(cv2.__version__.split(".")[0]) >= 5:
        return text
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _paste(canvas: NDArray[np.uint8], picture: NDArray[np.uint8], top: int, left: int) -> None:
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _check_rgb(image: NDArray[np.uint8], name: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"{name} is uint8 RGB [H, W, 3], not {image.dtype} {list(image.shape)}")


def _uint8(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """OpenCV's stubs do not say that uint8 in is uint8 out."""
    return picture.astype(np.uint8, copy=False)
