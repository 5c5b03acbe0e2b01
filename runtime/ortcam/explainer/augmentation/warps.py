"""Warps: how the copies of an image are turned, moved, scaled and mirrored, and which points lie where in them."""

import dataclasses
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.explainer.augmentation.taps import Points, Taps, grid
from ortcam.methods import Augmentation
from ortcam.scoring.noise import draw_uniform

__all__ = ["Warp", "draw_warp"]

_NUMBERS: Final = 5  # that a warp is drawn from: angle, two shifts, size, mirror


@dataclasses.dataclass(frozen=True)
class Warp:
    """An affine map from an image to a copy of it: about the centre, mirror, scale and turn, then move.

    Attributes:
        height: pixels of both.
        width: pixels of both.
        matrix: float64 [2,2], on (x, y) in pixels from the centre.
        shift: float64 [2], (x, y) in pixels.
    """

    height: int
    width: int
    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether the copy is the image itself."""
        return bool((self.matrix == np.eye(2)).all() and (self.shift == 0).all())

    def to_copy(self, points: Points) -> Points:
        """Where points of the image lie in the copy."""
        return self._moved(points, self.matrix, self.shift)

    def to_image(self, points: Points) -> Points:
        """Where points of the copy lie in the image."""
        inverse = np.linalg.inv(self.matrix).astype(np.float64)
        return self._moved(points, inverse, -inverse @ self.shift)

    def _moved(self, points: Points, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Points:
        x, y = (points.x - 0.5) * self.width, (points.y - 0.5) * self.height
        return Points(
            (matrix[0, 0] * x + matrix[0, 1] * y + shift[0]) / self.width + 0.5,
            (matrix[1, 0] * x + matrix[1, 1] * y + shift[1]) / self.height + 0.5,
        )

    def copy(self, model_input: NDArray[np.float32]) -> NDArray[np.float32]:
        """The copy of an image, bilinear; zero, the mean colour of most models, where it shows what is outside.

        Args:
            model_input: float32 [1,C,H,W], preprocessed.

        Returns:
            float32 [1,C,H,W].
        """
        points = self.to_image(grid(self.height, self.width))
        warped = Taps.of(points, self.height, self.width).sample(model_input[0])
        warped[:, ~points.inside] = 0
        return warped.reshape(model_input.shape)


def draw_warp(augmentation: Augmentation, number: int, height: int, width: int) -> Warp:
    """The warp of one copy: the first leaves the image as it is, the others are drawn.

    Args:
        augmentation: the ranges and the seed.
        number: of the copy, from 0. The warp does not depend on how many copies there are.
        height: of the model's input, pixels.
        width: the same.
    """
    if number == 0:
        return Warp(height, width, np.eye(2), np.zeros(2))
    drawn = draw_uniform(augmentation.seed, number, _NUMBERS)
    angle, across, down, size = (float(value) for value in 2 * drawn[:4] - 1)  # in (-1,1)
    angle *= augmentation.rotation
    factor = (1 + augmentation.scale) ** size
    turn = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mirror = np.diag([-1.0 if augmentation.flip and drawn[4] < 0.5 else 1.0, 1.0])
    shift = augmentation.shift * np.array([across * width, down * height])
    return Warp(height, width, turn @ mirror, shift)
