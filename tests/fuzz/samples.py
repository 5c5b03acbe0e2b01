"""Fuzzing of samples at their depth: .npy, .npz, TIFF of bands, for models of several kinds (the first byte)."""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, ImageWarning
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.samples import read_samples
from tests.common.images import png, tiff
from tests.fuzz import images
from tests.fuzz.limits import BreachError, budget

__all__ = ["change", "is_read", "model_of", "seeds", "try_on"]

MAX_PIXELS: Final = 1 << 20
_MEMORY: Final = 60_000_000 + 12 * MAX_PIXELS
_SECONDS: Final = 2.0
_FILES: Final = Path(__file__).parents[1] / "data" / "bands"
_MODELS: Final = (
    ("bands", 1),
    ("bands", 2),
    ("bands", 3),
    ("bands", 4),
    ("bands", 5),
    ("bands", 13),
    ("rgb", 3),
    ("grey", 1),
)


def _model(order: Any, channels: int) -> Preprocessing:
    ones = (1.0,) * channels
    return Preprocessing(8, 8, None, mean=ones, std=ones, channel_order=order, value_range=(-1e9, 1e9))


def model_of(data: bytes) -> tuple[str, int]:
    """Order and number of the channels of the model that an input is for."""
    return _MODELS[data[0] % len(_MODELS)] if data else _MODELS[0]


def is_read(data: bytes) -> bool:
    """Whether an input is read, and not refused."""
    try:
        read_samples(data[1:], _model(*model_of(data)), max_pixels=MAX_PIXELS)
    except ImageError:
        return False
    return True


def try_on(data: bytes) -> None:
    """Read a file within the budget; it is refused by an `ImageError`, or its samples are as it is documented.

    Raises:
        BreachError: it took too much, or samples have another type, shape or values.
    """
    order, channels = model_of(data)
    with budget(seconds=_SECONDS, memory=_MEMORY), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ImageWarning)
        try:
            samples = read_samples(data[1:], _model(order, channels), max_pixels=MAX_PIXELS)
        except ImageError as error:
            if not str(error).isprintable():
                raise BreachError(f"a message of several lines: {error}") from None
            return
    _check(samples, channels)


def _check(samples: NDArray[Any], channels: int) -> None:
    if samples.ndim != 3 or samples.shape[2] != channels or not samples.flags.c_contiguous:
        raise BreachError(f"the samples are {samples.dtype} {samples.shape} of {channels} channels")
    if samples.dtype not in {np.dtype(name) for name in ("uint8", "uint16", "int16", "float32")}:
        raise BreachError(f"the samples are {samples.dtype}")
    if not 0 < samples.shape[0] * samples.shape[1] <= MAX_PIXELS or not np.isfinite(samples).all():
        raise BreachError(f"{samples.shape[0]} x {samples.shape[1]} samples, or some are not finite")


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(npy: bytes, way: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        archive.writestr("image.npy", npy)
    return file.getvalue()


def seeds() -> list[bytes]:
    """Small files of each kind, each with the model that takes it."""
    values = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    made = [(4, _npy(values.astype(kind))) for kind in ("uint8", ">u2", "int16", "float32", "float64", "int64")]
    made += [(4, _npy(np.asfortranarray(values.astype("float16")))), (0, _npy(values[..., 0].astype("bool")))]
    made += [(4, _npz(_npy(values))), (4, _npz(_npy(values), zipfile.ZIP_STORED))]
    made += [(6, png(values[..., :3].astype(np.uint16) << 9, 16, 2)), (3, png(values[..., :4].astype(np.uint8), 8, 6))]
    made += [(7, tiff(values[..., 0].astype(np.uint16), 16, 0, order=">")), (0, tiff(values[..., 0] % 4096, 12, 1))]
    made += [(7, b"P5 4 2 1023 " + bytes(range(16)))]
    kinds = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 13: 5}
    for path in sorted(_FILES.glob("*.tif")):
        bands = int(path.name.split("-")[1])
        made.append((kinds[bands], path.read_bytes()))
    return [bytes([model]) + data for model, data in made]


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another file: the header of an array changed, an archive made of a changed array, or as pictures are changed."""
    model, content, way = data[:1] or b"\0", data[1:], random.random()
    if random.random() < 0.05:
        model = bytes([random.randrange(len(_MODELS))])
    if content.startswith(b"\x93NUMPY") and way < 0.3:
        content = _with_changed_header(content, random)
    elif content.startswith(b"\x93NUMPY") and way < 0.5:
        content = _npz(content, random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)))
    elif content.startswith(b"PK") and way < 0.4:
        content = _with_a_lie(content, random)
    else:
        content = images.change(content, random, change_bytes, longest - 1)
    return (model + content)[:longest]


def _with_changed_header(content: bytes, random: Random) -> bytes:
    end = min(128, len(content))
    text = bytearray(content[10:end])
    for _ in range(random.randrange(1, 4)):
        if text:
            text[random.randrange(len(text))] = random.choice(b"0123456789<>|uifbOV(),'{}: TrueFals\n")
    return content[:10] + bytes(text) + content[end:]


def _with_a_lie(content: bytes, random: Random) -> bytes:
    """A number of the archive's directory, or of its end, replaced."""
    at = content.rfind(random.choice((b"PK\1\2", b"PK\5\6")))
    if at < 0:
        return content
    at += random.randrange(4, 40)
    number = struct.pack("<I", random.choice((0, 1, 100, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1)))
    size = random.choice((2, 4))
    return content[:at] + number[:size] + content[at + size :]
