"""AVIFs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator, Sequence

from tests.hostile.images.bomb import (
    BROKEN,
    MB,
    SIDE,
    TOO_LARGE,
    Bomb,
    cut_bombs,
    sparse_bomb,
    square,
    truncations,
)
from tests.hostile.images.encoders.avif import AvifItem, avif_file, box, flat_av1, full_box


def avif_bombs() -> Iterator[Bomb]:
    """AVIF."""
    small = flat_av1(64, 64)
    sixty_four = square(64)

    def saying(width: int, height: int) -> bytes:
        return avif_file([AvifItem(small, (width, height))])

    for name, width, height in (
        ("16384sq", 16_384, 16_384),
        ("2e32", 2**32 - 1, 2**32 - 1),
        ("just-above", SIDE + 1, SIDE),
    ):
        make = functools.partial(saying, width, height)
        yield Bomb(name=f"avif-{name}.avif", kind="size above the limit", make=make, refused=f"{TOO_LARGE}|{BROKEN}")
    for width, height in ((0, 64), (64, 0), (1, 1)):
        make = functools.partial(saying, width, height)
        yield Bomb(
            name=f"avif-says-{width}x{height}.avif",
            kind="lying size",
            make=make,
            refused="",
            shape=(1, 1, 3) if width == height else None,
            cpu=2,
            memory=10 * MB,
        )
    yield Bomb(
        name="avif-stream-is-larger.avif",
        kind="lying size",
        refused="limit|damaged|decoded",
        limit=10_000,
        make=lambda: avif_file([AvifItem(flat_av1(1024, 1024), (64, 64))]),
        cpu=2,
        memory=8 * MB,
    )
    yield Bomb(
        name="avif-alpha-is-larger.avif",
        kind="lying size of alpha",
        refused="limit|damaged|decoded",
        limit=10_000,
        make=lambda: avif_file([AvifItem(small), AvifItem(flat_av1(1024, 1024), alpha_of=1)]),
        cpu=2,
        memory=8 * MB,
    )
    yield from avif_large_bombs()
    yield from avif_admitted_bombs()
    yield from avif_padded_bombs()
    yield from avif_grid_bombs(small)
    yield from avif_box_bombs(small, sixty_four)
    whole = avif_file([AvifItem(small)])
    marks = (b"ftyp", b"meta", b"pitm", b"iloc", b"iinf", b"infe", b"iprp", b"ipco", b"ispe", b"ipma", b"mdat")
    yield from cut_bombs("avif", whole, truncations(whole, marks), refused="")
    yield sparse_bomb("avif", whole)


def avif_of(side: int, depth: int, *, full_colour: bool, alpha: bool, turned: bool) -> bytes:
    """A flat square, with alpha or without."""
    items = [AvifItem(flat_av1(side, side, depth, full_colour=full_colour), (side, side))]
    if alpha:
        items.append(AvifItem(flat_av1(side, side, depth, grey=True), (side, side), alpha_of=1))
    return avif_file(items, depth=depth, turned=turned)


def avif_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    for name, depth, full_colour, alpha, slow in (
        ("420", 8, False, False, False),
        ("444-alpha", 8, True, True, True),
        ("10bit-444-alpha", 10, True, True, True),
        ("12bit-444", 12, True, False, True),
        ("12bit-444-alpha", 12, True, True, True),
    ):
        make = functools.partial(avif_of, SIDE, depth, full_colour=full_colour, alpha=alpha, turned=False)

        yield Bomb(
            name=f"avif-5000sq-{name}.avif",
            kind="just below the limit",
            make=make,
            shape=square(),
            refused="max_pixels",
            slow=slow,
        )


def avif_admitted_bombs() -> Iterator[Bomb]:
    """Fewer pixels than the limit, so that the memory which the header tells is about what may be taken."""
    for name, side, depth, full_colour, alpha in (
        ("420", 4000, 8, False, False),
        ("444-alpha", 2700, 8, True, True),
        ("12bit-444", 3350, 12, True, False),
        ("12bit-444-alpha", 2350, 12, True, True),
    ):
        make = functools.partial(avif_of, side, depth, full_colour=full_colour, alpha=alpha, turned=True)

        yield Bomb(
            name=f"avif-{side}sq-{name}-turned.avif",
            kind="just below what memory admits",
            make=make,
            shape=square(side),
            refused="max_pixels",
            slow=True,
        )


def avif_padded_bombs() -> Iterator[Bomb]:
    """Long files, whose copy counts, too."""
    for brand in (b"avif", b"mif1"):
        for side in (64, 3000):
            yield Bomb(
                name=f"avif-{side}sq-{brand.decode()}-and-150mb-behind.avif",
                kind="long file",
                make=lambda brand=brand, side=side: (
                    avif_file([AvifItem(flat_av1(side, side, full_colour=False), (side, side))], brand=brand)
                    + struct.pack(">I4s", 150 * MB + 8, b"free")
                ),
                tail=150 * MB,
                shape=square(side),
                refused="max_pixels",
                slow=side == 3000,
            )


def avif_grid_bombs(small: bytes) -> Iterator[Bomb]:
    """Pictures made of items, which may be the same ones again and again."""
    tile = AvifItem(small)

    def grid(rows: int, columns: int, width: int, height: int, tiles: Sequence[int], count: int = 1) -> bytes:
        content = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
        return avif_file([AvifItem(content, (width, height), b"grid", tiles=tuple(tiles)), *[tile] * count])

    for name, make in (
        ("of-one-tile-256x256", lambda: grid(256, 256, 16_384, 16_384, [2] * 60_000)),
        ("of-itself", lambda: grid(1, 2, 128, 64, [1, 1])),
        ("at-the-limit", lambda: grid(78, 78, 4992, 4992, [2] * 6084)),
        ("of-nothing", lambda: grid(256, 256, 16_384, 16_384, [])),
        ("of-2e32", lambda: grid(256, 256, 2**32 - 1, 2**32 - 1, [2])),
        ("of-20-tiles", lambda: grid(4, 5, 320, 256, range(2, 22), 20)),
    ):
        yield Bomb(
            name=f"avif-grid-{name}.avif",
            kind="grid",
            make=make,
            refused="",
            memory=20 * MB,
            shape=(256, 320, 3) if "20" in name else None,
            cpu=2,
        )
    yield from avif_alpha_bombs(small)
    yield from avif_derived_bombs(small)


def avif_alpha_bombs(small: bytes) -> Iterator[Bomb]:
    """Alpha that is a grid, of itself, or many times."""
    tile = AvifItem(small)
    grid_alpha = struct.pack(">BBBBII", 0, 1, 77, 77, 4992, 4992)
    yield Bomb(
        name="avif-alpha-is-a-grid.avif",
        kind="grid as alpha",
        refused="",
        shape=square(64),
        cpu=2,
        memory=20 * MB,
        make=lambda: avif_file(
            [tile, AvifItem(grid_alpha, (4992, 4992), b"grid", alpha_of=1, tiles=(3,) * 6084), tile]
        ),
    )
    yield Bomb(
        name="avif-alpha-of-itself.avif",
        kind="recursive items",
        refused="",
        shape=square(64),
        cpu=2,
        memory=20 * MB,
        make=lambda: avif_file([AvifItem(small, alpha_of=1)]),
    )
    yield Bomb(
        name="avif-60-alphas.avif",
        kind="many items",
        refused="",
        shape=square(64),
        cpu=2,
        memory=20 * MB,
        make=lambda: avif_file([tile, *[AvifItem(small, alpha_of=1)] * 60]),
    )
    for depth in (8, 12):
        color = functools.partial(flat_av1, 2560, 2560, depth, full_colour=False)
        content = struct.pack(">BBBBII", 0, 1, 39, 39, 2560, 2560)
        yield Bomb(
            name=f"avif-2560sq-{depth}bit-alpha-is-a-grid.avif",
            kind="grid as alpha",
            refused="",
            shape=square(2560),
            make=lambda depth=depth, color=color, content=content: avif_file(
                [
                    AvifItem(color(), (2560, 2560)),
                    AvifItem(content, (2560, 2560), b"grid", alpha_of=1, tiles=tuple(range(3, 1603))),
                    *[AvifItem(flat_av1(64, 64, depth, grey=True))] * 1600,
                ],
                depth=depth,
            ),
            slow=depth == 12,
        )


def avif_derived_bombs(small: bytes) -> Iterator[Bomb]:
    """Primary items that are derived from others."""
    tile = AvifItem(small)
    for kind in (b"iden", b"iovl", b"tmap", b"sato", b"hvc1", b"\0\0\0\0"):
        yield Bomb(
            name=f"avif-primary-is-{kind.decode().strip(chr(0)) or 'nameless'}.avif",
            kind="derived item",
            refused="",
            memory=20 * MB,
            make=lambda kind=kind: avif_file([AvifItem(small, kind=kind, tiles=(2, 2)), tile]),
        )


def avif_box_bombs(small: bytes, shape: tuple[int, ...]) -> Iterator[Bomb]:
    """Boxes, items and extents: many, nested, endless, on one another."""
    item = AvifItem(small)
    for name, options in (
        ("in-front", lambda: {"before": box(b"free", b"") * 400_000}),
        ("inside-meta", lambda: {"inside": box(b"free", b"") * 400_000}),
        ("properties", lambda: {"inside": box(b"iprp", box(b"ipco", box(b"free", b"") * 400_000))}),
        ("nested", lambda: {"inside": functools.reduce(lambda body, _: box(b"iprp", body), range(2000), b"")}),
        ("meta-twice", lambda: {"before": full_box(b"meta", b"") * 1000}),
        ("associations", lambda: {"associations": 60_000}),
    ):
        make = functools.partial(lambda options: avif_file([item], **options()), options)
        yield Bomb(
            name=f"avif-many-boxes-{name}.avif",
            kind="many boxes",
            make=make,
            shape=shape,
            refused="",
            cpu=2,
            memory=60 * MB,
        )
    yield from avif_extent_bombs(small, shape)
    yield from avif_stream_bombs(small, shape)
    yield from avif_length_bombs(small)
    yield from avif_animation_bombs(small, shape)


def avif_extent_bombs(small: bytes, shape: tuple[int, ...]) -> Iterator[Bomb]:
    """Extents and items in iloc: endless, and on one another."""
    item = AvifItem(small)
    # Extents whose numbers take no bytes at all.
    free = full_box(b"iloc", b"\0\0" + struct.pack(">H", 60_000) + struct.pack(">HHH", 1, 0, 65_535) * 60_000)
    yield Bomb(
        name="avif-4-billion-extents-of-no-bytes.avif",
        kind="endless extents",
        refused="",
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file([item], places=free),
    )
    version2 = full_box(
        b"iloc", b"\0\0" + struct.pack(">I", 2**32 - 1) + struct.pack(">IHHH", 1, 0, 0, 65_535) * 60_000, 2
    )
    yield Bomb(
        name="avif-2e32-items-in-iloc.avif",
        kind="endless items",
        refused="",
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file([item], places=version2),
    )
    for name, count, length in (("all-of-the-file", 60_000, 2_000_000), ("to-the-end", 60_000, 0)):
        yield Bomb(
            name=f"avif-60000-extents-{name}.avif",
            kind="extents that lie on one another",
            refused="",
            cpu=2,
            memory=60 * MB,
            make=lambda count=count, length=length: avif_file(
                [AvifItem(small + bytes(2_000_000), extents=((0, length),) * count)]
            ),
        )
    yield Bomb(
        name="avif-200-items-of-2-mb.avif",
        kind="items that lie on one another",
        refused="",
        shape=shape,
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file(
            [item, *[AvifItem(b"", extents=((700, 2_000_000),)) for _ in range(79)], AvifItem(b"\x12\0" * 1_000_000)]
        ),
    )


def avif_stream_bombs(small: bytes, shape: tuple[int, ...]) -> Iterator[Bomb]:
    """Many units and frames in one AV1 stream."""
    yield Bomb(
        name="avif-million-empty-units.avif",
        kind="many units in a stream",
        refused="",
        shape=shape,
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file([AvifItem(b"\x12\0" * 1_000_000 + small)]),
    )
    sequence = small[2 : 4 + small[3]]  # behind the temporal delimiter
    yield Bomb(
        name="avif-200000-sequence-headers.avif",
        kind="many units in a stream",
        refused="",
        shape=shape,
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file([AvifItem(sequence * 200_000 + small)]),
    )
    yield Bomb(
        name="avif-1000-frames.avif",
        kind="many frames",
        refused="",
        shape=shape,
        cpu=2,
        memory=60 * MB,
        make=lambda: avif_file([AvifItem(small * 1000)]),
    )


def avif_length_bombs(small: bytes) -> Iterator[Bomb]:
    """Boxes that lie of their length."""
    item = AvifItem(small)
    for size in (2, 7, 2**31, 2**32 - 1):
        yield Bomb(
            name=f"avif-box-of-{size}.avif",
            kind="lying length",
            refused="",
            cpu=2,
            make=lambda size=size: avif_file([item], before=struct.pack(">I4s", size, b"free")),
        )
    for size in (0, 1, 2**62, 2**64 - 1):
        yield Bomb(
            name=f"avif-long-box-of-{size}.avif",
            kind="lying length",
            refused="",
            cpu=2,
            make=lambda size=size: avif_file([item], before=struct.pack(">I4sQ", 1, b"free", size)),
        )


def avif_animation_bombs(small: bytes, shape: tuple[int, ...]) -> Iterator[Bomb]:
    """Brands and boxes of animations."""
    item = AvifItem(small)
    for brand in (b"avis", b"mif1", b"msf1"):
        yield Bomb(
            name=f"avif-brand-{brand.decode()}.avif",
            kind="brand of an animation",
            refused="",
            shape=shape,
            cpu=2,
            memory=20 * MB,
            make=lambda brand=brand: avif_file([item], brand=brand),
        )
    moov = box(b"moov", functools.reduce(lambda body, _: box(b"trak", body), range(2000), b""))
    yield Bomb(
        name="avif-animation-nested.avif",
        kind="nested boxes",
        refused="",
        shape=shape,
        cpu=2,
        memory=20 * MB,
        make=lambda: avif_file([item], brand=b"avis", before=moov),
    )
