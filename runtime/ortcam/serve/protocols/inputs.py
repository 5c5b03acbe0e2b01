"""What a request of protocol v1 brings: images and parameters, in JSON, as an image's own bytes, or as a form."""

import asyncio
import dataclasses
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from typing import Final, TypeVar

from starlette.requests import Request

from ortcam.errors import ImageError, OptionError
from ortcam.serve.decoding.sources import Encoded, Source
from ortcam.serve.http.body import read_body
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.instances import parse_object, source_of
from ortcam.serve.settings import RequestLimits
from ortcam.support.ranges import shown

__all__ = ["Inputs", "off_loop", "parameters_of_query", "read_inputs"]

_T = TypeVar("_T")

_SMALL: Final = 1 << 16  # bytes that are parsed at once; more are parsed in a thread
_MOST_FIELDS: Final = 100  # of a form or a query string
_LONGEST_HEADER: Final = 2048  # bytes of the headers of a part, or of the type of a body; longer ones parse slowly
_ROOTS: Final = ("instances", "inputs")  # which KServe takes as the same
_ENTRIES: Final = (*_ROOTS, "parameters", "signature_name")
# What curl and other clients say of a body that they know nothing of; its first bytes tell then.
_UNKNOWN: Final = ("application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded", "")
_ARRAYS: Final = ("application/x-npy", "application/x-numpy")  # names that are in use; none is registered
_FORM: Final = "multipart/form-data"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a request brings.

    Attributes:
        sources: the images, in order; at least one.
        parameters: by name, as they came: values of JSON or texts.
    """

    sources: tuple[Source, ...]
    parameters: Mapping[str, object]


async def read_inputs(request: Request, limits: RequestLimits, *, samples: bool = False) -> Inputs:
    """Read the body of a request, and take images and parameters from it and from the query string.

    1. JSON: `{"instances": [...], "parameters": {...}}`; `ortcam.serve.protocols.instances` has the forms of an
       instance.
    2. `multipart/form-data`: every file is an image, every other field a parameter.
    3. Anything else is the bytes of one image, or of an array (.npy) for a model that needs samples. `curl
       --data-binary @cat.jpg` says that it is a form, and is understood.

    Args:
        request: whose body has not been read.
        limits: of the server.
        samples: whether the model needs samples, so that numbers in JSON are no bytes.

    Raises:
        Refusal: 400, not well formed; 413, too large; 415, another type of content.
        ImageError: no image, or an instance of another form.
        OptionError: more images than the server takes, or a parameter that is given twice.
    """
    body = await read_body(request, limits.body_bytes)
    query = parameters_of_query(request.url.query)
    header = request.headers.get("content-type", "")
    if len(header) > _LONGEST_HEADER:
        raise Refusal(415, f"Content-Type has {len(header)} bytes: accepted are at most {_LONGEST_HEADER}")
    kind = _parsed("Content-Type", header).get_content_type() if header else ""
    if not body:
        raise Refusal(400, "the body is empty: send an image, or JSON with instances")
    if kind == _FORM:
        inputs = await asyncio.to_thread(_of_form, body, header, limits)
    elif kind == "application/json" or kind.endswith("+json") or (kind in _UNKNOWN and body.lstrip()[:1] == b"{"):
        inputs = await off_loop(len(body), lambda: _of_json(body, limits, samples=samples))
    elif kind in (*_UNKNOWN, *_ARRAYS) or kind.startswith("image/"):
        _check_whole(body, kind)
        inputs = Inputs((Encoded(body, "the body"),), {})
    else:
        raise Refusal(
            415, f"Content-Type {shown(kind)}: accepted are application/json, {_FORM}, image/jpeg, image/png and others"
        )
    return dataclasses.replace(inputs, parameters=_together(inputs.parameters, query))


async def off_loop(size: int, function: Callable[[], _T]) -> _T:
    """Call a function: in a thread where what it works on is large, so that the event loop answers others meanwhile."""
    return function() if size <= _SMALL else await asyncio.to_thread(function)


def parameters_of_query(query: str) -> dict[str, object]:
    """The parameters in a query string. One that comes several times is a list.

    A plus sign is a space there, so that `method=scorecam++` says "scorecam  ". No method has spaces in its name.

    Raises:
        Refusal: 400, too many.

    Example:
        >>> parameters_of_query("method=scorecam++&target=tiger+cat&target=3")
        {'method': 'scorecam++', 'target': ['tiger cat', '3']}
    """
    try:
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refusal(400, f"the query string has more than {_MOST_FIELDS} parameters") from None
    return _gathered((name, value.replace(" ", "+") if name == "method" else value) for name, value in pairs)


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        lists.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


def _together(parameters: Mapping[str, object], query: Mapping[str, object]) -> Mapping[str, object]:
    for name in query:
        if name in parameters:
            raise OptionError(f"{shown(name)} is given in the query string and in the body: give it once")
    return {**parameters, **query}


def _of_json(body: bytes, limits: RequestLimits, *, samples: bool) -> Inputs:
    found = parse_object(body)
    if unknown := [name for name in found if name not in _ENTRIES]:
        raise Refusal(400, f"the body has {shown(unknown[0])}: accepted are {', '.join(_ENTRIES)}")
    roots = [name for name in _ROOTS if name in found]
    if len(roots) != 1:
        raise Refusal(400, f"the body has {' and '.join(roots) or 'no instances'}: accepted is one list of instances")
    instances = found[roots[0]]
    if not isinstance(instances, list) or not instances:
        raise Refusal(400, f"{roots[0]} is no list of images: accepted is a list of at least one")
    first = instances[0]
    if isinstance(first, Mapping) and {"shape", "datatype"} & first.keys():
        raise Refusal(400, f"{roots[0]} are tensors of protocol v2: send them to /v2/models/NAME/infer")
    parameters = found.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise OptionError(f"parameters={shown(parameters)}: accepted is an object")
    _check_count(len(instances), limits)
    named = ((instance, f"{roots[0]}[{place}]") for place, instance in enumerate(instances))
    return Inputs(tuple(source_of(instance, name, samples=samples) for instance, name in named), parameters)


def _check_count(count: int, limits: RequestLimits) -> None:
    if count > limits.images:
        raise OptionError(f"{count} images: this server takes at most {limits.images} per request")


def _check_whole(body: bytes, kind: str) -> None:
    """Refuse an image that `curl -d @FILE` has taken the line ends and zeros from."""
    if kind != "application/x-www-form-urlencoded":
        return
    if body.startswith(b"\x93NUMPY") and b"\n" not in body:  # the header of an array ends in one
        raise ImageError("the array has lost its line ends on the way: send it with curl --data-binary, not with -d")
    if body.startswith(b"\x89PNG\x1a") or (body.startswith(b"\xff\xd8\xff") and not set(b"\0\r\n") & set(body)):
        raise ImageError("the image has lost its line ends on the way: send it with curl --data-binary, not with -d")


def _of_form(body: bytes, header: str, limits: RequestLimits) -> Inputs:
    """RFC 7578, of a body that is in memory."""
    boundary = _parsed("Content-Type", header).get_boundary()
    if not boundary or not boundary.isascii() or len(boundary) > 70:
        raise Refusal(400, f"{_FORM} without a boundary of 1 to 70 characters")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    if body.count(delimiter) > limits.images + _MOST_FIELDS:
        raise OptionError(f"the form has too many parts: this server takes at most {limits.images} images per request")
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise Refusal(400, f"the body of {_FORM} has no end: its last boundary is missing")
    sources: list[Source] = []
    fields: list[tuple[str, str]] = []
    for part in parts[:-1]:
        name, is_file, content = _of_part(part)
        if is_file:
            sources.append(Encoded(content, f"{shown(name)} of the form"))
        else:
            fields.append((name, _text(content, name)))
    if not sources:
        raise ImageError("the form has no image: send one as a file, as in curl -F image=@cat.jpg")
    _check_count(len(sources), limits)
    return Inputs(tuple(sources), _gathered(fields))


def _of_part(part: bytes) -> tuple[str, bool, bytes]:
    """Name, whether it is a file, and content of a part."""
    head, found, content = part.partition(b"\r\n\r\n")
    if not found or len(head) > _LONGEST_HEADER:
        raise Refusal(400, "a part of the form has no headers, or too long ones")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            parsed = _parsed("Content-Disposition", value)
            field = parsed.get_param("name", header="content-disposition")
            if isinstance(field, str):
                return field, parsed.get_filename() is not None, content
    raise Refusal(400, "a part of the form has no name")


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise OptionError(
            f"{shown(name)} is no text in UTF-8: send an image as a file, as in -F image=@cat.jpg"
        ) from None


def _parsed(name: str, value: str) -> Message:
    """A header with its parameters."""
    message: Message = Message()
    message[name] = " ".join(value.split())
    return message
