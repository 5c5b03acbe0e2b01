"""Turning and working in blocks change no pixel."""

import numpy as np
import pytest
from tests.common.images import encoded, exif, photograph, pillow, png, webp_animation

import ortcam.images.decoding
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image


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
    monkeypatch.setattr(ortcam.images.arrays.pixels, "BLOCK", block)
    for data, pixels in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(read_image(data), pixels)


@pytest.mark.sample(every=4)
@pytest.mark.whole
@pytest.mark.parametrize("options", [{}, {"antialias": False}, {"interpolation": "bicubic"}, {"resize": None}])
@pytest.mark.parametrize("shape", [(97, 131), (300, 20), (20, 300), (5, 5)])
def test_blocks_change_no_input_of_a_model(shape, options, monkeypatch):
    preprocessing = Preprocessing(
        **{"height": 24, "width": 20, "resize": 28, "mean": (0.4, 0.5, 0.6), "std": (0.2,) * 3} | options
    )
    expected = preprocessing(photograph(*shape))
    for name, value in (("WEIGHTS", 3), ("BAND", 1), ("BLOCK", 3)):
        monkeypatch.setattr(f"ortcam.images.resampling.pillow.{name}", value)
        np.testing.assert_array_equal(preprocessing(photograph(*shape)), expected)


def test_a_frame_that_covers_its_canvas_is_not_copied_to_another_one():
    data = webp_animation((20, 16), 0, 0, photograph(16, 20))
    np.testing.assert_array_equal(read_image(data), photograph(16, 20))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(97, 131), (300, 20), (20, 300), (5, 5), (28, 61), (61, 28), (28, 28)])
@pytest.mark.parametrize("resize", [28, 60, None])
def test_sums_of_rows_and_products_of_matrices_make_the_same_input(shape, interpolation, resize, monkeypatch):
    """Two ways to resample: one for few pixels that make one, the other for many. Sides of 28 keep their size."""
    preprocessing = Preprocessing(
        height=24, width=20, resize=resize, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3, interpolation=interpolation
    )
    inputs = []
    for few in (0, 1000):
        monkeypatch.setattr("ortcam.images.preprocessing.FEW", few)
        inputs.append(preprocessing(photograph(*shape)))
    np.testing.assert_array_equal(*inputs)
