"""AVIFs that cost far more than their bytes."""

import dataclasses
import functools
import io
import struct
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image
from tests.hostile.pictures.bomb import (
    BROKEN,
    MB,
    SIDE,
    TOO_LARGE,
    Bomb,
    square,
    truncations,
)


@dataclasses.dataclass(frozen=True)
class AvifItem:
    """An item of an AVIF file.

    Attributes:
        data: its content.
        size: width and height that the file says.
        kind: of the item.
        alpha_of: number of the item whose alpha it is; items count from 1.
        tiles: numbers of the items that it is made of.
        extents: places and lengths in the file instead of its own; counted from the beginning.
    """

    data: bytes
    size: tuple[int, int] = (64, 64)
    kind: bytes = b"av01"
    alpha_of: int = 0
    tiles: tuple[int, ...] = ()
    extents: tuple[tuple[int, int], ...] | None = None


def box(kind: bytes, body: bytes) -> bytes:
    """A box with its length."""
    return struct.pack(">I", len(body) + 8) + kind + body


def full_box(kind: bytes, body: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(kind, bytes([version]) + flags.to_bytes(3, "big") + body)


@functools.cache
def flat_av1(width: int, height: int, depth: int = 8, *, full_colour: bool = True, grey: bool = False) -> bytes:
    """The AV1 stream of a flat picture, as OpenCV or Pillow encodes it."""
    if depth == 8 and not grey:
        file = io.BytesIO()
        picture = Image.new("RGB", (width, height), (9, 9, 9))
        picture.save(file, "AVIF", speed=10, subsampling="4:4:4" if full_colour else "4:2:0")
        return _stored_av1(file.getvalue())
    pixels = np.full((height, width) if grey else (height, width, 3), 9, np.uint8 if depth == 8 else np.uint16)
    settings = [cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_SPEED, 10]
    settings += [cv2.IMWRITE_AVIF_QUALITY, 100] if full_colour else []
    return _stored_av1(cv2.imencode(".avif", pixels, settings)[1].tobytes())


def _stored_av1(file: bytes) -> bytes:
    start = file.rindex(b"mdat") + 4
    return file[start:]


def avif_file(
    items: Sequence[AvifItem],
    *,
    depth: int = 8,
    before: bytes = b"",
    inside: bytes = b"",
    brand: bytes = b"avif",
    places: bytes | None = None,
    associations: int = 1,
    turned: bool = False,
) -> bytes:
    """An AVIF file whose primary item is the first; `before` are boxes in front of meta, `inside` boxes within it."""
    properties: list[bytes] = []
    belongs = b""
    for number, item in enumerate(items, 1):
        own = [full_box(b"ispe", struct.pack(">II", *item.size)), full_box(b"pixi", bytes([3, depth, depth, depth]))]
        if item.kind == b"av01":
            high, twelve = depth > 8, depth == 12
            flags = (high << 6) | (twelve << 5)
            own.append(box(b"av1C", bytes([0x81, (2 if twelve else 1) << 5 | 8, flags, 0])))
        if turned:
            own.append(box(b"irot", b"\1"))
        if item.alpha_of:
            own.append(full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"))
        first = len(properties) + 1
        properties += own
        essential = {index for index, one in enumerate(own) if one[4:8] in {b"av1C", b"irot"}}
        numbers = bytes(first + index | 128 * (index in essential) for index in range(len(own)))
        belongs += (struct.pack(">HB", number, len(numbers)) + numbers) * (associations if number == 1 else 1)
    property_boxes = box(b"ipco", b"".join(properties)) + full_box(
        b"ipma", struct.pack(">I", len(items) + associations - 1) + belongs
    )
    names = b"".join(
        full_box(b"infe", struct.pack(">HH4s", number, 0, item.kind) + b"\0", 2) for number, item in enumerate(items, 1)
    )
    references = b"".join(
        box(b"auxl", struct.pack(">HHH", number, 1, item.alpha_of))
        for number, item in enumerate(items, 1)
        if item.alpha_of
    ) + b"".join(
        box(b"dimg", struct.pack(f">HH{len(item.tiles)}H", number, len(item.tiles), *item.tiles))
        for number, item in enumerate(items, 1)
        if item.tiles
    )
    ftyp = box(b"ftyp", brand + bytes(4) + b"avifmif1miaf")

    def meta(start: int) -> bytes:
        entries = b""
        for number, item in enumerate(items, 1):
            extents = item.extents if item.extents is not None else ((start, len(item.data)),)
            start += len(item.data)
            packed = np.array(extents, ">u4").tobytes()
            entries += struct.pack(">HHH", number, 0, len(extents)) + packed
        iloc = full_box(b"iloc", b"\x44\0" + struct.pack(">H", len(items)) + entries) if places is None else places
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full_box(b"pitm", struct.pack(">H", 1))
            + iloc
            + full_box(b"iinf", struct.pack(">H", len(items)) + names)
            + (full_box(b"iref", references) if references else b"")
            + box(b"iprp", property_boxes)
            + inside,
        )

    start = len(ftyp) + len(before) + len(meta(0)) + 8
    return ftyp + before + meta(start) + box(b"mdat", b"".join(item.data for item in items))


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
    yield from avif_grid_bombs(small)
    yield from avif_box_bombs(small, sixty_four)
    whole = avif_file([AvifItem(small)])
    marks = (b"ftyp", b"meta", b"pitm", b"iloc", b"iinf", b"infe", b"iprp", b"ipco", b"ispe", b"ipma", b"mdat")
    for at in truncations(whole, marks):
        yield Bomb(name=f"avif-cut-at-{at}.avif", kind="truncation", make=lambda at=at: whole[:at], refused="")
    yield Bomb(
        name="avif-sparse-100gb.avif", kind="sparse file", make=lambda: whole, tail=10**11, refused="", memory=6 * MB
    )


def avif_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    for name, depth, full_colour, alpha, slow in (
        ("420", 8, False, False, False),
        ("444-alpha", 8, True, True, True),
        ("10bit-444-alpha", 10, True, True, True),
        ("12bit-444", 12, True, False, True),
        ("12bit-444-alpha", 12, True, True, True),
    ):

        def make(depth: int = depth, full_colour: bool = full_colour, alpha: bool = alpha) -> bytes:
            items = [AvifItem(flat_av1(SIDE, SIDE, depth, full_colour=full_colour), (SIDE, SIDE))]
            if alpha:
                items.append(AvifItem(flat_av1(SIDE, SIDE, depth, grey=True), (SIDE, SIDE), alpha_of=1))
            return avif_file(items, depth=depth)

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

        def make(side: int = side, depth: int = depth, full_colour: bool = full_colour, alpha: bool = alpha) -> bytes:
            items = [AvifItem(flat_av1(side, side, depth, full_colour=full_colour), (side, side))]
            if alpha:
                items.append(AvifItem(flat_av1(side, side, depth, grey=True), (side, side), alpha_of=1))
            return avif_file(items, depth=depth, turned=True)

        yield Bomb(
            name=f"avif-{side}sq-{name}-turned.avif",
            kind="just below what memory admits",
            make=make,
            shape=square(side),
            refused="max_pixels",
            slow=True,
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
