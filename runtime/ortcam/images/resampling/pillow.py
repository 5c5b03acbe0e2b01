"""Resampling as Pillow does, along one axis after the other: bytes bit for bit with fixed-point weights, and floats."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BAND",
    "BLOCK",
    "CELLS",
    "FEW",
    "PRECISION",
    "SUPPORT",
    "WEIGHTS",
    "Interpolation",
    "Taps",
    "convolve",
    "convolve_few",
    "convolve_few_both",
    "convolve_floats",
    "convolve_image",
    "taps_of",
]

Interpolation = Literal["bilinear", "bicubic"]
SUPPORT: Final[dict[Interpolation, int]] = {"bilinear": 1, "bicubic": 2}
PRECISION = 22  # bits of the fixed-point weights: Pillow's PRECISION_BITS, src/libImaging/Resample.c
BLOCK = 8  # outputs per matrix product, which keeps the band of inputs of each narrow
WEIGHTS = 1 << 18  # of a matrix
BAND = 3 << 20  # samples that are resampled along their lines at a time
FEW = 12  # inputs of an output, up to which sums of whole rows are faster than matrix products
CELLS = 1 << 16  # sums that are made at a time, which fit into a core's cache
_SERIAL = 1 << 17  # multiply-adds of one matrix product; OpenBLAS starts threads from 2**18


@dataclass(frozen=True)
class Taps:
    """What each of n outputs is made of: inputs from `begins` to before `ends`, around `centre`, all float64 [n].

    Weights are made for a few outputs at a time, since there may be as many as inputs.
    """

    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    stretch: float
    size: int
    resized: int
    centre: NDArray[np.float64]
    begins: NDArray[np.float64]
    ends: NDArray[np.float64]

    @property
    def most(self) -> int:
        """Inputs of an output, at most; 1 where the side keeps its size, which leaves pixels as they are."""
        return 1 if self.size == self.resized else int((self.ends - self.begins).max())

    @property
    def first(self) -> int:
        """The first input in use."""
        return int(np.clip(self.begins.min(), 0, self.size - 1))

    @property
    def last(self) -> int:
        """One behind the last input in use."""
        return int(np.clip(self.ends.max() - 1, 0, self.size - 1)) + 1

    def blocks(
        self, size: int | None = None, *, exact: bool = False
    ) -> Iterator[tuple[slice, NDArray[np.intp], NDArray[np.float64]]]:
        """Outputs next to each other, and their inputs (counted from `first`) and weights, both [m, taps].

        Args:
            size: m; None: `BLOCK`.
            exact: weights that sum to 1, as Pillow has them for floats; else integers, times 2**`PRECISION`.
        """
        size = size or BLOCK
        most = int((self.ends - self.begins).max())
        step = size * max(1, WEIGHTS // (size * most)) if most < WEIGHTS else 1
        low, high = self.first, self.last - 1
        for begin in range(0, len(self.centre), step):
            some = slice(begin, begin + step)
            begins, ends, centre = (values[some, None] for values in (self.begins, self.ends, self.centre))
            position = begins + np.arange(int((ends - begins).max()))
            weights = self.kernel((position - centre + 0.5) * (1 / self.stretch)) * (position < ends)
            weights /= np.cumsum(weights, axis=1)[:, -1:]  # adds in order, as C does; np.sum adds in pairs
            if not exact:
                weights = np.trunc(weights * (1 << PRECISION) + np.copysign(0.5, weights))
            index = position.clip(low, high).astype(np.intp) - low
            for first in range(0, len(index), size):
                block = slice(first, first + size)
                yield slice(begin + first, begin + first + size), index[block], weights[block]


def taps_of(size: int, resized: int, begin: int, end: int, *, interpolation: Interpolation, antialias: bool) -> Taps:
    """Find what the resized positions of one side are made of.

    `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's src/libImaging/Resample.c. A side that keeps its size
    gets weights of 1 and 0, so it needs no case of its own.

    Args:
        size: of the side.
        resized: size of the side afterwards.
        begin: first resized position.
        end: the one behind the last.
        interpolation: of the kernel.
        antialias: widen the kernel when downsizing.
    """
    scale = size / resized
    stretch = max(scale, 1.0) if antialias else 1.0
    support = SUPPORT[interpolation] * stretch
    centre = (np.arange(begin, end, dtype=np.float64) + 0.5) * scale
    first, last = np.floor(centre - support + 0.5), np.floor(centre + support + 0.5)
    if antialias:  # leave out what is outside; torch without antialiasing repeats the edge instead
        first, last = np.maximum(first, 0), np.minimum(last, size)
    kernel = _bilinear if interpolation == "bilinear" else functools.partial(_bicubic, antialias=antialias)
    return Taps(kernel, stretch, size, resized, centre, first, last)


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0)
    return weights


def _bicubic(x: NDArray[np.float64], *, antialias: bool) -> NDArray[np.float64]:
    x = np.abs(x)
    a = -0.5 if antialias else -0.75  # Pillow's, and torch's without antialiasing
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def convolve_image(image: NDArray[np.uint8], taps: Taps, *, rounded: bool) -> NDArray[np.uint8] | NDArray[np.float64]:
    """Resample the columns of [M, inputs, C] to [C, M, n], some lines at a time, so that no copy of all is made."""
    channels = image.shape[2]
    out = np.empty((channels, len(image), len(taps.centre)), np.uint8 if rounded else np.float64)
    step = max(1, BAND // (channels * image.shape[1]))
    for begin in range(0, len(image), step):
        lines = image[begin : begin + step]
        planes = np.empty((channels, *lines.shape[:2]), np.uint8)
        for channel in range(channels):
            if channels == lines.strides[1] == 3:
                cv2.extractChannel(lines, channel, planes[channel])  # three times as fast as a transposed copy
            else:
                planes[channel] = lines[..., channel]
        out[:, begin : begin + step] = convolve(planes, taps, rounded=rounded)
    return out


def convolve_floats(plane: NDArray[Any], rows: Taps, columns: Taps) -> NDArray[np.float64]:
    """Resample a plane of any numbers, [H, W], to [h, w], with sums in float64 and nothing rounded between.

    Pillow's mode F rounds to float32 once more between the two axes.

    Args:
        plane: whose first row and column are the first that are in use.
        rows: what the rows of the result are made of.
        columns: what its columns are made of.
    """
    narrow = np.empty((len(plane), len(columns.centre)))
    step = max(1, BAND // (3 * plane.shape[1]))
    for begin in range(0, len(plane), step):
        lines = plane[begin : begin + step].astype(np.float64)
        narrow[begin : begin + step] = convolve(lines[None], columns, rounded=False, exact=True)[0]
    return np.asarray(convolve(narrow.T[None], rows, rounded=False, exact=True)[0].T, np.float64)


def convolve(
    planes: NDArray[np.uint8] | NDArray[np.float64], taps: Taps, *, rounded: bool, exact: bool = False
) -> NDArray[np.uint8] | NDArray[np.float64]:
    """Resample the last axis of [C, M, inputs] to [C, M, n], rounded to uint8 or left as float64.

    Products of bytes and 22-bit weights are integers far below 2**53, so a float64 matrix product sums them exactly,
    as Pillow's int32 arithmetic does. With `exact` the weights are those of `Taps.blocks`, for floats.
    """
    channels, lines = planes.shape[:2]
    out = np.empty((channels, lines, len(taps.centre)), np.uint8 if rounded else np.float64)
    for block, index, weights in taps.blocks(exact=exact):
        first, last = int(index.min()), int(index.max()) + 1
        outputs = len(index)
        cells = (index - first) * outputs + np.arange(outputs)[:, None]
        sums = np.bincount(cells.ravel(), weights.ravel(), (last - first) * outputs)
        matrix = np.asarray(sums, np.float64).reshape(-1, outputs)
        # A stack of products too small for BLAS to start threads, which would cost more than they bring.
        height = max(1, min(lines, _SERIAL // matrix.size))
        band = np.zeros((channels, -(-lines // height) * height, last - first))
        band[:, :lines] = planes[..., first:last]
        total = band.reshape(-1, height, last - first) @ matrix
        if not exact:
            total *= 2.0**-PRECISION
        if rounded:
            total = np.floor(total + 0.5).clip(0, 255)
        out[..., block] = total.reshape(channels, -1, outputs)[:, :lines]
    return out


def convolve_few(rows: NDArray[np.uint8], taps: Taps) -> NDArray[np.uint8]:
    """Resample the first axis of [inputs, ...] to [n, ...], rounded, where few inputs make an output.

    The arithmetic is Pillow's, in int32. Rows are whole vectors, so this is several times as fast as `convolve` up to
    `FEW` inputs; beyond, products of matrices win.
    """
    if taps.most == 1:
        return rows[int(taps.centre[0] - 0.5) - taps.first :][: len(taps.centre)]
    flat = rows.reshape(len(rows), -1)
    out = np.empty((len(taps.centre), flat.shape[1]), np.uint8)
    step = max(1, CELLS // flat.shape[1])
    for block, index, weights in taps.blocks(step):
        factors = weights.astype(np.int32)
        total = np.full((len(index), flat.shape[1]), 1 << PRECISION - 1, np.int32)
        for tap in range(index.shape[1]):
            total += flat[index[:, tap]] * factors[:, tap, None]
        total >>= PRECISION
        out[block] = total.clip(0, 255, out=total)
    return out.reshape(-1, *rows.shape[1:])


def convolve_few_both(image: NDArray[np.uint8], rows: Taps, columns: Taps, *, rows_first: bool) -> NDArray[np.uint8]:
    """Resample both axes of [H, W, C] to [C, h, w], where few pixels make one: columns first, unless `rows_first`."""
    if image.shape[2] == 1:
        image = image[..., 0]  # OpenCV leaves out the axis of a single channel
    if rows_first:
        image = convolve_few(image, rows)
    if columns.most > 1:  # a transposed copy, which OpenCV makes many times as fast
        turned = cv2.transpose(image).astype(np.uint8, copy=False)
        image = cv2.transpose(convolve_few(turned, columns)).astype(np.uint8, copy=False)
    else:
        image = convolve_few(image.swapaxes(0, 1), columns).swapaxes(0, 1)
    image = image if rows_first else convolve_few(image, rows)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
