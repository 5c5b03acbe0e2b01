"""Size before anything is decoded, and formats and varieties that are refused by name."""

import struct
import time

import cv2
import numpy as np
import pytest
from tests.common.images import (
    bmp,
    deep,
    encoded,
    exif,
    frames,
    gif,
    packed,
    photograph,
    png,
    png_chunk,
    ramp,
    tiff,
    tile,
    webp_animation,
)
from tests.runtime.images.saying import message, needs_avif

from ortcam.images.reading import read_image


def rgb(grey):
    return np.dstack([grey] * 3)


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
    (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(99), "is a MATLAB file (.mat)"),
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
