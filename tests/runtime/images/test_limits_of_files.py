"""Limits of images and files: pixels, bytes, names in messages."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.common.images import encoded, long_png, photograph
from tests.runtime.images.saying import PREPROCESSING, message

import ortcam.images.decoding
from ortcam.errors import ImageError, OptionError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import read_ahead, read_photograph
from ortcam.images.reading import read_image
from ortcam.images.rendering import shrunk


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


def test_overlays_of_large_pictures_are_smaller_with_the_same_proportions():
    assert shrunk(photograph(30, 40), 40) is not None
    small = shrunk(photograph(300, 400), 100)
    assert small.shape == (75, 100, 3)
    assert shrunk(np.zeros((9000, 1, 3), np.uint8), 100).shape == (100, 1, 3)
    same = photograph(30, 40)
    assert shrunk(same, 40) is same
    with pytest.raises(OptionError, match="longest_side=0"):
        shrunk(same, 0)


@pytest.mark.long
def test_two_pictures_at_most_are_read_ahead():
    taken, kept = [], []
    for item, _ in read_ahead(iter(range(20)), taken.append):
        time.sleep(0.01)  # for the thread to go on as far as it may
        kept.append(item)
        assert len(taken) - len(kept) <= 2
    assert kept == list(range(20))
