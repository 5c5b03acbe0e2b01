"""JPEGs that cost far more than their bytes."""

import functools
import struct
from collections.abc import Iterator

from tests.hostile.images.bomb import (
    BROKEN,
    HUGE,
    LIMIT,
    MANY,
    MB,
    NOT_ACCEPTED,
    SIDE,
    TOO_LARGE,
    Bomb,
    cut_bombs,
    many,
    square,
    truncations,
)
from tests.hostile.images.encoders.exif import exif, exif_of_many
from tests.hostile.images.encoders.jpeg import (
    jpeg,
    jpeg_frame,
    jpeg_segment,
    jpeg_tables,
    progressive_jpeg,
    sequential_jpeg,
)


def jpeg_bombs() -> Iterator[Bomb]:
    """JPEG."""
    small = jpeg(8, 8)
    for name, width, height in (("65500sq", 65_500, 65_500), ("13376sq", HUGE, HUGE), ("just-above", SIDE + 1, SIDE)):
        make = functools.partial(jpeg, width, height, data=bytes(1000))
        yield Bomb(name=f"jpg-{name}.jpg", kind="size above the limit", make=make, refused=TOO_LARGE)
    make = functools.partial(progressive_jpeg, HUGE, HUGE, 1, 1000)
    yield Bomb(
        name="jpg-13376sq-1000-scans.jpg", kind="many scans, size above the limit", make=make, refused="limit|scans"
    )
    for side, scans in ((4000, 5000), (1024, 20_000), (8, 60_000), (SIDE, 65)):
        make = functools.partial(progressive_jpeg, side, side, 1, scans)
        yield Bomb(name=f"jpg-{side}sq-{scans}-scans.jpg", kind="many scans", make=make, refused="scans")
    yield Bomb(
        name="jpg-many-huffman-tables.jpg",
        kind="many segments",
        shape=(8, 8, 3),
        refused="",
        cpu=2,
        memory=30 * MB,
        make=lambda: jpeg(8, 8, before=jpeg_tables() * 20_000),
    )
    yield from jpeg_large_bombs()
    yield from jpeg_long_bombs()
    yield from jpeg_segment_bombs(small)
    yield from jpeg_damaged_bombs(small)


def jpeg_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in the dearest ways."""
    for name, components, sampling, slow in (
        ("rgb", 3, 0x11, False),
        ("cmyk", 4, 0x11, False),
        ("grey", 1, 0x11, True),
        ("420", 3, 0x22, True),
        ("410", 3, 0x42, True),
    ):
        make = functools.partial(jpeg, components=components, sampling=sampling)
        yield Bomb(name=f"jpg-5000sq-{name}.jpg", kind="just below the limit", make=make, shape=square(), slow=slow)
    yield from jpeg_scan_bombs()
    yield from jpeg_shape_bombs()
    yield from jpeg_variety_bombs()


def jpeg_scan_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits, in many scans."""
    for name, components, scans, refining, slow in (
        ("rgb", 3, 4, False, True),
        ("cmyk", 4, 5, False, False),
        ("rgb-64-scans", 3, 64, False, True),
        ("cmyk-64-refining-scans", 4, 64, True, False),
    ):
        make = functools.partial(progressive_jpeg, SIDE, SIDE, components, scans, refining=refining)
        yield Bomb(
            name=f"jpg-5000sq-progressive-{name}.jpg",
            kind="just below the limit, many scans",
            make=make,
            shape=square(),
            refused="scans",
            warns="",
            slow=slow,
        )
    for name, sof, scans in (("arithmetic", 0xC9, 1), ("arithmetic-progressive-64-scans", 0xCA, 64)):
        make = (
            functools.partial(jpeg, sof=sof, data=b"")
            if scans == 1
            else functools.partial(progressive_jpeg, SIDE, SIDE, 4, scans, sof=sof, empty=True)
        )
        yield Bomb(
            name=f"jpg-5000sq-{name}.jpg",
            kind="just below the limit, no data to decode",
            make=make,
            shape=square(),
            refused="",
            warns="",
            cpu=10,
        )
    for components, sampling in ((3, 0x11), (4, 0x44), (3, 0x44)):
        yield Bomb(
            name=f"jpg-5000sq-{components}-scans-sampled-{sampling:x}.jpg",
            kind="just below the limit, a scan per component",
            make=functools.partial(sequential_jpeg, SIDE, SIDE, components, sampling),
            shape=square(),
            refused="max_pixels",
            warns="",
            slow=sampling == 0x11,
        )
    yield Bomb(
        name="jpg-65500x381-scans-sampled-44.jpg",
        kind="just below the limit, a scan per component",
        shape=(381, 65_500, 3),
        make=lambda: sequential_jpeg(65_500, 381, 3, 0x44),
        refused="max_pixels",
        warns="",
        slow=True,
    )


def jpeg_shape_bombs() -> Iterator[Bomb]:
    """Turned, of long lines, or narrow."""
    turned = jpeg_segment(0xE1, b"Exif\0\0" + exif([(274, 3, 1, 6)]))
    yield Bomb(
        name="jpg-5000sq-cmyk-turned.jpg",
        kind="just below the limit, turned",
        shape=square(),
        make=lambda: jpeg(components=4, before=turned),
        slow=True,
    )
    yield Bomb(
        name="jpg-65500x381.jpg",
        kind="just below the limit, long lines",
        shape=(381, 65_500, 3),
        make=lambda: jpeg(65_500, 381),
        slow=True,
    )
    yield Bomb(
        name="jpg-1x65500-sampled-4x4.jpg",
        kind="narrow, in units of 32 x 32",
        shape=(65_500, 1, 3),
        refused="",
        make=lambda: jpeg(1, 65_500, sampling=0x42),
        limit=70_000,
    )


def jpeg_variety_bombs() -> Iterator[Bomb]:
    """Varieties and numbers of components that are not accepted."""
    for bits, sof in ((12, 0xC1), (16, 0xC3), (8, 0xC3), (8, 0xC5), (8, 0xCB), (255, 0xC0)):
        make = functools.partial(jpeg, sof=sof, bits=bits, data=b"")
        yield Bomb(
            name=f"jpg-{bits}bit-sof{sof & 15}.jpg",
            kind="variety that is not accepted",
            make=make,
            refused=NOT_ACCEPTED,
        )
    for components in (0, 2, 5, 255):
        make = functools.partial(jpeg, 8, 8, components, data=b"")
        yield Bomb(name=f"jpg-{components}-components.jpg", kind="lying header", make=make, refused="")


def jpeg_long_bombs() -> Iterator[Bomb]:
    """As many bytes as may be, 150 MB."""
    for name, unit in (("stuffed", b"\xff\0"), ("restarts", b"\xff\xd0"), ("fill-bytes", b"\xff"), ("zeros", b"\0")):
        yield Bomb(
            name=f"jpg-150mb-of-{name}.jpg",
            kind="long data of a scan",
            shape=(8, 8, 3),
            refused="",
            warns="",
            cpu=2,
            given=True,
            make=lambda unit=unit: jpeg(8, 8, data=unit * (150 * MB // len(unit))),
            memory=170 * MB,
            slow=name != "stuffed",
        )
    yield Bomb(
        name="jpg-150mb-of-comments.jpg",
        kind="long metadata",
        shape=(8, 8, 3),
        refused="",
        cpu=2,
        given=True,
        memory=170 * MB,
        make=lambda: jpeg(8, 8, before=jpeg_segment(0xFE, b"\xff\xd9" * 32_000) * 2300),
        slow=True,
    )


def jpeg_segment_bombs(small: bytes) -> Iterator[Bomb]:
    """Many segments, and EXIF that costs a loop."""
    eight = (8, 8, 3)
    for name, segments in (
        ("comments", many(jpeg_segment(0xFE, b""), MANY)),
        ("app0", many(jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"), 150_000)),
        ("restart-intervals", many(jpeg_segment(0xDD, b"\0\0"), MANY)),
        ("adobe", many(jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\7"), 200_000)),
        ("fill-bytes", many(b"\xff", 4_000_000)),
    ):
        yield Bomb(
            name=f"jpg-many-{name}.jpg",
            kind="many segments",
            shape=eight,
            refused="",
            warns="",
            memory=40 * MB,
            cpu=2,
            make=lambda segments=segments: jpeg(8, 8, before=segments()),
        )
    for name, entries, count in (("many", 5_000, 1), ("many-of-many", 500, 29_000)):
        segment = jpeg_segment(0xE1, b"Exif\0\0" + exif_of_many(entries, count))
        yield Bomb(
            name=f"jpg-60-exif-{name}-orientations.jpg",
            kind="duplicate tags with many values",
            shape=eight,
            refused="",
            make=lambda segment=segment: jpeg(8, 8, before=segment * 60),
            cpu=2,
            memory=40 * MB,
        )
    yield from jpeg_metadata_bombs()
    yield from jpeg_frame_bombs(small)


def jpeg_metadata_bombs() -> Iterator[Bomb]:
    """EXIF that loops, huge thumbnails, profiles, nested XMP."""
    eight = (8, 8, 3)
    loop = jpeg_segment(0xE1, b"Exif\0\0" + exif([(0x8769, 4, 1, 8), (0x014A, 4, 1, 8)], following=8))
    yield Bomb(
        name="jpg-exif-loop.jpg", kind="recursive directories", make=lambda: jpeg(8, 8, before=loop), shape=eight, cpu=2
    )
    thumbnail = jpeg_segment(0xE1, b"Exif\0\0" + exif([(0x0201, 4, 1, 8)], jpeg(65_500, 65_500, data=b"")))
    yield Bomb(
        name="jpg-huge-thumbnail.jpg",
        kind="huge picture inside metadata",
        make=lambda: jpeg(8, 8, before=thumbnail),
        shape=eight,
        cpu=2,
        memory=10 * MB,
    )
    profile = many(jpeg_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000)), 60)
    yield Bomb(
        name="jpg-60-icc-profiles.jpg",
        kind="large metadata",
        make=lambda: jpeg(8, 8, before=profile()),
        shape=eight,
        warns="",
        cpu=2,
        memory=40 * MB,
    )
    xmp = many(jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<a>" * 20_000), 60)
    yield Bomb(
        name="jpg-nested-xmp.jpg",
        kind="nested metadata",
        make=lambda: jpeg(8, 8, before=xmp()),
        shape=eight,
        cpu=2,
        memory=40 * MB,
    )


def jpeg_frame_bombs(small: bytes) -> Iterator[Bomb]:
    """Many pictures in a file, and several frame headers."""
    eight = (8, 8, 3)
    yield Bomb(
        name="jpg-5000-pictures.jpg",
        kind="many pictures, one behind the other",
        make=lambda: small * 5000,
        shape=eight,
        cpu=2,
        memory=40 * MB,
    )
    yield Bomb(
        name="jpg-second-frame-is-huge.jpg",
        kind="duplicate frame header",
        refused="",
        make=lambda: small.replace(b"\xff\xda", jpeg_frame(65_500, 65_500, 3) + b"\xff\xda", 1),
    )
    yield Bomb(
        name="jpg-first-frame-is-huge.jpg",
        kind="duplicate frame header",
        refused=f"{TOO_LARGE}|{BROKEN}",
        make=lambda: jpeg(8, 8, before=jpeg_frame(65_500, 65_500, 3)),
    )


def jpeg_damaged_bombs(small: bytes) -> Iterator[Bomb]:
    """Sizes of 0, lying lengths, no data, truncation."""
    for width, height in ((0, 8), (8, 0), (0, 0)):
        make = functools.partial(jpeg, width, height, data=b"\0")
        yield Bomb(name=f"jpg-{width}x{height}.jpg", kind="size 0", make=make, refused=BROKEN)
    for length in (0, 1, 2, 65_535):
        segment = struct.pack(">BBH", 0xFF, 0xFE, length)
        yield Bomb(
            name=f"jpg-comment-of-length-{length}.jpg",
            kind="lying length",
            make=lambda s=segment: jpeg(8, 8, before=s),
            refused="",
            shape=(8, 8, 3),
            warns="",
            cpu=2,
        )
    for name, data, components in (("none", b"", 3), ("one-byte", b"\0", 4)):
        make = functools.partial(jpeg, components=components, data=data)
        yield Bomb(
            name=f"jpg-5000sq-data-{name}.jpg",
            kind="no data in the scan",
            make=make,
            shape=square(),
            warns="damaged",
            slow=bool(data),
        )
        yield Bomb(
            name=f"jpg-5000sq-data-{name}-strict.jpg",
            kind="no data in the scan, strict",
            make=make,
            refused="damaged",
            strict=True,
            memory=60 * MB + 12 * LIMIT,
            cpu=4,
            slow=not data,
        )
    yield from cut_bombs("jpg", small, truncations(small, (b"\xff\xdb", b"\xff\xc4", b"\xff\xc0", b"\xff\xda")))
    yield Bomb(
        name="jpg-no-scan.jpg",
        kind="truncation",
        make=lambda: b"\xff\xd8" + jpeg_frame(SIDE, SIDE, 3) + b"\xff\xd9",
        refused=BROKEN,
    )
    for side in (8, SIDE):
        yield Bomb(
            name=f"jpg-{side}sq-and-150mb-behind.jpg",
            kind="long file",
            make=functools.partial(jpeg, side, side),
            tail=150 * MB,
            shape=square(side),
            refused="max_pixels",
        )
    yield Bomb(
        name="jpg-sparse-100gb.jpg", kind="sparse file", make=lambda: small[:-2], tail=10**11, refused="", memory=6 * MB
    )
