"""What a TIFF file of any number of bands says of itself: type of its samples, layout, compression, nodata."""

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ortcam.errors import ImageError
from ortcam.images.formats.header import DamagedError, RefusedError, directory
from ortcam.images.formats.tiff.header import TAGS_OF_LAYOUT, Layout, check_layout
from ortcam.images.formats.tiff.parts import DEFLATE, LZW, NONE, PACKBITS

__all__ = ["BandsHeader", "is_tiff", "read_bands_header", "walk_bands"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _BIT_ORDER, _ORIENTATION = 256, 257, 258, 259, 262, 266, 274
_SAMPLES, _PREDICTOR, _EXTRA, _FORMAT, _NODATA = 277, 317, 338, 339, 42113
_FEW: Final = 16
_MOST_SAMPLES: Final = 1 << 9
_TAGS: Final = {
    **TAGS_OF_LAYOUT,
    **dict.fromkeys((_COMPRESSION, _PHOTOMETRIC, _BIT_ORDER, _ORIENTATION, _PREDICTOR), _FEW),
    **dict.fromkeys((_BITS, _EXTRA, _FORMAT), _MOST_SAMPLES),
    _NODATA: 64,
}
_INTEGERS: Final = frozenset({1, 3, 4, 16})  # BYTE, SHORT, LONG, LONG8
_TEXT: Final = frozenset({2})
_KINDS: Final = {1: "u", 2: "i", 3: "f", 4: "u"}  # by SampleFormat; 4 is "undefined"
_DEPTHS: Final = {"u": (1, 2, 4, 8, 10, 12, 14, 16, 32), "i": (8, 16, 32), "f": (16, 32, 64)}
_FORMATS: Final = {5: "complex integers", 6: "complex numbers"}
_NAMES: Final = {"u": "unsigned integers", "i": "signed integers", "f": "floating-point numbers"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COMPRESSIONS: Final = {NONE, LZW, PACKBITS, *DEFLATE}
_NO_PREDICTOR, _DIFFERENCES, _FLOATS = 1, 2, 3
_ALPHA: Final = {1, 2}  # associated and unassociated, in ExtraSamples


@dataclass(frozen=True, kw_only=True)
class BandsHeader:
    """A TIFF file of bands before it is decoded.

    Attributes:
        width: columns as they are stored, before `orientation`.
        height: rows as they are stored.
        bands: samples per pixel, alpha included.
        alpha: whether the last band is declared as alpha.
        colours: whether the first three bands are declared as red, green and blue.
        inks: whether the first four are declared as cyan, magenta, yellow and black.
        dtype: of samples as they are in the file, with its byte order; of 8 or 16 bits where `bits` are fewer.
        bits: per sample.
        compression: number in TIFF.
        predictor: 1 for none, 2 for differences, 3 for floating-point differences.
        reverse_bits: whether bytes are filled from their lowest bit.
        inverted: whether 0 is white.
        orientation: 1 to 8.
        nodata: the value that GDAL wrote for "no data here"; None where it wrote none.
        layout: strips or tiles.
    """

    width: int
    height: int
    bands: int
    alpha: bool
    colours: bool
    inks: bool
    dtype: np.dtype[Any]
    bits: int
    compression: int
    predictor: int
    reverse_bits: bool
    inverted: bool
    orientation: int
    nodata: float | None
    layout: Layout

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of one strip or tile."""
        return -(-self.layout.across * self.layout.samples * self.bits // 8)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all strips or tiles when they are decompressed, those beyond the edge included."""
        layout = self.layout
        rows = layout.down * layout.rows if layout.tiled else self.height
        return self.row_bytes * layout.columns * rows * layout.planes

    @property
    def stored_pixels(self) -> int:
        """Pixels of all strips or tiles of a plane, those beyond the edge included."""
        layout = self.layout
        return layout.across * layout.columns * (layout.down * layout.rows if layout.tiled else self.height)


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as TIFF or BigTIFF does."""
    return data[:4] in {b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"}


def read_bands_header(data: bytes, name: str) -> BandsHeader | None:
    """As `walk_bands`.

    Args:
        data: of the file.
        name: of it, for messages.

    Raises:
        ImageError: it is truncated, damaged or of a variety that is not accepted.
    """
    try:
        return walk_bands(data)
    except struct.error:
        raise ImageError(f"{name} is truncated: the file ends after {len(data)} bytes, before its image does") from None
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    except RefusedError as error:
        raise ImageError(f"{name} is {error}: save its bands as a .npy array [H, W, C]") from None


def walk_bands(data: bytes) -> BandsHeader | None:
    """The header of the first image in a TIFF or BigTIFF file.

    Returns:
        None where its colours or its compression are among those that only pictures of 8 bits have: palettes, YCbCr,
        JPEG, CCITT. `walk_tiff` knows them.

    Raises:
        DamagedError: a tag is missing, twice there, or not of integers; strips or tiles lie, or end too early.
        RefusedError: a variety that is not accepted.
        struct.error: the directory or the pixels lie outside the data.
    """
    big = data[2:4] in {b"\x2b\0", b"\0\x2b"}
    tags = directory(data, {tag: most for tag, most in _TAGS.items() if tag != _NODATA}, kinds=_INTEGERS, big=big)
    width, height = (tags.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
    if not width or not height:
        raise DamagedError("its directory gives no width and height as whole numbers")
    bands = tags.get(_SAMPLES, (1,))[0]
    compression, photometric = tags.get(_COMPRESSION, (1,))[0], tags.get(_PHOTOMETRIC, (1,))[0]
    if compression in {2, 3, 4, 7} or photometric in {3, 6}:
        return None
    if photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK}:
        raise RefusedError(f"a TIFF file of colours of its own (photometric interpretation {photometric})")
    if not 1 <= bands <= _MOST_SAMPLES:
        raise RefusedError(f"a TIFF file of {bands} bands", f"1 to {_MOST_SAMPLES}")
    if compression not in _COMPRESSIONS:
        raise RefusedError(f"a TIFF file of compression {compression}", "none, LZW, deflate, PackBits")
    dtype, bits = _type_of_samples(tags, "<" if data[:2] == b"II" else ">")
    inverted = photometric == _WHITE_IS_ZERO
    if inverted and dtype.kind != "u":
        raise RefusedError(f"a TIFF file of {_NAMES[dtype.kind]} whose 0 is white")
    return BandsHeader(
        width=width,
        height=height,
        bands=bands,
        alpha=bands > 1 and tags.get(_EXTRA, (0,))[-1] in _ALPHA,
        colours=photometric == _RGB and bands >= 3,
        inks=photometric == _CMYK,
        dtype=dtype,
        bits=bits,
        compression=compression,
        predictor=_predictor(tags, dtype, bits),
        reverse_bits=tags.get(_BIT_ORDER, (1,))[0] == 2,
        inverted=inverted,
        orientation=tags.get(_ORIENTATION, (1,))[0],
        nodata=_nodata(data, big=big),
        layout=check_layout(tags, len(data), width, height),
    )


def _type_of_samples(tags: dict[int, tuple[int, ...]], order: str) -> tuple[np.dtype[Any], int]:
    """The type that samples are stored as, and their bits."""
    formats, depths = set(tags.get(_FORMAT, (1,))), set(tags.get(_BITS, (1,)))
    if len(formats) > 1 or len(depths) > 1:
        raise RefusedError("a TIFF file whose bands have different types", "one type for all bands")
    number, bits = formats.pop(), depths.pop()
    kind = _KINDS.get(number)
    if kind is None:
        raise RefusedError(f"a TIFF file of {_FORMATS.get(number, f'samples of format {number}')}", _accepted_types())
    if bits not in _DEPTHS[kind]:
        raise RefusedError(f"a TIFF file of {_NAMES[kind]} of {bits} bits", _accepted_types())
    stored = bits if bits in {8, 16, 32, 64} else 8 if bits < 8 else 16
    return np.dtype(f"{order}{kind}{stored // 8}"), bits


def _accepted_types() -> str:
    return "; ".join(f"{_NAMES[kind]} of {', '.join(map(str, depths))} bits" for kind, depths in _DEPTHS.items())


def _predictor(tags: dict[int, tuple[int, ...]], dtype: np.dtype[Any], bits: int) -> int:
    predictor = tags.get(_PREDICTOR, (1,))[0]
    if tags.get(_COMPRESSION, (1,))[0] not in {LZW, *DEFLATE} or predictor == _NO_PREDICTOR:
        return _NO_PREDICTOR  # libtiff, too, applies none to what has no compression that knows of them
    known = predictor == _DIFFERENCES and bits in {8, 16, 32, 64}
    if not known and not (predictor == _FLOATS and dtype.kind == "f"):
        raise RefusedError(f"a TIFF file of predictor {predictor} with {_NAMES[dtype.kind]} of {bits} bits")
    return predictor


def _nodata(data: bytes, *, big: bool) -> float | None:
    try:
        text = bytes(directory(data, {_NODATA: _TAGS[_NODATA]}, kinds=_TEXT, unique=False, big=big).get(_NODATA, ()))
        value = float(text.rstrip(b"\0 ").decode("ascii"))
    except (DamagedError, struct.error, ValueError):
        return None  # metadata that say nothing
    return None if math.isnan(value) else value  # samples that are not a number are refused anyway
