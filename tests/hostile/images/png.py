"""PNGs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator

from tests.hostile.images.bomb import (
    BROKEN,
    HUGE,
    LIMIT,
    MANY,
    MB,
    SIDE,
    TOO_LARGE,
    Bomb,
    cut_bombs,
    deflated,
    many,
    square,
    truncations,
)
from tests.hostile.images.encoders.exif import exif, exif_of_many
from tests.hostile.images.encoders.png import PNG, png, png_chunk, png_header


def png_bombs() -> Iterator[Bomb]:
    """PNG."""
    yield from png_size_bombs()
    yield from png_large_bombs()
    yield from png_missing_bombs()
    yield from png_metadata_bombs()
    yield from png_chunk_bombs()


def png_size_bombs() -> Iterator[Bomb]:
    """Sizes above the limit, or of 0."""
    for name, width, height, bits, colour in (
        ("png-50000sq-1bit", 50_000, 50_000, 1, 0),
        ("png-13376sq-rgba16", HUGE, HUGE, 16, 6),
        ("png-just-above", SIDE + 1, SIDE, 8, 2),
        ("png-2e31-wide", 2**31 - 1, 1, 8, 2),
        ("png-2e31-high", 1, 2**31 - 1, 8, 2),
    ):
        lines = functools.partial(png, width, height, bits, colour, pixels=png_chunk(b"IDAT", deflated(b"\0", 1 << 20)))
        yield Bomb(name=f"{name}.png", kind="size above the limit", make=lines, refused=TOO_LARGE)
    yield Bomb(
        name="png-2e32-1.png",
        kind="size of 2**32 - 1",
        make=lambda: png(2**32 - 1, 2**32 - 1, pixels=b""),
        refused=f"{TOO_LARGE}|{BROKEN}",
    )
    yield Bomb(name="png-zero.png", kind="size 0", make=lambda: png(0, 5, pixels=b""), refused=BROKEN)


def png_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    for name, bits, colour, interlaced, filter_kind, slow in (
        ("rgba16", 16, 6, 0, 0, False),
        ("rgba16-paeth", 16, 6, 0, 4, True),
        ("rgba16-interlaced", 16, 6, 1, 0, False),
        ("rgb16", 16, 2, 0, 0, True),
        ("grey-alpha16", 16, 4, 0, 0, True),
        ("grey16", 16, 0, 0, 0, True),
        ("rgba8", 8, 6, 0, 4, True),
        ("palette1", 1, 3, 0, 0, False),
        ("rgb8-interlaced", 8, 2, 1, 0, True),
    ):
        make = functools.partial(png, SIDE, SIDE, bits, colour, interlaced=interlaced, filter_kind=filter_kind)
        yield Bomb(name=f"png-5000sq-{name}.png", kind="just below the limit", make=make, shape=square(), slow=slow)
    orient = png_chunk(b"eXIf", exif([(274, 3, 1, 6)]))
    yield Bomb(
        name="png-5000sq-rgba16-turned.png",
        kind="just below the limit, turned",
        make=lambda: png(SIDE, SIDE, 16, 6, before=orient),
        shape=square(),
        slow=True,
    )
    yield Bomb(
        name="png-1000000-wide.png",
        kind="just below the limit, one long line",
        make=lambda: png(1_000_000, 25, 16, 6),
        shape=(25, 1_000_000, 3),
        refused=BROKEN,
        slow=True,
    )
    yield Bomb(
        name="png-1000000-high.png",
        kind="just below the limit, many lines",
        make=lambda: png(25, 1_000_000, 16, 6),
        shape=(1_000_000, 25, 3),
        refused=BROKEN,
    )


def png_missing_bombs() -> Iterator[Bomb]:
    """Pixels that are missing."""
    yield Bomb(
        name="png-5000sq-no-data.png",
        kind="pixels missing",
        refused=BROKEN,
        memory=60 * MB + 12 * LIMIT,
        make=lambda: png(SIDE, SIDE, 16, 6, pixels=png_chunk(b"IDAT", deflated(bytes(8 * SIDE + 1), 1))),
    )
    yield Bomb(
        name="png-5000sq-no-idat.png", kind="pixels missing", make=lambda: png(SIDE, SIDE, pixels=b""), refused=BROKEN
    )


def png_metadata_bombs() -> Iterator[Bomb]:
    """Chunks beside the pixels that unpack to far more than they are, or cost a loop."""
    eight = (8, 8, 3)
    gigabyte = functools.partial(deflated, bytes(1024), 1 << 20)
    for name, kind, prefix in (
        ("ztxt", b"zTXt", b"a\0\0"),
        ("itxt", b"iTXt", b"a\0\1\0\0\0"),
        ("iccp", b"iCCP", b"a\0\0"),
        ("xmp", b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ):
        yield Bomb(
            name=f"png-{name}-1gb.png",
            kind="decompression bomb in metadata",
            shape=eight,
            memory=25 * MB,
            cpu=2,
            make=lambda kind=kind, prefix=prefix: png(8, 8, before=png_chunk(kind, prefix + gigabyte())),
        )
    yield Bomb(
        name="png-idat-1gb-for-8x8.png",
        kind="more pixels than the header says",
        shape=eight,
        refused=BROKEN,
        cpu=2,
        memory=25 * MB,
        make=lambda: png(8, 8, pixels=png_chunk(b"IDAT", gigabyte())),
    )
    yield from png_orientation_bombs()
    yield from png_frame_bombs()


def png_orientation_bombs() -> Iterator[Bomb]:
    """EXIF that costs a loop."""
    eight = (8, 8, 3)
    for name, entries, count in (("many", 65_535, 1), ("of-many", 1, 1_000_000), ("many-of-many", 65_535, 1_000_000)):
        block = functools.partial(exif_of_many, entries, count)
        yield Bomb(
            name=f"png-exif-{name}-orientations.png",
            kind="duplicate tags with many values",
            cpu=2,
            memory=30 * MB,
            make=lambda block=block: png(8, 8, before=png_chunk(b"eXIf", block())),
            shape=eight,
            refused="",
        )
    orientations = png_chunk(b"eXIf", exif_of_many(5_000, 1))
    yield Bomb(
        name="png-60-exif-chunks.png",
        kind="duplicate chunks",
        make=lambda: png(8, 8, before=orientations * 60),
        shape=eight,
        refused="",
        cpu=2,
    )


def png_frame_bombs() -> Iterator[Bomb]:
    """A huge palette, and an animation of many frames."""
    eight = (8, 8, 3)
    yield Bomb(
        name="png-4mb-palette.png",
        kind="lying length",
        refused=BROKEN,
        shape=eight,
        memory=30 * MB,
        cpu=2,
        make=lambda: png(8, 8, 8, 3, before=png_chunk(b"PLTE", bytes(4_000_000))),
    )
    frames = png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + b"".join(
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", index, 8, 8, 0, 0, 0, 1, 0, 0)) for index in range(20_000)
    )
    yield Bomb(
        name="png-animated-2e31-frames.png",
        kind="many frames",
        make=lambda: png(8, 8, before=frames),
        shape=eight,
        cpu=2,
    )


def png_chunk_bombs() -> Iterator[Bomb]:
    """Many chunks, empty ones without end, and chunks that lie of their length."""
    eight = (8, 8, 3)
    pixels = deflated(bytes(25), 8)
    for name, chunks in (
        ("ancillary", many(png_chunk(b"abCd", b""), MANY)),
        ("text", many(png_chunk(b"tEXt", b"a\0b"), 200_000)),
        ("empty-idat", many(png_chunk(b"IDAT", b""), MANY)),
        ("time", many(png_chunk(b"tIME", bytes(7)), 150_000)),
    ):
        yield Bomb(
            name=f"png-many-{name}-chunks.png",
            kind="many chunks",
            shape=eight,
            refused="",
            memory=80 * MB,
            cpu=2,
            make=lambda chunks=chunks: png(8, 8, pixels=chunks() + png_chunk(b"IDAT", pixels)),
        )
    for gigabytes, size in ((1, 10**9), (100, 10**11)):
        # Twelve zeros are an empty chunk without a name.
        yield Bomb(
            name=f"png-sparse-{gigabytes}gb.png",
            kind="sparse file of empty chunks",
            refused="",
            tail=size,
            make=lambda: PNG + png_header(8, 8, 8, 2),
            memory=6 * MB,
        )
    yield Bomb(
        name="png-sparse-90mb.png",
        kind="sparse file of empty chunks",
        refused="",
        tail=90 * MB,
        memory=60 * MB + 12 * LIMIT,
        make=lambda: PNG + png_header(8, 8, 8, 2),
    )
    yield from png_long_bombs()
    yield from png_damaged_bombs()


def png_long_bombs() -> Iterator[Bomb]:
    """Chunks and files of 150 MB."""
    eight = (8, 8, 3)
    for name, kind in (("text", b"tEXt"), ("unknown", b"abCd"), ("palette", b"PLTE"), ("pixels", b"IDAT")):
        yield Bomb(
            name=f"png-150mb-of-{name}.png",
            kind="long chunks",
            shape=eight,
            refused="",
            given=True,
            memory=170 * MB,
            cpu=2,
            make=lambda kind=kind: png(8, 8, before=png_chunk(kind, bytes(150 * MB))),
            slow=True,
        )
    for side in (8, SIDE):
        yield Bomb(
            name=f"png-{side}sq-and-150mb-behind-the-end.png",
            kind="long file",
            make=functools.partial(png, side, side),
            tail=150 * MB,
            shape=square(side),
            refused="max_pixels",
        )
    for side in (8, SIDE):
        yield Bomb(
            name=f"png-{side}sq-and-150mb-behind.png",
            kind="long chunks",
            shape=square(side),
            refused="",
            given=True,
            cpu=2 if side == 8 else 4,
            memory=170 * MB if side == 8 else None,
            make=lambda side=side: png(
                side,
                side,
                8,
                2,
                pixels=png_chunk(b"IDAT", deflated(bytes(3 * side + 1), side) + bytes(150 * MB)),
            ),
            slow=side == 8,
        )


def png_damaged_bombs() -> Iterator[Bomb]:
    """Lying lengths, truncation, a second header."""
    pixels = deflated(bytes(25), 8)
    for length in (2**31 - 1, 2**32 - 1, 2**32 - 12):
        yield Bomb(
            name=f"png-idat-length-{length}.png",
            kind="lying length",
            refused=BROKEN,
            make=lambda length=length: PNG + png_header(8, 8, 8, 2) + struct.pack(">I", length) + b"IDAT" + pixels,
        )
    whole = png(8, 8, before=png_chunk(b"eXIf", exif([(274, 3, 1, 6)])))
    yield from cut_bombs("png", whole, truncations(whole, (b"IHDR", b"eXIf", b"IDAT", b"IEND")))
    yield Bomb(
        name="png-two-headers.png",
        kind="duplicate header",
        refused=BROKEN,
        make=lambda: png(8, 8, before=png_header(HUGE, HUGE, 16, 6)),
    )
