"""What reading an image may cost: memory and time, each file in a process of its own."""

import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.common.images import encoded, exif, long_png, photograph, png, png_chunk, tiff
from tests.hostile.measuring import Measuring
from tests.runtime.images.saying import message, needs_avif

from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.reading import read_image

linux = pytest.mark.skipif(sys.platform != "linux", reason="measures forked processes")


# Memory and time, measured


@pytest.fixture(scope="module")
def warm():
    """The process that measures in children of its own."""
    with Measuring() as measuring:
        yield measuring


@pytest.fixture
def measured(warm):
    """What reading a file gives: its shape or the error, the rise of the peak of memory in bytes, seconds of CPU."""

    def measure(file, max_pixels=DEFAULT_MAX_PIXELS):
        found = warm("tests.hostile.measuring:read", str(file), {"max_pixels": max_pixels})
        assert not found.printed
        assert found.error in ("", "ImageError"), found
        return found.message or found.result, found.memory, found.cpu

    return measure


def flat(side, kind, mode="RGB", **options):
    return encoded(Image.new(mode, (side, side), 99), kind, **options)


SIDE = 1500
WITHIN = {
    "PNG of 16 bits and alpha": lambda: long_png(SIDE, 16, 6),
    "grey PNG of 16 bits": lambda: long_png(SIDE, 16, 0),
    "progressive JPEG of CMYK": lambda: flat(SIDE, "JPEG", "CMYK", progressive=True),
    "JPEG that is turned": lambda: flat(SIDE, "JPEG", exif=exif(7)),
    "TIFF in one strip": lambda: tiff(np.zeros((SIDE, SIDE, 3), np.uint8), 8, 2),
    "TIFF of 16 bits in one strip": lambda: tiff(np.zeros((SIDE, SIDE, 3), np.uint16), 16, 2),
    "lossless WebP with alpha": lambda: flat(SIDE, "WEBP", "RGBA", lossless=True),
    "lossy WebP with alpha": lambda: encoded(
        Image.merge("RGBA", [Image.linear_gradient("L").resize((SIDE, SIDE))] * 4), "WEBP", method=0
    ),
    "GIF": lambda: flat(SIDE, "GIF", "P"),
    "PNM of 16 bits": lambda: b"P6 %d %d 4095\n" % (SIDE, SIDE) + bytes(6 * SIDE * SIDE),
    "plain PNM": lambda: b"P2 %d %d 255\n" % (SIDE, SIDE) + b"7 " * (SIDE * SIDE),
}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("name", WITHIN)
def test_a_picture_is_read_within_its_memory_by_the_limit_that_its_message_names(name, tmp_path, measured):
    (tmp_path / "x").write_bytes(WITHIN[name]())
    limit = SIDE * SIDE
    said, memory, _ = measured(tmp_path / "x", limit)
    assert memory <= 60e6 + 12 * limit
    if isinstance(said, str):
        assert "may take" in said
        limit = int(said.partition("--max-pixels ")[2].partition(")")[0])
        said, memory, _ = measured(tmp_path / "x", limit)
        assert memory <= 60e6 + 12 * limit
    assert said == [SIDE, SIDE, 3]


@pytest.mark.slow
@linux
@needs_avif
@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (8, 3), (8, 4), (10, 3), (12, 4)])
def test_an_avif_is_read_within_its_memory(bits, channels, tmp_path, measured):
    picture = np.full((1000, 1000, channels), 99, np.uint8 if bits == 8 else np.uint16)
    settings = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_SPEED, 10]
    (tmp_path / "x").write_bytes(cv2.imencode(".avif", picture, settings)[1].tobytes())
    limit = 1000 * 1000
    said, memory, _ = measured(tmp_path / "x", limit)
    assert memory <= 60e6 + 12 * limit
    if isinstance(said, str):
        limit = int(said.partition("--max-pixels ")[2].partition(")")[0])
        said, memory, _ = measured(tmp_path / "x", limit)
        assert memory <= 60e6 + 12 * limit
    assert said == [1000, 1000, 3]


def riff(*chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box(kind, body):
    return struct.pack(">I", len(body) + 8) + kind + body


def gif_of_frames(count):
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6) + frame * count + b"\x3b"


def private_tags(count, size):
    """A TIFF with private tags that all have the same bytes."""
    data = bytearray(tiff(photograph(9, 9), 8, 2))
    end = len(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, start)
    entries = bytes(data[start + 2 : start + 2 + 12 * number])
    more = b"".join(struct.pack("<HHII", 40000 + tag, 7, size, end) for tag in range(count))
    directory = struct.pack("<H", number + count) + entries + more + bytes(4)
    struct.pack_into("<I", data, 4, end + size)
    return bytes(data) + bytes(size) + directory


def exif_of_many_values(entries, values):
    block = b"II\x2a\0\x08\0\0\0" + struct.pack("<H", entries)
    return block + struct.pack("<HHII", 274, 3, values, 8) * entries + bytes(2 * values)


def followed_png():
    """A picture whose samples are followed by many bytes in the same chunk."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 2, 0, 0, 0))
    samples = zlib.compress(bytes(3001 * 1000)) + bytes(60 * 10**6)
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", samples) + png_chunk(b"IEND", b"")


def followed_tiff():
    strip = zlib.compress(bytes(3000 * 1000)) + bytes(60 * 10**6)
    return tiff(np.zeros((1000, 1000, 3), np.uint8), 8, 2, parts=[strip], tags=[(259, 3, [8])])


@pytest.mark.slow
@linux
@pytest.mark.parametrize("make", [followed_png, followed_tiff])
def test_what_follows_samples_costs_nothing(make, tmp_path, measured):
    (tmp_path / "x").write_bytes(make())
    said, memory, seconds = measured(tmp_path / "x", 10**7)
    assert said == [1000, 1000, 3]
    assert memory <= 60e6 + 12 * 10**7
    assert seconds <= 2


@pytest.mark.slow
@pytest.mark.parametrize("side", [9, 900])
def test_a_few_samples_behind_those_of_a_png_are_nobodys_business(side):
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    whole = png(picture, 8, 2)
    lines = b"".join(b"\0" + line.tobytes() for line in picture) + b"more"
    end = png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_image(whole[:33] + end, strict=True), picture)


def swollen_png():
    """Samples of a gigabyte for 8 x 8 pixels."""
    deflate = zlib.compressobj(9)
    first, again = (deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    samples = first + again * 63
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", samples) + png_chunk(b"IEND", b"")


BOMBS = {
    "chunks of a PNG": (lambda: png(photograph(8, 8), 8, 2, before=png_chunk(b"abCd", b"") * 10**6), "100000 chunks"),
    "samples behind a PNG": (swollen_png, "its pixel data are longer than its pixels need"),
    "a PNG's palette": (lambda: png(photograph(8, 8), 8, 2, before=png_chunk(b"PLTE", bytes(10**7))), "its palette"),
    "frames of a GIF": (lambda: gif_of_frames(10**6), "500000 blocks"),
    "blocks of a GIF": (lambda: gif_of_frames(1)[:-2] + b"\1x" * 10**7 + b"\0;", "500000 blocks"),
    "chunks of a WebP": (lambda: riff((b"VP8X", bytes(10)), *[(b"abcd", b"")] * 10**6), "100000 chunks"),
    "markers of a JPEG": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 10**6, "10000 markers"),
    "boxes of an AVIF": (lambda: box(b"ftyp", b"avif" + bytes(4)) + box(b"free", b"") * 10**6, "10000 boxes"),
    "comments of a PNM": (lambda: b"P2 3000 3000 255\n" + b"#\n7 " * 7 * 10**6, "10000 comments"),
    "a long plain PNM": (lambda: b"P2 4000 4000 255\n" + b"7  " * 16 * 10**6, "a plain PNM of"),
    "strips that overlap": (
        lambda: tiff(photograph(99, 9), 8, 2, tags=[(278, 3, [1]), (273, 4, [8] * 99), (279, 4, [2700] * 99)]),
        "they overlap",
    ),
    "samples of a TIFF": (
        lambda: tiff(np.zeros((4, 4, 300), np.uint8), 8, 2),
        "is a TIFF file of 300 samples per pixel",
    ),
    "bits of a TIFF": (lambda: tiff(photograph(4, 4), 8, 2, tags=[(258, 3, [8] * 30000)]), "tag 258 has 30000 values"),
    "a tile": (
        lambda: tiff(
            photograph(99, 99),
            8,
            2,
            parts=[bytes(99)],
            tags=[
                *((tag, 3, None) for tag in (273, 278, 279)),
                *((322 + n, 4, [40000]) for n in (0, 1)),
                (324, 4, "parts"),
                (325, 4, "sizes"),
            ],
        ),
        "decodes to 1600000000",
    ),
}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_long_is_refused_soon(name, tmp_path, measured):
    make, what = BOMBS[name]
    (tmp_path / "x").write_bytes(make())
    said, memory, seconds = measured(tmp_path / "x")
    assert what in said
    assert memory <= 60e6 + 12 * DEFAULT_MAX_PIXELS
    assert seconds <= 2  # what is asked of any machine; here a few tenths


@pytest.mark.parametrize("side", [0, 2])
@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [Image.new("RGB", (20, 16))]}])
def test_a_webp_without_width_or_height_is_damaged(side, options):
    data = bytearray(encoded(photograph(16, 20), "WEBP", **options))
    at = data.index(b"\x9d\x01\x2a") + 3 + side  # behind the code that every VP8 picture begins with
    data[at : at + 2] = bytes(2)
    assert "is damaged: it holds an image of" in message(bytes(data))


def test_a_webp_has_one_chunk_of_alpha():
    picture = Image.fromarray(photograph()).convert("RGBA")
    picture.putalpha(Image.fromarray(photograph()[..., 1]))
    data = encoded(picture, "WEBP", quality=80)
    start = data.index(b"ALPH")
    chunk = data[start : start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")]
    chunk += bytes(len(chunk) % 2)
    twice = data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:start] + chunk + data[start:]
    assert "it has two alpha chunks" in message(twice)


READ_ALL_THE_SAME = {
    "private tags": lambda: private_tags(4096, 1 << 22),
    "values of EXIF in a PNG": lambda: png(
        photograph(8, 8), 8, 2, before=png_chunk(b"eXIf", exif_of_many_values(60000, 10**6))
    ),
    "texts of a PNG": lambda: png(
        photograph(8, 8), 8, 2, before=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28), 1))
    ),
    "frames of a WebP": lambda: encoded(
        Image.new("RGB", (9, 9)), "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), n) for n in range(999)]
    ),
}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("name", READ_ALL_THE_SAME)
def test_what_is_not_needed_is_not_read(name, tmp_path, measured):
    (tmp_path / "x").write_bytes(READ_ALL_THE_SAME[name]())
    said, memory, seconds = measured(tmp_path / "x", 10**6)
    assert said in ([8, 8, 3], [9, 9, 3])
    assert memory <= 60e6 + 12 * 10**6
    assert seconds <= 2
