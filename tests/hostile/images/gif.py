"""GIFs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator

from tests.hostile.images.bomb import BROKEN, HUGE, MANY, MB, SIDE, TOO_LARGE, Bomb, cut_bombs, square
from tests.hostile.images.encoders.gif import gif, gif_frame, lzw_of_zeros


def gif_bombs() -> Iterator[Bomb]:
    """GIF."""
    yield from gif_size_bombs()
    yield from gif_large_bombs()
    yield from gif_block_bombs()
    yield from gif_damaged_bombs()
    yield from gif_long_bombs()


def gif_size_bombs() -> Iterator[Bomb]:
    """Screens and frames above the limit, or outside."""
    dot = gif_frame(1, 1)
    one = (1, 1, 3)
    for name, parts in (("1px", [dot]), ("1000-frames", [dot] * 1000)):
        make = functools.partial(gif, HUGE, HUGE, parts)
        yield Bomb(name=f"gif-13376sq-{name}.gif", kind="size above the limit", make=make, refused=TOO_LARGE)
    yield Bomb(
        name="gif-65535sq.gif", kind="size above the limit", make=lambda: gif(65_535, 65_535, [dot]), refused=TOO_LARGE
    )
    far = gif_frame(1, 1, left=65_534, top=65_534)
    yield Bomb(
        name="gif-frame-far-away.gif", kind="frame outside of the screen", make=lambda: gif(1, 1, [far]), refused=""
    )
    huge = gif_frame(65_535, 65_535, data=b"\0")
    yield Bomb(name="gif-frame-65535sq.gif", kind="frame above the limit", make=lambda: gif(1, 1, [huge]), refused="")
    yield Bomb(
        name="gif-second-frame-65535sq.gif",
        kind="second frame above the limit",
        make=lambda: gif(1, 1, [dot, huge]),
        shape=one,
        refused="",
        cpu=2,
        memory=10 * MB,
    )


def gif_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits."""
    dot = gif_frame(1, 1)
    for name, flags in (("whole", 0), ("interlaced", 0x40)):
        make = functools.partial(lambda flags: gif(SIDE, SIDE, [gif_frame(SIDE, SIDE, flags=flags)]), flags)
        yield Bomb(
            name=f"gif-5000sq-{name}.gif", kind="just below the limit", make=make, shape=square(), slow=bool(flags)
        )
    yield Bomb(
        name="gif-5000sq-1px.gif",
        kind="just below the limit, nearly all background",
        make=lambda: gif(SIDE, SIDE, [dot]),
        shape=square(),
    )


def gif_block_bombs() -> Iterator[Bomb]:
    """Many blocks, and codes that never end."""
    dot = gif_frame(1, 1)
    one = (1, 1, 3)
    control = b"\x21\xf9\x04\x04\x01\0\0\0"
    local = gif_frame(1, 1, flags=0x87).replace(b"\x87\x08", b"\x87" + bytes(768) + b"\x08")
    for name, part, count in (
        ("frames", dot, 150_000),
        ("frames-on-5000sq", control + dot, 100_000),
        ("palettes", local, 4_000),
        ("comments", b"\x21\xfe\0", MANY),
        ("controls", control, 300_000),
        ("loops", b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0", 150_000),
    ):
        side = SIDE if "5000" in name else 1
        make = functools.partial(lambda side, part, count: gif(side, side, [part * count, dot]), side, part, count)
        yield Bomb(
            name=f"gif-many-{name}.gif",
            kind="many blocks",
            make=make,
            shape=square(side),
            refused="",
            cpu=4 if side > 1 else 2,
            memory=None if side > 1 else 40 * MB,
        )
    yield Bomb(
        name="gif-blocks-of-1.gif",
        kind="many blocks",
        make=lambda: gif(1, 1, [gif_frame(1, 1, data=bytes(1_500_000), block=1)]),
        shape=one,
        refused="",
        cpu=2,
    )
    yield Bomb(
        name="gif-700-million-pixels-for-1.gif",
        kind="more pixels than the header says",
        make=lambda: gif(1, 1, [gif_frame(1, 1, data=lzw_of_zeros(700_000_000, end=False))]),
        shape=one,
        refused="",
        cpu=2,
        memory=40 * MB,
    )
    clear = struct.pack("<Q", sum(256 << 9 * index for index in range(7)))
    yield Bomb(
        name="gif-clear-codes.gif",
        kind="endless codes without pixels",
        make=lambda: gif(1, 1, [gif_frame(1, 1, data=clear * 300_000)]),
        refused="",
        shape=one,
        cpu=2,
        memory=40 * MB,
    )


def gif_damaged_bombs() -> Iterator[Bomb]:
    """Sizes of 0, lying code sizes, truncation."""
    dot = gif_frame(1, 1)
    one = (1, 1, 3)
    control = b"\x21\xf9\x04\x04\x01\0\0\0"
    for width, height in ((0, 1), (1, 0)):
        frame = gif_frame(width, height, data=b"\0")
        yield Bomb(
            name=f"gif-frame-{width}x{height}.gif", kind="size 0", make=lambda f=frame: gif(1, 1, [f]), refused=BROKEN
        )
    yield Bomb(name="gif-no-frame.gif", kind="no frame", make=lambda: gif(SIDE, SIDE, []), refused=BROKEN)
    for size in (0, 1, 9, 12, 255):
        frame = dot.replace(b"\0\x08", b"\0" + bytes([size]), 1)
        yield Bomb(
            name=f"gif-codes-of-{size}-bits.gif",
            kind="lying code size",
            make=lambda f=frame: gif(1, 1, [f]),
            refused="",
            shape=one,
            cpu=2,
            memory=10 * MB,
        )
    whole = gif(8, 8, [control, gif_frame(8, 8)])
    yield from cut_bombs("gif", whole, (1, 5, 8, 12, 15, 20, 25, 31, 38, len(whole) - 2, len(whole) - 1))


def gif_long_bombs() -> Iterator[Bomb]:
    """Long files and sparse ones."""
    control = b"\x21\xf9\x04\x04\x01\0\0\0"
    whole = gif(8, 8, [control, gif_frame(8, 8)])
    yield Bomb(
        name="gif-8sq-and-150mb-behind.gif",
        kind="long file",
        make=lambda: whole,
        tail=150 * MB,
        shape=(8, 8, 3),
        refused="max_pixels",
    )
    yield Bomb(
        name="gif-sparse-100gb.gif",
        kind="sparse file",
        make=lambda: whole[:-1] + b"\x21\xfe",
        tail=10**11,
        refused="",
        memory=6 * MB,
    )
