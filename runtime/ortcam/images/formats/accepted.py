"""The images that are accepted, known by their first bytes, and what other files are; the walk through a header."""

import re
import struct
from collections.abc import Callable
from typing import Final

from ortcam.errors import ImageError
from ortcam.images.formats.avif import walk_avif
from ortcam.images.formats.bmp import walk_bmp
from ortcam.images.formats.gif import walk_gif
from ortcam.images.formats.header import DamagedError, Header, RefusedError
from ortcam.images.formats.jpeg import walk_jpeg
from ortcam.images.formats.png import walk_png
from ortcam.images.formats.pnm import walk_pnm
from ortcam.images.formats.tiff.header import walk_tiff
from ortcam.images.formats.webp import walk_webp

__all__ = ["ACCEPTED", "HEAD", "check_signature", "read_header"]

ACCEPTED: Final = "accepted: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PNM (PBM, PGM, PPM), NumPy (.npy, .npz)"
HEAD: Final = 4096  # bytes from the beginning that tell what a file is


def read_header(data: bytes, name: str) -> Header:
    """Walk an image to its end without decoding it.

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
    for signature, what in _NUMBERS:
        if signature.match(head):
            instead = "save its numbers as a .npy array (np.save)"
            raise ImageError(f"{name} is {what}, which is not accepted: {instead}; {ACCEPTED}")
    for signature, what in _OTHERS:
        if signature.match(head):
            raise ImageError(f"{name} is {what}, which is not accepted; {ACCEPTED}")
    raise ImageError(f"{name} is not an image: it {_not_an_image(head)}; {ACCEPTED}")


_WALKS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...]] = (
    (re.compile(rb"\xff\xd8\xff"), walk_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), walk_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), walk_webp),
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), walk_bmp),
    (re.compile(rb"GIF8[79]a"), walk_gif),
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
        (rb"(?:II\x2a\0|MM\0\x2a).{4}CR", "a CR2 raw photograph"),
        (rb"IIU\0|IIRO|IIRS|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "a raw photograph"),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
        (rb"%PDF-", "a PDF document"),
        (rb"%!PS", "a PostScript document"),
        (rb"AT&TFORM", "a DjVu document"),
        (rb"\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01|\0\0..moov|....(?:moov|mdat)", "a video"),
        (rb"RIFF....WAVE|OggS|ID3|fLaC", "sound"),
    )
)
# Files of numbers that are images to a model, but not to a decoder.
_NUMBERS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
    (re.compile(signature, re.DOTALL), what)
    for signature, what in (
        (rb"SIMPLE  =", "a FITS picture"),
        (rb".{128}DICM", "a DICOM picture"),
        (rb"(?:\x5c\x01\0\0.{340}|.{344})(?:n\+1|ni1)\0", "a NIfTI volume"),
        (rb"MATLAB [57]", "a MATLAB file (.mat)"),
        (rb"\x89HDF\r\n", "an HDF5 file"),
    )
)
_XML = rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?>(?:<!--.*?-->\s*)*)"  # atomic: tried one way only
# What people call by an image's name by mistake.
_NO_IMAGES: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
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


def _not_an_image(head: bytes) -> str:
    """What a file is that begins so, or how it begins."""
    for signature, what in _NO_IMAGES:
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
