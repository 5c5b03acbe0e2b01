"""Colours, frames, compressions and orientation of each format, as Pillow decodes them."""

import itertools
import re
import struct
import warnings

import numpy as np
import pytest
from PIL import Image
from tests.common.images import (
    bmp,
    deep,
    encoded,
    exif,
    frames,
    gif,
    photograph,
    pillow,
    png,
    png_chunk,
    tiff,
    tile,
    webp_animation,
)
from tests.runtime.images.saying import needs_avif, needs_gif

from ortcam.images.reading import read_image


def rgb(grey):
    return np.dstack([grey] * 3)


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


@pytest.mark.sample(every=3)
@pytest.mark.whole
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
