"""TIFFs that cost far more than their bytes: sizes, tags, directories; tiff_pixels has strips and tiles."""

import functools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile.images.bomb import BROKEN, MB, SIDE, TOO_LARGE, Bomb, cut_bombs, deflated, sparse_bomb
from tests.hostile.images.encoders.tiff import (
    Tag,
    tiff,
    tiff_chain,
    tiff_leading_on,
    tiff_strips,
    tiff_tags,
)
from tests.hostile.images.tiff_pixels import tiff_large_bombs, tiff_strip_bombs

_STRIP = deflated(bytes(24), 8)  # of 8 x 8 pixels


def changed_tiff(*replaced: Tag, **options: Any) -> bytes:
    """A TIFF of 8 x 8 pixels with other tags in place of the usual ones."""
    return tiff(_STRIP, tiff_tags(8, 8, [(8, len(_STRIP))], replaced=replaced, **options))


def doubled_tiff(*more: Tag) -> bytes:
    """A TIFF of 8 x 8 pixels with more tags behind the usual ones."""
    return tiff(_STRIP, [*tiff_tags(8, 8, [(8, len(_STRIP))]), *more])


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
    yield from tiff_tag_bombs()
    yield from tiff_header_bombs()
    yield from tiff_directory_bombs(_STRIP)
    yield from tiff_large_bombs()
    yield from tiff_strip_bombs()
    yield from tiff_cut_bombs()


def tiff_tag_bombs() -> Iterator[Bomb]:
    """Sides of odd types, tags twice, BigTIFF."""
    for name, kind in (("slong", 9), ("long8", 16), ("byte", 1), ("ascii", 2), ("undefined", 7)):
        sides: list[Tag] = [
            (256, kind, [200 if kind in {1, 2, 7} else 30_000]),
            (257, kind, [200 if kind in {1, 2, 7} else 30_000]),
        ]
        yield Bomb(
            name=f"tiff-sides-of-type-{name}.tiff",
            kind="odd field type",
            make=functools.partial(changed_tiff, *sides),
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
            make=functools.partial(doubled_tiff, *more),
            refused=BROKEN,
        )
    yield Bomb(
        name="tiff-bigtiff.tiff",
        kind="variety that is not accepted",
        make=lambda: b"II\x2b\0\x08\0\0\0" + bytes(64),
        refused="BigTIFF",
    )


def tiff_header_bombs() -> Iterator[Bomb]:
    """Headers that lie."""
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
            make=functools.partial(changed_tiff, *replaced),
            refused="",
            shape=(500_000, 8, 3) if "1-row" in name else (8, 8, 3),
            cpu=2,
            memory=60 * MB,
        )


def tiff_cut_bombs() -> Iterator[Bomb]:
    """Truncation, and a sparse file."""
    whole = tiff_strips(8, 8, 8)
    yield from cut_bombs("tiff", whole, (1, 3, 7, 8, 12, *range(len(whole) - 118, len(whole), 20)))
    yield sparse_bomb("tiff", whole)


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
