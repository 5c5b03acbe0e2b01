"""TIFF files of any number of bands become arrays: strips and tiles, planes together or apart, predictors undone."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.images.formats.tiff.parts import decompressed, parts_at_once
from ortcam.images.formats.tiff.bands_header import BandsHeader

__all__ = ["read_bands", "working_memory"]

_GROUP: Final = 1 << 24  # bytes, as `parts_at_once` has it
_DIFFERENCES, _FLOATS = 2, 3


def working_memory(header: BandsHeader) -> int:
    """Bytes that decoding takes beside the file and its result: one group of parts in all its forms."""
    part = header.layout.down * header.row_bytes
    group = min(max(part, _GROUP), part * len(header.layout.places))
    encoded = max(count for _, count in header.layout.places)
    return 3 * group + encoded + (0 if header.bits in {8, 16, 32, 64} else 16 * header.width * header.layout.samples)


def read_bands(data: bytes, header: BandsHeader, dtype: np.dtype[Any]) -> NDArray[Any]:
    """All bands of a file whose header has been read, not turned.

    Args:
        data: of the file.
        header: of it.
        dtype: that samples are cast to.

    Returns:
        [height, width, bands] of `dtype`.

    Raises:
        DamagedError: a strip or tile is damaged or ends too early.
        RefusedError: OpenCV cannot decompress its parts.
    """
    image = np.empty((header.height, header.width, header.bands), dtype)
    layout = header.layout
    for first, count, rows in _groups(header):
        places = layout.places[first : first + count]
        raw = decompressed(
            [memoryview(data)[offset : offset + length] for offset, length in places],
            rows * header.row_bytes,
            header.compression,
            reverse_bits=header.reverse_bits,
        )
        samples = _samples(raw.reshape(count * rows, header.row_bytes), header)
        plane, within = divmod(first, layout.columns * layout.rows)
        row, column = divmod(within, layout.columns)
        top, left = row * layout.down, column * layout.across
        bands = slice(None) if layout.planes == 1 else slice(plane, plane + 1)
        if layout.tiled:
            beside = samples.reshape(count, rows, layout.across, layout.samples).transpose(1, 0, 2, 3)
            samples = beside.reshape(rows, count * layout.across, layout.samples)
        target = image[top : top + len(samples), left : left + samples.shape[1], bands]
        with np.errstate(over="ignore"):
            target[...] = samples[: target.shape[0], : target.shape[1]]
    return image


def _groups(header: BandsHeader) -> Iterator[tuple[int, int, int]]:
    """First part, number of parts and rows of each of them, for parts that are decompressed together.

    Tiles of a group are side by side. Strips of a group lie one below the other, and have equally many rows.
    """
    layout = header.layout
    most = parts_at_once(layout.down * header.row_bytes, header.compression)
    if layout.tiled:
        for start in range(0, len(layout.places), layout.columns):
            for first in range(0, layout.columns, most):
                yield start + first, min(most, layout.columns - first), layout.down
        return
    for start in range(0, layout.planes * layout.rows, layout.rows):
        last = layout.rows - 1
        for first in range(0, last, most):
            yield start + first, min(most, last - first), layout.down
        yield start + last, 1, layout.rows_of(start + last)


def _samples(raw: NDArray[np.uint8], header: BandsHeader) -> NDArray[Any]:
    """The samples in rows of bytes, which may be overwritten: [rows, columns, samples], in the machine's byte order."""
    layout, dtype = header.layout, header.dtype
    shape = (len(raw), layout.across, layout.samples)
    if header.bits not in {8, 16, 32, 64}:
        samples = _unpacked(raw, header)
    elif header.predictor == _FLOATS:
        steps = raw.reshape(len(raw), -1, layout.samples)
        np.cumsum(steps, axis=1, dtype=np.uint8, out=steps)
        planes = raw.reshape(len(raw), dtype.itemsize, -1)  # the first has the highest byte of each sample
        big_endian = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
        samples = big_endian.astype(dtype.newbyteorder("="))
    else:
        samples = raw.view(dtype)
        if not dtype.isnative:
            samples = samples.byteswap(inplace=True).view(dtype.newbyteorder("="))
        if header.predictor == _DIFFERENCES:
            steps = samples.view(f"u{dtype.itemsize}").reshape(shape)
            np.cumsum(steps, axis=1, dtype=steps.dtype, out=steps)
    samples = samples.reshape(shape)
    if header.inverted:
        np.subtract((1 << header.bits) - 1, samples, out=samples)
    return samples


def _unpacked(raw: NDArray[np.uint8], header: BandsHeader) -> NDArray[Any]:
    """Samples of a number of bits that fill no bytes, row by row: uint8 or uint16 [rows, columns * samples]."""
    count = header.layout.across * header.layout.samples
    found = np.empty((len(raw), count), header.dtype.newbyteorder("="))
    weights = 1 << np.arange(header.bits - 1, -1, -1, dtype=found.dtype)
    for row, packed in zip(found, raw, strict=True):
        bits = np.unpackbits(packed, count=count * header.bits).reshape(count, header.bits)
        row[:] = bits @ weights
    return found
