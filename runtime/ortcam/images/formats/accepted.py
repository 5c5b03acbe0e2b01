"""The pictures that are accepted, known by their first bytes; their headers, walked before anything is decoded."""

import functools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.formats.avif import walk_avif
from ortcam.images.formats.deflate import inflated_size
from ortcam.images.formats.header import DamagedError, Header, Parts, RefusedError, exif_orientation
from ortcam.images.formats.jpeg import walk_jpeg
from ortcam.images.formats.pnm import walk_pnm
from ortcam.images.formats.tiff import walk_tiff
from ortcam.images.formats.vp8l import Stream

__all__ = ["ACCEPTED", "HEAD", "check_signature", "read_header"]

ACCEPTED: Final = "accepted: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PNM (PBM, PGM, PPM)"
HEAD: Final = 4096  # bytes from the beginning that tell what a file is


def read_header(data: bytes, name: str) -> Header:
    """Walk a picture to its end without decoding it.

    Args:
        data: of a file, not empty.
        name: of it, for messages.

    Raises:
        ImageError: it is of another format, of a variety that is not accepted, truncated or damaged.
    """
    walk = check_signature(data[:HEAD], name)
    try:
        return walk(data)
    except (struct.error, IndexError):
        raise ImageError(f"{name} is truncated: the file ends after {len(data)} bytes, before its image does") from None
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    except RefusedError as error:
        raise ImageError(f"{name} is {error}: convert it, for example to PNG of 8 bits") from None


def check_signature(head: bytes, name: str) -> Callable[[bytes], Header]:
    """What walks the header of a file that begins so.

    Args:
        head: the first HEAD bytes, or all.
        name: of the file, for messages.

    Raises:
        ImageError: no format that is accepted begins so; the message names what it is.
    """
    for signature, walk in _WALKS:
        if signature.match(head):
            return walk
    for signature, what in _OTHERS:
        if signature.match(head):
            raise ImageError(f"{name} is {what}, which is not accepted; {ACCEPTED}")
    raise ImageError(f"{name} is not an image: it {_not_a_picture(head)}; {ACCEPTED}")


_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
# All that the pixels are made of. The others OpenCV does not apply, libpng complains of many that are in use, tRNS
# would mix colours, and those of an animation would hide the picture that stands for it.
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3 << 8  # bytes
_MOST_CHUNKS = 100_000  # of a few kilobytes each in the largest files that programs write


def _walk_png(data: bytes) -> Header:
    width = height = bits = colour = interlaced = 0
    orientation: int | None = None
    kept, samples = [(0, 8)], []
    for kind, start, end in _png_chunks(data):
        if kind == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, start + 8)
            if not width or not height or bits not in _PNG_DEPTHS.get(colour, ()):
                raise DamagedError(f"its header says {width} x {height} pixels, {bits} bits, colour type {colour}")
        elif kind == b"eXIf" and orientation is None:
            orientation = exif_orientation(data[start + 8 : end - 4])
        elif kind == b"PLTE" and end - start > _PALETTE + 12:
            raise DamagedError(f"its palette has {end - start - 12} bytes")
        elif kind == b"IDAT":
            samples.append((start + 8, end - 4))
        if kind in _PNG_KEPT:
            if kept[-1][1] == start:
                kept[-1] = kept[-1][0], end
            else:
                kept.append((start, end))
    bits_a_pixel = bits * _PNG_SAMPLES[colour]
    needed = _png_bytes(width, height, bits_a_pixel, interlaced=bool(interlaced))
    whole = memoryview(data)
    return Header(
        kind="PNG",
        width=width,
        height=height,
        orientation=orientation or 1,
        payload=None if len(kept) == 1 else b"".join([whole[begin:stop] for begin, stop in kept]),
        working=4 * width * max(bits_a_pixel // 8, 1),
        check=functools.partial(_check_surplus, data, samples, needed),
        deep=bits == 16,
        grey=colour in _PNG_GREY,
        white_unknown=bits == 16,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of each chunk, its length and checksum included, up to the one that ends the picture."""
    start = 8
    parts = Parts(_MOST_CHUNKS, "chunks")
    kind = b""
    while kind != b"IEND":
        parts.count()
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[start + 4 : end - 4]) != checksum:
            raise DamagedError(f"the checksum of its {kind!r} chunk does not match")
        if (kind == b"IHDR") != (start == 8):
            raise DamagedError("IHDR is not its first chunk, or not the only one")
        if kind[:1].isupper() and kind not in _PNG_KEPT:
            raise DamagedError(f"its chunk {kind!r} is unknown, but marked as needed")
        yield kind, start, end
        start = end


_PNG_GREY = {0, 4}
_PASSES = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
_SURPLUS = 1 << 29  # bytes that libpng inflates in about a second
_TOLERATED = 1 << 20  # bytes behind the pixels, which some encoders write
_MOST_INFLATED = 1032  # bytes from one of deflate


def _png_bytes(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Bytes of the lines of a PNG of so many bits per pixel; each has one for its filter."""
    total = 0
    for across, down, left, top in _PASSES if interlaced else ((1, 1, 0, 0),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _check_surplus(data: bytes, parts: Sequence[tuple[int, int]], needed: int) -> str:
    """Find out whether the samples of a PNG go on far behind its pixels, which libpng would inflate to the end.

    Raises:
        DamagedError: they do.
    """
    if sum(end - begin for begin, end in parts) * _MOST_INFLATED <= needed + _SURPLUS:
        return ""
    try:
        size = inflated_size((memoryview(data)[begin:end] for begin, end in parts), needed + _TOLERATED)
    except zlib.error:
        return ""  # libpng finds that, too
    if size > needed + _TOLERATED:
        raise DamagedError("its pixel data are longer than its pixels need")
    return ""


_WEBP_FRAME = 16  # bytes before the chunks of a frame


def _walk_webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise struct.error
    width = height = 0
    orientation: int | None = None
    animated = False
    picture: tuple[bytes, int, int] | None = None
    alpha: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    parts = Parts(_MOST_CHUNKS, "chunks")
    for kind, start, stop in _riff_chunks(data, 12, end, parts):
        if kind == b"VP8X":
            animated = bool(data[start] & 2)
            width, height = _three(data, start + 4, stop) + 1, _three(data, start + 7, stop) + 1
        elif kind == b"EXIF" and orientation is None:
            orientation = exif_orientation(data[start:stop])
        elif kind in {b"VP8 ", b"VP8L"} and picture is None:
            picture = kind, start, stop
        elif kind == b"ALPH":
            alpha = _only(alpha, start, stop)
        elif kind == b"ANMF" and frame is None:
            frame = start, stop
    if animated:
        if frame is None:
            raise DamagedError("it is animated, but holds no frame")
        return _webp_first_frame(data, width, height, orientation or 1, *frame)
    if picture is None:
        raise DamagedError("it holds no image")
    size = _webp_size(data, *picture[:2])
    if width and size != (width, height):
        raise DamagedError(f"its header says {width} x {height} pixels, but it holds {size[0]} x {size[1]}")
    working, measure = _webp_working(data, picture, alpha, size)
    return Header(
        kind="WebP",
        width=size[0],
        height=size[1],
        orientation=orientation or 1,
        working=working,
        measure=measure,
    )


def _only(before: tuple[int, int] | None, start: int, stop: int) -> tuple[int, int]:
    if before is not None:
        raise DamagedError("it has two alpha chunks")
    return start, stop


def _webp_working(
    data: bytes, picture: tuple[bytes, int, int], alpha: tuple[int, int] | None, size: tuple[int, int]
) -> tuple[int, Callable[[], int] | None]:
    """Bytes beside the decoded picture: four channels of it, what is lossless in it, and the codes of that.

    Args:
        data: of the file.
        picture: kind, beginning and end of the chunk that holds the colours.
        alpha: beginning and end of the chunk that holds alpha alone, if there is one.
        size: width and height.

    Returns:
        The most they may be, and what finds out more closely.
    """
    kind, start, stop = picture
    pixels = size[0] * size[1]
    if kind == b"VP8L":
        working, lossless = 9 * pixels, Stream(data, start, stop, *size)
    elif alpha is not None and alpha[0] < alpha[1] and data[alpha[0]] & 3 == 1:
        working, lossless = 6 * pixels, Stream(data, alpha[0] + 1, alpha[1], *size, headless=True)
    else:
        return (0 if alpha is None else 6 * pixels), None
    return working + lossless.most_tables(), lambda: working + lossless.tables()


def _webp_first_frame(data: bytes, width: int, height: int, orientation: int, start: int, stop: int) -> Header:
    """The header of an animation: its first frame as a file of its own, which is put where it belongs afterwards."""
    top, left = 2 * _three(data, start + 3, stop), 2 * _three(data, start, stop)
    picture: tuple[bytes, int, int] | None = None
    alpha: tuple[int, int] | None = None
    for kind, begin, end in _riff_chunks(data, start + _WEBP_FRAME, stop, Parts(_MOST_CHUNKS, "chunks")):
        if kind in {b"VP8 ", b"VP8L"} and picture is None:
            picture = kind, begin, end
        elif kind == b"ALPH":
            alpha = _only(alpha, begin, end)
    size = (0, 0) if picture is None else _webp_size(data, *picture[:2])
    if picture is None or left + size[0] > width or top + size[1] > height:
        raise DamagedError("its first frame does not fit into it")
    # It is decoded with alpha, whether it has one or not.
    working, measure = _webp_working(data, picture, alpha or (stop, stop), size)
    still = struct.pack("<B3x", 0x10) + b"".join((side - 1).to_bytes(3, "little") for side in size)
    content = memoryview(data)[start + _WEBP_FRAME : stop]
    before = b"WEBPVP8X" + struct.pack("<I", len(still)) + still
    return Header(
        kind="WebP",
        width=width,
        height=height,
        orientation=orientation,
        payload=b"".join([b"RIFF", struct.pack("<I", len(before) + len(content)), before, content]),
        working=working,
        measure=measure,
        canvas=None if size == (width, height) else (height, width, top, left),
    )


def _riff_chunks(data: bytes, start: int, end: int, parts: Parts) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of the content of each chunk."""
    while start + 8 <= end:
        parts.count()
        kind, length = struct.unpack_from("<4sI", data, start)
        stop = start + 8 + length
        if stop > end:
            raise struct.error
        yield kind, start + 8, stop
        start = stop + length % 2


def _webp_size(data: bytes, kind: bytes, start: int) -> tuple[int, int]:
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, start + 6))
        if not width or not height:
            raise DamagedError(f"it holds an image of {width} x {height} pixels")
        return width, height
    (bits,) = struct.unpack_from("<I", data, start + 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _three(data: bytes, at: int, end: int) -> int:
    if at + 3 > end:
        raise struct.error
    return int.from_bytes(data[at : at + 3], "little")


_BMP_BITS = {1, 4, 8, 16, 24, 32}
_BMP_BITFIELDS = {3, 6}
_BMP_BGR = (0xFF0000, 0xFF00, 0xFF)
_BMP_BYTES = {0xFF, 0xFF00, 0xFF0000, 0xFF000000}  # OpenCV heeds them where the header has room for a mask of alpha
_BMP_RUNS = {1: 8, 2: 4}  # bits of a pixel
_MOST_RUNS = 1 << 22
_BMP_PACKED = {4: "JPEG", 5: "PNG"}


def _walk_bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        compression = struct.unpack_from("<I", data, 30)[0] if size >= 40 else 0
    height = abs(height)  # a negative one means top row first
    if compression in _BMP_PACKED:
        raise RefusedError(f"a {_BMP_PACKED[compression]} inside a BMP file")
    if bits not in _BMP_BITS:
        raise RefusedError(f"a BMP file of {bits} bits per pixel", ", ".join(map(str, sorted(_BMP_BITS))))
    if width < 1 or height < 1:
        raise DamagedError(f"its header says {width} x {height} pixels")
    masks = struct.unpack_from("<III", data, 54) if compression in _BMP_BITFIELDS else ()
    if bits == 32 and masks and masks != _BMP_BGR and not (size >= 56 and set(masks) <= _BMP_BYTES):
        named = ", ".join(f"{mask:#x}" for mask in masks)
        raise RefusedError(f"a BMP file of the colour masks {named}", ", ".join(f"{mask:#x}" for mask in _BMP_BGR))
    levels = None
    if bits == 16:
        levels = tuple(_spread(used) for used in ((5, 6, 5) if masks[1:2] == (0x7E0,) else (5, 5, 5)))
    check = None
    if compression in _BMP_RUNS:
        (start,) = struct.unpack_from("<I", data, 10)
        check = functools.partial(_check_runs, data, start, _BMP_RUNS[compression], width, height)
    return Header(kind="BMP", width=width, height=height, levels=levels, check=check)


def _check_runs(data: bytes, start: int, bits: int, width: int, height: int) -> str:
    """What is wrong with the runs of a BMP, which OpenCV leaves black where they are missing: "" for nothing.

    Millions of runs are believed, since looking at all would take seconds.
    """
    position, column, row = start, 0, 0
    for _ in range(_MOST_RUNS):
        if row >= height or (row == height - 1 and column >= width):
            return ""
        pair = data[position : position + 2]
        position += 2
        if len(pair) < 2 or pair == b"\0\1":
            break
        count, value = pair
        if count:
            column += count
        elif value == 0:
            column, row = 0, row + 1
        elif value == 2:
            move = data[position : position + 2]
            if len(move) < 2:
                break
            column, row, position = column + move[0], row + move[1], position + 2
        else:
            column += value
            position += (-(-value * bits // 8) + 1) // 2 * 2
    else:
        return ""
    return f"its runs end in row {row + 1} of {height}"


def _spread(used: int) -> NDArray[np.uint8]:
    """Bytes of which OpenCV has filled the upper bits alone, so that white would be grey: uint8 [256], as Pillow."""
    white = 256 - (1 << 8 - used)
    return (np.arange(256) * 255 // white).clip(0, 255).astype(np.uint8)


_GIF_GLOBAL = 0x80  # flags of the screen and of a frame: a palette follows
_GIF_INTERLACED = 0x40
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_CONTROL = 0xF9
_GREYS = bytes(level for level in range(256) for _ in range(3))
_MOST_GIF_PARTS = 500_000  # frames, extensions and their blocks, most of which are of 255 bytes
_GIF_WORKING = 6  # bytes a pixel: its place in the palette, and the frame with alpha


def _walk_gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13
    palette = _GREYS
    if flags & _GIF_GLOBAL:
        palette, position = _gif_palette(data, flags, position)
    transparent = 0
    frame: tuple[tuple[int, ...], bytes, tuple[int, int]] | None = None
    parts = Parts(_MOST_GIF_PARTS, "blocks")
    while True:
        parts.count()
        block = data[position]
        position += 1
        if block == _GIF_END:
            break
        if block == _GIF_EXTENSION:
            if data[position] == _GIF_CONTROL and frame is None and data[position + 2] & 1:
                transparent = data[position + 5]
            position = _gif_data_end(data, position + 1, parts)
        elif block == _GIF_FRAME:
            *place, own = struct.unpack_from("<HHHHB", data, position)
            colours, position = palette, position + 9
            if own & _GIF_GLOBAL:
                colours, position = _gif_palette(data, own, position)
            end = _gif_data_end(data, position + 1, parts)
            if frame is None:
                frame = (*place, own & _GIF_INTERLACED), colours, (position, end)
            position = end
        else:
            raise DamagedError(f"one of its blocks begins with {block}, which GIF does not know")
    if frame is None:
        raise DamagedError("it holds no frame")
    (left, top, columns, rows, interlaced), colours, (start, end) = frame
    if not columns or not rows:
        raise DamagedError(f"its first frame has {columns} x {rows} pixels")
    width, height = max(width, left + columns), max(height, top + rows)
    # The first frame alone, no colour transparent, as Pillow's convert("RGB") shows it.
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, _GIF_GLOBAL | 0x77, transparent, 0)
    descriptor = struct.pack("<BHHHHB", _GIF_FRAME, left, top, columns, rows, interlaced)
    still: list[bytes | memoryview] = [
        screen,
        colours.ljust(768, b"\0"),
        descriptor,
        memoryview(data)[start:end],
        bytes([_GIF_END]),
    ]
    return Header(
        kind="GIF", width=width, height=height, payload=b"".join(still), working=_GIF_WORKING * width * height
    )


def _gif_palette(data: bytes, flags: int, start: int) -> tuple[bytes, int]:
    end = start + 3 * (2 << (flags & 7))
    if end > len(data):
        raise struct.error
    return data[start:end], end


def _gif_data_end(data: bytes, position: int, parts: Parts) -> int:
    """Where a chain of blocks that ends with an empty one ends."""
    blocks = 0
    while length := data[position]:
        position += 1 + length
        blocks += 1
        if blocks > _MOST_GIF_PARTS:
            break
    parts.count(blocks)
    return position + 1


_WALKS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...]] = (
    (re.compile(rb"\xff\xd8\xff"), walk_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _walk_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _walk_webp),
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), _walk_bmp),
    (re.compile(rb"GIF8[79]a"), _walk_gif),
    # Not Canon's CR2, which goes on with its own name.
    (re.compile(rb"(?!.{8}CR)(?:II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b)", re.DOTALL), walk_tiff),
    (re.compile(rb"....ftyp(?:avi[fs]|(?:mif1|miaf|msf1)....(?:....){,15}?avi[fs])", re.DOTALL), walk_avif),
    (re.compile(rb"P[1-6](?:\s|#)"), walk_pnm),
)

_FTYP = rb"....ftyp"
# In this order: the first that fits names the file.
_OTHERS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
    (re.compile(signature, re.DOTALL), what)
    for signature, what in (
        (_FTYP + rb"(?:hei[cmsx]|hev[cmsx]|mif1|msf1|miaf)", "a HEIC (HEIF) photograph"),
        (_FTYP + rb"crx ", "a CR3 raw photograph"),
        (_FTYP + rb"j[px]", "a JPEG 2000 picture"),
        (_FTYP, "a video (MP4 or QuickTime)"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (rb"II\xbc\x01", "a JPEG XR picture"),
        (rb"#\?(?:RADIANCE|RGBE)", "a Radiance HDR picture"),
        (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
        (rb"8BPS", "a Photoshop document (PSD)"),
        (rb"gimp xcf", "a GIMP document (XCF)"),
        (rb"\0\0\x01\0[^\0]", "an icon (ICO)"),
        (rb"\0\0\x02\0[^\0]", "a cursor (CUR)"),
        (rb"icns", "an icon (ICNS)"),
        (rb"RIFF....ACON", "an animated cursor (ANI)"),
        (rb"qoif", "a QOI image"),
        (rb"P7\s", "a PAM picture (P7)"),
        (rb"P[Ff]\s", "a PFM picture (floating point)"),
        (rb"\x59\xa6\x6a\x95", "a Sun raster picture"),
        (rb"DDS ", "a DDS texture"),
        (rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "a PCX picture"),
        (rb"\x01\xda[\0\x01][\x01\x02]", "an SGI picture"),
        (rb"SIMPLE  =", "a FITS picture"),
        (rb".{128}DICM", "a DICOM picture"),
        (rb"(?:\x5c\x01\0\0.{340}|.{344})(?:n\+1|ni1)\0", "a NIfTI volume"),
        (rb"(?:II\x2a\0|MM\0\x2a).{4}CR", "a CR2 raw photograph"),
        (rb"IIU\0|IIRO|IIRS|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "a raw photograph"),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
        (rb"%PDF-", "a PDF document"),
        (rb"%!PS", "a PostScript document"),
        (rb"AT&TFORM", "a DjVu document"),
        (rb"\x93NUMPY", "a NumPy array (.npy): load it and give its pixels"),
        (rb"\x89HDF\r\n", "an HDF5 file"),
        (rb"\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01|\0\0..moov|....(?:moov|mdat)", "a video"),
        (rb"RIFF....WAVE|OggS|ID3|fLaC", "sound"),
    )
)
_XML = rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?>(?:<!--.*?-->\s*)*)"  # atomic: tried one way only
# What people call by a picture's name by mistake.
_NO_PICTURES: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
    (re.compile(signature, re.DOTALL), what)
    for signature, what in (
        (rb"version https://git-lfs\.github\.com/spec/", "is a Git LFS pointer, so `git lfs pull` fetches the picture"),
        (_XML + rb"(?:<!doctype svg[^>]*>\s*)?<svg[\s>]", "is an SVG drawing"),
        (_XML + rb"<(?:!doctype html|html|head|body)[\s>]", "is a web page"),
        (rb"(?:\xef\xbb\xbf)?\s*<\?xml", "is an XML document"),
        (rb"\s*data:image/", "is a data: URI, whose part behind the comma is to be decoded from base64"),
        (rb"/9j/[\w+/]{4}|iVBORw0KGgo|UklGR[\w+/]{4}|R0lGOD[dl]h", "is a picture in base64, which is to be decoded"),
        (rb"\s*[\[{]\s*(?:[\"\d{\[\]}-]|null|true|false)", "is JSON"),
        (rb"\x1f\x8b", "is gzip data"),
        (rb"BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "is compressed data"),
        (rb"PK[\x03\x05\x07]", "is a ZIP archive (or a document, or weights)"),
        (rb"\x7fELF|MZ[^\n]{,60}\0|#!|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", "is a program or a script"),
    )
)
_TEXT: Final = re.compile(r"[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]+")


def _not_a_picture(head: bytes) -> str:
    """What a file is that begins so, or how it begins."""
    for signature, what in _NO_PICTURES:
        if signature.match(head):
            return what
    if not head.strip(b"\0"):
        return f"begins with {len(head)} bytes of 0"
    try:
        # A character may be cut at the end.
        text = head.decode("utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode(errors="replace") if error.start > HEAD - 4 else ""
    if text and _TEXT.fullmatch(text):
        return f"is text that begins with {text[:20]!r}"
    return f"begins with {head[:8]!r}"
