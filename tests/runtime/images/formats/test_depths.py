"""Depth of samples: bits, what is white, what is told of dark images."""

import cv2
import numpy as np
import pytest
from tests.common.images import (
    deep,
    encoded,
    photograph,
    pillow,
    png,
    png_chunk,
    ramp,
    tiff,
)
from tests.runtime.images.saying import message, needs_avif, read_in_silence

from ortcam.errors import ImageWarning, OptionError
from ortcam.images.reading import read_image


def rgb(grey):
    return np.dstack([grey] * 3)


def with_sixteen_bits(samples, kind):
    """Samples in a file of 16 bits; big-endian TIFF where the kind is TIFF>."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    if kind == "PNG":
        return png(samples, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    tags = [(338, 3, [2])] if channels in {2, 4} else []
    return tiff(samples, 16, 1 if channels < 3 else 2, order=kind[-1], tags=tags)


def modes():
    colour, alpha = photograph(), np.full((97, 131), 255, np.uint8)
    yield "grey", colour[..., 1], rgb(colour[..., 1])
    yield "grey and alpha", np.dstack([colour[..., 1], alpha]), rgb(colour[..., 1])
    yield "colour", colour, colour
    yield "colour and alpha", np.dstack([colour, alpha]), colour


# Grey and alpha of 16 bits are refused by name in TIFF.
KINDS = [
    pytest.param(kind, *mode, id=f"{kind} {mode[0]}")
    for kind in ("PNG", "TIFF<", "TIFF>")
    for mode in modes()
    if kind == "PNG" or mode[0] != "grey and alpha"
]


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize(("kind", "name", "samples", "expected"), KINDS)
def test_twelve_bits_in_sixteen_are_told_and_white_gives_them_their_brightness(kind, bits, name, samples, expected):
    data = with_sixteen_bits(deep(samples, bits), kind)
    if "alpha" in name:  # which does not hide that the colours are dark
        data = with_sixteen_bits(np.dstack([deep(samples[..., :-1], bits), np.full((97, 131), 65535, np.uint16)]), kind)
    white = (1 << bits) - 1
    np.testing.assert_array_equal(read_in_silence(data, white=white), expected)
    with pytest.warns(ImageWarning, match=f"white={white} "):
        untouched = read_image(data)
    np.testing.assert_array_equal(untouched, deep(expected, bits) >> 8)  # the brightness is never guessed
    np.testing.assert_array_equal(read_in_silence(data, white=65535).astype(int), np.rint(deep(expected, bits) / 257))


@pytest.mark.parametrize("kind", ["PNG", "TIFF<"])
def test_sixteen_bits_that_are_in_use_are_read_in_silence(kind):
    samples = deep(ramp(), 16)
    np.testing.assert_array_equal(read_in_silence(with_sixteen_bits(samples, kind)), rgb(ramp()))
    read_in_silence(with_sixteen_bits(samples // 4 + 1, kind))  # 16384: one sample with one of the two upper bits
    read_in_silence(with_sixteen_bits(samples * 0, kind))  # black, whatever white is


def test_samples_above_white_are_white():
    data = png(np.array([[0, 2000, 4095, 4096, 65535]], np.uint16), 16, 0)
    assert read_image(data, white=4095)[0, :, 0].tolist() == [0, 125, 255, 255, 255]


def test_white_changes_no_picture_whose_depth_is_known():
    for data in (encoded(photograph(), "PNG"), encoded(photograph(), "JPEG"), b"P5 2 1 4095\n" + bytes([0, 9, 8, 7])):
        np.testing.assert_array_equal(read_image(data, white=1000), read_image(data))


def test_png_says_by_sbit_what_was_scaled_up_not_what_is_white():
    before = png_chunk(b"sBIT", b"\x0c")
    data = png(deep(ramp(), 12) << 4, 16, 0, before=before)
    np.testing.assert_array_equal(read_in_silence(data), rgb(ramp()))


@pytest.mark.parametrize("white", [0, -1, 65536, True, 4095.0, "4095"])
def test_white_is_a_sample_of_sixteen_bits(white):
    with pytest.raises(OptionError, match=r"white=.*accepted is a whole number from 1 to 65535"):
        read_image(photograph(), white=white)


@pytest.mark.parametrize("limit", [0, -1, True, 1e6, "9", None])
def test_max_pixels_is_a_whole_number_from_one(limit):
    with pytest.raises(OptionError, match=r"max_pixels=.*accepted is a whole number from 1"):
        read_image(photograph(), max_pixels=limit)


def test_numpys_integers_are_numbers():
    data = png(deep(photograph(), 12), 16, 2)
    assert read_image(data, white=np.int32(4095), max_pixels=np.int64(10**6)).shape == (97, 131, 3)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tiffs_of_packed_samples_have_their_own_white(bits, order):
    grey = tiff(deep(ramp(), bits), bits, 1, order=order)
    np.testing.assert_array_equal(read_in_silence(grey), rgb(ramp()))
    colour = tiff(deep(photograph(), bits), bits, 2, order=order)
    np.testing.assert_array_equal(read_in_silence(colour), photograph())


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
def test_tiffs_whose_zero_is_white_are_inverted(bits):
    samples = deep(ramp(), bits)
    values = np.rint(samples / ((1 << bits) - 1) * 255).astype(np.uint8)
    stored = samples.astype(np.uint8) if bits < 10 else samples
    np.testing.assert_array_equal(read_in_silence(tiff(stored, bits, 0)), rgb(255 - values))


def test_a_dark_tiff_whose_zero_is_white_is_told_too():
    data = tiff(deep(ramp(), 12), 16, 0)
    with pytest.warns(ImageWarning, match="white=4095"):
        read_image(data)
    np.testing.assert_array_equal(read_image(data, white=4095), rgb(255 - ramp()))


@pytest.mark.parametrize("white", [1, 15, 100, 254, 255, 256, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_pnms_header_says_what_is_white(kind, white):
    picture = photograph(5, 7) if kind in {"P3", "P6"} else photograph(5, 7)[..., 0]
    samples = np.rint(picture * (white / 255)).astype(int)
    if kind in {"P2", "P3"}:
        body = b"\n".join(b"%d" % sample for sample in samples.ravel())
    else:
        body = samples.astype(np.uint8 if white < 256 else ">u2").tobytes()
    data = b"%s # a comment\n7 5\n# another\n%d\n" % (kind.encode(), white) + body
    expected = np.rint(samples / white * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_in_silence(data), expected if picture.ndim == 3 else rgb(expected))
    if white < 256 or picture.ndim == 3:  # Pillow clips deep grey at 255
        np.testing.assert_array_equal(read_image(data), pillow(data))


@pytest.mark.parametrize("kind", ["pgm", "ppm"])
def test_a_dark_pnm_whose_white_is_the_largest_is_told_too(kind):
    picture = ramp() if kind == "pgm" else rgb(ramp())
    data = cv2.imencode(f".{kind}", deep(picture, 12))[1].tobytes()
    assert b"65535" in data[:20]
    with pytest.warns(ImageWarning, match="white=4095"):
        read_image(data)
    np.testing.assert_array_equal(read_in_silence(data, white=4095), rgb(ramp()))
    assert read_in_silence(data, white=65535).max() == 16
    said = data.replace(b"65535", b"4095")
    np.testing.assert_array_equal(read_in_silence(said), read_in_silence(said, white=65535))


def test_pixels_of_a_pnm_can_be_written_to():
    assert read_image(b"P6 1 1 255\nabc").flags.writeable


def test_samples_above_the_white_of_a_pnm_are_white():
    data = b"P5 3 1 100\n" + bytes([100, 101, 255])
    np.testing.assert_array_equal(read_image(data), pillow(data))
    assert (read_image(b"P2 2 1 100 100 70000 ") == 255).all()


@pytest.mark.parametrize("width", [1, 7, 8, 9, 17])
def test_bitmaps_are_read_as_pillow_reads_them(width):
    bits = photograph(5, width)[..., 0] > 127
    raw = b"P4\n%d 5\n" % width + np.packbits(bits, axis=1).tobytes()
    plain = b"P1\n%d 5\n" % width + b" ".join(b"%d" % bit for bit in bits.ravel())
    tight = b"P1\n%d 5\n" % width + b"".join(b"%d" % bit for bit in bits.ravel())
    for data in (raw, plain, tight):
        np.testing.assert_array_equal(read_image(data), pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        b"P5 2 2 255\nabc",
        b"P6 2 2 255\n" + bytes(11),
        b"P5 2 2 256\n" + bytes(7),
        b"P2 2 2 255\n1 2 3 ",
        b"P2 2 2 255\n1 2 3 x ",
        b"P2 2 2 255\n1 2 3    \n",
        b"P2 2 2 255\n            ",
        b"P2 2 2 255\n1 2 3 # 4\n",
        b"P2 2 2 255\n1 2 -3 4",
        b"P1 2 2\n0 1 2 1",
        b"P1 2 2\n0 1 1   ",
        b"P4 9 2\n" + bytes(3),
        b"P5 2 2 0\n" + bytes(4),
        b"P5 2 2 65536\n" + bytes(8),
        b"P5 0 2 255\n",
        b"P5 2 255\n" + bytes(4),
        b"P5 30000 30000 255\n" + bytes(1000),
    ],
)
def test_pnms_that_break_off_or_lie_are_damaged(data):
    assert "is damaged" in message(data)


@needs_avif
@pytest.mark.parametrize("bits", [10, 12])
def test_avifs_of_more_bits_keep_their_brightness(bits):
    samples = deep(photograph(), bits)[..., ::-1]
    settings = [cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, bits]
    data = cv2.imencode(".avif", np.ascontiguousarray(samples), settings)[1].tobytes()
    np.testing.assert_allclose(read_in_silence(data).astype(int), photograph(), atol=1)
    np.testing.assert_allclose(read_in_silence(data).astype(int), pillow(data), atol=1)
