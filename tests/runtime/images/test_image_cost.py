"""What reading a picture may cost: memory and time, each file in a process of its own; and damage that is told."""

import io
import os
import struct
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.common.images import bmp, encoded, exif, photograph, pillow, png, png_chunk, tiff, webp_animation
from tests.hostile.measuring import Measuring

import ortcam.images.decoding
from ortcam.errors import ImageError, ImageWarning, OptionError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import read_ahead, read_photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image
from ortcam.images.rendering import shrunk

BUILD = cv2.getBuildInformation()
needs_avif = pytest.mark.skipif("AVIF:                        " not in BUILD, reason="this OpenCV reads no AVIF")
linux = pytest.mark.skipif(sys.platform != "linux", reason="measures forked processes")
PREPROCESSING = Preprocessing(8, 8, None, (0,) * 3, (1,) * 3)


def message(source, **options):
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def long_png(side, bits, colour):
    """Of one grey, and a few kilobytes long."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    lines = zlib.compress(bytes(side * (1 + side * channels * bits // 8)), 1)
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tEXt", b"a\0b"), (b"IDAT", lines), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


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


@linux
@pytest.mark.parametrize("make", [followed_png, followed_tiff])
def test_what_follows_samples_costs_nothing(make, tmp_path, measured):
    (tmp_path / "x").write_bytes(make())
    said, memory, seconds = measured(tmp_path / "x", 10**7)
    assert said == [1000, 1000, 3]
    assert memory <= 60e6 + 12 * 10**7
    assert seconds <= 2


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


@linux
@pytest.mark.parametrize("name", READ_ALL_THE_SAME)
def test_what_is_not_needed_is_not_read(name, tmp_path, measured):
    (tmp_path / "x").write_bytes(READ_ALL_THE_SAME[name]())
    said, memory, seconds = measured(tmp_path / "x", 10**6)
    assert said in ([8, 8, 3], [9, 9, 3])
    assert memory <= 60e6 + 12 * 10**6
    assert seconds <= 2


# The limit


def test_a_photograph_of_a_camera_is_within_the_default():
    assert 6000 * 4000 < DEFAULT_MAX_PIXELS < 26_000_000


def test_a_picture_above_the_limit_is_told_what_it_would_take():
    said = message(long_png(300, 16, 2), max_pixels=10_000)
    assert "300 x 300 = 90000 pixels, more than the limit of 10000: max_pixels=" in said
    assert "(--max-pixels " in said
    assert "MB of memory" in said


@pytest.mark.parametrize("pixels", [np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)])
def test_the_limit_is_of_arrays_too(pixels):
    assert read_image(pixels, max_pixels=1200).shape == (30, 40, 3)
    assert "40 x 30 = 1200 pixels, more than the limit of 1199" in message(pixels, max_pixels=1199)
    with pytest.raises(ImageError, match="more than the limit of 1199"):
        read_photograph(pixels, PREPROCESSING, max_pixels=1199)


def test_an_array_that_takes_no_memory_is_not_copied():
    endless = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10**6, 10**6, 3))
    assert "more than the limit" in message(endless)
    with pytest.raises(ImageError, match="more than the limit"):
        read_photograph(endless, PREPROCESSING, max_pixels=DEFAULT_MAX_PIXELS)


def test_sides_are_bounded_even_where_pixels_are_few():
    assert "sides of at most 1048576" in message(np.zeros((2, (1 << 20) + 1, 3), np.uint8))


# The file


def test_a_picture_that_goes_on_for_gigabytes_is_not_read(tmp_path):
    file = tmp_path / "long.jpg"
    file.write_bytes(encoded(photograph(), "JPEG"))
    os.truncate(file, 10 << 30)
    assert "has 10737418240 bytes or more, and 180000000 are the most" in message(file)
    assert "(--max-pixels)" in message(file)


def test_bytes_are_bounded_as_files_are(monkeypatch):
    monkeypatch.setattr(ortcam.images.limits, "SPARE", 1000)
    data = encoded(photograph(), "JPEG") + bytes(9000)
    for source in (data, bytearray(data), memoryview(data)):
        assert f"has {len(data)} bytes or more, and 7000 are the most" in message(source, max_pixels=1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_file_that_grows_while_it_is_read_is_read_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(ortcam.images.limits, "SPARE", 1 << 16)
    file = tmp_path / "growing.jpg"
    file.write_bytes(encoded(photograph(), "JPEG"))
    true = os.fstat
    grown = threading.Event()

    def grow(descriptor):
        found = true(descriptor)
        if not grown.is_set():
            grown.set()
            with file.open("ab") as more:
                more.write(bytes(1 << 20))
        return found

    monkeypatch.setattr(os, "fstat", grow)
    assert "bytes or more" in message(file, max_pixels=1000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/self/mem", "/proc/self/maps", "/proc/self/fd/0"])
def test_files_of_the_kernel_are_no_pictures(path):
    start = time.process_time()
    message(path)
    assert time.process_time() - start < 1  # some milliseconds, or for ever


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\udcff.jpg", "'\\xff.jpg'"),
        ("a\x1b[31m.jpg", "'a\\x1b[31m.jpg'"),
        ("it's.jpg", '"it\'s.jpg"'),
        ("猫.jpg", "'猫.jpg'"),
    ],
)
def test_names_in_messages_are_escaped_as_on_a_terminal(name, shown):
    assert message(name).startswith(f"image {shown} does not exist")


# Damage


def jpeg_scans(data):
    """A JPEG taken apart: what is before its scans, and each scan with its header and the tables before it."""
    starts, position = [], 2
    while data[position + 1] != 0xD9:
        length = struct.unpack_from(">H", data, position + 2)[0]
        begin, marker = position, data[position + 1]
        position += 2 + length
        if marker == 0xDA:
            while data[position] != 0xFF or data[position + 1] in (0, *range(0xD0, 0xD8)):
                position += 1
        starts.append((marker, data[begin:position]))
    return starts


def without_scans(data, keep):
    """The JPEG with those of its scans for which `keep` of their number is true."""
    kept, number = b"", 0
    for marker, part in jpeg_scans(data):
        if marker == 0xDA:
            number += 1
            if not keep(number):
                continue
        kept += part
    return data[:2] + kept + b"\xff\xd9"


def emptied(data, number):
    """The JPEG with the scan of this number cut to its header."""
    kept, seen = b"", 0
    for marker, part in jpeg_scans(data):
        seen += marker == 0xDA
        cut = marker == 0xDA and seen == number
        kept += part[: 2 + struct.unpack_from(">H", part, 2)[0]] if cut else part
    return data[:2] + kept + b"\xff\xd9"


PROGRESSIVE = encoded(photograph(), "JPEG", progressive=True)
SCANS = sum(marker == 0xDA for marker, _ in jpeg_scans(PROGRESSIVE))
HOLED = [
    (emptied(encoded(photograph(), "JPEG"), 1), "its scan 1 holds no data"),
    (emptied(PROGRESSIVE, 3), "its scan 3 holds no data"),
    (without_scans(PROGRESSIVE, lambda number: number == 1), "no scan holds the details"),
    (without_scans(PROGRESSIVE, lambda number: number != SCANS), "the scan with the last bits"),
    (without_scans(PROGRESSIVE, lambda number: number > 1), "no scan holds the first bits of its component 1"),
    (without_scans(PROGRESSIVE, lambda number: number in {2, 3}), "no scan holds its component 1"),
]


@pytest.mark.parametrize(("data", "what"), HOLED, ids=[what for _, what in HOLED])
def test_a_jpeg_without_some_of_its_scans_is_told_or_refused(data, what, tmp_path, capfd):
    with pytest.warns(ImageWarning, match=f"is damaged, and parts of it may be wrong.*{what}"):
        assert read_image(data).shape == (97, 131, 3)
    assert f"is damaged ({what}" in message(data, strict=True)
    with pytest.raises(ImageError, match=what):
        read_photograph(data, PREPROCESSING, max_pixels=10**6, strict=True)
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=what):
        read_photograph(tmp_path / "x.jpg", PREPROCESSING, max_pixels=10**6, strict=True)
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_whose_colours_have_no_scan_is_told():
    grey = encoded(photograph()[..., 0], "JPEG")
    at = grey.index(b"\xff\xc0")
    frame = grey[at : at + 9] + b"\3\1\x11\0\2\x11\0\3\x11\0"
    frame = frame[:2] + struct.pack(">H", 17) + frame[4:]
    data = grey[:at] + frame + grey[at + 13 :]
    with pytest.warns(ImageWarning, match="no scan holds its component 2"):
        read_image(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_is_read_in_silence_by_the_strict_too(mode, options):
    data = encoded(Image.fromarray(photograph()).convert(mode), "JPEG", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(data, strict=True), read_image(data))


@pytest.mark.parametrize("strict", [1, "yes", None])
def test_strict_is_true_or_false(strict):
    with pytest.raises(OptionError, match=r"strict=.*accepted is True or False"):
        read_image(photograph(), strict=strict)


def test_a_jpeg_of_arithmetic_coding_is_refused_since_its_holes_cannot_be_heard():
    data = encoded(photograph(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9")
    assert "is a JPEG with arithmetic coding, which is not accepted" in message(data)


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_strip_of_a_tiff_that_breaks_off_is_damage_not_black(compression):
    data = bytearray(encoded(photograph(), "TIFF", compression=compression))
    picture = Image.open(io.BytesIO(data))
    (place,), (size,) = picture.tag_v2[273], picture.tag_v2[279]
    at = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    struct.pack_into("<I", data, at, size // 2)
    assert "is damaged" in message(bytes(data))
    assert place < len(data)


def reversed_bits(picture, compression):
    """A TIFF in one strip, each byte of which has its lowest bit first."""
    data = bytearray(encoded(picture, "TIFF", compression=compression))
    (place,), (size,) = (Image.open(io.BytesIO(data)).tag_v2[tag] for tag in (273, 279))
    turned = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8, size, place)), bitorder="little").tobytes()
    number = 1 if compression is None else Image.open(io.BytesIO(data)).tag_v2[259]
    return tiff(picture, 8, 2, parts=[turned], tags=[(259, 3, [number]), (266, 3, [2])])


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("width", range(131, 135))
def test_a_tiff_whose_bytes_begin_with_their_lowest_bit_is_whole(compression, width):
    data = reversed_bits(photograph(width=width), compression)
    np.testing.assert_array_equal(read_image(data, strict=True), pillow(data))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("bits", [8, 16])
def test_tiles_of_a_tiff_are_turned_with_the_picture(orientation, bits):
    picture = photograph(61, 83)
    padded = np.zeros((64, 96, 3), np.uint8)
    padded[:61, :83] = picture
    stored = padded if bits == 8 else padded.astype("<u2") << 8
    tiles = [stored[top : top + 16, left : left + 32] for top in range(0, 64, 16) for left in range(0, 96, 32)]
    tags = [
        (259, 3, [8]),
        (274, 3, [orientation]),
        (322, 3, [32]),
        (323, 3, [16]),
        (324, 4, "parts"),
        (325, 4, "sizes"),
    ]
    tags += [(tag, 3, None) for tag in (273, 278, 279)]
    data = tiff(picture, bits, 2, parts=[zlib.compress(tile.tobytes()) for tile in tiles], tags=tags)
    np.testing.assert_array_equal(
        read_image(data, strict=True), pillow(encoded(picture, "PNG", exif=exif(orientation)))
    )


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("order", "<>")
def test_planes_of_more_than_8_bits_are_refused_since_opencv_mixes_them_up(bits, order):
    picture = photograph().astype(np.uint16) << bits - 8
    data = tiff(picture, bits, 2, order=order, tags=[(284, 3, [2])])
    assert f"is a TIFF file of {bits} bits per sample in separate planes, which is not accepted" in message(data)


def test_a_strip_of_lzw_that_breaks_off_is_told_or_refused():
    data = bytearray(encoded(photograph(), "TIFF", compression="tiff_lzw"))
    assert read_image(bytes(data), strict=True).shape == (97, 131, 3)
    (size,) = Image.open(io.BytesIO(data)).tag_v2[279]
    at = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    struct.pack_into("<I", data, at, size // 2)
    with pytest.warns(ImageWarning, match="ends without its end code"):
        read_image(bytes(data))
    assert "strict refuses it" in message(bytes(data), strict=True)


def runs(rows, end):
    """A BMP of 11 x 9 pixels that has the runs of so many rows."""
    lines = photograph(9, 11)[:rows, :, 0]
    data = b"".join(bytes(v for sample in line for v in (1, sample)) + b"\0\0" for line in lines)
    return bmp(8, data + end, compression=1, palette=bytes(range(256)) * 4, width=11, height=9)


@pytest.mark.parametrize("end", [b"\0\1", b""])
def test_runs_of_a_bmp_that_break_off_are_told_or_refused(end):
    whole = runs(9, end)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(whole, strict=True), pillow(runs(9, b"\0\1")))
    assert "its runs end in row 5 of 9" in message(runs(4, end), strict=True)


@pytest.mark.parametrize("end", [b"\0\2", b"\0\2\1", b"\0", b"\0\4", b"\3"])
def test_runs_of_a_bmp_that_end_within_one_are_damage(end):
    assert "its runs end in row 5 of 9" in message(runs(4, end), strict=True)


def test_moves_and_literal_runs_of_a_bmp_are_followed():
    literal = b"\0\x0b" + bytes(range(1, 12)) + b"\0" + b"\0\0"  # 11 samples, and a byte for an even number of them
    data = literal * 4 + b"\0\2\0\4" + literal + b"\0\1"
    palette = b"".join(bytes([9 * sample] * 3 + [0]) for sample in range(256 // 9))
    picture = read_image(bmp(8, data, compression=1, palette=palette, width=11, height=9), strict=True)
    assert (picture[[0, 5, 6, 7, 8]] == 9 * np.arange(1, 12)[:, None]).all()  # bottom row first
    assert not picture[1:5].any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_a_jpeg_in_a_tiff_has_as_many_components_as_its_pixels_have_samples(mode):
    data = encoded(Image.fromarray(photograph()).convert(mode), "TIFF", compression="jpeg")
    assert np.abs(read_image(data, strict=True).astype(int) - pillow(data)).max() <= 1  # builds of libjpeg differ


def test_a_jpeg_in_a_tiff_is_not_larger_than_its_strip():
    data = encoded(photograph(), "TIFF", compression="jpeg")
    at = data.index(b"\xff\xc0")
    lying = data[: at + 5] + struct.pack(">HH", 9000, 9000) + data[at + 9 :]
    assert "strip or tile 0 of 131 x 97 pixels holds 9000 x 9000" in message(lying)


# The same pixels as before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_pillows(orientation):
    data = encoded(photograph(), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(read_image(data), pillow(data))


@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
def test_blocks_change_no_pixel(block, monkeypatch):
    pictures = [
        encoded(photograph(), "PNG"),
        png((photograph() * np.uint16(257)).astype(np.uint16), 16, 2),
        png(photograph()[..., 0] * np.uint16(257), 16, 0),
        b"P6 131 97 4095\n" + (photograph().astype(">u2") * 16).tobytes(),
    ]
    expected = [read_image(data) for data in pictures]
    monkeypatch.setattr(ortcam.images.arrays, "BLOCK", block)
    for data, pixels in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(read_image(data), pixels)


@pytest.mark.parametrize("options", [{}, {"antialias": False}, {"interpolation": "bicubic"}, {"resize": None}])
@pytest.mark.parametrize("shape", [(97, 131), (300, 20), (20, 300), (5, 5)])
def test_blocks_change_no_input_of_a_model(shape, options, monkeypatch):
    preprocessing = Preprocessing(
        **{"height": 24, "width": 20, "resize": 28, "mean": (0.4, 0.5, 0.6), "std": (0.2,) * 3} | options
    )
    expected = preprocessing(photograph(*shape))
    for name, value in (("WEIGHTS", 3), ("BAND", 1), ("BLOCK", 3)):
        monkeypatch.setattr(f"ortcam.images.resampling.{name}", value)
        np.testing.assert_array_equal(preprocessing(photograph(*shape)), expected)


def test_a_frame_that_covers_its_canvas_is_not_copied_to_another_one():
    data = webp_animation((20, 16), 0, 0, photograph(16, 20))
    np.testing.assert_array_equal(read_image(data), photograph(16, 20))


# What is written


def test_overlays_of_large_pictures_are_smaller_with_the_same_proportions():
    assert shrunk(photograph(30, 40), 40) is not None
    small = shrunk(photograph(300, 400), 100)
    assert small.shape == (75, 100, 3)
    assert shrunk(np.zeros((9000, 1, 3), np.uint8), 100).shape == (100, 1, 3)
    same = photograph(30, 40)
    assert shrunk(same, 40) is same
    with pytest.raises(OptionError, match="longest_side=0"):
        shrunk(same, 0)


# Ahead


@pytest.mark.slow
def test_two_pictures_at_most_are_read_ahead():
    taken, kept = [], []
    for item, _ in read_ahead(iter(range(20)), taken.append):
        time.sleep(0.01)  # for the thread to go on as far as it may
        kept.append(item)
        assert len(taken) - len(kept) <= 2
    assert kept == list(range(20))
