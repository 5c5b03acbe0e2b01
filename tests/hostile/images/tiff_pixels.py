"""TIFFs whose strips and tiles cost far more than their bytes."""

import functools
from collections.abc import Iterator

from tests.hostile.images.bomb import LIMIT, MB, SIDE, Bomb, deflated, square
from tests.hostile.images.encoders.jpeg import jpeg, progressive_jpeg
from tests.hostile.images.encoders.tiff import (
    DEFLATE,
    LZW,
    PACKBITS,
    STORED,
    Tag,
    repeated_code,
    tiff,
    tiff_of_jpeg,
    tiff_planes,
    tiff_stored,
    tiff_strips,
    tiff_tags,
    tiff_tiles,
)


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
    yield from tiff_tile_bombs()


def tiff_tile_bombs() -> Iterator[Bomb]:
    """Tiles as large as the limit admits, and larger than the picture."""
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


def tiff_strip_bombs() -> Iterator[Bomb]:
    """Strips that cost far more than their pixels."""
    for name, compression, data in (
        ("lzw-clear-codes", LZW, repeated_code(256, 9, 2_000_000)),
        ("packbits-nothing", PACKBITS, b"\x80" * 2_000_000),
        ("stored-blocks-of-0", DEFLATE, b"\x78\x01" + b"\0\0\0\xff\xff" * 400_000),
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
        tiff, bytes(4_000_000), tiff_tags(8, 20_000, [(8, 4_000_000)] * 20_000, rows=1, compression=STORED)
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
    yield from tiff_jpeg_bombs()
    yield from tiff_long_bombs()
    yield from tiff_surplus_bombs()


def tiff_jpeg_bombs() -> Iterator[Bomb]:
    """Strips that are JPEGs."""
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


def tiff_long_bombs() -> Iterator[Bomb]:
    """Long files, and strips that are not compressed."""
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
        ("stored", DEFLATE, 8, SIDE, SIDE),
        ("stored-in-strips", DEFLATE, 8, 100, SIDE),
        ("uncompressed", STORED, 8, SIDE, SIDE),
        ("uncompressed-in-strips", STORED, 8, 100, SIDE),
        ("stored-16bit", DEFLATE, 16, 3500, 3500),
        ("uncompressed-16bit", STORED, 16, 3500, 3500),
        ("uncompressed-16bit-in-strips", STORED, 16, 100, 4200),
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


def tiff_surplus_bombs() -> Iterator[Bomb]:
    """Strips that hold more than the pixels."""

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
