"""Bilinear upsampling as two small matrices, and the exact range of an upsampled map without upsampling it."""

import functools
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["bilinear_matrix", "extreme_rows", "taps", "upsample", "upsampled_range"]

_Float = TypeVar("_Float", bound=np.floating[Any])

_CHANNELS_AT_ONCE: Final = 64


def taps(size_in: int, size_out: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Left neighbour and weight of the right one, both [size_out]: half-pixel centres, clamped at the borders."""
    position = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    position = np.clip(position, 0, size_in - 1)
    left = np.floor(position).astype(np.intp)
    return left, position - left


@functools.lru_cache(maxsize=64)
def bilinear_matrix(size_in: int, size_out: int) -> NDArray[np.float32]:
    """The matrix R with U = R A along one axis: bilinear, half-pixel centres (`align_corners=False`).

    The same numbers as `torch.nn.functional.interpolate` and ONNX `Resize` (linear, half_pixel). As a matrix product
    the upsampling of many channels is one GEMM; it preserves constants because every row sums to one.

    Returns:
        float32 [size_out, size_in], read-only, since all who ask for it share it.
    """
    left, weight = taps(size_in, size_out)
    matrix = np.zeros((size_out, size_in), np.float64)
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, left), 1 - weight)
    np.add.at(matrix, (rows, np.minimum(left + 1, size_in - 1)), weight)
    shared = matrix.astype(np.float32)
    shared.setflags(write=False)
    return shared


def upsample(maps: NDArray[_Float], height: int, width: int) -> NDArray[_Float]:
    """U(maps): float [..., h, w] -> float [..., height, width]."""
    rows = bilinear_matrix(maps.shape[-2], height)
    columns = bilinear_matrix(maps.shape[-1], width)
    upsampled: NDArray[_Float] = np.matmul(rows, np.matmul(maps, columns.T))
    return upsampled


def extreme_rows(size_in: int, size_out: int) -> NDArray[np.float32]:
    """The rows of `bilinear_matrix` that are the first or last between two neighbouring samples: at most 2 size_in."""
    left, _ = taps(size_in, size_out)
    edge = np.flatnonzero(np.diff(left)) + 1
    picked = np.unique(np.concatenate(([0], edge - 1, edge, [size_out - 1])))
    rows: NDArray[np.float32] = bilinear_matrix(size_in, size_out)[picked]
    return rows


def upsampled_range(
    maps: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(min U(A_k), max U(A_k)) per channel, exactly, from about 4 h w values instead of height x width.

    Between four neighbouring samples U is bilinear, and a bilinear function on a box takes its extremes at the corners
    of the box; so only the first and last output row and column between neighbours have to be looked at.

    Args:
        maps: float32 [C, h, w].
        height: rows of the upsampled map, at least h.
        width: columns of the upsampled map, at least w.

    Returns:
        Two arrays float32 [C].
    """
    rows = extreme_rows(maps.shape[-2], height)
    columns = extreme_rows(maps.shape[-1], width)
    low = np.empty(len(maps), np.float32)
    high = np.empty(len(maps), np.float32)
    for start in range(0, len(maps), _CHANNELS_AT_ONCE):
        part = slice(start, start + _CHANNELS_AT_ONCE)
        corners = np.matmul(rows, np.matmul(maps[part], columns.T))
        low[part] = corners.min(axis=(-2, -1))
        high[part] = corners.max(axis=(-2, -1))
    return low, high
