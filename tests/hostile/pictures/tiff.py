"""TIFFs that cost far more than their bytes."""

import functools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile.pictures.bomb import BROKEN, LIMIT, MB, SIDE, TOO_LARGE, Bomb, deflated, square
from tests.hostile.pictures.jpeg import jpeg, progressive_jpeg

_TIFF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 9: "i", 16: "Q"}
_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS = 1, 5, 7, 8, 32773
Tag = tuple[int, int, Sequence[int]]


def tiff(body: bytes, tags: Sequence[Tag], *, following: int = 0, sorted_tags: bool = True) -> bytes:
    """A TIFF of a body, which starts at 8, and the directory behind it."""
    entries, values = b"", b""
    start = 8 + len(body)
    for tag, kind, numbers in sorted(tags, key=lambda tag: tag[0]) if sorted_tags else tags:
        raw = struct.pack(f"<{len(numbers)}{_TIFF_TYPES[kind]}", *numbers)
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
    compression: int = _DEFLATE,
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
    strip = pixels if compression == _NONE else zlib.compress(pixels, 0)
    places = [(8 + index * len(strip), len(strip)) for index in range(-(-side // rows))]
    return tiff(strip * len(places), tiff_tags(side, side, places, bits=bits, compression=compression, rows=rows))


def tiff_of_jpeg(width: int, height: int, stream: bytes, samples: int) -> bytes:
    """A TIFF whose only strip is a JPEG."""
    colours = 6 if samples == 3 else 1
    tags = tiff_tags(width, height, [(8, len(stream))], samples=samples, compression=_JPEG, photometric=colours)
    return tiff(stream, [*tags, (530, 3, [1, 1])] if samples == 3 else tags)


def tiff_bombs() -> Iterator[Bomb]:
    """TIFF."""
    for name, width, height in (
        ("30000sq", 30_000, 30_000),
        ("just-above", SIDE + 1, SIDE),
        ("2e32-wide", 2**32 - 1, 1),
        ("2e32-high", 1, 2**32 - 1),
    ):
        make = (
            functools.partial(tiff_strips, width, height, 2**31 - 1 if height > 10**6 else height)
            if width < 10**5 and height < 10**5
            else functools.partial(
                lambda width, height: tiff(bytes(8), tiff_tags(width, height, [(8, 8)])), width, height
            )
        )
        yield Bomb(name=f"tiff-{name}.tiff", kind="size above the limit", make=make, refused=f"{TOO_LARGE}|{BROKEN}")
    strip = deflated(bytes(24), 8)
    eight = (8, 8, 3)

    def changed(*replaced: Tag, **options: Any) -> bytes:
        return tiff(strip, tiff_tags(8, 8, [(8, len(strip))], replaced=replaced, **options))

    def doubled(*more: Tag) -> bytes:
        return tiff(strip, [*tiff_tags(8, 8, [(8, len(strip))]), *more])

    for name, kind in (("slong", 9), ("long8", 16), ("byte", 1), ("ascii", 2), ("undefined", 7)):
        sides: list[Tag] = [
            (256, kind, [200 if kind in {1, 2, 7} else 30_000]),
            (257, kind, [200 if kind in {1, 2, 7} else 30_000]),
        ]
        yield Bomb(
            name=f"tiff-sides-of-type-{name}.tiff",
            kind="odd field type",
            make=functools.partial(changed, *sides),
            refused="",
            shape=(200, 200, 3) if kind == 1 else None,
        )
    for name, more in (
        ("larger-behind", [(256, 4, [30_000]), (257, 4, [30_000])]),
        ("same-behind", [(256, 4, [8])]),
        ("rows", [(278, 4, [1])]),
        ("strips", [(273, 4, [8])]),
        ("bits", [(258, 3, [16, 16, 16])]),
        ("samples", [(277, 3, [1])]),
    ):
        yield Bomb(
            name=f"tiff-duplicate-{name}.tiff",
            kind="duplicate tags",
            make=functools.partial(doubled, *more),
            refused=BROKEN,
        )
    yield Bomb(
        name="tiff-bigtiff.tiff",
        kind="variety that is not accepted",
        make=lambda: b"II\x2b\0\x08\0\0\0" + bytes(64),
        refused="BigTIFF",
    )
    for name, replaced in (
        ("width-0", [(256, 4, [0])]),
        ("height-0", [(257, 4, [0])]),
        ("no-width", [(256, 4, [])]),
        ("two-widths", [(256, 4, [8, 30_000])]),
        ("rows-2e32", [(278, 4, [2**32 - 1])]),
        ("rows-0", [(278, 4, [0])]),
        ("bits-65535", [(258, 3, [65_535] * 3)]),
        ("bits-of-a-million", [(258, 3, [8] * 1_000_000)]),
        ("samples-65535", [(277, 3, [65_535])]),
        ("planar-7", [(284, 3, [7])]),
        ("planar-2", [(284, 3, [2])]),
        ("strip-of-2e32", [(279, 4, [2**32 - 1])]),
        ("strip-of-0", [(279, 4, [0])]),
        ("strip-at-2e32", [(273, 4, [2**32 - 1])]),
        ("strip-at-0", [(273, 4, [0])]),
        ("a-million-strips", [(273, 4, [8] * 500_000), (279, 4, [8] * 500_000)]),
        (
            "a-million-strips-of-1-row",
            [(257, 4, [500_000]), (278, 4, [1]), (273, 4, [8] * 500_000), (279, 4, [8] * 500_000)],
        ),
        ("predictor-65535", [(317, 3, [65_535])]),
        ("old-jpeg", [(259, 3, [6])]),
        ("zstd", [(259, 3, [50_000])]),
        ("lzma", [(259, 3, [34_925])]),
        ("webp", [(259, 3, [50_001])]),
        ("float", [(339, 3, [3] * 3)]),
        ("subsampled-2-0", [(262, 3, [6]), (530, 3, [0, 0])]),
        ("subsampled-65535", [(262, 3, [6]), (530, 3, [65_535, 65_535])]),
    ):
        yield Bomb(
            name=f"tiff-{name}.tiff",
            kind="lying header",
            make=functools.partial(changed, *replaced),
            refused="",
            shape=(500_000, 8, 3) if "1-row" in name else eight,
            cpu=2,
            memory=60 * MB,
        )
    yield from tiff_directory_bombs(strip)
    yield from tiff_large_bombs()
    yield from tiff_strip_bombs()
    whole = tiff_strips(8, 8, 8)
    for at in (1, 3, 7, 8, 12, *range(len(whole) - 118, len(whole), 20)):
        yield Bomb(
            name=f"tiff-cut-at-{at}.tiff",
            kind="truncation",
            make=lambda at=at: whole[:at],
            refused=f"{BROKEN}|not an image",
        )
    yield Bomb(
        name="tiff-sparse-100gb.tiff", kind="sparse file", make=lambda: whole, tail=10**11, refused="", memory=6 * MB
    )


def tiff_directory_bombs(strip: bytes) -> Iterator[Bomb]:
    """Directories that are long, or lead to one another, or whose values lie on one another."""
    eight = (8, 8, 3)
    usual = tiff_tags(8, 8, [(8, len(strip))])

    def overlapping(tags: Sequence[int], kind: int, size: int) -> bytes:
        body = strip + bytes(size)
        entries = b"".join(struct.pack("<HHII", tag, kind, size, 8 + len(strip)) for tag in sorted(tags))
        file = tiff(body, usual)
        begin = 8 + len(body)
        values = file[begin : struct.unpack_from("<I", file, 4)[0]]
        own = file[begin + len(values) + 2 : -4]
        count = struct.pack("<H", len(usual) + len(tags))
        return file[: begin + len(values)] + count + own + entries + bytes(4)

    for name, tags, size in (
        ("4000-private-tags-of-1-mb", range(51_000, 55_000), 1_000_000),
        ("4000-private-tags-of-4-kb", range(51_000, 55_000), 4_000),
        ("60000-private-tags", range(60_000), 1),
        ("30000-icc-profiles-of-1-mb", [34_675] * 30_000, 1_000_000),
    ):
        make = functools.partial(overlapping, tags, 7, size)
        yield Bomb(
            name=f"tiff-{name}.tiff",
            kind="values that lie on one another",
            make=make,
            shape=eight,
            refused="",
            cpu=2,
            memory=60 * MB,
        )
    for name, following, more in (
        ("next-is-itself", "itself", []),
        ("next-is-2e32", 2**32 - 1, []),
        ("sub-directories-are-itself", 0, [(330, 4, [8])]),
        ("exif-is-itself", 0, [(34_665, 4, [8]), (34_853, 4, [8])]),
    ):
        make = functools.partial(tiff_leading_on, strip, usual, following, more)
        yield Bomb(
            name=f"tiff-{name}.tiff",
            kind="recursive directories",
            make=make,
            shape=eight,
            refused="",
            cpu=2,
            memory=10 * MB,
        )
    yield Bomb(
        name="tiff-30000-directories.tiff",
        kind="many directories",
        make=functools.partial(tiff_chain, strip, 30_000),
        shape=eight,
        refused="",
        cpu=2,
        memory=40 * MB,
    )


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


def tiff_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    for name, options, slow in (
        ("rgb8-one-strip", {"rows": SIDE}, False),
        ("rgba16-one-strip", {"rows": SIDE, "bits": 16, "samples": 4, "replaced": [(338, 3, [2])]}, False),
        ("rgba16-associated", {"rows": SIDE, "bits": 16, "samples": 4, "replaced": [(338, 3, [1])]}, True),
        ("rgb16-strips", {"rows": 10, "bits": 16, "shared": False}, True),
        ("grey16-one-strip", {"rows": SIDE, "bits": 16, "samples": 1}, True),
        ("cmyk8", {"rows": 100, "samples": 4, "photometric": 5, "shared": False}, True),
        ("grey-alpha8", {"rows": SIDE, "samples": 2, "replaced": [(338, 3, [1])]}, True),
        ("rgb8-turned", {"rows": SIDE, "replaced": [(274, 3, [6])]}, True),
        ("rgb16-turned", {"rows": 100, "bits": 16, "shared": False, "replaced": [(274, 3, [6])]}, True),
        ("rgb12", {"rows": 100, "bits": 12, "shared": False}, True),
        ("palette8", {"rows": SIDE, "samples": 1, "photometric": 3, "replaced": [(320, 3, [0] * 768)]}, True),
        ("predicted", {"rows": 100, "bits": 16, "shared": False, "replaced": [(317, 3, [2])]}, True),
        ("ycbcr", {"rows": 128, "photometric": 6, "shared": False, "replaced": [(530, 3, [1, 1])]}, True),
        ("white-is-zero-1bit", {"rows": SIDE, "bits": 1, "samples": 1, "photometric": 0}, False),
    ):
        make = functools.partial(tiff_strips, SIDE, SIDE, **options)
        yield Bomb(
            name=f"tiff-5000sq-{name}.tiff",
            kind="just below the limit",
            make=make,
            shape=square(),
            refused="max_pixels",
            slow=slow,
        )
    planes: list[Tag] = [(284, 3, [2])]
    yield Bomb(
        name="tiff-5000sq-planar16.tiff",
        kind="just below the limit, planar",
        shape=square(),
        refused="planes, which is not accepted",
        make=lambda: tiff_planes(SIDE, 16, planes),
        slow=True,
    )
    for name, width, tile, bits, samples, slow in (
        ("one-tile", 4992, (4992, 4992), 16, 4, False),
        ("tiles-of-16", 2000, (16, 16), 8, 3, True),
        ("tiles-of-1024", 4096, (1024, 1024), 16, 4, True),
    ):
        make = functools.partial(tiff_tiles, width, width, tile, bits=bits, samples=samples)
        yield Bomb(
            name=f"tiff-{width}sq-{name}.tiff",
            kind="just below the limit, tiled",
            make=make,
            shape=square(width),
            refused="max_pixels",
            slow=slow,
        )
    for name, side, tile in (
        ("40000sq", 100, (40_000, 40_000)),
        ("2e30", 100, (1 << 16, 1 << 14)),
        ("2e32", 8, (2**32 - 16, 2**32 - 16)),
    ):
        make = functools.partial(
            lambda side, tile: tiff(
                bytes(100),
                tiff_tags(
                    side,
                    side,
                    [],
                    replaced=[
                        (273, 4, []),
                        (278, 4, []),
                        (279, 4, []),
                        (322, 4, [tile[0]]),
                        (323, 4, [tile[1]]),
                        (324, 4, [8]),
                        (325, 4, [100]),
                    ],
                ),
            ),
            side,
            tile,
        )
        yield Bomb(
            name=f"tiff-tile-{name}.tiff",
            kind="tile that is larger than the picture",
            make=make,
            refused="limit|damaged|truncated",
        )


def tiff_planes(side: int, bits: int, tags: Sequence[Tag]) -> bytes:
    """A black TIFF of three planes, a strip each."""
    strip = deflated(bytes(side * bits // 8), side)
    places = [(8 + index * len(strip), len(strip)) for index in range(3)]
    return tiff(strip * 3, tiff_tags(side, side, places, bits=bits, replaced=tags))


def tiff_strip_bombs() -> Iterator[Bomb]:
    """Strips that cost far more than their pixels."""
    for name, compression, data in (
        ("lzw-clear-codes", _LZW, _repeated_code(256, 9, 2_000_000)),
        ("packbits-nothing", _PACKBITS, b"\x80" * 2_000_000),
        ("stored-blocks-of-0", _DEFLATE, b"\x78\x01" + b"\0\0\0\xff\xff" * 400_000),
        ("ccitt-ends-of-line", 3, b"\0\1\0\x10" * 500_000),
        ("ccitt-zeros", 4, bytes(2_000_000)),
    ):
        samples = 1 if compression in {3, 4} else 3
        bits = 1 if samples == 1 else 8
        places = [(8, len(data))] * 5000
        make = functools.partial(
            lambda data, places, **options: tiff(data, tiff_tags(8, 5000, places, rows=1, **options)),
            data,
            places,
            compression=compression,
            samples=samples,
            bits=bits,
        )
        yield Bomb(
            name=f"tiff-5000-strips-of-{name}.tiff",
            kind="strips that lie on one another, endless codes",
            make=make,
            refused="",
            shape=(5000, 8, 3),
            cpu=2,
            memory=40 * MB,
        )
    uncompressed = functools.partial(
        tiff, bytes(4_000_000), tiff_tags(8, 20_000, [(8, 4_000_000)] * 20_000, rows=1, compression=_NONE)
    )
    yield Bomb(
        name="tiff-20000-strips-of-4-mb.tiff",
        kind="strips that lie on one another",
        make=uncompressed,
        refused="",
        shape=(20_000, 8, 3),
        cpu=2,
        memory=60 * MB,
    )
    for side, scans, slow in ((SIDE, 1000, False), (1024, 20_000, True)):
        make = functools.partial(
            lambda side, scans: tiff_of_jpeg(side, side, progressive_jpeg(side, side, 1, scans), 1), side, scans
        )
        yield Bomb(
            name=f"tiff-of-jpeg-{side}sq-{scans}-scans.tiff",
            kind="many scans in a strip",
            make=make,
            refused="",
            slow=slow,
            memory=60 * MB + 12 * LIMIT,
        )
    yield Bomb(
        name="tiff-of-jpeg-of-65500sq.tiff",
        kind="strip that is larger than the picture",
        refused="",
        memory=60 * MB,
        make=lambda: tiff_of_jpeg(8, 8, jpeg(65_500, 65_500, data=bytes(1000)), 3),
        shape=(8, 8, 3),
        cpu=2,
    )
    yield Bomb(
        name="tiff-of-jpeg-5000sq-progressive.tiff",
        kind="just below the limit, progressive",
        refused="",
        warns="",
        make=lambda: tiff_of_jpeg(SIDE, SIDE, progressive_jpeg(SIDE, SIDE, 3, 4), 3),
        shape=square(),
        slow=True,
    )

    for side, bits in ((8, 8), (3500, 8), (3000, 16)):
        yield Bomb(
            name=f"tiff-{side}sq-{bits}bit-and-150mb-behind.tiff",
            kind="long file",
            refused="max_pixels",
            shape=square(side),
            make=functools.partial(tiff_strips, side, side, 100, bits=bits, shared=False),
            tail=150 * MB,
            slow=bits == 16,
        )

    for name, compression, bits, rows, side in (
        ("stored", _DEFLATE, 8, SIDE, SIDE),
        ("stored-in-strips", _DEFLATE, 8, 100, SIDE),
        ("uncompressed", _NONE, 8, SIDE, SIDE),
        ("uncompressed-in-strips", _NONE, 8, 100, SIDE),
        ("stored-16bit", _DEFLATE, 16, 3500, 3500),
        ("uncompressed-16bit", _NONE, 16, 3500, 3500),
        ("uncompressed-16bit-in-strips", _NONE, 16, 100, 4200),
    ):
        yield Bomb(
            name=f"tiff-{side}sq-{name}.tiff",
            kind="just below the limit, not compressed",
            make=functools.partial(tiff_stored, side, bits, rows, compression),
            refused="max_pixels",
            shape=square(side),
            warns="",
            slow=name != "uncompressed",
        )

    def long_strip(side: int) -> bytes:
        strip = deflated(bytes(3 * side), side) + bytes(150 * MB)
        return tiff(strip, tiff_tags(side, side, [(8, len(strip))]))

    for side in (8, 3800):
        yield Bomb(
            name=f"tiff-{side}sq-and-150mb-behind.tiff",
            kind="more bytes than the pixels take",
            refused="",
            shape=square(side),
            given=True,
            cpu=4,
            memory=330 * MB,
            make=functools.partial(long_strip, side),
            slow=side == 8,
        )

    def gigabyte() -> bytes:
        strip = deflated(bytes(1 << 20), 1 << 10)
        return tiff(strip, tiff_tags(8, 8, [(8, len(strip))]))

    yield Bomb(
        name="tiff-1-gb-for-8x8.tiff",
        kind="more pixels than the header says",
        refused="",
        shape=(8, 8, 3),
        cpu=2,
        make=gigabyte,
        memory=30 * MB,
    )


def _repeated_code(code: int, width: int, size: int) -> bytes:
    """TIFF's LZW: a code again and again, the highest bit first."""
    eight = sum(code << width * index for index in range(8)).to_bytes(width, "big")
    return eight * (size // width)
