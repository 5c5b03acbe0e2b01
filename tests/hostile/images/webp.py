"""WebPs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator

from tests.hostile.images.bomb import BROKEN, LIMIT, MB, SIDE, TOO_LARGE, Bomb, cut_bombs, square, truncations
from tests.hostile.images.encoders.exif import exif, exif_of_many
from tests.hostile.images.encoders.webp import (
    chunk,
    lossy_webp,
    riff,
    vp8l,
    vp8x,
    webp_frame,
)


def webp_bombs() -> Iterator[Bomb]:
    """WebP."""
    for name, width, height in (
        ("16383x10900", 16_383, 10_900),
        ("16384sq", 16_384, 16_384),
        ("just-above", SIDE + 1, SIDE),
    ):
        make = functools.partial(lambda width, height: riff((b"VP8L", vp8l(width, height))), width, height)
        yield Bomb(name=f"webp-{name}.webp", kind="size above the limit", make=make, refused=TOO_LARGE)
    lossy = b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(64)
    yield Bomb(
        name="webp-lossy-16383sq.webp",
        kind="size above the limit",
        make=lambda: riff((b"VP8 ", lossy)),
        refused=TOO_LARGE,
    )
    one = vp8l(1, 1)
    yield Bomb(
        name="webp-canvas-2e24.webp",
        kind="canvas above the limit",
        refused="",
        cpu=2,
        make=lambda: riff(vp8x(1 << 24, 1 << 24, 2), (b"ANIM", bytes(6)), webp_frame(0, 0, 1, 1, chunk(b"VP8L", one))),
    )
    yield Bomb(
        name="webp-vp8x-lies.webp",
        kind="lying size",
        refused="",
        make=lambda: riff(vp8x(1, 1), (b"VP8L", vp8l(16_383, 16_383))),
    )
    yield Bomb(
        name="webp-vp8x-lies-larger.webp",
        kind="lying size",
        refused="",
        make=lambda: riff(vp8x(1 << 24, 1 << 24), (b"VP8L", one)),
    )
    yield Bomb(
        name="webp-frame-is-larger.webp",
        kind="lying size of a frame",
        refused="",
        make=lambda: riff(
            vp8x(8, 8, 2), (b"ANIM", bytes(6)), webp_frame(0, 0, 1, 1, chunk(b"VP8L", vp8l(16_383, 16_383)))
        ),
    )
    yield Bomb(
        name="webp-second-picture-is-huge.webp",
        kind="duplicate chunks",
        refused="",
        shape=(1, 1, 3),
        cpu=2,
        make=lambda: riff((b"VP8L", one), (b"VP8L", vp8l(16_383, 16_383))),
        memory=10 * MB,
    )
    yield from webp_large_bombs(one)
    yield from webp_table_bombs()
    yield from webp_padded_bombs()
    yield from webp_chunk_bombs(one)


def webp_large_bombs(one: bytes) -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    yield Bomb(
        name="webp-5000sq-lossless.webp",
        kind="just below the limit",
        shape=square(),
        make=lambda: riff((b"VP8L", vp8l(SIDE, SIDE))),
    )
    yield Bomb(
        name="webp-5000sq-lossy.webp",
        kind="just below the limit",
        shape=square(),
        slow=True,
        make=lambda: riff((b"VP8 ", lossy_webp(SIDE))),
    )
    yield from webp_alpha_bombs()
    yield from webp_canvas_bombs(one)
    yield from webp_group_bombs()


def webp_alpha_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, with alpha."""
    alpha = b"\1" + vp8l(SIDE, SIDE)[5:]
    yield Bomb(
        name="webp-5000sq-lossy-alpha.webp",
        kind="just below the limit, alpha",
        shape=square(),
        slow=True,
        refused=BROKEN,
        make=lambda: riff(vp8x(SIDE, SIDE, 0x10), (b"ALPH", alpha), (b"VP8 ", lossy_webp(SIDE))),
    )
    for side, chunk_of_alpha in ((SIDE, alpha), (4000, b"\1" + vp8l(4000, 4000)[5:])):
        yield Bomb(
            name=f"webp-{side}sq-alpha-unsaid.webp",
            kind="just below the limit, alpha that the header denies",
            shape=square(side),
            make=lambda side=side, a=chunk_of_alpha: riff(vp8x(side, side), (b"ALPH", a), (b"VP8 ", lossy_webp(side))),
            refused="max_pixels",
            slow=True,
        )
    yield Bomb(
        name="webp-1024sq-alpha-of-huffman-groups.webp",
        kind="many tables in alpha",
        shape=square(1024),
        refused="",
        limit=1 << 20,
        make=lambda: riff(
            vp8x(1024, 1024, 0x10),
            (b"ALPH", b"\1" + vp8l(1024, 1024, groups=65_536, block_bits=2)[5:]),
            (b"VP8 ", lossy_webp(1024)),
        ),
        cpu=5,
    )


def webp_canvas_bombs(one: bytes) -> Iterator[Bomb]:
    """As many pixels as the limit admits, turned or animated."""
    yield Bomb(
        name="webp-5000sq-turned.webp",
        kind="just below the limit, turned",
        shape=square(),
        slow=True,
        make=lambda: riff(vp8x(SIDE, SIDE, 8), (b"VP8L", vp8l(SIDE, SIDE)), (b"EXIF", exif([(274, 3, 1, 6)]))),
    )
    yield Bomb(
        name="webp-5000sq-canvas-1px.webp",
        kind="just below the limit, nearly all background",
        shape=square(),
        make=lambda: riff(vp8x(SIDE, SIDE, 2), (b"ANIM", bytes(6)), webp_frame(0, 0, 1, 1, chunk(b"VP8L", one))),
    )
    yield Bomb(
        name="webp-5000sq-animated.webp",
        kind="just below the limit, animated",
        shape=square(),
        make=lambda: riff(
            vp8x(SIDE, SIDE, 2),
            (b"ANIM", bytes(6)),
            *[webp_frame(0, 0, SIDE, SIDE, chunk(b"VP8L", vp8l(SIDE, SIDE)))] * 1000,
        ),
    )


def webp_group_bombs() -> Iterator[Bomb]:
    """Many groups of Huffman codes, for each of which libwebp keeps tables."""
    for side, bits, limit in ((1024, 2, 1 << 20), (SIDE, 4, LIMIT)):
        yield Bomb(
            name=f"webp-{side}sq-65536-huffman-groups.webp",
            kind="many tables",
            shape=square(side),
            refused="",
            limit=limit,
            cpu=5,
            make=lambda side=side, bits=bits: riff((b"VP8L", vp8l(side, side, groups=65_536, block_bits=bits))),
        )
    yield Bomb(
        name="webp-1024sq-huffman-groups-and-cache.webp",
        kind="many tables",
        shape=square(1024),
        refused="",
        limit=1 << 20,
        make=lambda: riff((b"VP8L", vp8l(1024, 1024, groups=65_536, block_bits=2, cache_bits=11))),
        cpu=5,
        slow=True,
    )
    yield Bomb(
        name="webp-frame-of-huffman-groups.webp",
        kind="many tables in a frame",
        shape=square(1024),
        refused="",
        limit=1 << 20,
        cpu=5,
        make=lambda: riff(
            vp8x(1024, 1024, 2),
            (b"ANIM", bytes(6)),
            webp_frame(0, 0, 1024, 1024, chunk(b"VP8L", vp8l(1024, 1024, groups=65_536, block_bits=2))),
        ),
    )


def webp_padded_bombs() -> Iterator[Bomb]:
    """Long files, whose copy counts, too."""

    def still(side: int) -> bytes:
        file = riff((b"VP8L", vp8l(side, side)), (b"abcd", b""))[:-4] + struct.pack("<I", 150 * MB)
        return b"RIFF" + struct.pack("<I", len(file) + 150 * MB - 8) + file[8:]

    def animated(side: int) -> bytes:
        content = chunk(b"VP8L", vp8l(side, side)) + b"abcd" + struct.pack("<I", 150 * MB)
        kind, frame = webp_frame(0, 0, side, side, content)
        file = riff(vp8x(side, side, 2), (b"ANIM", bytes(6))) + kind + struct.pack("<I", len(frame) + 150 * MB) + frame
        return b"RIFF" + struct.pack("<I", len(file) + 150 * MB - 8) + file[8:]

    for name, make in (("still", still), ("animated", animated)):
        for side in (8, 3500):
            yield Bomb(
                name=f"webp-{side}sq-{name}-and-150mb-behind.webp",
                kind="long file",
                make=functools.partial(make, side),
                tail=150 * MB,
                shape=square(side),
                refused="max_pixels",
            )


def webp_table_bombs() -> Iterator[Bomb]:
    """Lossless pictures of many groups of Huffman codes, for each of which libwebp keeps tables."""
    groups = functools.cache(lambda side, bits: vp8l(side, side, groups=65_536, block_bits=bits))
    small = functools.partial(vp8l, 1024, 1024)
    flat = lossy_webp(1024)
    for name, make in (
        (
            "second-alpha",
            lambda: (vp8x(1024, 1024, 16), (b"ALPH", b"\1" + small()[5:]), (b"ALPH", b"\1" + groups(1024, 2)[5:])),
        ),
        ("filtered-alpha", lambda: (vp8x(1024, 1024, 16), (b"ALPH", b"\x1d" + groups(1024, 2)[5:]))),
        ("unsaid-alpha", lambda: (vp8x(1024, 1024), (b"ALPH", b"\1" + groups(1024, 2)[5:]))),
    ):
        yield Bomb(
            name=f"webp-1024sq-{name}-of-huffman-groups.webp",
            kind="many tables in alpha",
            shape=square(1024),
            refused="",
            limit=1 << 20,
            cpu=5,
            make=lambda make=make: riff(*make(), (b"VP8 ", flat)),
        )
    yield Bomb(
        name="webp-2528sq-400000-blocks.webp",
        kind="many blocks",
        shape=square(2528),
        refused="",
        cpu=4,
        make=lambda: riff((b"VP8L", vp8l(2528, 2528, groups=65_536, block_bits=2))),
    )
    yield Bomb(
        name="webp-2528sq-400000-blocks-of-2-groups.webp",
        kind="many blocks",
        shape=square(2528),
        refused="",
        cpu=4,
        make=lambda: riff((b"VP8L", vp8l(2528, 2528, groups=2, block_bits=2))),
    )


def webp_chunk_bombs(one: bytes) -> Iterator[Bomb]:
    """Many chunks and frames, metadata, lying lengths, truncation."""
    picture = (1, 1, 3)
    for name, kind, count in (
        ("unknown", b"abcd", 400_000),
        ("nameless", b"\0\0\0\0", 400_000),
        ("exif", b"EXIF", 400_000),
    ):
        yield Bomb(
            name=f"webp-many-{name}-chunks.webp",
            kind="many chunks",
            shape=picture,
            refused="",
            cpu=2,
            memory=60 * MB,
            make=lambda kind=kind, count=count: riff(vp8x(1, 1), *[(kind, b"")] * count, (b"VP8L", one)),
        )
    frames = [webp_frame(0, 0, 1, 1, chunk(b"VP8L", one))] * 60_000
    yield Bomb(
        name="webp-60000-frames.webp",
        kind="many frames",
        shape=picture,
        refused="",
        cpu=2,
        memory=60 * MB,
        make=lambda: riff(vp8x(1, 1, 2), (b"ANIM", bytes(6)), *frames),
    )
    inner = [chunk(b"abcd", b"")] * 400_000
    yield Bomb(
        name="webp-many-chunks-in-a-frame.webp",
        kind="many chunks",
        shape=picture,
        refused="",
        cpu=2,
        memory=60 * MB,
        make=lambda: riff(
            vp8x(1, 1, 2), (b"ANIM", bytes(6)), webp_frame(0, 0, 1, 1, b"".join(inner) + chunk(b"VP8L", one))
        ),
    )
    yield from webp_exif_bombs(one)
    yield from webp_length_bombs(one)


def webp_exif_bombs(one: bytes) -> Iterator[Bomb]:
    """EXIF that costs a loop."""
    picture = (1, 1, 3)
    for entries, count in ((65_535, 1), (65_535, 1_000_000)):
        yield Bomb(
            name=f"webp-exif-{entries}-orientations-of-{count}.webp",
            kind="duplicate tags with many values",
            shape=picture,
            make=lambda e=entries, c=count: riff(vp8x(1, 1, 8), (b"VP8L", one), (b"EXIF", exif_of_many(e, c))),
            refused="",
            cpu=2,
            memory=30 * MB,
        )
    yield Bomb(
        name="webp-60-exif-chunks.webp",
        kind="duplicate chunks",
        shape=picture,
        refused="",
        cpu=2,
        make=lambda: riff(vp8x(1, 1, 8), (b"VP8L", one), *[(b"EXIF", exif_of_many(5_000, 1))] * 60),
        memory=30 * MB,
    )


def webp_length_bombs(one: bytes) -> Iterator[Bomb]:
    """Lengths that lie, sparse files, truncation."""
    picture = (1, 1, 3)
    for length in (0, 2**31, 2**32 - 1, 2**32 - 8):
        file = riff((b"VP8L", one))
        yield Bomb(
            name=f"webp-chunk-of-length-{length}.webp",
            kind="lying length",
            refused="",
            make=lambda file=file, length=length: file[:16] + struct.pack("<I", length) + file[20:],
        )
        yield Bomb(
            name=f"webp-file-of-length-{length}.webp",
            kind="lying length",
            refused="",
            shape=picture,
            cpu=2,
            memory=10 * MB,
            make=lambda file=file, length=length: file[:4] + struct.pack("<I", length) + file[8:],
        )
    # Eight zeros are an empty chunk without a name.
    for name, size in (("90mb", 90 * MB), ("4gb", 2**32 - 200), ("100gb", 10**11)):
        length = min(size + 20, 2**32 - 1)
        head = b"RIFF" + struct.pack("<I", length) + riff((b"VP8L", one))[8:]
        yield Bomb(
            name=f"webp-sparse-{name}.webp",
            kind="sparse file of empty chunks",
            make=lambda head=head: head,
            tail=size,
            refused="",
            memory=60 * MB + 12 * LIMIT if size < 10**9 else 6 * MB,
        )
    whole = riff(vp8x(1, 1, 8), (b"VP8L", one), (b"EXIF", exif([(274, 3, 1, 6)])))
    yield from cut_bombs("webp", whole, truncations(whole, (b"WEBP", b"VP8X", b"VP8L", b"EXIF")))
