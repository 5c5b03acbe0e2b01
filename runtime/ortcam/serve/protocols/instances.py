"""Images inside JSON: encoded in base64, or as nested lists of pixels. Never a path, and never a URL."""

import binascii
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError
from ortcam.images.reading import read_image
from ortcam.serve.decoding.sources import Encoded, Pixels, Preprocessed, Source
from ortcam.serve.http.refusals import Refusal
from ortcam.support.ranges import shown
from ortcam.support.strict_json import parse_json
from ortcam.support.terminal import one_line

__all__ = ["decode_base64", "parse_object", "source_of"]

# What one body of JSON may hold, since two bytes of it may take a hundred bytes of memory: the RGB lists of 640 x 640
# pixels, or of eight images of 224 x 224.
_MOST: Final = {"lists and objects": (b"[{", 1 << 19), "values": (b",", 1 << 21), "texts": (b'"', 1 << 16)}
_SHORT: Final = 1 << 14  # bytes that are parsed before anybody notices
_LONGEST_REASON: Final = 200

_WHITE_SPACE: Final = b" \t\r\n"
_DATA_URL: Final = re.compile(r"data:[\w.+-]{1,60}/[\w.+-]{1,60};base64,", re.ASCII)
_KEYS: Final = ("image", "data", "b64", "preprocessed")
_FORMS: Final = (
    'accepted is {"image": {"b64": "..."}}, {"b64": "..."}, {"data": "..."}, a nested list of pixels '
    '[height][width][channels], or {"preprocessed": [channels][height][width]}'
)
_DEEPEST: Final = 4  # dimensions


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse the JSON object in a body.

    Raises:
        Refusal: 400, it is none; 413, it has more lists or values than a server should parse.
    """
    for what, (signs, most) in _MOST.items():
        if sum(map(body.count, signs)) > most:
            raise Refusal(413, f"the JSON has more than {most} {what}: send images encoded in base64, or as they are")
    try:
        found = parse_json(body, sharing=len(body) > _SHORT)
    except ValueError as error:
        reason = one_line(error)[:_LONGEST_REASON]
        if "int_max_str_digits" in reason:
            reason = "a number has too many digits"
        raise Refusal(400, f"the body is no JSON: {reason}") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is no JSON object")
    return found


def source_of(instance: object, name: str, *, samples: bool = False) -> Source:
    r"""The image in one instance of protocol v1.

    Args:
        instance: `{"image": VALUE}`, `{"data": VALUE}`, `{"b64": TEXT}`, `{"preprocessed": LISTS}`, or VALUE itself,
            which is `{"b64": TEXT}`, a text in base64 (a `data:` URL of one, too), or pixels: nested lists as
            `ortcam.images.read_image` takes arrays, whole numbers from 0 to 255 or others from 0 to 1; for a model that
            needs samples, any numbers.
        name: of the instance, for messages.
        samples: whether the model needs samples (`Preprocessing.needs_samples`).

    Raises:
        ImageError: another form, a text that is no base64, or lists that are no image.

    Example:
        >>> source_of({"b64": "iVBORw=="}, "instances[0]").content
        b'\x89PNG'
    """
    if isinstance(instance, Mapping):
        key = _only_key(instance, name)
        value = instance[key]
        if key == "preprocessed":
            return Preprocessed(_numbers(value, f"{name}.{key}", samples=samples).astype(np.float32))
        named = name if key == "b64" else f"{name}.{key}"
        return _of_value(value if key != "b64" else instance, named, samples=samples)
    return _of_value(instance, name, samples=samples)


def decode_base64(text: object, name: str) -> bytes:
    """The bytes in a text of base64, with or without line ends.

    Args:
        text: of the standard alphabet, padded.
        name: of the text, for messages.

    Raises:
        ImageError: it is no such text.
    """
    if not isinstance(text, str):
        raise ImageError(f"{name} is {_kind(text)}: accepted is a text in base64")
    found = _DATA_URL.match(text)
    try:
        encoded = text[found.end() if found else 0 :].encode("ascii")
        return binascii.a2b_base64(encoded.translate(None, _WHITE_SPACE), strict_mode=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are of this kind
        raise ImageError(
            f"{name} is {shown(text[:60])}, which is no base64: accepted is the image itself in base64; this server "
            "opens no paths and no URLs"
        ) from None


def _only_key(instance: Mapping[str, Any], name: str) -> str:
    if len(instance) == 1 and (key := next(iter(instance))) in _KEYS:
        return key
    entries = ", ".join(shown(key) for key in itertools.islice(instance, 5)) or "nothing"
    raise ImageError(f"{name} has {entries}: {_FORMS}")


def _of_value(value: object, name: str, *, samples: bool) -> Source:
    if isinstance(value, Mapping):
        if list(value) != ["b64"]:
            raise ImageError(f"{name} is an object of another form: {_FORMS}")
        return Encoded(decode_base64(value["b64"], f"{name}.b64"), name)
    if isinstance(value, str):
        return Encoded(decode_base64(value, name), name)
    if isinstance(value, list):
        return Pixels(_samples(value, name), name) if samples else Pixels(_pixels(value, name))
    raise ImageError(f"{name} is {_kind(value)}: {_FORMS}")


def _pixels(value: list[Any], name: str) -> NDArray[np.uint8]:
    array = _numbers(value, name, samples=False)
    if array.ndim not in (2, 3):
        raise ImageError(f"{name} has {array.ndim} dimensions: {_FORMS}")
    try:
        return read_image(array)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _samples(value: list[Any], name: str) -> NDArray[Any]:
    array = _numbers(value, name, samples=True)
    if array.ndim not in (2, 3):
        raise ImageError(f"{name} has {array.ndim} dimensions: {_FORMS}")
    return array


def _numbers(value: object, name: str, *, samples: bool) -> NDArray[Any]:
    """Nested lists as an array: uint8 where all are whole numbers from 0 to 255, else float64.

    Every value is looked at before numpy is, which would make an array of anything.

    Args:
        value: the lists.
        name: for messages.
        samples: whether whole numbers may be any.
    """
    shape: list[int] = []
    level: list[Any] = [value]
    while isinstance(level[0], list):
        if len(shape) == _DEEPEST:
            raise ImageError(f"{name} has more than {_DEEPEST} dimensions: {_FORMS}")
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1 or 0 in lengths:
            raise ImageError(f"{name}: the lists at depth {len(shape) + 1} are not all of one length above zero")
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    kinds = set(map(type, level))
    if not shape or not kinds <= {int, float}:
        raise ImageError(f"{name} has {_kind(next(_others(level), value))} among its pixels: accepted are numbers")
    are_bytes = kinds == {int} and min(level) >= 0 and max(level) <= 255
    if kinds == {int} and not are_bytes and not samples:
        raise ImageError(
            f"{name} has whole numbers from {shown(min(level))} to {shown(max(level))}: accepted are 0 to 255"
        )
    try:
        return np.fromiter(level, np.uint8 if are_bytes else np.float64, len(level)).reshape(shape)
    except OverflowError:
        raise ImageError(f"{name} has a number beyond those of float64") from None


def _others(level: list[Any]) -> Iterator[Any]:
    return (item for item in level if type(item) not in (int, float))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a text", dict: "an object", list: "a list", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
