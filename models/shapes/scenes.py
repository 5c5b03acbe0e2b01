"""The pictures the `shapes` model is trained and tested on: drawn objects over textures, with a mask for every object.

A scene is a function of its seed. Colours, textures, sizes, rotations and places are drawn independently of the class,
so that only the shape tells what an object is.

One file because it draws alone: it needs numpy and OpenCV, and can be copied and run without the rest of ortcam.

Run as a script to write the two sample pictures that ship beside it:

    python models/shapes/scenes.py --out models/shapes/samples
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

__all__ = ["CLASSES", "EMPTY", "Scene", "SceneObject", "draw_scene"]

CLASSES: tuple[str, ...] = ("fish", "flower", "house", "key", "mug", "umbrella", "empty")
"""Class names in label order. The last, `empty`, is a background with no object on it."""

EMPTY = len(CLASSES) - 1
"""The label of the pictures without an object; never the label of a `SceneObject`."""

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Generator = np.random.Generator

_SUBPIXEL_BITS = 6


@dataclass(frozen=True)
class SceneObject:
    """One drawn object.

    Attributes:
        label: Index into `CLASSES`.
        mask: bool [H, W], the pixels where the object is visible. Holes (a mug's handle, a key's ring) and the shadow
            are not part of it.
    """

    label: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it.

    Attributes:
        image: uint8 RGB [H, W, 3].
        objects: The objects, in the order their labels were asked for; they do not overlap.
    """

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


def draw_scene(seed: int, *, labels: Sequence[int] | None = None, size: int | tuple[int, int] = 224) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: Non-negative; the same seed, labels and size give the same scene.
        labels: What to draw: `()` for a bare background, `(a,)` for one object, `(a, b)` for two that do not overlap.
            None draws it by lot: one object in 60 % of scenes, two of different classes in 30 %, none in 10 %.
        size: Height and width in pixels; one number for a square.

    Returns:
        The picture with a mask per object.

    Raises:
        ValueError: More than two labels, or a label that is no object class.
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        count = rng.choice(3, p=(0.1, 0.6, 0.3))
        labels = rng.permutation(EMPTY)[:count].tolist()
    if len(labels) > 2 or any(not 0 <= label < EMPTY for label in labels):
        raise ValueError(f"labels {tuple(labels)}: expected at most two, each in 0..{EMPTY - 1} (an object class)")
    height, width = (size, size) if isinstance(size, int) else size

    canvas, lightness = _background(rng, height, width)
    places = _places(rng, height, width, len(labels))
    drawings = [_SHAPES[label](rng) for label in labels]
    layers = [_rasterise(rng, parts, place, height, width) for parts, place in zip(drawings, places, strict=True)]
    silhouettes = [np.maximum.reduce(alphas) for alphas in layers]

    for silhouette, (_, radius) in zip(silhouettes, places, strict=True):
        _cast_shadow(canvas, silhouette, radius, strength=rng.uniform(0.25, 0.5))
    for parts, alphas in zip(drawings, layers, strict=True):
        palette = _palette(rng, lightness)
        for part, alpha in zip(parts, alphas, strict=True):
            canvas += alpha[..., None] * (palette[part.tone] - canvas)

    canvas *= _lighting(rng, height, width)[..., None]
    canvas += rng.normal(0, 0.005, (height, width, 1)).astype(np.float32)
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    objects = (SceneObject(label, alpha >= 0.5) for label, alpha in zip(labels, silhouettes, strict=True))
    return Scene(image, tuple(objects))


# Backgrounds: a texture is a field in [0, 1] that blends two colours.


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Pixel coordinates y [H, 1] and x [1, W] in units of the shorter side."""
    unit = np.float32(1 / min(height, width))
    return np.arange(height, dtype=np.float32)[:, None] * unit, np.arange(width, dtype=np.float32)[None] * unit


def _across(rng: Generator, height: int, width: int) -> Floats:
    """The coordinate along a random direction, float32 [H, W], in units of the shorter side."""
    y, x = _grid(height, width)
    angle = float(rng.uniform(0, np.pi))
    return _float(np.cos(angle) * x + np.sin(angle) * y)


def _noise(rng: Generator, height: int, width: int, cells: int, octaves: int) -> Floats:
    """Noise float32 [H, W] in [0, 1]: octaves of smooth random grids, each twice as fine and half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        n = cells << octave
        grid = rng.random((n + 1, n + 1), dtype=np.float32)
        total += _float(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)) / 2**octave
    return _stretch(total)


def _stretch(field: Floats) -> Floats:
    low, high = float(field.min()), float(field.max())
    return _float((field - low) / max(high - low, 1e-6))


def _float(array: ArrayLike) -> Floats:
    return np.asarray(array, np.float32)


def _wave(phase: Floats, sharpness: float) -> Floats:
    """A wave of period 1 in [0, 1]: sinusoidal at sharpness 1, square with soft edges for large ones."""
    return _float(np.clip(0.5 + 0.5 * sharpness * np.sin(2 * np.pi * phase), 0, 1))


def _gradient(rng: Generator, height: int, width: int) -> Floats:
    return _stretch(_across(rng, height, width) + 0.2 * _noise(rng, height, width, 3, 3))


def _clouds(rng: Generator, height: int, width: int) -> Floats:
    return _noise(rng, height, width, int(rng.integers(2, 7)), 5)


def _stripes(rng: Generator, height: int, width: int) -> Floats:
    return _wave(_across(rng, height, width) * rng.uniform(5, 16), rng.uniform(1, 8))


def _checks(rng: Generator, height: int, width: int) -> Floats:
    frequency, sharpness = rng.uniform(3, 9), rng.uniform(4, 12)
    tilt = rng.uniform(-0.6, 0.6)
    y, x = _grid(height, width)
    u, v = (_float(np.cos(tilt) * a + np.sin(tilt) * b) for a, b in ((x, y), (y, -x)))
    across, along = _wave(u * frequency, sharpness), _wave(v * frequency, sharpness)
    gingham = rng.random() < 0.5
    return _float((across + along) / 2 if gingham else across + along - 2 * across * along)


def _dots(rng: Generator, height: int, width: int) -> Floats:
    frequency = rng.uniform(5, 13)
    y, x = _grid(height, width)
    bumps = np.cos(2 * np.pi * frequency * x) + np.cos(2 * np.pi * frequency * y)
    return _float(np.clip((bumps - rng.uniform(0.2, 1.0)) * 4, 0, 1))


def _wood(rng: Generator, height: int, width: int) -> Floats:
    warp = _noise(rng, height, width, 2, 3)
    rings = _wave(_across(rng, height, width) * rng.uniform(3, 8) + rng.uniform(1, 3) * warp, 1.0)
    return _stretch(rings + 0.5 * _noise(rng, height, width, 24, 2))


def _weave(rng: Generator, height: int, width: int) -> Floats:
    frequency = rng.uniform(18, 36)
    y, x = _grid(height, width)
    cloth = np.abs(np.sin(np.pi * frequency * x)) * np.abs(np.sin(np.pi * frequency * y))
    return _stretch(0.6 * cloth + _noise(rng, height, width, 4, 3))


_TEXTURES: tuple[Callable[[Generator, int, int], Floats], ...] = (
    _gradient,
    _clouds,
    _stripes,
    _checks,
    _dots,
    _wood,
    _weave,
)


def _background(rng: Generator, height: int, width: int) -> tuple[Floats, float]:
    """A textured background float32 RGB [H, W, 3] in [0, 1] and its mean CIE lightness."""
    lightness, chroma, hue = rng.uniform(25, 90), rng.uniform(3, 40), rng.uniform(0, 360)
    step = rng.uniform(4, 11)
    first = _lch(lightness - step, chroma, hue)
    second = _lch(lightness + step, chroma * rng.uniform(0.5, 1.2), hue + rng.normal(0, 25))
    texture = _TEXTURES[rng.integers(len(_TEXTURES))](rng, height, width)
    return first + texture[..., None] * (second - first), lightness


def _lighting(rng: Generator, height: int, width: int) -> Floats:
    """A soft light from one side, float32 [H, W] around 1."""
    return 0.9 + 0.2 * _stretch(_across(rng, height, width) + 0.1 * _noise(rng, height, width, 2, 1))


# Objects: polygons in a disc of radius 1, y pointing down, painted back to front.


@dataclass(frozen=True)
class _Part:
    """One colour of an object: contours float64 [N, 2] filled by the even-odd rule, so an inner contour is a hole."""

    tone: str
    contours: tuple[Points, ...]


def _part(tone: str, *contours: Points) -> _Part:
    return _Part(tone, contours)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, turn: float = 0) -> Points:
    """Points of an elliptic arc from `start` to `stop` degrees (clockwise on screen), the ellipse turned by `turn`."""
    t = np.radians(np.linspace(start, stop, 48))
    points = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    turned: Points = points @ _rotation(turn) + (x, y)
    return turned


def _rotation(degrees: float) -> Points:
    """The matrix [2, 2] that turns row vectors (x, y) clockwise on screen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s], [-s, c]])


def _join(*pieces: Points) -> Points:
    return np.concatenate(pieces)


def _fish(rng: Generator) -> list[_Part]:
    deep, tail = rng.uniform(0.42, 0.56), rng.uniform(0.42, 0.6)
    back = _arc(0.18, 0, 0.74, deep, 180, 360)
    belly = _arc(0.18, 0, 0.74, deep, 0, 180)
    parts = [
        _part("accent", _join(_arc(-0.62, 0, 0.14, 0.1, 90, -90), _polygon((-0.98, -tail), (-0.78, 0), (-0.98, tail)))),
        _part("accent", _polygon((-0.25, -deep * 0.7), (-0.12, -deep - 0.28), (0.3, -deep - 0.12), (0.5, -deep * 0.7))),
        _part("accent", _polygon((-0.15, deep * 0.7), (-0.2, deep + 0.22), (0.1, deep + 0.12), (0.3, deep * 0.8))),
        _part("base", _join(back, belly)),
    ]
    for x in np.linspace(-0.3, 0.18, rng.integers(0, 4)):
        half = 0.92 * deep * np.sqrt(1 - ((x - 0.18) / 0.74) ** 2)
        stripe = _join(_arc(x, 0, 0.12, half, -90, 90), _arc(x - 0.09, 0, 0.12, half, 90, -90))
        parts.append(_part("accent", stripe))
    gill = _join(_arc(0.42, 0, 0.12, deep * 0.6, -90, 90), _arc(0.38, 0, 0.12, deep * 0.6, 90, -90))
    return [
        *parts,
        _part("shade", gill),
        _part("light", _arc(0.66, -0.12, 0.12, 0.12)),
        _part("dark", _arc(0.68, -0.12, 0.06, 0.06)),
    ]


def _flower(rng: Generator) -> list[_Part]:
    count = int(rng.integers(5, 9))
    long, wide = rng.uniform(0.3, 0.36), rng.uniform(0.8, 1.0) * 1.75 / count
    angles = np.arange(count) * 360 / count
    reach = 0.98 - long
    petals = []
    for angle in angles:
        x, y = reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle))
        petals += [
            _part("base", _arc(x, y, long, wide, turn=angle)),
            _part("shade", _arc(0.78 * x, 0.78 * y, long * 0.5, wide * 0.16, turn=angle)),
        ]
    heart = rng.uniform(0.28, 0.36)
    return [
        _part("base", _arc(0, 0, reach, reach)),
        *petals,
        _part("accent", _arc(0, 0, heart, heart)),
        _part("dark", _arc(0, 0, heart * 0.5, heart * 0.5)),
    ]


def _house(rng: Generator) -> list[_Part]:
    wide, eaves = rng.uniform(0.52, 0.62), rng.uniform(-0.2, -0.05)
    over, door = wide + rng.uniform(0.08, 0.16), rng.uniform(-0.3, 0.3)
    side = -1.0 if door > 0 else 1.0
    window = side * wide * 0.48
    parts = [
        _part("shade", _box(side * 0.42 - 0.1, -0.82, side * 0.42 + 0.1, -0.2)),
        _part("base", _box(-wide, eaves - 0.05, wide, 0.74)),
        _part("accent", _polygon((-over, eaves + 0.04), (0, -0.95), (over, eaves + 0.04))),
        _part("dark", _box(door - 0.14, 0.24, door + 0.14, 0.74)),
        _part("light", _box(window - 0.15, 0.16, window + 0.15, 0.46)),
        _part("shade", _box(window - 0.02, 0.16, window + 0.02, 0.46), _box(window - 0.15, 0.29, window + 0.15, 0.33)),
    ]
    if rng.random() < 0.5:
        parts.append(_part("light", _arc(0, -0.42, 0.12, 0.12)))
    return parts


def _key(rng: Generator) -> list[_Part]:
    ring, hole, thick = rng.uniform(0.38, 0.44), rng.uniform(0.16, 0.22), rng.uniform(0.1, 0.13)
    x = ring - 0.98
    parts = [_part("base", _box(x + hole, -thick, 0.96, thick))]
    for left in (0.3, 0.52, 0.76)[-rng.integers(2, 4) :]:
        parts.append(_part("base", _box(left, 0, left + 0.14, thick + rng.uniform(0.2, 0.36))))  # noqa: PERF401
    return [
        *parts,
        _part("base", _arc(x, 0, ring, ring), _arc(x, 0, hole, hole)),
        _part("accent", _arc(x, 0, ring * 0.84, ring * 0.84), _arc(x, 0, hole + 0.06, hole + 0.06)),
        _part("shade", _box(x + ring, -0.025, 0.9, 0.025)),
        _part("accent", _box(x + ring - 0.02, -thick - 0.06, x + ring + 0.08, thick + 0.06)),
    ]


def _mug(rng: Generator) -> list[_Part]:
    wide, foot = rng.uniform(0.5, 0.58), rng.uniform(0.4, 0.5)
    x = -0.2
    body = _join(_arc(x, -0.6, wide, 0.16, 180, 360), _arc(x, 0.68, foot, 0.18, 0, 180))
    grip = _arc(x + wide - 0.02, 0.02, 0.46, 0.46), _arc(x + wide - 0.02, 0.02, 0.27, 0.28)
    parts = [_part("base", *grip), _part("base", body)]
    for y in ((-0.1, 0.25), (0.1,), ())[rng.integers(3)]:
        left, right = wide - 0.03, wide - 0.05
        band = _join(_arc(x, y, left, 0.15, 180, 0), _arc(x, y + 0.16, right, 0.15, 0, 180))
        parts.append(_part("accent", band))
    return [
        *parts,
        _part("light", _arc(x, -0.6, wide, 0.16)),
        _part("dark", _arc(x, -0.59, wide * 0.88, 0.115)),
    ]


def _umbrella(rng: Generator) -> list[_Part]:
    low, ribs = rng.uniform(0.0, 0.12), int(rng.integers(3, 6))
    edges = np.linspace(-0.96, 0.96, ribs + 1)
    top = low - 0.86
    parts = [
        _part("shade", _box(-0.04, top - 0.12, 0.04, 0.72)),
        _part(
            "shade",
            _join(_arc(0.15, 0.7, 0.19, 0.22, 180, 0), _arc(0.15, 0.7, 0.11, 0.14, 0, 180)),
        ),
    ]
    for index, (left, right) in enumerate(itertools.pairwise(edges)):
        rise = [_arc(0, low, edge, low - top, 0, -90) for edge in (left, right)]
        scallop = _arc((left + right) / 2, low, (right - left) / 2, 0.1, 180, 360)
        parts.append(_part("accent" if index % 2 else "base", _join(rise[0][::-1], scallop, rise[1])))
    return parts


_SHAPES: tuple[Callable[[Generator], list[_Part]], ...] = (_fish, _flower, _house, _key, _mug, _umbrella)


def _places(rng: Generator, height: int, width: int, count: int) -> list[tuple[tuple[float, float], float]]:
    """Centres (x, y) and radii in pixels of `count` discs inside the picture that do not touch each other."""
    side = min(height, width)
    largest = 0.30 if count == 1 else 0.24
    while True:
        places = []
        for _ in range(count):
            radius = side * rng.uniform(0.18, largest)
            margin = radius + 0.02 * side
            places.append(((rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)), radius))
        if count < 2:
            return places
        (first, a), (second, b) = places
        if np.hypot(first[0] - second[0], first[1] - second[1]) > a + b + 0.04 * side:
            return places


def _rasterise(
    rng: Generator, parts: list[_Part], place: tuple[tuple[float, float], float], height: int, width: int
) -> list[Floats]:
    """The anti-aliased coverage of each part, float32 [H, W] in [0, 1], after a random flip, stretch and rotation."""
    centre, radius = place
    stretch = np.diag((rng.choice((-1.0, 1.0)), rng.uniform(0.85, 1.0)))
    matrix = radius * stretch @ _rotation(rng.uniform(-40, 40))
    alphas: list[Floats] = []
    for part in parts:
        alpha = np.zeros((height, width), np.uint8)
        points = [np.rint((c @ matrix + centre) * 2**_SUBPIXEL_BITS).astype(np.int32) for c in part.contours]
        cv2.fillPoly(alpha, points, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        alphas.append(_float(alpha / np.float32(255)))
    return alphas


def _cast_shadow(canvas: Floats, silhouette: Floats, radius: float, *, strength: float) -> None:
    """Darken the canvas in place by a soft shadow, down and to the right of the silhouette."""
    offset = radius * 0.08
    move = np.array([[1, 0, offset], [0, 1, offset]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(silhouette, move, silhouette.shape[::-1]), (0, 0), radius * 0.08)
    canvas *= 1 - strength * _float(shadow)[..., None]


def _palette(rng: Generator, lightness: float) -> dict[str, Floats]:
    """Colours of an object by tone, RGB float32 [3], its base at least 25 units of lightness off the background's."""
    levels = np.arange(35, 90)
    base = float(rng.choice(levels[np.abs(levels - lightness) >= 25]))
    hue, chroma = rng.uniform(0, 360), rng.uniform(30, 75)
    away = 20 if base < 62 else -20
    return {
        "base": _lch(base, chroma, hue),
        "shade": _lch(base - 18, chroma, hue),
        "accent": _lch(base + away, rng.uniform(30, 75), hue + rng.uniform(50, 310)),
        "light": _lch(95, 6, hue),
        "dark": _lch(16, 10, hue),
    }


def _lch(lightness: float, chroma: float, hue: float) -> Floats:
    """A CIE L*C*h colour (hue in degrees) as RGB float32 [3] in [0, 1]."""
    radians = np.radians(hue)
    lab = np.array([[[lightness, chroma * np.cos(radians), chroma * np.sin(radians)]]], np.float32)
    return _float(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[0, 0], 0, 1))


def _write_samples(folder: Path) -> None:
    """Write the sample pictures, 320 x 240 pixels: a fish, and a mug with an umbrella."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in (("fish", 42), ("mug-umbrella", 462)):
        labels = [CLASSES.index(word) for word in name.split("-")]
        image = draw_scene(seed, labels=labels, size=(240, 320)).image
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the sample pictures.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    _write_samples(parser.parse_args().out)
