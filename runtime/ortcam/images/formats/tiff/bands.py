"""TIFF files of any number of bands become arrays: strips and tiles, planes together or apart, predictors undone."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.formats.header import DamagedError, RefusedError
from ortcam.images.formats.tiff.bands_header import BandsHeader
from ortcam.images.formats.tiff.parts import decompressed, parts_at_once
from ortcam.images.limits import SPARE, check_memory, check_pixels, too_large

__all__ = ["check_bands", "check_nodata", "decode_bands", "read_bands"]

_GROUP: Final = 1 << 24  # bytes, as `parts_at_once` has it
_WHOLE: Final = {8, 16, 32, 64}  # bits of samples that fill bytes
_DIFFERENCES, _FLOATS = 2, 3


def check_bands(header: BandsHeader, encoded: int, dtype: np.dtype[Any], name: str, max_pixels: int) -> None:
    """Refuse a file that has, or is decoded as, more pixels than allowed, or takes more memory.

    Args:
        header: of the file.
        encoded: its bytes.
        dtype: that samples are cast to.
        name: of the file, for messages.
        max_pixels: as of `read_image`.

    Raises:
        ImageError: it does; the message says which limit lets it pass.
    """
    check_pixels(header.height, header.width, name, max_pixels)
    layout = header.layout
    part = layout.down * header.row_bytes
    group = min(max(part, _GROUP), part * len(layout.places))
    unpacked = 0 if header.bits in _WHOLE else 20 * layout.across * layout.samples
    working = 3 * group + unpacked + max(count for _, count in layout.places)
    result = header.width * header.height * header.bands * dtype.itemsize
    copies = 2 if header.alpha or header.orientation in range(2, 9) else 1
    memory = SPARE + max(encoded + result + working, copies * result, header.stored_bytes)
    if header.stored_pixels > max_pixels:
        size = header.width, header.height, header.stored_pixels
        raise ImageError(too_large(name, *size, max_pixels, memory))
    said = f"{name} is a TIFF file of {header.width} x {header.height} pixels and {header.bands} bands that"
    check_memory(memory, said, max_pixels)


def decode_bands(data: bytes, header: BandsHeader, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """As `read_bands`.

    Raises:
        ImageError: the file is damaged, or OpenCV cannot decompress it.
    """
    try:
        return read_bands(data, header, dtype)
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    except RefusedError as error:
        raise ImageError(f"{name} is {error}: save its bands as a .npy array [H, W, C]") from None


def check_nodata(
    samples: NDArray[Any], nodata: float | None, value_range: tuple[float, float] | None, name: str
) -> None:
    """Refuse samples that stand for "no data here", where they are no values of the range that a model takes.

    Args:
        samples: of any type.
        nodata: what the file says that they are; None where it says nothing.
        value_range: of the model.
        name: of the file, for messages.

    Raises:
        ImageError: there are such samples.
    """
    if nodata is None or value_range is None or value_range[0] <= nodata <= value_range[1]:
        return
    if samples.dtype.kind in "ui" and not np.iinfo(samples.dtype).min <= nodata <= np.iinfo(samples.dtype).max:
        return
    found = int(np.count_nonzero(samples == samples.dtype.type(nodata)))
    if found:
        raise ImageError(
            f"{name} has {found} samples of {nodata:g}, which it declares as no data: fill them in first, and save it "
            "as .npy"
        )


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
            beside = min(count, layout.columns)
            tiles = samples.reshape(-1, beside, rows, layout.across, layout.samples).swapaxes(1, 2)
            samples = tiles.reshape(-1, beside * layout.across, layout.samples)
        target = image[top : top + len(samples), left : left + samples.shape[1], bands]
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = samples[: target.shape[0], : target.shape[1]]
    return image


def _groups(header: BandsHeader) -> Iterator[tuple[int, int, int]]:
    """First part, number of parts and rows of each of them, for parts that are decompressed together.

    Tiles of a group are side by side, or fill some rows of tiles. Strips of a group lie one below the other, and have
    equally many rows.
    """
    layout = header.layout
    most = parts_at_once(layout.down * header.row_bytes, header.compression)
    if layout.tiled:
        deep, wide = max(most // layout.columns, 1), min(most, layout.columns)
        for start in range(0, layout.planes * layout.rows, layout.rows):
            for row in range(0, layout.rows, deep):
                for column in range(0, layout.columns, wide):
                    tiles = min(wide, layout.columns - column) * min(deep, layout.rows - row)
                    yield (start + row) * layout.columns + column, tiles, layout.down
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
    if header.bits not in _WHOLE:
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
