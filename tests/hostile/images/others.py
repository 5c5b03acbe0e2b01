"""Formats that are refused by their name, and files that are two formats."""

import struct
from collections.abc import Iterator

from tests.hostile.images.bomb import HUGE, MB, Bomb
from tests.hostile.images.encoders.avif import box, full_box
from tests.hostile.images.encoders.gif import gif, gif_blocks, gif_frame
from tests.hostile.images.encoders.jpeg import jpeg, jpeg_segment
from tests.hostile.images.encoders.png import PNG, png


def refused_bombs() -> Iterator[Bomb]:
    """Formats that are not accepted, huge."""
    line = bytes([2, 2, HUGE >> 8, HUGE & 255]) + bytes([255, 1] * 105 + [128 + HUGE % 127, 1]) * 4
    raster = struct.pack(">8I", 0x59A66A95, HUGE, HUGE, 8, 0, 2, 1, 768) + bytes(768)
    siz = struct.pack(">HHIIIIIIIIHBBB", 41, 0, HUGE, HUGE, 0, 0, HUGE, HUGE, 0, 0, 1, 7, 1, 1)
    heic = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    for name, data, called in (
        ("jpeg-2000.j2k", b"\xff\x4f\xff\x51" + siz, "JPEG 2000"),
        ("jpeg-2000.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ") + b"\xff\x4f\xff\x51" + siz, "JPEG 2000"),
        ("jpeg-xl.jxl", b"\xff\x0a" + bytes(100), "JPEG XL"),
        ("radiance.hdr", b"#?RADIANCE\n\n-Y %d +X %d\n" % (HUGE, HUGE) + line * 4000, "Radiance"),
        ("sun.ras", raster + b"\x80\xff\x05" * (HUGE * HUGE // 256), "Sun raster"),
        ("pam.pam", b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(1000), "PAM"),
        ("float.pfm", b"PF\n20000 20000\n-1.0\n" + bytes(1000), "PFM"),
        ("open.exr", b"\x76\x2f\x31\x01\2\0\0\0channels\0chlist\0" + struct.pack("<I", 2**31 - 1), "OpenEXR"),
        ("phone.heic", heic + full_box(b"meta", full_box(b"iloc", b"\0\0" + b"\xff" * 1000)), "HEIC"),
        ("phone-brand-mif1.heic", box(b"ftyp", b"mif1" + bytes(4) + b"mif1heic") + bytes(1000), "HEIC"),
        ("photoshop.psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(100), "PSD"),
        ("icon.ico", b"\0\0\1\0\1\0" + bytes(16) + png(HUGE, HUGE, pixels=b""), "ICO"),
        ("texture.dds", b"DDS " + struct.pack("<IIII", 124, 0x1007, 30_000, 30_000) + bytes(100), "DDS"),
        ("quick.qoi", b"qoif" + struct.pack(">IIBB", 20_000, 20_000, 3, 0) + b"\xfd" * 100, "QOI"),
        ("x.pcx", b"\x0a\5\1\x08" + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + bytes(116) + b"\xff\0" * 1000, "PCX"),
        ("iris.sgi", b"\x01\xda\1\1" + struct.pack(">HHHH", 3, 65_535, 65_535, 3) + bytes(500), "SGI"),
        ("fits.fits", b"SIMPLE  =" + b" " * 4000, "FITS"),
        ("document.pdf", b"%PDF-1.7\n" + bytes(1000), "PDF"),
        ("archive.gz", b"\x1f\x8b" + bytes(1000), "gzip"),
        ("zip-bomb.zip", b"PK\3\4" + bytes(1000), "ZIP"),
        ("laughs.svg", b"<!DOCTYPE svg [<!ENTITY a 'ha'>" + b"<!ENTITY b '&a;&a;'>" * 100 + b"]><svg/>", ""),
        ("spaces.txt", b" " * 400_000, "text"),
        ("zeros.bin", bytes(4096), "bytes of 0"),
        ("comments.xml", b"<!--" * 100_000, "text"),
        ("comments-ended.xml", b"<!---->" * 50_000, "text"),
        ("brackets.json", b"[" * 400_000, "JSON"),
        ("base64.txt", b"iVBORw0KGgo" + b"A" * 1000, "base64"),
        ("empty.png", b"", "empty"),
        ("line-breaks.png", b"\x85\n\r\x1b[31mred" * 10, ""),
        ("video.mp4", box(b"ftyp", b"isom" + bytes(12)) + bytes(100), "video"),
        ("ftyp-of-many-brands.avif", struct.pack(">I4s", 400_008, b"ftyp") + b"mif1" + b"abcd" * 100_000, ""),
    ):  # fmt: skip
        yield Bomb(
            name=f"refused-{name}",
            kind="format that is not accepted",
            make=lambda data=data: data,
            refused=called,
            memory=3 * MB,
        )
    yield Bomb(
        name="refused-sparse-zeros-100gb.bin",
        kind="sparse file",
        make=lambda: b"\0",
        tail=10**11,
        refused="bytes of 0",
        memory=3 * MB,
    )
    yield from polyglot_bombs()


def polyglot_bombs() -> Iterator[Bomb]:
    """Files that are two formats, or bear the name of another."""
    small = (8, 8, 3)
    huge = jpeg(65_500, 65_500, data=b"")
    for name, make, shape in (
        ("png-then-jpeg.jpg", lambda: png(8, 8) + huge, small),
        ("jpeg-then-zip.zip", lambda: jpeg(8, 8) + b"PK\3\4" + bytes(1000), small),
        ("gif-comment-is-jpeg.jpg", lambda: gif(1, 1, [b"\x21\xfe" + gif_blocks(huge), gif_frame(1, 1)]), (1, 1, 3)),
        ("png-named-tiff.tiff", lambda: png(8, 8), small),
        ("jpeg-comment-is-png.png", lambda: jpeg(8, 8, before=jpeg_segment(0xFE, png(HUGE, HUGE, pixels=b""))), small),
    ):
        yield Bomb(name=f"polyglot-{name}", kind="polyglot", make=make, shape=shape, cpu=2, memory=10 * MB, warns="")
    for name, make in (
        ("png-of-jpeg.png", lambda: PNG + huge),
        ("riff-of-avi.webp", lambda: b"RIFF\xff\xff\xff\xffAVI " + bytes(100)),
        ("bm-text.bmp", lambda: b"BM" + b"W is a maker of cars" * 1000),
        ("avif-of-jpeg.avif", lambda: box(b"ftyp", b"avif" + bytes(4)) + huge),
        ("tiff-of-png.tiff", lambda: b"II*\0" + png(8, 8)),
        ("p6-of-png.ppm", lambda: b"P6\n" + png(8, 8)),
    ):
        yield Bomb(name=f"polyglot-{name}", kind="polyglot", make=make, refused="")
