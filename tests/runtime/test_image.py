"""Decoding against Pillow, and the errors of pictures that are none."""

import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ortcam.errors import ImageError, OutputError
from ortcam.image import DEFAULT_MAX_PIXELS, encode_png, read_image, write_png

DATA = Path(os.environ.get("ORTCAM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
OPENCV_READS_GIF = "GIF:                         YES" in cv2.getBuildInformation()


def photograph(height=97, width=131):
    coarse = np.random.default_rng(0).random((max(height // 8, 1), max(width // 8, 1), 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth.clip(0, 1) * 255).astype(np.uint8).reshape(height, width, 3)


def encoded(picture, kind, **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pillow(source):
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


MODES = {
    "JPEG": ["RGB", "L", "1"],
    "PNG": ["RGB", "L", "LA", "RGBA", "P", "1"],
    "WEBP": ["RGB", "L", "LA", "RGBA"],
    "BMP": ["RGB", "L", "RGBA", "P", "1"],
    "TIFF": ["RGB", "L", "LA", "P", "1", "CMYK"],
}


def with_alpha(mode):
    picture = Image.fromarray(photograph()).convert(mode)
    if "A" in mode:
        picture.putalpha(Image.fromarray(photograph()[::-1, :, 1].copy()))
    return picture


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_of_every_format_decodes_as_pillow_does(kind, mode):
    data = encoded(with_alpha(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_a_tiff_with_alpha_comes_composited_on_black():
    picture = with_alpha("RGBA")
    expected = np.asarray(picture)[..., :3] * (np.asarray(picture)[..., 3:] / 255)
    np.testing.assert_allclose(read_image(encoded(picture, "TIFF")).astype(float), expected, atol=1)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 20}])
def test_jpeg_variants_decode_as_pillow_does(options):
    data = encoded(photograph(), "JPEG", **options)
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_cmyk_jpeg_is_within_one_level_of_pillow():
    data = encoded(Image.fromarray(photograph()).convert("CMYK"), "JPEG")
    np.testing.assert_allclose(read_image(data).astype(int), pillow(data), atol=1)


@pytest.mark.skipif(not OPENCV_READS_GIF, reason="this OpenCV reads no GIF")
def test_gif_decodes_as_pillow_does():
    data = encoded(photograph(), "GIF")
    np.testing.assert_array_equal(read_image(data), pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_pictures_come_upright_from_every_exif_orientation(kind, orientation):
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photograph(), kind, exif=exif(orientation), **lossless)
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_exif_behind_another_segment_still_turns_the_picture():
    data = encoded(photograph(), "JPEG", exif=exif(6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:]
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_broken_exif_does_not_make_a_picture_unreadable():
    data = encoded(photograph(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert read_image(data).shape == (97, 131, 3)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_upper_eight(extension, channels):
    samples = np.random.default_rng(0).integers(0, 1 << 16, (20, 30, channels), dtype=np.uint16)
    decoded = read_image(cv2.imencode(extension, samples)[1].tobytes())
    np.testing.assert_array_equal(decoded, np.broadcast_to(samples[..., ::-1] >> 8, (20, 30, 3)))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_the_smallest_pictures_decode(size):
    pixels = photograph(*size)
    np.testing.assert_array_equal(read_image(encoded(pixels, "PNG")), pixels)


@pytest.mark.parametrize("folder", ["originals", "images", "two_class"])
def test_real_photographs_decode_as_pillow_does(folder):
    files = sorted((DATA / folder).glob("*.*"))
    if not files:
        pytest.skip(f"no pictures in {DATA / folder}; ORTCAM_TEST_DATA names the data folder")
    for file in files:
        np.testing.assert_array_equal(read_image(file), pillow(file), err_msg=str(file))


def test_path_string_bytes_and_views_read_the_same(tmp_path):
    file = tmp_path / "été 猫.png"
    data = encoded(photograph(), "PNG")
    file.write_bytes(data)
    for source in (file, str(file), data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(read_image(source), photograph())


def test_arrays_of_pixels_become_rgb():
    rgb = photograph()
    grey = rgb[..., 0]
    as_grey = np.dstack([grey] * 3)
    np.testing.assert_array_equal(read_image(rgb), rgb)
    np.testing.assert_array_equal(read_image(np.dstack([rgb, grey])), rgb)
    np.testing.assert_array_equal(read_image(grey), as_grey)
    np.testing.assert_array_equal(read_image(grey[..., None]), as_grey)
    assert read_image(rgb[::2, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32 [4, 5, 3]"),
        (np.zeros((4, 5, 2), np.uint8), "uint8 [4, 5, 2]"),
        (np.zeros((1, 4, 5, 3), np.uint8), "uint8 [1, 4, 5, 3]"),
        (np.zeros((0, 5, 3), np.uint8), "uint8 [0, 5, 3]"),
    ],
)
def test_an_array_of_another_form_is_refused_with_its_form_and_what_is_accepted(pixels, named):
    with pytest.raises(ImageError) as caught:
        read_image(pixels)
    assert named in str(caught.value)
    assert "[H, W, 4] RGBA" in str(caught.value)


def message(source, **options):
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_name_the_file_and_what_is_wrong(tmp_path):
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.jpg"
    empty.write_bytes(b"")
    text.write_text("hello world\n" * 10)
    for source, wrong in [
        (tmp_path / "absent.png", "does not exist"),
        (tmp_path, "is a directory"),
        (empty, "is empty"),
        (text, "is not a picture"),
        (f"{tmp_path}/a\0b", "cannot be read"),
    ]:
        said = message(source)
        assert wrong in said
        assert repr(os.fspath(source)) in said
    assert "NoneType" in message(None)


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
        for tag in (256, 257):
            (directory,) = struct.unpack_from("<I", data, 4)
            entry = data.index(struct.pack("<H", tag), directory)
            struct.pack_into("<HIHH", data, entry + 2, 3, 1, side, 0)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF"])
def test_a_decompression_bomb_is_refused_at_once_and_without_the_memory(kind):
    data = bomb(kind)
    tracemalloc.start()
    start = time.perf_counter()
    said = message(data)
    assert time.perf_counter() - start < 0.5
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
    message(bomb("PNG", side=40000), max_pixels=1 << 40)


def test_damaged_pictures_print_nothing(capfd):
    message(encoded(photograph(), "TIFF")[:-12])
    message(encoded(photograph(), "BMP")[:-12])
    message(encoded(photograph(), "JPEG")[:-12])
    message(encoded(photograph(), "PNG")[:-12])
    data = encoded(photograph(), "PNG")
    read_image(data[:33] + png_chunk(b"iCCP", b"xx\0\0garbage") + data[33:])
    assert capfd.readouterr() == ("", "")


def test_png_is_written_without_loss_under_any_name(tmp_path):
    file = tmp_path / "Größe 猫.png"
    write_png(file, photograph())
    np.testing.assert_array_equal(np.asarray(Image.open(file)), photograph())
    np.testing.assert_array_equal(read_image(encode_png(photograph()[::-1])), photograph()[::-1])


def test_writing_where_nothing_can_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_png(tmp_path / "absent" / "x.png", photograph())


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_png_is_written_from_rgb_bytes_only(pixels):
    with pytest.raises(ImageError, match=r"uint8 \[H, W, 3\]"):
        encode_png(pixels)
