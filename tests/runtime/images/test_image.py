"""Decoding against Pillow, and the sources of an image: paths, bytes, arrays, pipes, strange names."""

import contextlib
import json
import os
import socket
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.common.images import encoded, exif, photograph, pillow, tiff
from tests.runtime.images.saying import message

from ortcam.errors import ImageError, OutputError
from ortcam.images.encoding import encode_png, write_png
from ortcam.images.photograph import read_photograph
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image

DATA = Path(os.environ.get("ORTCAM_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
OPENCV_READS_GIF = "GIF:                         YES" in cv2.getBuildInformation()


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


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_of_every_format_decodes_as_pillow_does(kind, mode):
    data = encoded(with_alpha(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_a_tiff_with_alpha_decodes_as_pillow_does():
    data = encoded(with_alpha("RGBA"), "TIFF")
    np.testing.assert_array_equal(read_image(data), pillow(data))


def test_a_tiff_with_associated_alpha_comes_composited_on_black():
    premultiplied = np.asarray(with_alpha("RGBA"))
    data = tiff(premultiplied, 8, 2, tags=[(338, 3, [1])])
    np.testing.assert_array_equal(read_image(data), premultiplied[..., :3])


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


@pytest.mark.sample(every=5)
@pytest.mark.whole
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


@pytest.mark.slow
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
        (np.zeros((5, 5, 3), np.int64), "int64 [5, 5, 3]"),
        (np.zeros((5, 5, 3), bool), "bool [5, 5, 3]"),
        (np.zeros((5, 5, 2), np.uint8), "uint8 [5, 5, 2]"),
        (np.zeros((3, 3, 3), np.uint8), "uint8 [3, 3, 3] may have its channels first or last"),
        (np.zeros(5, np.uint8), "uint8 [5] has one dimension"),
        (np.zeros((1, 4, 5, 3), np.uint8), "uint8 [1, 4, 5, 3]"),
        (np.zeros((0, 5, 3), np.uint8), "uint8 [0, 5, 3]"),
        (np.zeros((4, 5), np.uint16), "uint16 [4, 5]"),
    ],
)
def test_an_array_of_another_form_is_refused_with_its_form_and_what_is_accepted(pixels, named):
    with pytest.raises(ImageError) as caught:
        read_image(pixels)
    assert named in str(caught.value)
    assert "[H, W, 4] RGBA" in str(caught.value)


def test_an_array_of_deeper_samples_is_told_how_to_become_a_picture():
    samples = np.full((4, 5), 4095, np.uint16)
    with pytest.raises(ImageError, match=r"scale it first, such as \(array \* \(255 / white\)\)\.clip"):
        read_image(samples)
    white = 4095  # what the message says, done
    assert (read_image((samples * (255 / white)).clip(0, 255).astype(np.uint8)) == 255).all()


def test_a_name_that_is_not_utf8_is_read_and_recorded_as_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(encoded(photograph(), "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    found = read_photograph(tmp_path / name, Preprocessing(8, 8, None, (0,) * 3, (1,) * 3), max_pixels=10**6)
    np.testing.assert_array_equal(found.pixels, photograph())
    assert found.record["path"] == f"{tmp_path}{os.sep}caf\\xe9.png"
    json.dumps(found.record, ensure_ascii=False).encode()
    message(str(tmp_path / "x") + name).encode()
    (tmp_path / name).write_bytes(b"")
    message(tmp_path / name).encode()


@pytest.mark.parametrize("name", ["\ud800.png", "a\udfffb.png", "line\nbreak.png"])
def test_names_that_no_file_can_have_are_image_errors(name, tmp_path):
    message(tmp_path / name).encode()


def test_paths_of_bytes_in_entries_of_a_folder_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(photograph(), "PNG"))
    (entry,) = os.scandir(os.fsencode(tmp_path))
    np.testing.assert_array_equal(read_image(entry), photograph())
    assert read_photograph(entry, Preprocessing(8, 8, None, (0,) * 3, (1,) * 3), max_pixels=10**6).record["path"]


def test_what_is_given_for_white_is_recorded():
    data = cv2.imencode(".png", np.full((9, 9), 4095, np.uint16))[1].tobytes()
    found = read_photograph(data, Preprocessing(8, 8, None, (0,) * 3, (1,) * 3), max_pixels=81, white=4095)
    assert found.record["white"] == 4095
    assert (found.pixels == 255).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_devices_and_sockets_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is a pipe: give the path of a regular file" in message(tmp_path / "pipe.jpg")
    assert "is a device" in message("/dev/zero")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(os.path.relpath(tmp_path / "s.jpg"))  # a short name, as sockets need
        assert "is a socket" in message(tmp_path / "s.jpg")


def test_a_file_of_another_format_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "endless.jpg").open("wb") as file:
        file.truncate(1 << 34)  # zeros that take no place
    tracemalloc.start()
    assert "begins with 4096 bytes of 0" in message(tmp_path / "endless.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_what_is_no_image_is_told_what_is_one():
    wanted = "give a path, the bytes of a file, a binary file object, an array, a tensor or a Pillow image"
    assert f"SimpleNamespace: {wanted}" in message(SimpleNamespace(__array__=None))


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
