"""Fuzzing of the decoding of images: formats by their seeds, checksums of PNG and sizes of RIFF made right again."""

import struct
import warnings
import zlib
from collections.abc import Callable
from random import Random
from typing import Final

import numpy as np
from PIL import Image

from ortcam.errors import ImageError, ImageWarning
from ortcam.images.reading import read_image
from tests.common.images import bmp, encoded, exif, photograph, png, png_chunk, tiff, webp_animation
from tests.fuzz.limits import BreachError, budget

__all__ = ["change", "seeds", "try_on"]

MAX_PIXELS: Final = 1 << 20
# What the documentation promises: 60 MB and 12 bytes for each pixel of `max_pixels`.
_MEMORY: Final = 60_000_000 + 12 * MAX_PIXELS
_SECONDS: Final = 2.0
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# Sides that are about to overflow something, or large enough to be refused.
_NUMBERS: Final = (
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    1023,
    1024,
    1025,
    16383,
    16384,
    32767,
    32768,
    65535,
    65536,
    1 << 20,
    1 << 24,
)
_LARGE: Final = (*_NUMBERS, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 16)


def try_on(data: bytes) -> None:
    """Decode a picture within the budget; it is refused by an `ImageError`, or it comes as it is documented.

    Raises:
        BreachError: it took too much, or it is no uint8 [H,W,3] of at most `max_pixels`.
    """
    white, strict = (None, 4095)[len(data) % 2], len(data) % 3 == 0
    with budget(seconds=_SECONDS, memory=_MEMORY), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ImageWarning)
        try:
            picture = read_image(data, max_pixels=MAX_PIXELS, white=white, strict=strict)
        except ImageError as error:
            if "\n" in str(error):
                raise BreachError(f"a message of several lines: {error}") from None
            return
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.flags.c_contiguous:
        raise BreachError(f"the picture is {picture.dtype} {picture.shape}")
    if not 0 < picture.shape[0] * picture.shape[1] <= MAX_PIXELS:
        raise BreachError(f"the picture has {picture.shape[0]} x {picture.shape[1]} pixels")


def seeds() -> list[bytes]:
    """One small picture or more of each format, and of each way in which its header can be walked."""
    colour, grey = photograph(12, 18), photograph(12, 18)[..., 0]
    image = Image.fromarray(colour)
    palette = image.quantize(16)
    frames = [Image.fromarray(photograph(12, 18) // part) for part in (1, 2)]
    deep = (grey.astype(np.uint16) << 4).astype(np.uint16)
    made = [
        encoded(colour, "JPEG", exif=exif(6)),
        encoded(colour, "JPEG", progressive=True, quality=40),
        encoded(grey, "JPEG"),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(colour, "JPEG", restart_marker_blocks=1),
        encoded(colour, "PNG", exif=exif(3)),
        encoded(palette, "PNG"),
        encoded(image.convert("RGBA"), "PNG"),
        encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        png(deep, 16, 0),
        png(grey // 128, 1, 0),
        png(grey, 8, 0, before=png_chunk(b"tRNS", b"\0\1") + png_chunk(b"gAMA", struct.pack(">I", 45455))),
        encoded(colour, "WEBP", exif=exif(8)),
        encoded(colour, "WEBP", lossless=True),
        webp_animation((24, 20), 2, 4, colour),
        encoded(palette, "GIF", transparency=3),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(colour, "BMP"),
        encoded(palette, "BMP"),
        bmp(16, [row.tobytes() for row in deep], width=18, height=12),
        bmp(8, b"\x04\x01\x00\x00\x04\x02\x00\x01", compression=1, palette=bytes(1024), width=4, height=2),
        bmp(
            32,
            [bytes(4 * 18)] * 12,
            compression=3,
            masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF),
            width=18,
            height=12,
        ),
        tiff(colour, 8, 2),
        tiff(deep, 16, 1, order=">"),
        tiff(grey // 128, 1, 0),
        tiff(deep, 12, 1),
        encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(colour, "TIFF", compression="jpeg"),
        encoded(colour, "TIFF", compression="tiff_adobe_deflate", tiffinfo={274: 6}),
        encoded(palette, "TIFF", compression="packbits"),
        encoded(image.convert("1"), "TIFF", compression="group4"),
        _tiled(colour),
        b"P1\n# a comment\n4 3\n0 1 0 1\n1 0 1 0\n0101\n",
        b"P2\n4 2\n15\n0 1 2 3\n4 5 6 15\n",
        b"P3 2 1 255 0 1 2 3 4 5",
        b"P4\n9 2\n" + bytes([0xAA, 0x80, 0x55, 0]),
        b"P5 4 2 1023 " + bytes(range(16)),
        b"P6\n2 2\n255\n" + bytes(range(12)),
        b"P6\n1 2\n65535\n" + bytes(range(12)),
    ]
    try:
        made += [encoded(colour, "AVIF", exif=exif(6)), encoded(image.convert("RGBA"), "AVIF")]
        made += [encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])]
    except (KeyError, OSError):  # a Pillow without AVIF
        pass
    return made


def _tiled(colour: np.ndarray) -> bytes:
    canvas = np.zeros((16, 32, 3), np.uint8)
    canvas[: colour.shape[0], : colour.shape[1]] = colour
    tiles = [canvas[:, start : start + 16].tobytes() for start in (0, 16)]
    tags = [(322, 4, [16]), (323, 4, [16]), (324, 4, "parts"), (325, 4, "sizes")]
    return tiff(colour, 8, 2, parts=tiles, tags=[*tags, (273, 4, None), (278, 4, None), (279, 4, None)])


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another picture: some bytes changed, a number of the header replaced, or the pixels of a PNG changed unpacked."""
    way = random.random()
    if way < 0.15 and data.startswith(_PNG):
        data = _with_changed_pixels(data, random, change_bytes)
    elif way < 0.4:
        data = _with_a_number(data, random)
    elif way < 0.45:
        data = data[: random.randrange(len(data) + 1)]
    else:
        data = change_bytes(data, longest)
    if random.random() < 0.03:  # or no wrong checksum would ever be tried
        return data[:longest]
    return mended(data)[:longest]


def _with_a_number(data: bytes, random: Random) -> bytes:
    """A number of 1, 2 or 4 bytes, most often near the beginning, replaced by one that is apt to be trouble."""
    if len(data) < 8:
        return data
    size = random.choice((1, 2, 4))
    at = random.randrange(min(len(data) - size, random.choice((64, 256, 1 << 16))))
    value = random.choice(_LARGE) & (1 << 8 * size) - 1
    return data[:at] + value.to_bytes(size, random.choice(("little", "big"))) + data[at + size :]


def mended(data: bytes) -> bytes:
    """The same with the checksums of PNG's chunks, and the size in the head of a RIFF file, made right."""
    if data.startswith(_PNG):
        return _PNG + b"".join(png_chunk(kind, body) for kind, body in _chunks(data)) + _rest(data)
    if data.startswith(b"RIFF") and len(data) >= 12:
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    return data


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, start = [], 8
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if start + 12 + length > len(data):
            break
        found.append((kind, data[start + 8 : start + 8 + length]))
        start += 12 + length
    return found


def _rest(data: bytes) -> bytes:
    """What follows the last whole chunk."""
    return data[8 + sum(12 + len(body) for _, body in _chunks(data)) :]


def _with_changed_pixels(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes]) -> bytes:
    chunks = _chunks(data)
    packed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    unpacker = zlib.decompressobj()
    try:
        pixels = unpacker.decompress(packed, 1 << 16)
    except zlib.error:
        return data
    pixels = random.choice((change_bytes(pixels, 1 << 16), pixels[: len(pixels) // 2], pixels * 3))
    pixels = png_chunk(b"IDAT", zlib.compress(pixels))
    others = [(kind, body) for kind, body in chunks if kind != b"IDAT"]
    before = b"".join(png_chunk(kind, body) for kind, body in others if kind != b"IEND")
    return _PNG + before + pixels + png_chunk(b"IEND", b"")
