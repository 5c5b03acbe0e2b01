"""Make `runtime/ortcam/results/letters.npz`, the letters that sheets and figures are written in, from free fonts.

Needs fonttools, brotli and OpenCV, and three packages of npm: @fontsource/inter, noto-sans-sc and noto-sans-kr. Unpack
them, then run:

    python models/letters/build.py inter/package/files sc/package/files kr/package/files letters.npz

All letters of Inter are taken. Of Noto Sans only the common characters of Chinese, Japanese and Korean are taken, on a
coarser grid.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fontTools.pens.recordingPen import DecomposingRecordingPen  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

_LATIN = ("latin", "latin-ext", "greek", "cyrillic", "vietnamese")
_FINE = 1000  # steps of an em, of Inter
_COARSE = 120  # of Noto Sans SC
_FLAT = 0.0015  # of an em: how far a curve may be from the straight lines that stand for it
_FLAT_COARSE = 0.007


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inter", type=Path)
    parser.add_argument("noto_sc", type=Path)
    parser.add_argument("noto_kr", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    arrays: dict[str, Any] = {}
    for name, weight in (("regular", 400), ("bold", 600)):
        fonts = [options.inter / f"inter-{part}-{weight}-normal.woff2" for part in _LATIN]
        arrays |= _packed(name, _glyphs(fonts, None, _FINE, _FLAT))
    fonts = [
        path
        for folder, name in ((options.noto_sc, "sc"), (options.noto_kr, "kr"))
        for path in sorted(folder.glob(f"noto-sans-{name}-[0-9]*-500-normal.woff2"))
    ]
    arrays |= _packed("cjk", _glyphs(fonts, set(_common()), _COARSE, _FLAT_COARSE))
    with options.output.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB, {len(arrays['cjk_codes'])} of CJK")


def _common() -> Iterator[int]:
    """Kana, punctuation, full-width forms; the first levels of GB 2312 and of JIS X 0208; Hangul of KS X 1001."""
    yield from range(0x3000, 0x3020)
    yield from range(0x3041, 0x3100)
    yield from range(0xFF01, 0xFF5F)
    for encoding, first, last in (("gb2312", 0xB0, 0xD7), ("euc_jp", 0xB0, 0xCF), ("euc_kr", 0xB0, 0xC8)):
        for high in range(first, last + 1):
            for low in range(0xA1, 0xFF):
                try:
                    yield ord(bytes((high, low)).decode(encoding))
                except UnicodeDecodeError:
                    continue


def _glyphs(
    paths: Iterable[Path], wanted: set[int] | None, grid: int, flat: float
) -> dict[int, tuple[int, list[np.ndarray]]]:
    """Advance and contours by code point, in whole steps of the grid, y downwards from the baseline."""
    found: dict[int, tuple[int, list[np.ndarray]]] = {}
    for path in paths:
        font = TTFont(path)
        em, glyphs = font["head"].unitsPerEm, font.getGlyphSet()
        for code, name in font.getBestCmap().items():
            if code in found or code < 32 or (wanted is not None and code not in wanted):
                continue
            pen = DecomposingRecordingPen(glyphs)
            glyphs[name].draw(pen)
            contours = []
            for contour in _flattened(pen.value, flat * em / 4):
                outline: Any = cv2.approxPolyDP(np.array(contour, np.float32)[:, None], flat * em, closed=True)[:, 0]
                points = np.rint(outline * (grid / em, -grid / em)).astype(np.int16)
                keep = np.any(points != np.roll(points, 1, axis=0), axis=1)
                if keep.sum() >= 3:
                    contours.append(points[keep])
            found[code] = round(glyphs[name].width * grid / em), contours
    return found


def _flattened(commands: list[tuple[str, tuple]], flat: float) -> Iterator[list[tuple[float, float]]]:  # type: ignore[type-arg]
    contour: list[tuple[float, float]] = []
    for command, points in commands:
        if command == "moveTo":
            contour = [points[0]]
        elif command == "lineTo":
            contour.append(points[0])
        elif command == "qCurveTo":
            *off, end = points
            if end is None:  # a closed curve without a point on it
                end = tuple((a + b) / 2 for a, b in zip(off[-1], off[0], strict=True))
                contour = [end]
            for n, control in enumerate(off):
                on = end if n == len(off) - 1 else tuple((a + b) / 2 for a, b in zip(control, off[n + 1], strict=True))
                contour += _curve(contour[-1], control, on, flat)
        elif command in ("closePath", "endPath"):
            if contour:
                yield contour
            contour = []
        else:
            raise ValueError(command)


def _curve(a: tuple, b: tuple, c: tuple, flat: float) -> list[tuple[float, float]]:  # type: ignore[type-arg]
    start, control, end = (np.array(point, float) for point in (a, b, c))
    bend = np.abs(start - 2 * control + end).max() / 4
    steps = max(1, int(np.ceil(np.sqrt(bend / flat))))
    t = (np.arange(1, steps + 1) / steps)[:, None]
    return [tuple(point) for point in (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end]


def _packed(name: str, glyphs: dict[int, tuple[int, list[np.ndarray]]]) -> dict[str, np.ndarray]:
    """Arrays of a font: points of all contours one after the other, as differences, which deflate well."""
    codes = sorted(glyphs)
    contours = [contour for code in codes for contour in glyphs[code][1]]
    points = np.concatenate(contours)
    steps = np.diff(points, axis=0, prepend=np.zeros((1, 2), np.int16))
    small = np.abs(steps).max() < 128
    return {
        f"{name}_codes": np.array(codes, np.uint32),
        f"{name}_advances": np.array([glyphs[code][0] for code in codes], np.uint16),
        f"{name}_contours": np.array([len(glyphs[code][1]) for code in codes], np.uint8),
        f"{name}_points": np.array([len(contour) for contour in contours], np.uint16),
        f"{name}_steps": np.ascontiguousarray(steps.T.astype(np.int8 if small else np.int16)),
    }


if __name__ == "__main__":
    main()
