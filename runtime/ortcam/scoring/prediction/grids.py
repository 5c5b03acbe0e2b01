"""Grids: masks averaged down to few cells and blurred, as the Gaussian process of `gaussian_process` looks at them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["pooling", "smoothing"]

_BLUR: Final = 0.7
_BLUR_ENDS: Final = 1e-4
_MASK_GRID: Final = 14  # cells a side; finer masks are averaged down to it


def smoothing(size: int) -> NDArray[np.float32]:
    """Blur by 0.7 cells, of the coarser grid where there is one: float32 [min(size, 14), size]."""
    averaging = pooling(size, _MASK_GRID)
    centre = np.arange(len(averaging))
    blur = np.exp(-((centre[:, None] - centre) ** 2) / (2 * _BLUR**2))
    blur[blur < _BLUR_ENDS] = 0  # beyond, products would be denormal numbers, which take a CPU twenty times as long
    blurred: NDArray[np.float32] = (blur / blur.sum(axis=1, keepdims=True)).astype(np.float32) @ averaging
    return blurred


def pooling(size: int, largest: int) -> NDArray[np.float32]:
    """Averages over equal parts of an axis, float32 [min(size, largest), size]; the identity where they are cells."""
    parts = min(size, largest)
    edges = np.linspace(0, size, parts + 1)
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    averages: NDArray[np.float32] = (np.maximum(overlap, 0) * (parts / size)).astype(np.float32)
    return averages
