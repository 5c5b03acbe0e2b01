"""Frames of scenes: a pan over a photograph, and a still scene that a second thing enters."""

from collections.abc import Iterator
from typing import Final

import numpy as np

__all__ = ["NOISE", "SIDE", "STEP", "STILL", "pan", "thing_enters"]

SIDE: Final = 224
STEP: Final = 3.0  # pixels per frame
NOISE: Final = 2.0  # of a camera: standard deviation, of 255
STILL: Final = 6  # frames before the thing enters, and after


def pan(photograph: str, frames: int, *, side: int = SIDE, step: float = STEP) -> Iterator[np.ndarray]:
    """The frames of a pan: uint8 RGB [side,side,3], back and forth, and a little up and down.

    Args:
        photograph: its name in scikit-image.
        frames: how many.
        side: of a frame, in pixels.
        step: pixels per frame.
    """
    import cv2

    pixels = _photograph(photograph, side)
    height, width = pixels.shape[:2]
    room, generator = width - side - 2, np.random.default_rng(0)
    for index in range(frames):
        x = (index * step) % (2 * room)
        x = x if x <= room else 2 * room - x
        y = (height - side) / 2 + (height - side) / 4 * np.sin(index * step / 40)
        frame = cv2.getRectSubPix(pixels, (side, side), (x + side / 2, y + side / 2))
        frame = frame * (1 + 0.03 * np.sin(index / 5)) + generator.normal(0, NOISE, frame.shape)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def thing_enters(photograph: str, *, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A still scene without and with a second of what it shows, in a corner: uint8 RGB [side,side,3] each."""
    import cv2

    pixels = _photograph(photograph, side)
    height, width = pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    before = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    after, small = before.copy(), 2 * side // 5
    after[-small:, :small] = cv2.resize(before, (small, small), interpolation=cv2.INTER_AREA)
    return before, after


def _photograph(name: str, side: int) -> np.ndarray:
    """A photograph that is somewhat larger than a frame."""
    import cv2
    import skimage.data

    pixels = getattr(skimage.data, name)()[..., :3]
    factor = side / (0.75 * min(pixels.shape[:2]))
    resized: np.ndarray = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return resized
