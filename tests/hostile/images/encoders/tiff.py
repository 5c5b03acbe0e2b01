"""TIFF: directories, strips, tiles."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

from tests.hostile.images.bomb import deflated

TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 9: "i", 16: "Q"}


STORED, LZW, OF_JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773


Tag = tuple[int, int, Sequence[int]]


def tiff(body: bytes, tags: Sequence[Tag], *, following: int = 0, sorted_tags: bool = True) -> bytes:
    """A TIFF of a body, which starts at 8, and the directory behind it."""
    entries, values = b"", b""
    start = 8 + len(body)
    for tag, kind, numbers in sorted(tags, key=lambda tag: tag[0]) if sorted_tags else tags:
        raw = struct.pack(f"<{len(numbers)}{TYPES[kind]}", *numbers)
        if len(raw) > 4:
            place = struct.pack("<I", start + len(values))
            values += raw + bytes(len(raw) % 2)
            raw = place
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + raw.ljust(4, b"\0")
    begin = start + len(values)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", begin) + body + values + directory


def tiff_tags(
    width: int,
    height: int,
    strips: Sequence[tuple[int, int]],
    *,
    bits: int = 8,
    samples: int = 3,
    compression: int = DEFLATE,
    rows: int | None = None,
    photometric: int | None = None,
    replaced: Sequence[Tag] = (),
) -> list[Tag]:
    """The usual tags; `strips` are places and lengths, `replaced` tags take the place of those."""
    tags: list[Tag] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [compression]),
        (262, 3, [(2 if samples >= 3 else 1) if photometric is None else photometric]),
        (273, 4, [place for place, _ in strips]),
        (277, 3, [samples]),
        (278, 4, [height if rows is None else rows]),
        (279, 4, [length for _, length in strips]),
    ]
    numbers = {tag for tag, _, _ in replaced}
    return [tag for tag in tags if tag[0] not in numbers] + [tag for tag in replaced if tag[2]]


def tiff_strips(width: int, height: int, rows: int, *, shared: bool = True, **options: Any) -> bytes:
    """A black TIFF in strips of deflate; all of them are the same bytes where they are shared."""
    line = -(-width * options.get("samples", 3) * options.get("bits", 8) // 8)
    strip = deflated(bytes(line), rows)
    count = -(-height // rows)
    places = [(8 if shared else 8 + index * len(strip), len(strip)) for index in range(count)]
    return tiff(strip * (1 if shared else count), tiff_tags(width, height, places, rows=rows, **options))


def tiff_tiles(width: int, height: int, tile: tuple[int, int], *, bits: int = 8, samples: int = 3) -> bytes:
    """A black TIFF in tiles of deflate."""
    data = deflated(bytes(-(-tile[0] * bits * samples // 8)), tile[1])
    count = -(-width // tile[0]) * -(-height // tile[1])
    replaced: list[Tag] = [(273, 4, []), (278, 4, []), (279, 4, [])]
    replaced += [(322, 4, [tile[0]]), (323, 4, [tile[1]])]
    replaced += [(324, 4, [8 + index * len(data) for index in range(count)]), (325, 4, [len(data)] * count)]
    return tiff(data * count, tiff_tags(width, height, [], bits=bits, samples=samples, replaced=replaced))


def tiff_stored(side: int, bits: int, rows: int, compression: int) -> bytes:
    """A black TIFF whose strips are as long as their pixels."""
    pixels = bytes(rows * side * 3 * bits // 8)
    strip = pixels if compression == STORED else zlib.compress(pixels, 0)
    places = [(8 + index * len(strip), len(strip)) for index in range(-(-side // rows))]
    return tiff(strip * len(places), tiff_tags(side, side, places, bits=bits, compression=compression, rows=rows))


def tiff_of_jpeg(width: int, height: int, stream: bytes, samples: int) -> bytes:
    """A TIFF whose only strip is a JPEG."""
    colours = 6 if samples == 3 else 1
    tags = tiff_tags(width, height, [(8, len(stream))], samples=samples, compression=OF_JPEG, photometric=colours)
    return tiff(stream, [*tags, (530, 3, [1, 1])] if samples == 3 else tags)


def tiff_leading_on(strip: bytes, usual: Sequence[Tag], following: Any, more: Sequence[Tag]) -> bytes:
    """A TIFF whose pointers lead to its own directory."""
    begin = struct.unpack_from("<I", tiff(strip, [*usual, *more]), 4)[0]
    tags = [*usual, *((tag, kind, [begin]) for tag, kind, _ in more)]
    return tiff(strip, tags, following=begin if following == "itself" else following)


def tiff_chain(strip: bytes, count: int) -> bytes:
    """A TIFF of many directories."""
    file = tiff(strip, tiff_tags(8, 8, [(8, len(strip))]))
    begin = struct.unpack_from("<I", file, 4)[0]
    directory = file[begin:-4]
    chain = b"".join(
        directory + struct.pack("<I", begin + (index + 1) * (len(directory) + 4)) for index in range(count - 1)
    )
    return file[:begin] + chain + directory + bytes(4)


def tiff_planes(side: int, bits: int, tags: Sequence[Tag]) -> bytes:
    """A black TIFF of three planes, a strip each."""
    strip = deflated(bytes(side * bits // 8), side)
    places = [(8 + index * len(strip), len(strip)) for index in range(3)]
    return tiff(strip * 3, tiff_tags(side, side, places, bits=bits, replaced=tags))


def repeated_code(code: int, width: int, size: int) -> bytes:
    """TIFF's LZW: a code again and again, the highest bit first."""
    eight = sum(code << width * index for index in range(8)).to_bytes(width, "big")
    return eight * (size // width)
