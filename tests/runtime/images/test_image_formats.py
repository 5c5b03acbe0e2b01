"""What each format says before it is decoded: depth, colours, orientation, size; and what is refused, by name."""

import itertools
import re
import struct
import time
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.common.images import (
    bmp,
    encoded,
    exif,
    packed,
    photograph,
    pillow,
    png,
    png_chunk,
    ramp,
    tiff,
    webp_animation,
)

from ortcam.errors import ImageError, ImageWarning, OptionError
from ortcam.images.reading import read_image

BUILD = cv2.getBuildInformation()
needs_gif = pytest.mark.skipif("GIF:                         YES" not in BUILD, reason="this OpenCV reads no GIF")
needs_avif = pytest.mark.skipif("AVIF:                        " not in BUILD, reason="this OpenCV reads no AVIF")


def message(source, **options):
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_in_silence(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_image(data, **options)


def rgb(grey):
    return np.dstack([grey] * 3)


# Depth


def deep(picture, bits):
    """The samples of 8 bits as samples of more."""
    return np.rint(picture * (((1 << bits) - 1) / 255)).astype(np.uint16)


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


# Colours


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_pngs_of_few_bits_decode_as_pillow_does(bits, transparent):
    samples = photograph()[..., 0] >> (8 - bits)
    trns = {0: png_chunk(b"tRNS", b"\0\1"), 3: png_chunk(b"tRNS", b"\0\x80")} if transparent else {0: b"", 3: b""}
    palette = png_chunk(b"PLTE", np.random.default_rng(0).bytes(3 << bits))
    for data in (png(samples, bits, 0, before=trns[0]), png(samples, bits, 3, before=palette + trns[3])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, of palettes with transparency
            np.testing.assert_array_equal(read_image(data), pillow(data))


def test_a_transparent_colour_of_a_png_stays_that_colour():
    trns = png_chunk(b"tRNS", struct.pack(">HHH", *photograph()[3, 3]))
    data = png(photograph(), 8, 2, before=trns)
    np.testing.assert_array_equal(read_image(data), photograph())


def frames(count=3):
    return [Image.fromarray(np.roll(photograph(), 9 * number, 1)) for number in range(count)]


@pytest.mark.parametrize("options", [{}, {"default_image": True}])
def test_of_an_animated_png_the_picture_that_stands_for_it_is_read(options):
    data = encoded(frames()[0], "PNG", save_all=True, append_images=frames()[1:], **options)
    np.testing.assert_array_equal(read_image(data), photograph())


def test_of_an_animated_webp_the_first_frame_is_read():
    data = encoded(frames()[0], "WEBP", save_all=True, append_images=frames()[1:], lossless=True)
    np.testing.assert_array_equal(read_image(data), photograph())


def test_a_first_frame_that_covers_a_part_lies_on_black():
    data = webp_animation((40, 30), 4, 6, photograph(20, 16))
    expected = np.zeros((30, 40, 3), np.uint8)
    expected[6:26, 4:20] = photograph(20, 16)
    np.testing.assert_array_equal(read_image(data), expected)
    np.testing.assert_array_equal(read_image(data), pillow(data))


def gif(**options):
    return bytearray(encoded(Image.fromarray(photograph()).quantize(16), "GIF", **options))


@needs_gif
@pytest.mark.parametrize("options", [{}, {"transparency": 2}, {"interlace": 0}, {"interlace": 1, "transparency": 0}])
@pytest.mark.parametrize("screen", [None, (150, 140), (20, 20)])
@pytest.mark.parametrize("background", [0, 3])
def test_gifs_decode_as_pillow_does(options, screen, background):
    data = gif(**options)
    if screen:
        struct.pack_into("<HH", data, 6, *screen)
    data[11] = background
    np.testing.assert_array_equal(read_image(bytes(data)), pillow(bytes(data)))


@needs_gif
def test_a_gif_with_a_palette_of_its_frame_decodes_as_pillow_does():
    data = gif(interlace=0)
    palette, rest = data[13 : 13 + 48], data[13 + 48 :]
    at = rest.index(b"\x2c")
    local = data[:10] + bytes([data[10] & 0x7F]) + data[11:13] + rest[:at]
    local += rest[at : at + 9] + b"\x83" + palette + rest[at + 10 :]
    np.testing.assert_array_equal(read_image(bytes(local)), pillow(bytes(data)))


@needs_gif
def test_of_an_animated_gif_the_first_frame_is_read():
    first, *others = (frame.quantize(16) for frame in frames())
    data = encoded(first, "GIF", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_image(data), pillow(data))


def sixteen(order):
    """Pixels of 16 bits, five a channel or, in "565", six of green, and the rows of a BMP of them."""
    red, green, blue = (photograph(9, 11)[..., channel].astype(np.uint16) for channel in range(3))
    low = 2 if order == "565" else 3
    pixels = red >> 3 << (11 if order == "565" else 10) | green >> low << 5 | blue >> 3
    return [row.astype("<u2").tobytes() for row in pixels]


PALETTE = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
BMPS = {
    "555": lambda: bmp(16, sixteen("555"), width=11, height=9),
    "555, masks": lambda: bmp(
        16, sixteen("555"), compression=3, masks=struct.pack("<III", 0x7C00, 0x3E0, 0x1F), width=11, height=9
    ),
    "565": lambda: bmp(
        16, sixteen("565"), compression=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F), width=11, height=9
    ),
    "top row first": lambda: bmp(24, [row.tobytes() for row in photograph(9, 11)[::-1, :, ::-1]], width=11, height=-9),
    "32 bits": lambda: bmp(
        32,
        [np.dstack([row, row[..., :1]]).tobytes() for row in photograph(9, 11)[:, None, :, ::-1]],
        width=11,
        height=9,
    ),
    "32 bits, masks": lambda: bmp(
        32,
        [np.dstack([row, row[..., :1]]).tobytes() for row in photograph(9, 11)[:, None, :, ::-1]],
        compression=3,
        masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF),
        width=11,
        height=9,
    ),
    "runs": lambda: bmp(
        8,
        b"".join(bytes(v for sample in row for v in (1, sample)) + b"\0\0" for row in photograph(9, 11)[..., 0])
        + b"\0\1",
        compression=1,
        palette=PALETTE.tobytes(),
        width=11,
        height=9,
    ),
}


@pytest.mark.parametrize("kind", BMPS)
def test_bmps_decode_as_pillow_does(kind):
    data = BMPS[kind]()
    np.testing.assert_array_equal(read_image(data), pillow(data))


COMPRESSIONS = [
    ("group4", "1"),
    *(("jpeg", mode) for mode in ("RGB", "L", "CMYK", "RGBA")),
    *itertools.product(("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"), ("RGB", "L", "1", "P", "CMYK", "RGBA")),
]


@pytest.mark.parametrize(("compression", "mode"), COMPRESSIONS)
def test_tiffs_of_every_compression_decode_as_pillow_does(compression, mode):
    data = encoded(Image.fromarray(photograph()).convert(mode), "TIFF", compression=compression)
    np.testing.assert_array_equal(read_image(data), pillow(data))


def tile(side):
    return [(322, 4, [side]), (323, 4, [side]), (324, 4, "parts"), (325, 4, "sizes")]


def test_planes_strips_and_tiles_of_a_tiff_decode_as_they_are_stored():
    picture = photograph(40, 48)
    planes = tiff(picture, 8, 2, parts=[picture[..., plane].tobytes() for plane in range(3)], tags=[(284, 3, [2])])
    strips = tiff(picture, 8, 2, parts=[picture[y : y + 7].tobytes() for y in range(0, 40, 7)], tags=[(278, 3, [7])])
    padded = np.zeros((64, 64, 3), np.uint8)
    padded[:40, :48] = picture
    tiled = tiff(
        picture,
        8,
        2,
        parts=[padded[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32)],
        tags=[*((number, 3, None) for number in (273, 278, 279)), *tile(32)],
    )
    for data in (planes, strips, tiled):
        np.testing.assert_array_equal(read_image(data), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_deep_tiffs_come_upright_as_those_of_eight_bits(orientation, order):
    turn = [(274, 3, [orientation])]
    shallow = tiff(photograph(), 8, 2, order=order, tags=turn)
    np.testing.assert_array_equal(read_image(shallow), pillow(shallow))
    deeper = tiff(deep(photograph(), 16), 16, 2, order=order, tags=turn)
    np.testing.assert_array_equal(read_image(deeper), pillow(shallow))


# Orientation


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avifs_come_upright(orientation):
    data = encoded(photograph(), "AVIF", quality=90, exif=exif(orientation))
    assert (b"irot" in data or b"imir" in data) == (orientation != 1)
    np.testing.assert_array_equal(read_image(data), pillow(data))


@needs_avif
def test_exif_does_not_turn_an_avif_that_says_nothing_itself():
    data = encoded(photograph(), "AVIF", quality=90, exif=exif(6))
    data = re.sub(b"irot.", b"irot\0", data, flags=re.DOTALL)  # by 0 degrees
    np.testing.assert_array_equal(read_image(data), pillow(data))
    assert read_image(data).shape == (97, 131, 3)


@needs_avif
@pytest.mark.parametrize("options", [{"subsampling": "4:4:4"}, {"subsampling": "4:2:0"}, {"range": "limited"}])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_avifs_decode_as_pillow_does(mode, options):
    data = encoded(Image.fromarray(photograph()).convert(mode), "AVIF", quality=80, **options)
    np.testing.assert_allclose(read_image(data).astype(int), pillow(data), atol=2)  # versions of libavif round apart


@needs_avif
def test_of_an_animated_avif_the_first_frame_is_read():
    data = encoded(frames()[0], "AVIF", save_all=True, append_images=frames()[1:])
    np.testing.assert_allclose(read_image(data).astype(int), pillow(data), atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_exif_of_either_byte_order_turns_a_picture(kind, order):
    block = {"<": b"II\x2a\0", ">": b"MM\0\x2a"}[order] + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photograph(), kind, exif=b"Exif\0\0" + block, **lossless)
    assert read_image(data).shape == (131, 97, 3)
    np.testing.assert_array_equal(read_image(data), pillow(data))


# Size, before anything is decoded


def with_size(data, width, height):
    """An AVIF whose header says another size than its frames."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@needs_avif
def test_an_avif_is_refused_by_its_header():
    data = encoded(photograph(30, 40), "AVIF")
    assert read_image(data, max_pixels=1200).shape == (30, 40, 3)
    assert "40 x 30 = 1200 pixels, more than the limit of 1199" in message(data, max_pixels=1199)
    assert "20000 x 30" in message(with_size(data, 20000, 30), max_pixels=10**5)


def test_an_avif_that_says_it_is_smaller_than_its_frames_is_refused():
    data = encoded(photograph(300, 400), "AVIF")
    lying = with_size(data, 4, 3)
    assert lying != data
    assert "4 x 3 = 12 pixels (and decodes to 120000), more than the limit of 100000" in message(
        lying, max_pixels=10**5
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"P5 40 30 255\n" + bytes(1200), "40 x 30 = 1200"),
        (bytes(gif())[:6] + struct.pack("<HH", 400, 300) + bytes(gif())[10:], "400 x 300"),
        (webp_animation((40, 30), 0, 0, photograph(2, 2)), "40 x 30 = 1200"),
        (tiff(ramp()[:10], 8, 1, parts=[bytes(9)], tags=tile(1 << 14)), "9 x 10 = 90 pixels (and decodes to 268435456"),
    ],
    ids=["PNM", "GIF", "WebP animation", "TIFF tile"],
)  # fmt: skip
def test_headers_hold_max_pixels(data, said, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # not even asked
    assert said in message(data, max_pixels=1199)


@pytest.mark.parametrize("kind", ["AVIF", "PNM", "WebP animation", "GIF animation"])
def test_no_truncation_of_these_is_taken_for_a_picture(kind):
    if kind == "AVIF":
        data = encoded(photograph(), "AVIF")
    elif kind == "PNM":
        data = b"P6 131 97 255\n" + photograph().tobytes()
    elif kind == "WebP animation":
        data = encoded(frames()[0], "WEBP", save_all=True, append_images=frames()[1:])
    else:
        data = encoded(frames()[0].quantize(16), "GIF", save_all=True, append_images=[frames()[1].quantize(16)])
    for length in {*range(0, len(data), len(data) // 40), len(data) - 1, len(data) - 2}:
        message(data[:length])


def test_half_an_avif_is_truncated():
    data = encoded(photograph(), "AVIF")
    assert "is truncated" in message(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["AVIF", "GIF"])
def test_an_opencv_without_a_format_is_named(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: None)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: f"    {kind}:    NO\n")
    data = encoded(photograph(), "AVIF") if kind == "AVIF" else bytes(gif())
    assert f"is of {kind}, but OpenCV {cv2.__version__}, which is installed, was built without it" in message(data)


# What is refused


def box(kind, body):
    return struct.pack(">I", len(body) + 8) + kind + body


FTYP = {brand: box(b"ftyp", brand + bytes(4) + b"mif1" + brand) + bytes(99) for brand in (b"heic", b"mif1", b"crx ")}
OTHERS = [
    (FTYP[b"heic"], "is a HEIC (HEIF) photograph, which is not accepted"),
    (FTYP[b"mif1"], "is a HEIC (HEIF) photograph"),
    (FTYP[b"crx "], "is a CR3 raw photograph"),
    (box(b"ftyp", b"isom" + bytes(4) + b"isommp42") + bytes(99), "is a video"),
    (box(b"ftyp", b"qt  " + bytes(4)) + bytes(99), "is a video"),
    (b"\x1a\x45\xdf\xa3" + bytes(99), "is a video"),
    (encoded(photograph(), "JPEG2000"), "is a JPEG 2000 picture"),
    (encoded(photograph(), "JPEG2000", no_jp2=True), "is a JPEG 2000 picture"),
    (b"\xff\x0a" + bytes(99), "is a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "is a JPEG XL picture"),
    (cv2.imencode(".hdr", np.ones((4, 4, 3), np.float32))[1].tobytes(), "is a Radiance HDR picture"),
    (b"\x76\x2f\x31\x01" + bytes(99), "is an OpenEXR picture"),
    (b"8BPS\0\1" + bytes(99), "is a Photoshop document"),
    (encoded(photograph(), "ICO"), "is an icon"),
    (b"qoif" + bytes(99), "is a QOI image"),
    (b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(48), "is a PAM picture"),
    (b"PF\n4 4\n-1.0\n" + bytes(192), "is a PFM picture"),
    (b"\x59\xa6\x6a\x95" + bytes(99), "is a Sun raster picture"),
    (bytes(128) + b"DICM" + bytes(99), "is a DICOM picture"),
    (b"II\x2a\0\x10\0\0\0CR\2\0" + bytes(99), "is a CR2 raw photograph"),
    (b"%PDF-1.7\n" + bytes(99), "is a PDF document"),
    (b"\x93NUMPY\1\0" + bytes(99), "is a NumPy array"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image: it is an SVG drawing"),
    (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='4'/>", "is an SVG drawing"),
    (b"<!DOCTYPE html><html></html>", "is a web page"),
    (b"\n<html lang='en'>", "is a web page"),
    (b"<?xml version='1.0'?><note/>", "is an XML document"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer"),
    (b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==", "is a data: URI"),
    (b"/9j/4AAQSkZJRgABAQAAAQABAAD", "is a picture in base64"),
    (b'{"error": "not found"}', "is JSON"),
    (b"\x1f\x8b\x08" + bytes(99), "is gzip data"),
    (b"PK\3\4" + bytes(99), "is a ZIP archive"),
    ("grün".encode() * 2000, "is text that begins with 'grün"),
    (b"BM is how this text begins, and it goes on", "is text that begins with 'BM is how"),
    (bytes(5000), "begins with 4096 bytes of 0"),
    (b"\x03\x99\x88\x00", "begins with b'\\x03\\x99\\x88\\x00'"),
]


@pytest.mark.parametrize(("data", "said"), OTHERS, ids=[said[-24:] for _, said in OTHERS])
def test_what_is_not_accepted_is_called_by_its_name_and_not_decoded(data, said, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    found = message(data)
    assert said in found
    assert "accepted: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PNM" in found


@pytest.mark.parametrize(
    "text", [b"<!---->" * 9999, b" " * 9999, b"[" * 9999, b"P5" + b" " * 9999, b"P5" + b"#\n" * 9999]
)
def test_no_text_makes_naming_it_slow(text):
    start = time.process_time()
    message(text)
    assert time.process_time() - start < 1  # some milliseconds, or for ever


def sof(data, marker=0xC0, bits=8):
    at = data.index(b"\xff\xc0")
    return data[:at] + bytes([0xFF, marker]) + data[at + 2 : at + 4] + bytes([bits]) + data[at + 5 :]


def scans(count):
    """A JPEG whose last scan is there `count` times."""
    data = encoded(photograph(), "JPEG")
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def masked(*masks):
    return bmp(32, [bytes(16)] * 4, compression=3, masks=struct.pack("<III", *masks), width=4, height=4)


VARIETIES = [
    (lambda: encoded(photograph(), "AVIF").replace(b"av01", b"grid"), "is an AVIF file whose image is made of tiles"),
    (lambda: box(b"ftyp", b"avis" + bytes(4)) + box(b"moov", b""), "is an animated AVIF file without a still image"),
    (lambda: sof(encoded(photograph(), "JPEG"), bits=12), "is a JPEG of 12 bits per sample"),
    (lambda: sof(encoded(photograph(), "JPEG"), marker=0xC3), "is a lossless or hierarchical JPEG"),
    (lambda: b"\xff\xd8\xff\xf7\0\x0b\x08\0\1\0\1\1\1\x11\0" + bytes(9), "is a JPEG-LS image"),
    (lambda: scans(65), "is a JPEG of more than 64 scans"),
    (lambda: bmp(2, [bytes(4)] * 4, width=4, height=4), "is a BMP file of 2 bits per pixel"),
    (lambda: bmp(24, encoded(photograph(), "JPEG"), compression=4, width=4, height=4), "is a JPEG inside a BMP file"),
    (lambda: masked(0xFF, 0xFF00, 0xFF0000), "is a BMP file of the colour masks 0xff, 0xff00, 0xff0000"),
    (lambda: masked(0x3FF << 20, 0x3FF << 10, 0x3FF), "is a BMP file of the colour masks 0x3ff00000, 0xffc00, 0x3ff"),
    (lambda: b"II\x2b\0\x08\0\0\0" + bytes(99), "is a BigTIFF file"),
    (lambda: b"MM\0\x2b\0\x08\0\0" + bytes(99), "is a BigTIFF file"),
    (lambda: tiff(ramp().astype(np.float32), 32, 1, tags=[(339, 3, [3])]), "is a TIFF file of floating-point numbers"),
    (lambda: tiff(photograph().astype(np.float32), 32, 2, tags=[(339, 3, [3] * 3)]), "of floating-point numbers"),
    (lambda: tiff(ramp().astype(np.int16), 16, 1, tags=[(339, 3, [2])]), "is a TIFF file of signed integers"),
    (lambda: tiff(ramp().astype(np.int8), 8, 1, tags=[(339, 3, [2])]), "is a TIFF file of signed integers"),
    (lambda: tiff(ramp().astype(np.uint32), 32, 1), "is a TIFF file of 32 bits per sample"),
    (lambda: tiff(deep(photograph()[..., :2], 16), 16, 1), "is a TIFF file of grey and alpha of 16 bits per sample"),
    (lambda: tiff(ramp() >> 4, 4, 1), "is a TIFF file of 4 bits per sample"),
    (lambda: tiff(deep(np.dstack([photograph(), ramp()[:97, :1].repeat(131, 1)]), 16), 16, 5), "of 16 bits per sample"),
    (lambda: tiff(photograph(), 8, 8), "is a TIFF file of CIE L*a*b* colours"),
    (lambda: tiff(deep(photograph(), 16), 16, 8), "is a TIFF file of CIE L*a*b* colours"),
    (lambda: tiff(ramp(), 8, 32803), "is a raw photograph (colour filter array)"),
    (lambda: tiff(ramp(), 8, 1, tags=[(50706, 1, [1, 4, 0, 0])]), "is a DNG raw photograph"),
    (lambda: tiff(photograph(), 8, 2, tags=[(254, 4, [1])]), "is a TIFF file whose first image is a preview"),
    (lambda: tiff(ramp(), 8, 1, tags=[(259, 3, [50000])]), "is a TIFF file compressed by Zstandard"),
    (lambda: tiff(np.dstack([photograph(), photograph()]), 8, 2), "is a TIFF file of 6 samples per pixel"),
]


@pytest.mark.parametrize(("make", "said"), VARIETIES, ids=[said[-24:] for _, said in VARIETIES])
def test_varieties_that_are_not_accepted_are_named_and_not_decoded(make, said, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    found = message(make())
    assert said in found
    assert "convert it" in found


def lying_webp():
    data = bytearray(encoded(photograph(30, 40), "WEBP", lossless=True, exif=exif(1)))
    data[24:30] = (7).to_bytes(3, "little") + (5).to_bytes(3, "little")
    return bytes(data)


DAMAGED = [
    (lying_webp, "its header says 8 x 6 pixels, but it holds 40 x 30"),
    (lambda: tiff(ramp(), 8, 1, tags=[(256, 9, [9])]), "gives no width and height as whole numbers"),
    (lambda: tiff(ramp(), 8, 1, tags=[(278, 4, [1])]), "1 offsets and 1 sizes for 256 strips"),
    (lambda: tiff(ramp(), 8, 1, tags=[(278, 4, [0])]), "its strips or tiles have 9 x 0 pixels"),
    (
        lambda: tiff(ramp(), 8, 1).replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 256, 4, 1)),
        "tag 256 twice",
    ),
    (lambda: png(ramp(), 8, 0, before=png_chunk(b"ABCD", b"")), "its chunk b'ABCD' is unknown"),
    (lambda: png(ramp(), 8, 0).replace(b"IHDR\0\0", b"IHDR\0\1"), "checksum"),
    (lambda: b"\xff\xd8\xff\xd9" + bytes(99), "ends before its pixels begin"),
]


@pytest.mark.parametrize(("make", "said"), DAMAGED, ids=[said[-24:] for _, said in DAMAGED])
def test_files_that_contradict_themselves_are_damaged(make, said):
    found = message(make())
    assert "is damaged: " in found
    assert said in found


def test_a_strip_outside_the_file_is_a_truncation():
    assert "is truncated" in message(tiff(ramp(), 8, 1, tags=[(273, 4, [1 << 20])]))


def test_packed_is_what_these_tests_take_it_for():
    assert packed(np.array([[0xABC, 0x123]]), 12) == b"\xab\xc1\x23"
