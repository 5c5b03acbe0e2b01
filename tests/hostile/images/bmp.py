"""BMPs that cost far more than their bytes."""

import functools
from collections.abc import Iterator

from tests.hostile.images.bomb import BROKEN, HUGE, LIMIT, MB, SIDE, TOO_LARGE, Bomb, cut_bombs, sparse_bomb, square
from tests.hostile.images.encoders.bmp import bmp


def bmp_bombs() -> Iterator[Bomb]:
    """BMP."""
    yield from bmp_size_bombs()
    yield from bmp_large_bombs()
    yield from bmp_header_bombs()
    yield from bmp_long_bombs()


def bmp_size_bombs() -> Iterator[Bomb]:
    """Sizes above the limit, of 0, or negative."""
    palette = bytes(1024)
    for name, width, height in (
        ("13376sq", HUGE, HUGE),
        ("just-above", SIDE + 1, SIDE),
        ("2e31-wide", 2**31 - 1, 1),
        ("2e31-high", 1, 2**31 - 1),
        ("2e31-up", 1, -(2**31)),
    ):
        make = functools.partial(bmp, width, height, 8, compression=1, data=b"\0\1", palette=palette)
        yield Bomb(name=f"bmp-rle-{name}.bmp", kind="size above the limit", make=make, refused=f"{TOO_LARGE}|{BROKEN}")
    for width, height in ((-(2**31), 1), (-1, 1), (0, 1), (1, 0)):
        make = functools.partial(bmp, width, height, data=bytes(4))
        yield Bomb(name=f"bmp-{width}x{height}.bmp", kind="size 0 or negative", make=make, refused=BROKEN)


def bmp_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits."""
    palette = bytes(1024)
    for name, bits, compression, data in (
        ("rle8-ends-at-once", 8, 1, b"\0\1"),
        ("rle8-empty", 8, 1, b""),
        ("rle4-ends-at-once", 4, 2, b"\0\1"),
        ("rle8-jumps", 8, 1, b"\0\2\xff\xff" * 1000 + b"\0\1"),
        ("rle8-stands-still", 8, 1, b"\0\2\0\0" * 500_000 + b"\0\1"),
        ("rle8-runs-of-0", 8, 1, b"\0\0" * 500_000),
        ("rle8-runs", 8, 1, (b"\xff\1" * 19 + b"\x9b\1\0\0") * SIDE + b"\0\1"),
        ("rle4-runs", 4, 2, (b"\xff\x11" * 19 + b"\x9b\x11\0\0") * SIDE + b"\0\1"),
    ):
        make = functools.partial(bmp, SIDE, SIDE, bits, compression=compression, data=data, palette=palette)
        yield Bomb(
            name=f"bmp-5000sq-{name}.bmp",
            kind="just below the limit, run lengths",
            make=make,
            shape=square(),
            refused="",
            warns="damaged" if name in {"rle8-ends-at-once", "rle8-stands-still"} else None,
            cpu=5,
            slow="runs" in name,
        )
    for bits in (1, 8, 24, 32):
        make = functools.partial(bmp, SIDE, SIDE, bits, data=bytes(1000), palette=palette if bits < 9 else b"")
        yield Bomb(
            name=f"bmp-5000sq-no-data-{bits}bit.bmp",
            kind="pixels missing",
            make=make,
            refused=BROKEN,
            memory=60 * MB + 12 * LIMIT,
            slow=bits in {8, 24},
        )
    make = functools.partial(bmp, SIDE, SIDE, 1, data=bytes(SIDE * 628), palette=palette)
    yield Bomb(name="bmp-5000sq-1bit.bmp", kind="just below the limit", make=make, shape=square())


def bmp_header_bombs() -> Iterator[Bomb]:
    """Headers that lie."""
    palette = bytes(1024)
    make = functools.partial(bmp, SIDE, SIDE, 1, data=bytes(SIDE * 628), palette=palette)
    for name, options in (
        ("palette-2e32", {"bits": 8, "colours": 2**32 - 1}),
        ("palette-2e31", {"bits": 8, "colours": 2**31}),
        ("palette-65536", {"bits": 8, "colours": 65_536}),
        ("start-2e32", {"start": 2**32 - 1}),
        ("start-0", {"start": 0}),
        ("header-2e32", {"size": 2**32 - 1}),
        ("header-108-missing", {"size": 108}),
        ("png-inside", {"compression": 5}),
        ("jpeg-inside", {"compression": 4}),
        ("bits-65535", {"bits": 65_535}),
        ("bits-0", {"bits": 0}),
    ):
        make = functools.partial(lambda options: bmp(8, 8, **{"data": bytes(192), **options}), options)
        yield Bomb(
            name=f"bmp-{name}.bmp", kind="lying header", make=make, refused="", shape=(8, 8, 3), cpu=2, memory=10 * MB
        )


def bmp_long_bombs() -> Iterator[Bomb]:
    """Long files, sparse files, truncation."""
    whole = bmp(8, 8, data=bytes(192))
    yield Bomb(
        name="bmp-8sq-and-150mb-behind.bmp",
        kind="long file",
        make=lambda: whole,
        tail=150 * MB,
        shape=(8, 8, 3),
        refused="max_pixels",
    )
    yield Bomb(
        name="bmp-5000sq-of-zeros.bmp",
        kind="just below the limit, sparse",
        make=lambda: bmp(SIDE, SIDE),
        tail=3 * LIMIT,
        shape=square(),
    )
    yield from cut_bombs("bmp", whole, (1, 2, 13, 14, 18, 25, 29, 53, 54, 100, len(whole) - 1))
    yield sparse_bomb("bmp", whole)
