"""Damage is told or refused: scans, strips, tiles and runs that break off."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.common.images import bmp, encoded, exif, photograph, pillow, tiff
from tests.runtime.images.saying import PREPROCESSING, message

from ortcam.errors import ImageError, ImageWarning, OptionError
from ortcam.images.formats.jpeg import next_marker
from ortcam.images.photograph import read_photograph
from ortcam.images.reading import read_image


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


def test_markers_of_a_jpeg_are_found_wherever_they_lie() -> None:
    """In what is searched at once and beyond it, at the ends of what is searched together, behind bytes that fill."""
    pattern, rng = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]"), np.random.default_rng(0)
    filled = b"\xff\0\xff\xd3\xff\xff\x07" * 100_000
    near = [4096 * many + step for many in (1, 2, 10, 74, 138) for step in range(-3, 130)]
    for end in (0, 1, *near[::7], 600_000):
        for content in (bytes(end), filled[:end], rng.integers(0, 254, end, np.uint8).tobytes()):
            for rest in (b"\xff\xda", b"\xff\xff\xd9", b"\xff", b""):
                data = content + rest
                found = pattern.search(data, 3)
                assert next_marker(data, 3) == (found and found.start()), (end, rest)
