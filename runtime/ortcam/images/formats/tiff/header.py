"""The header of a TIFF file: of its many varieties those that OpenCV decodes as Pillow does, the others by name."""

import functools
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from ortcam.images.formats.deflate import inflated_size
from ortcam.images.formats.header import DamagedError, Header, RefusedError, directory
from ortcam.images.formats.jpeg import walk_jpeg

__all__ = ["TAGS_OF_LAYOUT", "Layout", "check_layout", "walk_tiff"]

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT, _DNG = 322, 323, 324, 325, 338, 339, 50706
_BIT_ORDER, _ORIENTATION, _FEW, _MOST_PARTS, _MOST_TABLES = 266, 274, 16, 1 << 18, 1 << 16
# How many values each tag may have that decides what is decoded.
_TAGS: Final = {
    **dict.fromkeys((_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION), _FEW),
    **dict.fromkeys((_SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _DNG, _BIT_ORDER), _FEW),
    **dict.fromkeys((_BITS, _EXTRA, _FORMAT), 1 << 9),  # a value per sample, so that too many samples get their error
    **dict.fromkeys((_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS), _MOST_PARTS),
}
# Those of them that say where pixels lie: all that `check_layout` looks at.
TAGS_OF_LAYOUT: Final = {
    tag: _TAGS[tag] for tag in (_WIDTH, _HEIGHT, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _COUNTS)
} | dict.fromkeys((_TILE_OFFSETS, _TILE_COUNTS), _MOST_PARTS)
_JPEG_TABLES: Final = 347
# What else libtiff needs: options of CCITT, predictor, palette, inks, tables and colours of JPEG.
_NEEDED: Final = {
    **dict.fromkeys((292, 293, 317, 332, 529, 530, 531, 532), _FEW),
    320: 3 << 8,
    _JPEG_TABLES: _MOST_TABLES,
}
_FIELDS: Final = {1: 1, 3: 2, 4: 4, 5: 8, 7: 1}  # bytes of BYTE, SHORT, LONG, RATIONAL, UNDEFINED
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
# Bits a sample, and the fewest samples per pixel.
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
_LZW, _JPEG, _DEFLATE, _PACKBITS = 5, 7, (8, 32946), 32773
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
_MOST_RUNS: Final = 1 << 22  # of PackBits, which are counted in Python
_END_OF_LZW: Final = 257
_SLICE: Final = 1 << 16
# What each byte stands for, by the order of its bits.
_AS_STORED: Final = bytes(range(256))
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FORMATS: Final = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}


def walk_tiff(data: bytes) -> Header:
    """The header of the first image in a TIFF file.

    Raises:
        DamagedError: a tag is missing, twice there, or not of integers; strips or tiles lie, or end too early.
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
        raise RefusedError("a TIFF file whose first image is a preview (a raw photograph?)")
    photometric, bits = _check_samples(tags)
    layout = check_layout(tags, len(data), width, height)
    rows, columns = (layout.rows * layout.down, layout.columns * layout.across) if layout.tiled else (height, width)
    flaw, coefficients = _walk_jpegs(data, layout) if tags.get(_COMPRESSION, (1,))[0] == _JPEG else ("", 0)
    return Header(
        kind="TIFF",
        width=width,
        height=height,
        decoded_pixels=rows * columns,
        orientation=tags.get(_ORIENTATION, (1,))[0],
        payload=_with_needed_tags(data, tags),
        working=_working(layout, bits) + coefficients,
        deep=bits > 8,
        flaw=flaw,
        check=functools.partial(_check_parts, data, tags, layout),
        white_unknown=bits == 16,
        # libtiff turns the others to black is 0 itself.
        inverted=photometric == _WHITE_IS_ZERO and bits > 8,
    )


def _check_samples(tags: dict[int, tuple[int, ...]]) -> tuple[int, int]:
    """The photometric interpretation and the bits per sample of an image that is accepted."""
    photometric = tags.get(_PHOTOMETRIC, (-1,))[0]
    if photometric not in _COLOURS:
        unknown = f"a TIFF file of unknown colours (photometric interpretation {photometric})"
        raise RefusedError(_OTHER_COLOURS.get(photometric, unknown))
    for number in set(tags.get(_FORMAT, (1,))) - {1}:
        raise RefusedError(f"a TIFF file of {_FORMATS.get(number, f'samples of format {number}')}", "unsigned integers")
    accepted, fewest = _COLOURS[photometric]
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, (1,))[0]
    if len(set(bits)) > 1 or bits[0] not in accepted:
        stored = f"a TIFF file of {_numbers(set(bits))} bits per sample"
        raise RefusedError(stored, f"for its colours {_numbers(accepted)}")
    most = min(fewest + 1, 4)
    if not fewest <= samples <= most:
        raise RefusedError(f"a TIFF file of {samples} samples per pixel", f"for its colours {_numbers({fewest, most})}")
    if samples == 2 and bits[0] > 8:  # OpenCV would decode them at 8 bits, whatever white is
        raise RefusedError(f"a TIFF file of grey and alpha of {bits[0]} bits per sample", "1, 8")
    if samples > 1 and bits[0] > 8 and tags.get(_PLANAR, (1,))[0] == 2:
        # OpenCV takes the first plane for all of them, and what lies in memory behind it.
        raise RefusedError(
            f"a TIFF file of {bits[0]} bits per sample in separate planes", "the samples of a pixel together"
        )
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        named = _OTHER_COMPRESSIONS.get(compression, f"compression {compression}")
        raise RefusedError(f"a TIFF file compressed by {named}", "none, LZW, deflate, PackBits, JPEG, CCITT")
    return photometric, bits[0]


def _numbers(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


@dataclass(frozen=True)
class Layout:
    """Strips or tiles: pixels of each, how many there are, their samples per pixel, and where they lie.

    Attributes:
        tiled: whether they are tiles, which all have the same size.
        across: columns of one.
        down: rows of one; the last strip of a plane may have fewer.
        columns: how many are side by side.
        rows: how many are one below the other.
        planes: 1, or the samples per pixel where each is stored for itself; parts of a plane come together.
        samples: per pixel, of one plane.
        height: rows of the image.
        places: offset and bytes of each.
    """

    tiled: bool
    across: int
    down: int
    columns: int
    rows: int
    planes: int
    samples: int
    height: int
    places: tuple[tuple[int, int], ...]

    def rows_of(self, index: int) -> int:
        """Rows that a part holds: the last strip of a plane may be shorter."""
        row = index // self.columns % self.rows
        return self.down if self.tiled else min(self.down, self.height - row * self.down)


def check_layout(tags: dict[int, tuple[int, ...]], size: int, width: int, height: int) -> Layout:
    """How the pixels are stored.

    Raises:
        DamagedError: strips or tiles are missing, empty, or more than the file holds.
        struct.error: one of them lies outside the file.
    """
    tiled = _TILE_WIDTH in tags
    if tiled:
        across, down = tags[_TILE_WIDTH][0], tags.get(_TILE_HEIGHT, (0,))[0]
    else:
        across, down = width, min(tags.get(_ROWS, (height,))[0], height)
    if not across or not down:
        raise DamagedError(f"its strips or tiles have {across} x {down} pixels")
    columns, rows = -(-width // across), -(-height // down)
    samples = tags.get(_SAMPLES, (1,))[0]
    planes = samples if tags.get(_PLANAR, (1,))[0] == 2 else 1
    offsets = tags.get(_TILE_OFFSETS if tiled else _OFFSETS, ())
    counts = tags.get(_TILE_COUNTS if tiled else _COUNTS, ())
    parts = columns * rows * planes
    if len(offsets) < parts or len(counts) < len(offsets):
        missing = f"{len(offsets)} offsets and {len(counts)} sizes for {parts} strips or tiles"
        raise DamagedError(f"it gives {missing}")
    places = tuple(zip(offsets[:parts], counts, strict=False))
    if any(offset + count > size for offset, count in places):
        raise struct.error
    if not all(count for _, count in places):
        raise DamagedError("one of its strips or tiles has no bytes")
    if sum(count for _, count in places) > size:  # each is decoded for itself, however many lie at one place
        raise DamagedError(f"its {parts} strips or tiles have more bytes than the file, so they overlap")
    return Layout(tiled, across, down, columns, rows, planes, samples // planes, height, places)


def _working(layout: Layout, bits: int) -> int:
    """Bytes that libtiff and OpenCV need for one strip or tile, beside the image that it has not been written to yet.

    It lies in memory as it is in the file, as it is stored, and as RGBA, or with 16 bits per sample.
    """
    pixels, samples = layout.across * layout.down, layout.samples * layout.planes
    encoded = max(count for _, count in layout.places)
    if bits > 8:
        return max(encoded + pixels * samples * (2 if bits == 16 else 4) - 6 * pixels, 0)
    return max(encoded + pixels * samples - 3 * pixels, 0) + 4 * pixels


def _walk_jpegs(data: bytes, layout: Layout) -> tuple[str, int]:
    """What is wrong with the scans of JPEGs in strips or tiles, "" for nothing, and the most bytes of coefficients.

    Raises:
        DamagedError: one is truncated or damaged, or larger than its strip or tile.
        RefusedError: one is of a variety that is not accepted.
    """
    flaw, coefficients = "", 0
    for index, (offset, count) in enumerate(layout.places):
        inner = _walk_part(data[offset : offset + count], index)
        if inner.width > layout.across or inner.height > layout.down:
            raise DamagedError(
                f"its strip or tile {index} of {layout.across} x {layout.down} pixels holds "
                f"{inner.width} x {inner.height}"
            )
        flaw, coefficients = flaw or inner.flaw, max(coefficients, inner.working)
    return flaw, coefficients


def _check_parts(data: bytes, tags: dict[int, tuple[int, ...]], layout: Layout) -> str:
    """Find out whether strips and tiles hold all their pixels, which libtiff would fill in with black in silence.

    Returns:
        What is wrong with them; "" where nothing was found. Of CCITT and JPEG nothing is.

    Raises:
        DamagedError: one ends before its pixels do.
    """
    compression, bits = tags.get(_COMPRESSION, (1,))[0], tags.get(_BITS, (1,))[0]
    if tags.get(_PHOTOMETRIC, (1,))[0] == _YCBCR:
        return ""  # fewer samples of colour than pixels
    order = _REVERSED if tags.get(_BIT_ORDER, (1,))[0] == 2 else _AS_STORED
    flaw, budget = "", _MOST_RUNS
    for index, (offset, count) in enumerate(layout.places):
        needed = layout.rows_of(index) * -(-layout.across * layout.samples * bits // 8)
        part, whole = memoryview(data)[offset : offset + count], True
        if compression == 1:
            whole = count >= needed
        elif compression in _DEFLATE:
            whole = _inflates(part, needed, order)
        elif compression == _PACKBITS:
            whole, budget = _unpacks(part, needed, budget, order)
        elif compression == _LZW and not flaw and not _is_ended(bytes(part[-5:]).translate(order)):
            flaw = f"its strip or tile {index} ends without its end code"
        if not whole:
            raise DamagedError(f"its strip or tile {index} ends before its {needed} bytes of pixels do")
    return flaw


def _walk_part(part: bytes, index: int) -> Header:
    try:
        return walk_jpeg(part)
    except (struct.error, IndexError):
        raise DamagedError(f"the JPEG in its strip or tile {index} is truncated") from None
    except DamagedError as error:
        raise DamagedError(f"the JPEG in its strip or tile {index}: {error}") from None


def _inflates(part: memoryview, needed: int, order: bytes) -> bool:
    """Whether so many bytes come of a deflated part."""
    slices = (bytes(part[first : first + _SLICE]).translate(order) for first in range(0, len(part), _SLICE))
    try:
        return inflated_size(map(memoryview, slices), needed - 1) >= needed
    except zlib.error:
        return False


def _unpacks(part: memoryview, needed: int, budget: int, order: bytes) -> tuple[bool, int]:
    """Whether so many bytes come of runs of PackBits, and how many more runs may be looked at; then all is believed."""
    position, end = 0, len(part)
    while needed > 0 and budget > 0:
        if position >= end:
            return False, budget
        length = order[part[position]]
        if length < 128:
            position += length + 2
            needed -= length + 1
            if position > end:
                return False, budget
        elif length > 128:
            position += 2
            needed -= 257 - length
            if position > end:
                return False, budget
        else:
            position += 1
        budget -= 1
    return True, budget


def _is_ended(last: bytes) -> bool:
    """Whether a part that LZW compressed may end so: with the code 257 of 9 to 12 bits, and zeros to fill a byte."""
    for tail in (last, last.rstrip(b"\0")):
        number = int.from_bytes(tail)
        for spare in range(8):
            if number & ((1 << spare) - 1):
                break
            if any(number >> spare & ((1 << bits) - 1) == _END_OF_LZW for bits in range(9, 13)):
                return True
    return False


def _with_needed_tags(data: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """The file with a directory of those tags alone that decide what is decoded, which were looked at.

    libtiff would read all others, too, make copies of their values, and follow the chain of directories. Alpha is
    declared as a sample of no meaning, so that libtiff does not composite it on black. Associated alpha stays: its
    colours are composited as they are stored. `read_image` turns the image: OpenCV would mirror each tile and leave
    it where it is.

    Raises:
        DamagedError: a tag is twice there, or has too many values.
        struct.error: values lie outside the data.
    """
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries: dict[int, bytes] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, at)
        if tag == _EXTRA and tags.get(_EXTRA) == (2,):
            entries[tag] = struct.pack(order + "HHIHH", tag, 3, 1, 0, 0)
        elif tag in tags and tag != _ORIENTATION and kind in {1, 3, 4}:
            entries[tag] = bytes(data[at : at + 12])
        elif tag in _NEEDED and kind in _FIELDS and number:
            if tag in entries:
                raise DamagedError(f"it has tag {tag} twice")
            if number > _NEEDED[tag]:
                raise DamagedError(f"its tag {tag} has {number} values, more than {_NEEDED[tag]}")
            size = _FIELDS[kind] * number
            if size > 4 and struct.unpack_from(order + "I", data, at + 8)[0] + size > len(data):
                raise struct.error
            entries[tag] = bytes(data[at : at + 12])
    new = len(data) + len(data) % 2
    listed = b"".join(entries[tag] for tag in sorted(entries))
    added = bytes(len(data) % 2) + struct.pack(order + "H", len(entries)) + listed + bytes(4)
    return b"".join([data[:4], struct.pack(order + "I", new), memoryview(data)[8:], added])
