"""The maps of copies become one: their mean or maximum in place. `fusion` has the third way.

Each map is the sum before ReLU. It is laid back on the image, bilinearly, and cut by the ReLU, as in Augmented Grad-CAM
(Morbidelli et al., ICASSP 2020). So copies in which little speaks for the class count little. There, what a copy does
not show counts as zero. Here it is left out.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ortcam.explainer.augmentation.taps import Taps, grid
from ortcam.explainer.augmentation.warps import Warp

__all__ = ["Combiner", "Maximum", "Mean"]


class Combiner(Protocol):
    """Takes in the maps of one copy after the other."""

    def add(self, raw: NDArray[np.float64], warp: Warp) -> None:
        """Take in the maps of a copy.

        Args:
            raw: float64 [K,h,w], before ReLU, at feature resolution or at image size.
            warp: of the copy.
        """

    def combined(self) -> NDArray[np.float64]:
        """The map of all copies so far, float64 [K,H,W], nowhere negative."""


class Mean:
    """At each pixel the mean over the copies that show it."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None
        self._count: NDArray[np.float64] | None = None

    def add(self, raw: NDArray[np.float64], warp: Warp) -> None:
        """Take in the maps of a copy, as `Combiner.add`."""
        laid, inside = _laid_back(raw, warp)
        self._sum = laid if self._sum is None else self._sum + laid
        self._count = inside if self._count is None else self._count + inside

    def combined(self) -> NDArray[np.float64]:
        """The map so far, float64 [K,H,W]."""
        assert self._sum is not None  # the first copy is the image itself: every pixel was counted
        assert self._count is not None
        mean: NDArray[np.float64] = self._sum / self._count
        return mean


class Maximum:
    """At each pixel the largest value."""

    def __init__(self) -> None:
        self._largest: NDArray[np.float64] | None = None

    def add(self, raw: NDArray[np.float64], warp: Warp) -> None:
        """Take in the maps of a copy, as `Combiner.add`."""
        laid, _ = _laid_back(raw, warp)
        self._largest = laid if self._largest is None else np.maximum(self._largest, laid)

    def combined(self) -> NDArray[np.float64]:
        """The map so far, float64 [K,H,W]."""
        assert self._largest is not None  # one copy at least
        return self._largest


def _laid_back(raw: NDArray[np.float64], warp: Warp) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maps of a copy on the image, after ReLU, float64 [K,H,W], zero where it does not show it; and 1 where it does."""
    points = warp.to_copy(grid(warp.height, warp.width))
    laid = np.maximum(Taps.of(points, *raw.shape[1:]).sample(raw), 0)
    laid[:, ~points.inside] = 0
    shape = warp.height, warp.width
    return laid.reshape(len(raw), *shape), points.inside.reshape(shape).astype(np.float64)
