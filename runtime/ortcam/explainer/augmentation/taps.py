"""Bilinear sampling of planes at any points, and its transpose: what `warps` moves, and `fusion` fits."""

import dataclasses
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Points", "Taps", "grid"]

_Float = TypeVar("_Float", bound=np.floating[Any])


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of an image, in shares of its sides: 0 is the left or upper edge, 1 the right or lower one.

    Attributes:
        x: float64 [n].
        y: float64 [n].
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which of them lie in the image, bool [n]."""
        inside: NDArray[np.bool_] = (self.x >= 0) & (self.x <= 1) & (self.y >= 0) & (self.y <= 1)
        return inside


def grid(height: int, width: int) -> Points:
    """The centres of the cells of a grid that covers an image, row by row: n = height * width."""
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return Points(x.ravel(), y.ravel())


@dataclasses.dataclass(frozen=True)
class Taps:
    """Which four values of a plane [height,width] each of n points is between, and how much each weighs.

    Half-pixel centres, the edge continued: at the centres of the pixels these are the upsampled values of
    `scoring.upsampling`.

    Attributes:
        places: intp [4,n], of the flattened plane.
        weights: float64 [4,n], which add up to 1.
        size: of the flattened plane.
    """

    places: NDArray[np.intp]
    weights: NDArray[np.float64]
    size: int

    @classmethod
    def of(cls, points: Points, height: int, width: int) -> Self:
        """The taps of points in a plane of this size."""
        upper, down = _neighbours(points.y, height)
        left, right = _neighbours(points.x, width)
        lower, next_left = np.minimum(upper + 1, height - 1), np.minimum(left + 1, width - 1)
        places = np.stack([row * width + column for row in (upper, lower) for column in (left, next_left)])
        weights = np.stack([row * column for row in (1 - down, down) for column in (1 - right, right)])
        return cls(places, weights, height * width)

    def chosen(self, which: NDArray[np.bool_]) -> "Taps":
        """The taps of some of the points, bool [n]."""
        return Taps(self.places.compress(which, axis=1), self.weights.compress(which, axis=1), self.size)

    def sample(self, planes: NDArray[_Float]) -> NDArray[_Float]:
        """The values of planes [K,height,width] at the points: [K,n], of their type."""
        flat = planes.reshape(len(planes), self.size)
        weights = self.weights.astype(planes.dtype, copy=False)
        sampled: NDArray[_Float] = flat[:, self.places[0]] * weights[0]
        for place, weight in zip(self.places[1:], weights[1:], strict=True):
            sampled += flat[:, place] * weight
        return sampled

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The transpose of `sample`: values [K,n] to planes [K,height * width], float64."""
        places = self.places.ravel()
        return np.stack([np.bincount(places, (self.weights * row).ravel(), minlength=self.size) for row in values])


def _neighbours(share: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The value before each point along one side, and the weight of the next one."""
    position = np.clip(share * count - 0.5, 0, count - 1)
    before = np.floor(position).astype(np.intp)
    return before, position - before
