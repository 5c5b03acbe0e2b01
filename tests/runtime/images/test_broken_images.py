"""Broken images: one clear error, or a warning where a part can be read; nothing else is printed."""

import contextlib
import os
import struct
import sys
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.common.images import encoded, exif, photograph, pillow, png_chunk
from tests.runtime.images.saying import message

from ortcam.errors import ImageError, ImageWarning
from ortcam.images.encoding import write_png
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.reading import read_image


def test_errors_name_the_file_and_what_is_wrong(tmp_path):
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.jpg"
    empty.write_bytes(b"")
    text.write_text("hello world\n" * 10)
    for source, wrong in [
        (tmp_path / "absent.png", "does not exist"),
        (tmp_path, "is a folder"),
        (empty, "is empty"),
        (text, "is not an image"),
        (f"{tmp_path}/a\0b", "cannot be read"),
    ]:
        said = message(source)
        assert wrong in said
        assert repr(os.fspath(source)) in said
    assert "NoneType" in message(None)
    assert "from list: this takes one image" in message([photograph()])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_image_error(tmp_path):
    file = tmp_path / "secret.png"
    write_png(file, photograph())
    file.chmod(0)
    assert "cannot be read (Permission denied)" in message(file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_no_truncation_is_taken_for_a_picture(kind):
    data = encoded(photograph(), kind)
    for length in {*range(0, len(data), len(data) // 40), len(data) - 1, len(data) - 2}:
        message(data[:length])


def test_a_jpeg_truncated_after_its_thumbnail_is_told_from_a_whole_one():
    thumbnail = encoded(photograph(40, 50), "JPEG")
    body = b"Exif\0\0" + exif(1).tobytes()[6:] + thumbnail
    data = encoded(photograph(), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    np.testing.assert_array_equal(read_image(data), pillow(data))
    assert "truncated" in message(data[: len(data) // 2 + len(body) // 2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_follows_the_end_of_a_picture_is_ignored(kind):
    data = encoded(photograph(), kind)
    np.testing.assert_array_equal(read_image(data + b"\0garbage\xff\xd8" * 9), pillow(data))


def test_a_changed_byte_in_a_png_is_damage():
    data = bytearray(encoded(photograph(), "PNG"))
    data[len(data) // 2] ^= 0x55
    assert "checksum" in message(bytes(data))


def test_random_damage_raises_image_errors_only():
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        for _ in range(40):
            data = bytearray(encoded(photograph(24, 24), kind))
            for _ in range(3):
                data[random.integers(0, min(len(data), 300))] = random.integers(0, 256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageWarning)
                try:
                    read_image(bytes(data))
                except ImageError as error:
                    assert "\n" not in str(error)  # noqa: PT017


def bomb(kind, side=20000):
    """A small file whose header announces a square picture of that many pixels a side."""
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    data = bytearray(encoded(photograph(16, 16), kind))
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, side, -side)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, side, side)
    elif kind == "TIFF":
        for tag in (256, 257, 278):
            (directory,) = struct.unpack_from("<I", data, 4)
            entry = data.index(struct.pack("<H", tag), directory)
            struct.pack_into("<HIHH", data, entry + 2, 3, 1, side, 0)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF"])
def test_a_decompression_bomb_is_refused_at_once_and_without_the_memory(kind):
    data = bomb(kind)
    tracemalloc.start()
    start = time.process_time()
    said = message(data)
    assert time.process_time() - start < 1  # some milliseconds
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert f"20000 x 20000 = 400000000 pixels, more than the limit of {DEFAULT_MAX_PIXELS}" in said
    assert "max_pixels" in said


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(1)}])
@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "PNG", "BMP", "TIFF"])
def test_max_pixels_is_the_largest_number_that_passes(kind, options):
    data = encoded(photograph(30, 40), kind, **(options if kind == "WEBP" else {}))
    assert read_image(data, max_pixels=1200).shape == (30, 40, 3)
    assert "40 x 30 = 1200 pixels, more than the limit of 1199" in message(data, max_pixels=1199)


def test_opencvs_own_limits_become_image_errors():
    message(bomb("PNG", side=40000), max_pixels=2**31 - 1)


def test_damaged_pictures_print_nothing(capfd):
    message(encoded(photograph(), "TIFF")[:-12])
    message(encoded(photograph(), "BMP")[:-12])
    message(encoded(photograph(), "JPEG")[:-12])
    message(encoded(photograph(), "PNG")[:-12])
    data = encoded(photograph(), "PNG")
    read_image(data[:33] + png_chunk(b"iCCP", b"xx\0\0garbage") + data[33:])
    assert capfd.readouterr() == ("", "")


def damaged_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    data = bytearray(encoded(noise, "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 200] = b"\x12" * 200
    return bytes(data)


# libjpeg's words are heard where C's stderr is a variable that may be set.
hears = pytest.mark.skipif(sys.platform == "win32", reason="libjpeg's words go to stderr there")


@hears
def test_a_damaged_jpeg_is_read_with_a_warning_and_without_a_word_on_stderr(tmp_path, capfd):
    file = tmp_path / "damaged.jpg"
    file.write_bytes(damaged_jpeg())
    with pytest.warns(ImageWarning, match=r"damaged\.jpg' is damaged.*Corrupt JPEG data") as caught:
        assert read_image(file).shape == (200, 200, 3)
    assert caught[0].filename == __file__  # whoever called
    assert capfd.readouterr() == ("", "")


@hears
def test_warnings_of_damage_can_be_made_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageWarning)
        with pytest.raises(ImageWarning):
            read_image(damaged_jpeg())


@hears
def test_of_pictures_read_in_threads_only_the_damaged_are_called_damaged():
    whole, damaged = encoded(photograph(), "JPEG"), damaged_jpeg()
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as threads:
        warnings.simplefilter("always")
        shapes = [pixels.shape for pixels in threads.map(read_image, [whole, damaged, whole, whole] * 25)]
    assert shapes == [(97, 131, 3), (200, 200, 3), (97, 131, 3), (97, 131, 3)] * 25
    assert [str(warning.message).split(" is ")[0] for warning in caught] == [f"image of {len(damaged)} bytes"] * 25


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_decoders_say_nothing_of_samples_that_are_garbage(kind, capfd):
    data = bytearray(encoded(photograph(), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {})))
    if kind == "PNG":
        at = data.index(b"IDAT")
        length = int.from_bytes(data[at - 4 : at])
        data[at + 40 : at + 60] = b"\x12" * 20
        data[at + 4 + length : at + 8 + length] = struct.pack(">I", zlib.crc32(data[at : at + 4 + length]))
    else:
        data[len(data) // 2 : len(data) // 2 + 20] = b"\x12" * 20
    with contextlib.suppress(ImageError):
        read_image(bytes(data))
    assert capfd.readouterr() == ("", "")
