"""Encoded pictures for tests: by Pillow, and by hand where Pillow writes no such file."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, ImageOps

_TIFF_FIELDS = {1: "B", 3: "H", 4: "I", 9: "i"}


def photograph(height=97, width=131):
    coarse = np.random.default_rng(0).random((max(height // 8, 1), max(width // 8, 1), 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth.clip(0, 1) * 255).astype(np.uint8).reshape(height, width, 3)


def ramp():
    """Grey, from black at the top to white at the bottom: uint8 [256, 9]."""
    return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 9, axis=1)


def encoded(picture, kind, **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pillow(source):
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))


def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


def packed(samples, bits):
    """Rows of samples of fewer than 8 bits, or of 10 to 14, without gaps between them: bytes."""
    rows = np.asarray(samples).reshape(len(samples), -1, 1).astype(np.int64)
    ones = (rows >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
    return np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples, bits, colour, *, before=b""):
    """A PNG of samples [H, W] or [H, W, C]; colour is PNG's type, `before` are chunks in front of the pixels."""
    height, width = samples.shape[:2]
    data = samples.astype(">u2").tobytes() if bits == 16 else packed(samples, bits)
    line = len(data) // height
    lines = b"".join(b"\0" + data[start : start + line] for start in range(0, len(data), line))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + png_chunk(b"IEND", b"")


def tiff(samples, bits, photometric, *, order="<", parts=None, tags=()):
    """A TIFF of samples [H, W] or [H, W, C]; `tags` (number, field type, values) replace and add to the usual ones.

    `parts` are the bytes of strips or tiles; a value "parts" or "sizes" stands for where they are and how long.
    """
    height, width, *rest = samples.shape
    count = rest[0] if rest else 1
    if parts is None:
        if bits in {8, 16, 32, 64}:
            parts = [samples.astype(samples.dtype.newbyteorder(order)).tobytes()]
        else:
            parts = [packed(samples, bits)]
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, "parts"),
        277: (3, [count]),
        278: (4, [height]),
        279: (4, "sizes"),
        339: (3, [1] * count),
    }
    for number, kind, values in tags:
        entries[number] = (kind, values)
    entries = {number: (kind, values) for number, (kind, values) in sorted(entries.items()) if values is not None}
    size = 8 + 2 + 12 * len(entries) + 4
    lengths = {"parts": len(parts), "sizes": len(parts)}
    spare = 0
    for kind, values in entries.values():
        length = struct.calcsize(_TIFF_FIELDS[kind]) * (lengths[values] if isinstance(values, str) else len(values))
        spare += length if length > 4 else 0
    starts = [size + spare + sum(map(len, parts[:index])) for index in range(len(parts))]
    known = {"parts": starts, "sizes": [len(part) for part in parts]}
    directory, values_behind = b"", b""
    for number, (kind, given) in entries.items():
        values = known[given] if isinstance(given, str) else given
        raw = struct.pack(f"{order}{len(values)}{_TIFF_FIELDS[kind]}", *values)
        directory += struct.pack(order + "HHI", number, kind, len(values))
        if len(raw) <= 4:
            directory += raw.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", size + len(values_behind))
            values_behind += raw
    head = {"<": b"II\x2a\0", ">": b"MM\0\x2a"}[order] + struct.pack(order + "IH", 8, len(entries))
    return head + directory + bytes(4) + values_behind + b"".join(parts)


def bmp(bits, rows, *, compression=0, masks=b"", palette=b"", width=None, height=None):
    """A BMP of the bytes of its rows, top row first, or of one run of compressed bytes."""
    data = rows if isinstance(rows, bytes) else b"".join(row + bytes(-len(row) % 4) for row in reversed(rows))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    start = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + palette + data


def webp_animation(canvas, left, top, frame):
    """A WebP whose first and only frame (an array) covers a part of its canvas (width, height)."""
    still = encoded(frame, "WEBP", lossless=True)
    three = lambda value: value.to_bytes(3, "little")  # noqa: E731
    content = three(left // 2) + three(top // 2) + three(frame.shape[1] - 1) + three(frame.shape[0] - 1) + bytes(4)
    chunks = [(b"VP8X", b"\x02\0\0\0" + three(canvas[0] - 1) + three(canvas[1] - 1)), (b"ANIM", bytes(6))]
    chunks.append((b"ANMF", content + still[12:]))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def deep(picture, bits):
    """The samples of 8 bits as samples of more."""
    return np.rint(picture * (((1 << bits) - 1) / 255)).astype(np.uint16)


def frames(count=3):
    return [Image.fromarray(np.roll(photograph(), 9 * number, 1)) for number in range(count)]


def gif(**options):
    return bytearray(encoded(Image.fromarray(photograph()).quantize(16), "GIF", **options))


def tile(side):
    return [(322, 4, [side]), (323, 4, [side]), (324, 4, "parts"), (325, 4, "sizes")]


def long_png(side, bits, colour):
    """Of one grey, and a few kilobytes long."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    lines = zlib.compress(bytes(side * (1 + side * channels * bits // 8)), 1)
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tEXt", b"a\0b"), (b"IDAT", lines), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
