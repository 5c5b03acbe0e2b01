"""The header of a TIFF file: of its many varieties those that OpenCV decodes as Pillow does, the others by name."""

import struct
from typing import Final

from ortcam.image_header import DamagedError, Header, RefusedError, directory

__all__ = ["walk_tiff"]

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT, _DNG = 322, 323, 324, 325, 338, 339, 50706
_TAGS: Final = {
    *(_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _COUNTS),
    *(_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT, _DNG),
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
# Bits a sample, and the fewest samples a pixel.
_COLOURS: Final = {
    _WHITE_IS_ZERO: ({1, 8, 10, 12, 14, 16}, 1),
    _BLACK_IS_ZERO: ({1, 8, 10, 12, 14, 16}, 1),
    _RGB: ({8, 10, 12, 14, 16}, 3),
    _PALETTE: ({1, 2, 4, 8}, 1),
    _CMYK: ({8}, 4),
    _YCBCR: ({8}, 3),
}
_OTHER_COLOURS: Final = {
    4: "a transparency mask",
    **dict.fromkeys((8, 9, 10), "a TIFF file of CIE L*a*b* colours"),
    32803: "a raw photograph (colour filter array)",
    34892: "a raw photograph (linear)",
    **dict.fromkeys((32844, 32845), "a TIFF file of logarithmic luminance (LogLuv)"),
}
_COMPRESSIONS: Final = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # none, CCITT, LZW, JPEG, deflate, PackBits
_OTHER_COMPRESSIONS: Final = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_FORMATS: Final = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}


def walk_tiff(data: bytes) -> Header:
    """The header of the first picture in a TIFF file.

    Raises:
        DamagedError: a tag is missing, twice there, or not of integers.
        RefusedError: a variety that is not accepted.
        struct.error: the directory or the pixels lie outside the data.
    """
    if data[2:4] in {b"\x2b\0", b"\0\x2b"}:
        raise RefusedError("a BigTIFF file")
    tags = directory(data, _TAGS)
    width, height = (tags.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
    if not width or not height:
        raise DamagedError("its directory gives no width and height as whole numbers")
    if _DNG in tags:
        raise RefusedError("a DNG raw photograph")
    if tags.get(_SUBFILE, (0,))[0] & 1 or tags.get(_OLD_SUBFILE, (1,))[0] == 2:
        raise RefusedError("a TIFF file whose first picture is a preview (a raw photograph?)")
    photometric, bits = _check_samples(tags)
    rows, columns = _check_layout(tags, len(data), width, height)
    return Header(
        kind="TIFF",
        width=width,
        height=height,
        decoded_pixels=rows * columns,
        payload=_without_alpha(data, tags),
        white_unknown=bits == 16,
        # libtiff turns the others to black is 0 itself.
        inverted=photometric == _WHITE_IS_ZERO and bits > 8,
    )


def _check_samples(tags: dict[int, tuple[int, ...]]) -> tuple[int, int]:
    """The photometric interpretation and the bits a sample of a picture that is accepted."""
    photometric = tags.get(_PHOTOMETRIC, (-1,))[0]
    if photometric not in _COLOURS:
        unknown = f"a TIFF file of unknown colours (photometric interpretation {photometric})"
        raise RefusedError(_OTHER_COLOURS.get(photometric, unknown))
    for number in set(tags.get(_FORMAT, (1,))) - {1}:
        raise RefusedError(f"a TIFF file of {_FORMATS.get(number, f'samples of format {number}')}", "unsigned integers")
    accepted, fewest = _COLOURS[photometric]
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, (1,))[0]
    if len(set(bits)) > 1 or bits[0] not in accepted:
        stored = f"a TIFF file of {_numbers(set(bits))} bits a sample"
        raise RefusedError(stored, f"for its colours {_numbers(accepted)}")
    most = min(fewest + 1, 4)
    if not fewest <= samples <= most:
        raise RefusedError(f"a TIFF file of {samples} samples a pixel", f"for its colours {_numbers({fewest, most})}")
    if samples == 2 and bits[0] > 8:  # OpenCV would decode them at 8 bits, whatever white is
        raise RefusedError(f"a TIFF file of grey and alpha of {bits[0]} bits a sample", "1, 8")
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        named = _OTHER_COMPRESSIONS.get(compression, f"compression {compression}")
        raise RefusedError(f"a TIFF file that is compressed by {named}", "none, LZW, deflate, PackBits, JPEG, CCITT")
    return photometric, bits[0]


def _numbers(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _check_layout(tags: dict[int, tuple[int, ...]], size: int, width: int, height: int) -> tuple[int, int]:
    """Rows and columns that the decoder makes: those of the picture, or of all its tiles.

    Raises:
        DamagedError: strips or tiles are missing.
        struct.error: one of them lies outside the file.
    """
    tiled = _TILE_WIDTH in tags
    if tiled:
        across, down = tags[_TILE_WIDTH][0], tags.get(_TILE_HEIGHT, (0,))[0]
    else:
        across, down = width, min(tags.get(_ROWS, (height,))[0], height)
    if not across or not down:
        raise DamagedError(f"its strips or tiles are of {across} x {down} pixels")
    columns, rows = -(-width // across), -(-height // down)
    planes = tags.get(_SAMPLES, (1,))[0] if tags.get(_PLANAR, (1,))[0] == 2 else 1
    offsets = tags.get(_TILE_OFFSETS if tiled else _OFFSETS, ())
    counts = tags.get(_TILE_COUNTS if tiled else _COUNTS, ())
    if len(offsets) < columns * rows * planes or len(counts) < len(offsets):
        missing = f"{len(offsets)} places and {len(counts)} sizes of {columns * rows * planes} strips or tiles"
        raise DamagedError(f"it gives {missing}")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=False)):
        raise struct.error
    return (rows * down, columns * across) if tiled else (height, width)


def _without_alpha(data: bytes, tags: dict[int, tuple[int, ...]]) -> bytes | None:
    """The file with its alpha declared as a sample of no meaning, so that libtiff does not composite it on black.

    Associated alpha stays: its colours are composited as they are stored.
    """
    if tags.get(_EXTRA) != (2,):
        return None
    order = "<" if data[:2] == b"II" else ">"
    entry = struct.pack(order + "HHI", _EXTRA, 3, 1)
    (start,) = struct.unpack_from(order + "I", data, 4)
    at = data.index(entry, start) + len(entry)
    return data[:at] + bytes(4) + data[at + 4 :]
