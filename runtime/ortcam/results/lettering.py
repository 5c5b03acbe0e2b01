"""Lettering: anti-aliased text for images, drawn from outlines of free fonts, without a font library.

The outlines in `letters.npz` are those of Inter (Latin, Greek, Cyrillic) and Noto Sans (common Chinese, Japanese and
Korean), all under the SIL Open Font License. `models/letters/build.py` makes the file.
"""

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Weight", "ascent", "can_draw", "draw", "fitted", "line_height", "width"]

Weight = Literal["regular", "bold"]

_FILE: Final = Path(__file__).parent / "letters.npz"
_GRID: Final = {"regular": 1000, "bold": 1000, "cjk": 120}  # steps of an em
_ABOVE, _BELOW = 1.05, 0.32  # em above and below the baseline: accents on capitals, descenders
_FINER: Final = 4  # samples per pixel and axis
_ELLIPSIS: Final = "…"
_LONGEST: Final = 400  # characters that are looked at; no line of an image has room for more


@dataclass(frozen=True)
class _Glyph:
    """Outline of a character: contours float64 [n, 2] in em, x to the right, y downwards from the baseline."""

    advance: float
    contours: tuple[NDArray[np.float64], ...]


_BOX: Final = _Glyph(
    0.6,
    (
        np.array([(0.06, 0.0), (0.06, -0.72), (0.54, -0.72), (0.54, 0.0)]),
        np.array([(0.11, -0.05), (0.49, -0.05), (0.49, -0.67), (0.11, -0.67)]),
    ),
)


def width(text: str, size: float, weight: Weight = "regular") -> float:
    """How wide a text is, in pixels.

    Args:
        text: on one line.
        size: of an em, in pixels; capitals are 0.73 of it high.
        weight: "regular" or "bold".
    """
    return sum(_glyph(character, weight).advance for character in _drawable(text)) * size


def line_height(size: float) -> int:
    """Pixels from the top of the highest accent to the end of the lowest descender."""
    return ascent(size) + int(np.ceil(_BELOW * size))


def ascent(size: float) -> int:
    """Pixels from the top of the highest accent to the baseline."""
    return int(np.ceil(_ABOVE * size))


def fitted(text: str, room: float, size: float, weight: Weight = "regular") -> str:
    """The text, shortened by "…" where it is wider than the room; "" where not even that has room.

    Example:
        >>> fitted("golden retriever", 60, 12)
        'golden r…'
    """
    text = _drawable(text)
    if width(text, size, weight) <= room:
        return text
    left = room - width(_ELLIPSIS, size, weight)
    if left < 0:
        return ""
    kept = 0
    for character in text:
        left -= _glyph(character, weight).advance * size
        if left < 0:
            break
        kept += 1
    return text[:kept].rstrip() + _ELLIPSIS


def can_draw(text: str) -> bool:
    """Whether the fonts have most of a text: what is in Arabic or Hindi would be empty boxes.

    Example:
        >>> can_draw("Übergröße 猫"), can_draw("बिल्ली")
        (True, False)
    """
    drawn = [character for character in _drawable(text) if not character.isspace()]
    return 2 * sum(_glyph(character, "regular") is not _BOX for character in drawn) > len(drawn)


def draw(
    canvas: NDArray[np.uint8],
    text: str,
    *,
    left: float,
    baseline: float,
    size: float,
    ink: tuple[int, int, int] = (0, 0, 0),
    weight: Weight = "regular",
) -> float:
    """Draw a text on an image; what reaches over its edge is cut off.

    Args:
        canvas: uint8 RGB [H, W, 3], changed in place.
        text: on one line. A character that the fonts lack is drawn without its accent, or as an empty box.
        left: where the text begins, in pixels.
        baseline: where it stands, in pixels.
        size: of an em, in pixels.
        ink: RGB.
        weight: "regular" or "bold".

    Returns:
        Where it ends, in pixels.
    """
    text = _drawable(text)
    end = left + width(text, size, weight)
    x0, x1 = max(0, int(np.floor(left)) - 2), min(canvas.shape[1], int(np.ceil(end)) + 3)
    y0 = max(0, int(np.floor(baseline - _ABOVE * size)) - 1)
    y1 = min(canvas.shape[0], int(np.ceil(baseline + _BELOW * size)) + 2)
    if x0 >= x1 or y0 >= y1:
        return end
    covered = _coverage(text, left - x0, baseline - y0, size, weight, (y1 - y0, x1 - x0))[..., None]
    part = canvas[y0:y1, x0:x1]
    part[:] = np.rint(part * (1 - covered) + np.array(ink, np.float32) * covered).astype(np.uint8)
    return end


def _coverage(
    text: str, left: float, baseline: float, size: float, weight: Weight, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Share of each pixel that ink covers, float32 [h, w] in [0, 1].

    What contours go around once or more is inside: the fonts' non-zero rule, where OpenCV has even-odd alone.
    """
    fine = np.zeros((shape[0] * _FINER, shape[1] * _FINER), np.bool_)
    for character in text:
        glyph = _glyph(character, weight)
        placed = [(contour * size + (left, baseline)) * _FINER for contour in glyph.contours]
        left += glyph.advance * size
        if not placed:
            continue
        points = np.concatenate(placed)
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int), fine.shape[::-1])
        if x0 < x1 and y0 < y1:
            fine[y0:y1, x0:x1] |= _inside([contour - (x0, y0) for contour in placed], y1 - y0, x1 - x0)
    return cv2.resize(fine.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def _inside(contours: list[NDArray[np.float64]], height: int, width: int) -> NDArray[np.bool_]:
    """Which samples, at the centres of squares of side 1, contours go around: bool [height, width].

    In each row, every edge that crosses it adds 1 or -1, by its direction, to all samples to the right of it.
    """
    starts = np.concatenate(contours)
    ends = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    first, last = (np.clip(np.ceil(ends_of[:, 1] - 0.5), 0, height).astype(int) for ends_of in (starts, ends))
    down = last > first
    rows = np.abs(last - first)
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + np.minimum(first, last)[edge]
    (x, y), (dx, dy) = starts[edge].T, (ends - starts)[edge].T
    column = np.clip(np.ceil(x + (row + 0.5 - y) * dx / dy - 0.5), 0, width).astype(int)
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (row, column), np.where(down[edge], 1, -1))
    inside: NDArray[np.bool_] = np.cumsum(turns, axis=1)[:, :width] != 0
    return inside


@functools.lru_cache(maxsize=4096)
def _glyph(character: str, weight: Weight) -> _Glyph:
    """The outline of a character; of the letter below its accent, or of an empty box, where the fonts lack it."""
    code = ord(character)
    fonts = (weight, "cjk") if code > 0x2E00 else (weight,)
    for name in fonts:
        if (found := _Font.load(name).glyph(code)) is not None:
            return found
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if len(plain) == 1 and plain != character:
        return _glyph(plain, weight)
    return _BOX


class _Font:
    """Outlines of a font by code point."""

    def __init__(self, name: str) -> None:
        with np.load(_FILE) as arrays:
            self._codes, self._advances, contours, points, steps = (
                arrays[f"{name}_{part}"] for part in ("codes", "advances", "contours", "points", "steps")
            )
        self._grid = _GRID[name]
        self._first_contour = np.concatenate(([0], np.cumsum(contours, dtype=np.int64)))
        self._first_point = np.concatenate(([0], np.cumsum(points, dtype=np.int64)))
        self._points = np.cumsum(steps, axis=1, dtype=np.int32).T

    @staticmethod
    @functools.cache
    def load(name: str) -> "_Font":
        return _Font(name)

    def glyph(self, code: int) -> _Glyph | None:
        at = int(np.searchsorted(self._codes, code))
        if at == len(self._codes) or self._codes[at] != code:
            return None
        contours = tuple(
            self._points[self._first_point[n] : self._first_point[n + 1]] / self._grid
            for n in range(self._first_contour[at], self._first_contour[at + 1])
        )
        return _Glyph(float(self._advances[at]) / self._grid, contours)


def _drawable(text: str) -> str:
    """The text on one line, composed, without characters that have no shape of their own."""
    composed = unicodedata.normalize("NFC", " ".join(text[:_LONGEST].split()))
    return "".join(c for c in composed if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Me"))
