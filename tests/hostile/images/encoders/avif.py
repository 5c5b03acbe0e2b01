"""AVIF: boxes, items, and the AV1 streams of flat pictures."""

import dataclasses
import functools
import io
import struct
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image


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


def _properties(items: Sequence[AvifItem], depth: int, associations: int, *, turned: bool) -> bytes:
    """Properties of the items, and which item has which."""
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
        properties += [one for one in own if one not in properties]
        numbers = bytes(properties.index(one) + 1 | 128 * (one[4:8] in {b"av1C", b"irot"}) for one in own)
        belongs += (struct.pack(">HB", number, len(numbers)) + numbers) * (associations if number == 1 else 1)
    return box(b"ipco", b"".join(properties)) + full_box(
        b"ipma", struct.pack(">I", len(items) + associations - 1) + belongs
    )


def _references(items: Sequence[AvifItem]) -> bytes:
    """Alpha of others, and tiles of grids."""
    return b"".join(
        box(b"auxl", struct.pack(">HHH", number, 1, item.alpha_of))
        for number, item in enumerate(items, 1)
        if item.alpha_of
    ) + b"".join(
        box(b"dimg", struct.pack(f">HH{len(item.tiles)}H", number, len(item.tiles), *item.tiles))
        for number, item in enumerate(items, 1)
        if item.tiles
    )


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
    property_boxes = _properties(items, depth, associations, turned=turned)
    names = b"".join(
        full_box(b"infe", struct.pack(">HH4s", number, 0, item.kind) + b"\0", 2) for number, item in enumerate(items, 1)
    )
    references = _references(items)
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
