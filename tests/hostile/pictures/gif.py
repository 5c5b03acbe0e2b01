"""GIFs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator, Sequence

from tests.hostile.pictures.bomb import BROKEN, HUGE, LIMIT, MANY, MB, SIDE, TOO_LARGE, Bomb, square


def lzw_of_zeros(count: int, *, end: bool = True) -> bytes:
    """GIF's codes of 8 bits for zeros: each code stands for one zero more than the one before."""
    codes: list[tuple[int, int]] = []
    left, following = count, 4096

    def add(code: int) -> None:
        codes.append((code, min(12, max(9, following.bit_length()))))

    while left:
        length = following - 256
        if following == 4096:  # the table is full
            codes += [(256, 12 if codes else 9), (0, 9)]
            left, following = left - 1, 258
            continue
        add(following if left >= length else 256 + left if left > 1 else 0)
        left, following = max(0, left - length), following + 1
    if end:
        add(257)
    text = "".join(format(code, f"0{width}b") for code, width in reversed(codes))
    return int(text, 2).to_bytes(-(-len(text) // 8), "little")


def gif_blocks(data: bytes, size: int = 255) -> bytes:
    """Data in blocks, and the empty one."""
    return (
        b"".join(bytes([len(part)]) + part for part in (data[at : at + size] for at in range(0, len(data), size)))
        + b"\0"
    )


def gif_frame(
    width: int, height: int, *, left: int = 0, top: int = 0, flags: int = 0, data: bytes | None = None, block: int = 255
) -> bytes:
    """A frame of zeros."""
    blocks = gif_blocks(lzw_of_zeros(min(width * height, LIMIT)) if data is None else data, block)
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, flags) + b"\x08" + blocks


def gif(width: int, height: int, parts: Sequence[bytes]) -> bytes:
    """A screen with a palette of two, and its blocks."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"".join(parts) + b"\x3b"


def gif_bombs() -> Iterator[Bomb]:
    """GIF."""
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
    for at in (1, 5, 8, 12, 15, 20, 25, 31, 38, len(whole) - 2, len(whole) - 1):
        yield Bomb(
            name=f"gif-cut-at-{at}.gif",
            kind="truncation",
            make=lambda at=at: whole[:at],
            refused=f"{BROKEN}|not an image",
        )
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
