"""Total-variation fusion of the maps of copies: the super-resolution of Augmented Grad-CAM.

Morbidelli, Carrera, Rossi, Fragneto, Boracchi: "Augmented Grad-CAM: Heat-maps super resolution through augmentation",
ICASSP 2020, with the numbers of the authors' code:

    h = argmin sum_l |D A_l h - g_l|^2 + lambda TV(h) + mu |h|^2,   lambda = 0.002 L, mu = 0.0001 L,

g_l is the map of copy l after ReLU, divided by its largest value, A_l the warp of the copy, D the mean over each cell
of the map, and TV the sum of the absolute differences of neighbours, along rows and columns. Adam makes 200 steps from
h = 0 at a rate of 0.001. So h is not the minimum but on the way to it, as theirs is: no value is far above 0.2.

Two things differ from their code. D there takes one point of each cell, so that many pixels are in no equation unless
there are a hundred copies. And a cell whose centre lies outside the image is left out here.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.explainer.augmentation.taps import Points, Taps, grid
from ortcam.explainer.augmentation.warps import Warp

__all__ = ["STEPS", "TotalVariation"]

STEPS: Final = 200
_RATE: Final = 0.001
_LAMBDA, _MU = 0.002, 0.0001  # per copy
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8  # Adam's beta 1, beta 2 and epsilon, as its paper has them
_COVER: Final = 1  # points per pixel that all cells of all copies together are sampled at


class TotalVariation:
    """Collects the maps of copies, and fuses them when it is asked."""

    def __init__(self, cells: tuple[int, int], *, steps: int = STEPS) -> None:
        """Begin with no copy.

        Args:
            cells: rows and columns of the layer. A map of image size is first brought to them by its means.
            steps: of Adam.
        """
        self._cells = cells
        self._steps = steps
        self._warps: list[Warp] = []
        self._maps: list[NDArray[np.float64]] = []

    def add(self, raw: NDArray[np.float64], warp: Warp) -> None:
        """Take in the maps of a copy, as `Combiner.add`."""
        positive = np.maximum(raw, 0)
        if positive.shape[1:] != self._cells:
            positive = _cell_means(positive, self._cells)
        largest = positive.max(axis=(1, 2), keepdims=True)
        self._maps.append(positive / np.where(largest > 0, largest, 1))
        self._warps.append(warp)

    def combined(self) -> NDArray[np.float64]:
        """The fused map of all copies so far, float64 [K,H,W]; what is negative is cut."""
        height, width = self._warps[0].height, self._warps[0].width
        side = self._samples_a_side(height * width)
        taps, kept = self._equations(side, height, width)
        values = np.stack(self._maps, axis=1).reshape(len(self._maps[0]), -1)[:, kept]
        # One class after the other, so that none depends on the others, not even by rounding.
        fused = [self._fused(taps, one, side, (height, width)) for one in values]
        return np.maximum(np.stack(fused), 0)

    def _fused(self, taps: Taps, values: NDArray[np.float64], side: int, size: tuple[int, int]) -> NDArray[np.float64]:
        """H of one class, float64 [H,W].

        Args:
            taps: of the points of all cells.
            values: float64 [n], of the cells.
            side: points per side of a cell.
            size: H and W.
        """
        copies = len(self._maps)
        fused, mean, variance = np.zeros(size), np.zeros(size), np.zeros(size)
        for step in range(1, self._steps + 1):
            residual = taps.sample(fused[None]).reshape(len(values), side**2).sum(axis=1) - values
            slope = 2 * taps.spread(np.repeat(residual, side**2)[None]).reshape(size)
            slope += (_LAMBDA * copies) * _variation_slope(fused)
            slope += (2 * _MU * copies) * fused
            mean = _FIRST * mean + (1 - _FIRST) * slope
            variance = _SECOND * variance + (1 - _SECOND) * slope**2
            spread = np.sqrt(variance / (1 - _SECOND**step)) + _TINY
            fused -= (_RATE / (1 - _FIRST**step)) * mean / spread
        return fused

    def _samples_a_side(self, pixels: int) -> int:
        """Points per side of a cell that its mean is taken of: for as many points of all copies as `_COVER` says."""
        cells = self._cells[0] * self._cells[1]
        fewest = math.ceil(math.sqrt(_COVER * pixels / (len(self._maps) * cells)))
        return max(1, min(fewest, math.ceil(math.sqrt(pixels / cells))))

    def _equations(self, side: int, height: int, width: int) -> tuple[Taps, NDArray[np.bool_]]:
        """The points of the cells of all copies, cell by cell, and which cells are not left out.

        What the taps of a cell's points sample adds up to its mean over those that lie in the image.
        """
        rows, columns = self._cells
        fine = grid(rows * side, columns * side)
        by_cell = np.arange(fine.x.size).reshape(rows, side, columns, side).transpose(0, 2, 1, 3).ravel()
        within = Points(fine.x[by_cell], fine.y[by_cell])
        places, weights, kept = [], [], []
        for warp in self._warps:
            points = warp.to_image(within)
            inside = points.inside.reshape(-1, side**2)
            centred = warp.to_image(grid(rows, columns)).inside & inside.any(axis=1)
            share = (inside / np.maximum(inside.sum(axis=1, keepdims=True), 1))[centred].ravel()
            taps = Taps.of(points, height, width).chosen(np.repeat(centred, side**2))
            places.append(taps.places)
            weights.append(taps.weights * share)
            kept.append(centred)
        taps = Taps(np.concatenate(places, axis=1), np.concatenate(weights, axis=1), height * width)
        return taps, np.concatenate(kept)


def _cell_means(maps: NDArray[np.float64], cells: tuple[int, int]) -> NDArray[np.float64]:
    """Means of maps [K,H,W] over the cells of a grid that covers them: float64 [K,h,w]."""
    for axis, count in ((1, cells[0]), (2, cells[1])):
        size = maps.shape[axis]
        edges = np.arange(size + 1) * (count / size)  # of the pixels, in cells
        shares = np.stack([np.diff(np.clip(edges, cell, cell + 1)) for cell in range(count)])
        maps = np.moveaxis(np.tensordot(maps, shares, axes=(axis, 1)), -1, axis)
    return maps


def _variation_slope(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """The derivative of the total variation of a plane [H,W], with sign(0) = 0."""
    slope = np.zeros_like(plane)
    down, across = np.sign(np.diff(plane, axis=0)), np.sign(np.diff(plane, axis=1))
    slope[1:] += down
    slope[:-1] -= down
    slope[:, 1:] += across
    slope[:, :-1] -= across
    return slope
