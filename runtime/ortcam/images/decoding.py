"""Images in and out: a file, its bytes, an array or a Pillow image becomes upright uint8 RGB, and RGB becomes PNG."""

import functools
import math
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, ImageWarning, OptionError, OutputError
from ortcam.images.arrays import (
    ACCEPTED_ARRAYS,
    ArrayLike,
    PillowImage,
    as_array,
    described,
    float_to_rgb,
    is_array,
    is_pillow,
    layout,
    pillow_pixels,
    uint8_to_rgb,
)
from ortcam.images.formats.accepted import ACCEPTED, HEAD, check_signature, read_header
from ortcam.images.formats.decoder_output import listening
from ortcam.images.formats.header import DamagedError, Header, levels
from ortcam.support.ranges import MAX_PIXELS, shown
from ortcam.support.terminal import printable

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "WHITE",
    "Encoded",
    "ImageSource",
    "check_max_pixels",
    "check_strict",
    "check_white",
    "decode",
    "encode_jpeg",
    "encode_png",
    "encoded_of",
    "largest_file",
    "read_file",
    "read_image",
    "write_png",
]

DEFAULT_MAX_PIXELS: Final = 25_000_000  # a photograph of 24 megapixels passes, and 360 MB suffice for any file
_BYTES_PER_PIXEL: Final = 12  # of max_pixels: the most that reading a file takes, beside what follows
_SPARE: Final = 30_000_000  # half of the 60 MB that come on top; the other half is for what no header tells
_LONGEST_SIDE: Final = 1 << 20  # pixels, as OpenCV has it; more in a row would take seconds to scale down
_ENCODED_PER_PIXEL: Final = 6  # of max_pixels: no picture of 16 bits is longer, but for alpha; the file may be copied

WHITE = 65535  # of samples of 16 bits
_DARK_BITS = 14  # samples that stay below 2**14 leave the picture at a quarter of its brightness, or less
_BLOCK = 1 << 20  # samples that are looked up at a time
_STREAM_BLOCK: Final = 1 << 22  # bytes that are taken from a file object at a time
_DAMAGE = re.compile("corrupt jpeg data|premature end of jpeg|found marker|inconsistent progression", re.IGNORECASE)
_GREY_DECODED: Final = {"JPEG", "PNG"}  # where OpenCV gives grey the same samples in one channel as in three


# All that `read_image` reads. A torch tensor and the arrays of JAX and TensorFlow are `ArrayLike`.
ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | ArrayLike | PillowImage
)


def read_image(
    source: ImageSource,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
) -> NDArray[np.uint8]:
    """Read an image as upright RGB: the pixels that Pillow's `exif_transpose(open(...)).convert("RGB")` gives.

    **Files** may be JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PNM (PBM, PGM, PPM). Their first bytes tell which. Before
    anything is decoded, the whole header is read: size, depth, orientation, and whether the file is complete. Other
    formats are refused by name, and so are BigTIFF, TIFF of floating-point samples and 12-bit JPEG. GIF and AVIF need
    an OpenCV that decodes them (the wheels do from 4.12).

    Grey becomes RGB, and alpha is dropped, as `convert("RGB")` does. Animations and files of several pages give their
    first image. Of EXIF only the orientation counts, in JPEG, PNG (eXIf), WebP and TIFF; of AVIF its own rotation and
    mirroring. Known differences from Pillow: CMYK in JPEG is within 1 of 255. So are photographs in AVIFs of 10 or 12
    bits (not noise). TIFFs with associated alpha come composited on black. XMP does not count.

    **Pixels that the program holds** may be an array of numpy, PyTorch, JAX or TensorFlow, or a `PIL.Image.Image`:

    - uint8: 0 is black and 255 is white.
    - floats: 0 is black and 1 is white. A value that does not round to one of the 256 levels is an error.
    - uint16: only with `white`, which becomes 255.
    - shapes: [H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey; or channels first, [3, H, W], [4, H, W] or
      [1, H, W]. A shape that may be both, such as [3, 3, 3], is an error.
    - A Pillow image of any mode gives the pixels of its file. Its EXIF orientation is undone if nobody has done so.
      Pillow itself keeps only 8 bits of 16-bit colour, so there `white` changes nothing.

    OpenCV's own arrays are BGR: use `cv2.cvtColor(array, cv2.COLOR_BGR2RGB)`.

    **Depth.** Where the header says what is white, that becomes 255: PNM (maxval), AVIF, and TIFF of 10, 12 or 14 bits
    per sample. PNG and TIFF of 16 bits cannot say that fewer bits are in use, as X-ray machines and industrial cameras
    need it (sBIT and MaxSampleValue do not mean that), and OpenCV writes a maxval of 65535 into every PNM of 16 bits.
    Their samples keep their upper 8 bits (Pillow clips 16-bit grey at 255, which turns most pixels white). If the two
    highest bits are 0 in all of them, an `ImageWarning` says so: a guess never changes the brightness. Give `white`:
    4095 for 12 bits, 65535 if the image is really that dark.

    **Memory.** Reading any file takes at most 60 MB and 12 bytes per pixel of `max_pixels`: 360 MB with the default.
    The header tells what a file would take. A file that would take more is refused before it is decoded, even if it has
    fewer pixels: AVIF, samples of 16 bits, and TIFF in one strip take more per pixel than others. A file may have 30 MB
    and 6 bytes per pixel of `max_pixels`; a larger one is not read.

    Args:
        source: Path of an image file, its encoded bytes, a binary file object, or pixels as above. RGB pixels of uint8
            that are contiguous are returned as they are, not copied.
        max_pixels: Images above this many pixels are refused before anything is decoded. OpenCV itself stops at 2**30.
            No side may have more than 2**20.
        white: The sample that becomes 255 in images of 16 bits, 1 to 65535. Larger samples become 255, too. None:
            65535, with a warning if that leaves the image dark. Images of other depths ignore it.
        strict: Refuse a damaged image that can be read in part, instead of warning.

    Returns:
        uint8 [H, W, 3], RGB, C-contiguous.

    Raises:
        ImageError: The source is missing, unreadable, empty, no regular file, of a format that is not accepted,
            truncated, damaged or too large, or is an array of another type, shape or range.
        OptionError: `max_pixels` below 1, `white` out of range, or `strict` neither True nor False.

    Warns:
        ImageWarning: An image is damaged, and the decoder filled in what was missing (a JPEG without some of its
            scans, or with a hole in one); `strict` makes that an error. Or samples of 16 bits are dark.

    Example:
        >>> read_image("xray.png", white=4095).shape  # doctest: +SKIP
        (2048, 2500, 3)
        >>> read_image(np.ones((3, 20, 30), np.float32))[0, 0]
        array([255, 255, 255], dtype=uint8)
    """
    check_max_pixels(max_pixels)
    check_white(white)
    check_strict(strict)
    encoded = encoded_of(source, max_pixels)
    if encoded is not None:
        return decode(encoded, max_pixels, white, strict=strict)
    if is_pillow(source):
        return _from_pillow(source, max_pixels, white)
    if is_array(source):
        return _from_array(source, max_pixels, white)
    raise ImageError(f"an image cannot be read from {type(source).__name__}: {_instead(source)}")


@dataclass
class Encoded:
    """The bytes of a picture, which whoever decodes it takes, so that they are freed when they are needed no more."""

    name: str
    data: bytes

    def take(self) -> bytes:
        """The bytes; none are left."""
        taken, self.data = self.data, b""
        return taken


def check_max_pixels(value: object) -> int:
    """A limit of pixels as an int.

    Raises:
        OptionError: it is no whole number from 1, or beyond any picture.
    """
    return int(MAX_PIXELS.check(value))


def check_strict(value: object) -> bool:
    """Whether damage is an error.

    Raises:
        OptionError: neither True nor False.
    """
    if not isinstance(value, bool):
        raise OptionError(f"strict={value!r}: accepted is True or False")
    return value


def check_white(value: object) -> int | None:
    """The sample of 16 bits that is white, as an int, or None.

    Raises:
        OptionError: it is neither None nor a whole number from 1 to 65535.
    """
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= WHITE:
        raise OptionError(
            f"white={shown(value)}: accepted is a whole number from 1 to {WHITE}, such as 4095 for 12 bits"
        )
    return int(value)


def read_file(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Encoded:
    """The content of a picture's file. One of another format, or one that is too long, is not read to its end.

    Args:
        path: of the file.
        max_pixels: as of `read_image`.

    Raises:
        ImageError: it is missing, no regular file, of a format that is not accepted, too long, or cannot be read.
    """
    path = os.fsdecode(path)
    name = f"image {_quoted(path)}"
    try:
        _check_regular(Path(path).stat().st_mode, name)  # before it is opened: a device may do something then
        with open(path, "rb", opener=_open_at_once, buffering=0) as file:
            found = os.fstat(file.fileno())
            _check_regular(found.st_mode, name)
            head = file.read(HEAD) or b""
            if head:
                check_signature(head, name)
            _check_encoded(found.st_size, name, max_pixels)
            file.seek(0)
            parts, size = [], 0
            # A byte more than it had, so that its end is seen at once; it may grow, or not have said its size.
            while part := file.read(max(found.st_size - size, 0) + 1):
                parts.append(part)
                size += len(part)
                _check_encoded(size, name, max_pixels)
            return Encoded(name, parts[0] if len(parts) == 1 else b"".join(parts))
    except FileNotFoundError:
        hint = "; a pattern goes to explain_many" if any(mark in name for mark in "*?[") else ""
        raise ImageError(f"{name} does not exist: give the path of an image ({ACCEPTED}){hint}") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory: give a smaller file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read ({reason}): give the path of a readable file") from None


def _quoted(path: str) -> str:
    r"""A path as messages have it: what no terminal shows is escaped as everywhere, say 'caf\xe9.jpg'."""
    mark = '"' if "'" in path else "'"
    return f"{mark}{printable(path)}{mark}"


def largest_file(max_pixels: int) -> int:
    """How many bytes an encoded image may have with this limit of pixels."""
    return _SPARE + _ENCODED_PER_PIXEL * max_pixels


def _check_encoded(size: int, name: str, max_pixels: int) -> None:
    most = largest_file(max_pixels)
    if size > most:
        raise ImageError(
            f"{name} has {size} bytes or more, and {most} are the most that go with max_pixels={max_pixels}: give a "
            "smaller file, or a larger max_pixels (--max-pixels)"
        )


def _open_at_once(path: str, flags: int) -> int:
    # A pipe that has come into the file's place would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError(
            f"{name} is a folder: give the path of one image ({ACCEPTED}), or use explain_many, which takes a folder"
        )
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        what = kinds.get(stat.S_IFMT(mode), "no file")
        raise ImageError(f"{name} is {what}: give the path of a regular file, or the encoded bytes in Python")


def _instead(source: object) -> str:
    """What to give instead of an object that is no image."""
    if isinstance(source, list | tuple):
        return (
            "this takes one image; explain, predict and preprocess take a list of them, and an image in numbers is an "
            "array: np.asarray(list)"
        )
    return "give a path, the bytes of a file, a binary file object, an array, a tensor or a Pillow image"


def encoded_of(source: object, max_pixels: int = DEFAULT_MAX_PIXELS) -> Encoded | None:
    """The bytes of a path, of bytes or of a binary file object; None for everything else.

    Args:
        source: as `read_image` takes it.
        max_pixels: as of `read_image`; it bounds how many bytes are read.

    Raises:
        ImageError: the file is missing, cannot be read or is too long.
    """
    if isinstance(source, str | os.PathLike):
        return read_file(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        name = f"image of {size} bytes"
        _check_encoded(size, name, max_pixels)
        return Encoded(name, bytes(source))
    if hasattr(source, "read") and not is_pillow(source) and not is_array(source):
        return _read_stream(source, max_pixels)
    return None


def _read_stream(stream: Any, max_pixels: int) -> Encoded:
    """What is left in a binary file object. It stays open."""
    given = getattr(stream, "name", None)
    name = f"image {_quoted(given)}" if isinstance(given, str) else f"image in {type(stream).__name__}"
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = stream.read(_STREAM_BLOCK)
        except Exception as error:  # noqa: BLE001 - a network library raises what it likes
            reason = getattr(error, "strerror", None) or _one_line(error) or type(error).__name__
            raise ImageError(f"{name} cannot be read ({reason}): give a binary file object that is open") from None
        if not isinstance(part, bytes | bytearray | memoryview):
            if hasattr(part, "close"):
                part.close()  # of a coroutine, which would warn that nobody waited for it
            how = "open it in binary mode, 'rb'" if isinstance(part, str) else "give the bytes that it has"
            raise ImageError(f"{name} gives {type(part).__name__} instead of bytes: {how}")
        if not part:
            break
        parts.append(bytes(part))
        size += len(part)
        _check_encoded(size, name, max_pixels)
    if not size and _position(stream):
        raise ImageError(f"{name} is at its end: call seek(0) before it is read again")
    return Encoded(name, parts[0] if len(parts) == 1 else b"".join(parts))


def _position(stream: Any) -> int:
    try:
        return int(stream.tell())
    except Exception:  # noqa: BLE001 - not every stream knows
        return 0


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB [H, W, 3] as PNG, without loss.

    Raises:
        ImageError: The array is not uint8 [H, W, 3], or has a side that PNG or OpenCV does not take.
    """
    return _encoded(image, ".png", "PNG")


def encode_jpeg(image: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Encode uint8 RGB [H, W, 3] as JPEG.

    Raises:
        ImageError: The array is not uint8 [H, W, 3], or has a side of more than 65,500 pixels.
    """
    return _encoded(image, ".jpg", "JPEG", (cv2.IMWRITE_JPEG_QUALITY, quality))


def write_png(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write uint8 RGB [H, W, 3] as a PNG file.

    Raises:
        ImageError: The array is not uint8 [H, W, 3].
        OutputError: The file cannot be written.
    """
    data = encode_png(image)
    try:
        # cv2.imwrite cannot open non-ASCII paths on Windows.
        Path(path).write_bytes(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{os.fspath(path)!r} cannot be written ({reason})") from None


def _encoded(image: NDArray[np.uint8], suffix: str, name: str, settings: Sequence[int] = ()) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"{name} is written from uint8 [H, W, 3], not from {image.dtype} {list(image.shape)}")
    try:
        _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(settings))
    except cv2.error as error:
        raise ImageError(f"{name} of shape {list(image.shape)} cannot be encoded: {_one_line(error)}") from None
    return encoded.tobytes()


def _from_array(source: Any, max_pixels: int, white: int | None) -> NDArray[np.uint8]:
    shape = getattr(source, "shape", None)
    if isinstance(shape, tuple) and hasattr(source, "dtype"):  # before anything is copied
        _check_pixels(*layout(shape, described(source))[:2], described(source), max_pixels)
    array = as_array(source)
    name = described(array)
    height, width, _, axis = layout(array.shape, name)
    _check_pixels(height, width, name, max_pixels)
    if array.dtype == np.uint8:
        return uint8_to_rgb(array, axis)
    if array.dtype.kind == "f":
        return float_to_rgb(array, axis, name)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2 and white is not None:
        return uint8_to_rgb(_sixteen_bit_table(white)[array], axis)
    scale = ""
    if array.dtype.kind in "ui":
        scale = "; scale it first, such as (array * (255 / white)).clip(0, 255).astype(np.uint8)"
        scale += ", or say what is white: white=4095 for 12 bits" if array.dtype.itemsize == 2 else ""
    raise ImageError(f"{name} is not an image; {ACCEPTED_ARRAYS}{scale}")


def _from_pillow(source: Any, max_pixels: int, white: int | None) -> NDArray[np.uint8]:
    def check_size(width: int, height: int, name: str) -> None:
        _check_pixels(height, width, name, max_pixels)

    pixels, orientation, name = pillow_pixels(source, check_size)
    if pixels.dtype != np.uint8:
        if white is None:
            _warn_if_dark(pixels, name)
        pixels = uint8_to_rgb(_sixteen_bit_table(white)[pixels], None)
    return _upright(pixels.astype(np.uint8, copy=False), orientation)


def _check_pixels(height: int, width: int, name: str, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ImageError(_too_large(name, width, height, 0, max_pixels, 0))
    _check_sides(width, height, name)


def _sixteen_bit_table(white: int | None) -> NDArray[np.uint8]:
    """What samples of 16 bits become: their upper 8 bits, or 255 from `white` on; uint8 [65536]."""
    if white is None:
        # OpenCV's own reduction rounds in some formats and shifts in others.
        return (np.arange(1 << 16) >> 8).astype(np.uint8)
    return levels(white, 1 << 16)


def decode(encoded: Encoded, max_pixels: int, white: int | None = None, *, strict: bool = False) -> NDArray[np.uint8]:
    """Encoded bytes as `read_image` reads them.

    Args:
        encoded: of a file; its bytes are taken.
        max_pixels: as of `read_image`.
        white: as of `read_image`.
        strict: as of `read_image`.

    Raises:
        ImageError: they are empty, not of a format that is accepted, truncated, damaged or too large.

    Warns:
        ImageWarning: as `read_image`.
    """
    data, name = encoded.take(), encoded.name
    if not data:
        raise ImageError(f"{name} is empty: 0 bytes; {ACCEPTED}")
    header = read_header(data, name)
    _check_cost(header, len(data), name, max_pixels)
    try:
        flaw = header.flaw or (header.check() if header.check else "")
        if flaw:
            _tell_of_damage(flaw, name, strict=strict)
        if header.payload is not None:
            data = header.payload
        header = replace(header, payload=None, check=None, measure=None, flaw=flaw)
        decoded = header.pixels() if header.pixels else _decode(data, header, name, strict=strict)
    except DamagedError as error:
        raise ImageError(f"{name} is damaged: {error}") from None
    del data
    if decoded.shape[0] * decoded.shape[1] > max_pixels:
        raise ImageError(_too_large(name, decoded.shape[1], decoded.shape[0], 0, max_pixels, 0))
    if decoded.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(">u2")}:
        raise ImageError(f"{name} has samples of {decoded.dtype}; accepted: 8 or 16 bits")
    if decoded.dtype != np.uint8 and header.white_unknown and white is None:
        _warn_if_dark(decoded, name, inverted=header.inverted)
    tables = header.levels
    known = white is not None and header.white_unknown
    if decoded.dtype != np.uint8 and (known or tables is None):
        tables = (_sixteen_bit_table(white if known else None),)
        tables = tuple(255 - table for table in tables) if header.inverted else tables
    rgb = _as_rgb(decoded) if tables is None else _look_up(decoded, tables)
    del decoded
    if header.canvas is not None:
        height, width, top, left = header.canvas
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
        rgb = canvas
    return _upright(rgb, header.orientation)


def _decode(payload: bytes, header: Header, name: str, *, strict: bool) -> NDArray[Any]:
    """What OpenCV decodes: BGR [H, W, 3], or grey [H, W], at the depth of the file; not turned."""
    grey = header.grey and header.kind in _GREY_DECODED
    flags = (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR) | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    decoded: NDArray[Any] | None
    try:
        decoded, said = listening(lambda: cv2.imdecode(np.frombuffer(payload, np.uint8), flags))
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{name} cannot be decoded by OpenCV {cv2.__version__}: {_one_line(error)}") from None
    if decoded is None:
        if header.kind in {"AVIF", "GIF"} and not _built_in(header.kind):
            missing = f"OpenCV {cv2.__version__}, which is installed, was built without it"
            raise ImageError(f"{name} is of {header.kind}, but {missing}: install opencv-python-headless 4.12 or newer")
        reason = f"damaged, or of a variety that OpenCV {cv2.__version__} does not read"
        raise ImageError(f"{name} is {_a_file_of(header.kind)} that cannot be decoded: {reason}; {ACCEPTED}")
    if _DAMAGE.search(said) and not header.flaw:  # which has been told
        _tell_of_damage("; ".join(dict.fromkeys(said.splitlines())), name, strict=strict)
    return decoded


def _tell_of_damage(what: str, name: str, *, strict: bool) -> None:
    """Warn of damage that the decoder fills in.

    Raises:
        ImageError: where `strict`.
    """
    if strict:
        raise ImageError(f"{name} is damaged ({what}), and strict refuses it")
    _warn(f"{name} is damaged, and parts of it may be wrong ({what})")


@functools.cache
def _built_in(kind: str) -> bool:
    """Whether OpenCV decodes a format that not all of its builds do."""
    return re.search(rf"^\s*{kind}:\s*(?!NO\b)\S", cv2.getBuildInformation(), re.MULTILINE) is not None


def _warn_if_dark(samples: NDArray[Any], name: str, *, inverted: bool = False) -> None:
    """Warn of samples of 16 bits that seem to be of fewer."""
    top = int(samples.max())
    bits = next((bits for bits in (8, 10, 12, _DARK_BITS) if top < 1 << bits), None)
    if bits is None or not top:
        return
    used, wrong = (1 << bits) - 1, "bright" if inverted else "dark"
    _warn(
        f"{name} has samples of 16 bits, none above {top}: if only {bits} bits are in use, the image is too {wrong}, "
        f"and white={used} (--white {used}) corrects it; white={WHITE} says that all 16 are in use"
    )


def _warn(message: str) -> None:
    """Warn whoever called into this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__package__") == __package__ and sys._getframe(level).f_back:
        level += 1
    warnings.warn(message, ImageWarning, level + 1)


def _as_rgb(decoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey or BGR as RGB of its own, block by block in place where that can be."""
    if decoded.ndim == 2:
        return cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    if not decoded.flags.writeable or not decoded.flags.c_contiguous:
        return np.array(decoded[..., ::-1], order="C")
    if decoded.size <= _BLOCK:
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    for rows in _blocks(decoded):
        decoded[rows] = cv2.cvtColor(decoded[rows], cv2.COLOR_BGR2RGB)
    return decoded


def _look_up(decoded: NDArray[Any], tables: tuple[NDArray[np.uint8], ...]) -> NDArray[np.uint8]:
    """Grey or BGR samples through one table, or one each of R, G and B, to uint8 RGB, block by block."""
    rgb = np.empty((*decoded.shape[:2], 3), np.uint8)
    for rows in _blocks(decoded):
        if decoded.ndim == 2:
            rgb[rows] = tables[0][decoded[rows]][..., None]
            continue
        for channel in range(3):
            rgb[rows, :, channel] = tables[channel % len(tables)][decoded[rows, :, 2 - channel]]
    return rgb


def _blocks(pixels: NDArray[Any]) -> Iterator[slice]:
    """Rows that have about a million samples, and at least one."""
    step = max(1, _BLOCK // math.prod(pixels.shape[1:]))
    return (slice(first, first + step) for first in range(0, len(pixels), step))


def _check_cost(header: Header, encoded: int, name: str, max_pixels: int) -> None:
    """Refuse a picture that has, or is decoded as, more pixels than allowed, or takes more memory.

    Raises:
        ImageError: it does; the message says which limit lets it pass.
    """
    pixels, memory = header.width * header.height, _memory(header, encoded)
    if max(pixels, header.decoded_pixels) > max_pixels:
        raise ImageError(_too_large(name, header.width, header.height, header.decoded_pixels, max_pixels, memory))
    _check_sides(header.width, header.height, name)
    most = 2 * _SPARE + _BYTES_PER_PIXEL * max_pixels
    if memory > most and header.measure:
        memory = _memory(replace(header, working=header.measure()), encoded)
    if memory > most:
        needed = _needed_limit(memory)
        raise ImageError(
            f"{name} is {_a_file_of(header.kind)} of {header.width} x {header.height} pixels that may take "
            f"{_megabytes(memory)} to decode, more than the {_megabytes(most)} that go with max_pixels={max_pixels}: "
            f"max_pixels={needed} (--max-pixels {needed}) reads it"
        )


def _a_file_of(kind: str) -> str:
    return f"{'an' if kind == 'AVIF' else 'a'} {kind} file"


def _check_sides(width: int, height: int, name: str) -> None:
    if max(width, height) > _LONGEST_SIDE:
        raise ImageError(f"{name} has {width} x {height} pixels; accepted are sides of at most {_LONGEST_SIDE} pixels")


def _too_large(name: str, width: int, height: int, decoded: int, max_pixels: int, memory: int) -> str:
    pixels = width * height
    larger = f" (and decodes to {decoded})" if decoded > pixels else ""
    needed = max(pixels, decoded, _needed_limit(memory))
    takes = f", which may take {_megabytes(memory)} of memory" if memory else ""
    if max(width, height) > _LONGEST_SIDE:
        return (
            f"{name} has {width} x {height} = {pixels} pixels, more than the limit of {max_pixels}, and sides of at "
            f"most {_LONGEST_SIDE} are accepted"
        )
    return (
        f"{name} has {width} x {height} = {pixels} pixels{larger}, more than the limit of {max_pixels}: "
        f"max_pixels={needed} (--max-pixels {needed}) reads it{takes}"
    )


def _memory(header: Header, encoded: int) -> int:
    """Bytes that reading a picture takes at most, as its header tells, with half of what comes on top of pixels."""
    pixels = max(header.width * header.height, header.decoded_pixels)
    grey = header.grey and (header.kind in _GREY_DECODED or header.pixels is not None)
    decoded = pixels * (1 if grey else 3) * (2 if header.deep else 1)
    payload = 0 if header.payload is None else len(header.payload)
    given = payload or encoded
    changed = header.deep or grey or header.levels is not None or header.canvas is not None
    turned = header.orientation in range(2, 9)
    return _SPARE + max(
        encoded + payload,
        given + decoded + header.working,
        given + (1 if header.pixels is not None else 2) * decoded,  # OpenCV for Python makes a copy
        decoded + 3 * pixels * changed,
        (6 + 3 * (header.canvas is not None)) * pixels * turned,
    )


def _needed_limit(memory: int) -> int:
    """The smallest `max_pixels` with which a picture that takes so many bytes is read."""
    return max(-(-(memory - 2 * _SPARE) // _BYTES_PER_PIXEL), 1)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


# What `cv2.rotate` and `cv2.flip` do, in this order.
_ROTATIONS: Final = {
    3: cv2.ROTATE_180,
    5: cv2.ROTATE_90_CLOCKWISE,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_90_COUNTERCLOCKWISE,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_MIRRORED: Final = {2: 1, 4: 0, 5: 1, 7: 1}  # left and right swapped, or top and bottom


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 1 to 8; anything else is no orientation."""
    if orientation in _ROTATIONS:
        image = cv2.rotate(image, _ROTATIONS[orientation]).astype(np.uint8, copy=False)
    if orientation in _MIRRORED:
        image = cv2.flip(image, _MIRRORED[orientation]).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
