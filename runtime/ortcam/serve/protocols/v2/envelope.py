"""The envelope of an inference request: JSON, and the tensors that follow it as bytes.

The protocol is KServe's Open Inference Protocol (`specification/protocol/inference_rest.md`). The binary extension is
Triton's (`docs/protocol/extension_binary_data.md`): the header `Inference-Header-Content-Length` has the length of the
JSON, and each tensor with `binary_data_size` takes that many of the bytes behind it, in order.
"""

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any, Final

from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.instances import parse_object

__all__ = ["INPUT_KEYS", "JSON_LENGTH", "AskedOutput", "Inference", "InputTensor", "read_inference"]

JSON_LENGTH: Final = "Inference-Header-Content-Length"

# `model_name` and `model_version` stand in the examples of the protocol, and kserve sends them. The path counts.
_REQUEST_KEYS: Final = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
INPUT_KEYS: Final = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS: Final = ("name", "parameters")
_INPUT_PARAMETERS: Final = ("binary_data_size", "content_type")
_OUTPUT_PARAMETERS: Final = ("binary_data", "classification", "content_type")
_LARGEST: Final = 2**63  # of a dimension or a size
_MOST_TENSORS: Final = 64
_MOST_DIMENSIONS: Final = 8
_LONGEST_ID: Final = 1024
_WHITE_SPACE: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = "\ufeff".encode()


@dataclasses.dataclass(frozen=True)
class InputTensor:
    """A tensor as the client sent it, not yet read.

    Attributes:
        name: of the input.
        shape: dimensions, each from 0.
        datatype: as the client wrote it, say "BYTES".
        content_type: how texts in `data` stand for bytes ("base64"), or None.
        data: the JSON value, flat or nested; None if the tensor came as bytes.
        raw: the bytes of the tensor; None if it came as JSON.
    """

    name: str
    shape: tuple[int, ...]
    datatype: str
    content_type: str | None
    data: list[Any] | None
    raw: memoryview | None


@dataclasses.dataclass(frozen=True)
class AskedOutput:
    """An output that the client asks for.

    Attributes:
        name: of the output.
        binary: whether it is sent as bytes behind the JSON.
        classes: send the so many highest values, as texts "value:index:label"; None: send the tensor.
    """

    name: str
    binary: bool
    classes: int | None


@dataclasses.dataclass(frozen=True)
class Inference:
    """An inference request.

    Attributes:
        id: of the client, which the answer repeats; None if there was none.
        parameters: of the request, without those that say how tensors travel.
        inputs: at least one.
        outputs: those asked for; None: the usual ones.
        binary: whether outputs are sent as bytes where the client does not say so for each.
    """

    id: str | None
    parameters: dict[str, Any]
    inputs: tuple[InputTensor, ...]
    outputs: tuple[AskedOutput, ...] | None
    binary: bool


def read_inference(body: bytes, json_length: str | None) -> Inference:
    """Parse the body of an inference request.

    A length of 0 means that the whole body is one image (Triton's raw binary request).

    Args:
        body: of the request.
        json_length: the header `Inference-Header-Content-Length`; None if there is none: all of the body is JSON.

    Raises:
        Refusal: 400, the body is not what the protocol says; 413, its JSON has more values than a server should parse.

    Example:
        >>> body = b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["/9j/"]}]}'
        >>> read_inference(body, None).inputs[0].shape
        (1,)
    """
    length = len(body) if json_length is None else _length(json_length, len(body))
    content = memoryview(body)
    if length == 0 and json_length is not None:
        return _of_one_image(content)
    if json_length is None and not body.lstrip(_WHITE_SPACE).startswith((b"{", _BYTE_ORDER_MARK)):
        raise Refusal(400, f"the body is no JSON object; where it is one image, send the header {JSON_LENGTH}: 0")
    request = _object(parse_object(bytes(content[:length])), "the request", _REQUEST_KEYS)
    identifier = request.get("id")
    if identifier is not None:
        _text(identifier, "id", _LONGEST_ID)
    parameters = _object(request.get("parameters", {}), "parameters", None)
    binary = _flag(parameters.get("binary_data_output", False), "parameters.binary_data_output")
    rest = {name: entry for name, entry in parameters.items() if name not in {"binary_data_output", "content_type"}}
    inputs = _inputs(request.get("inputs"), content[length:])
    return Inference(identifier, rest, inputs, _outputs(request.get("outputs"), binary=binary), binary)


def _of_one_image(content: memoryview) -> Inference:
    if not content:
        raise Refusal(400, f"{JSON_LENGTH} is 0, so the body is one image, but the body is empty")
    raw = memoryview(len(content).to_bytes(4, "little") + content)
    return Inference(None, {}, (InputTensor("image", (1,), "BYTES", None, None, raw),), None, binary=False)


def _length(text: str, whole: int) -> int:
    """The length of the JSON.

    Raises:
        Refusal: 400, no whole number, or more than there is.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= whole):
        accepted = f"the length of the JSON in bytes, at most that of the body, {whole}"
        raise Refusal(400, f"{JSON_LENGTH} is {reprlib.repr(text)}; accepted: {accepted}")
    return int(text)


def _inputs(value: object, raw: memoryview) -> tuple[InputTensor, ...]:
    """The tensors, each with its part of the bytes.

    Raises:
        Refusal: 400, not as the protocol says, or not as many bytes as the tensors need.
    """
    items = _list(value, "inputs")
    if not items:
        raise Refusal(400, "inputs is empty; accepted: a list of one tensor or more")
    tensors, start = [], 0
    for place, item in enumerate(items):
        where = f"inputs[{place}]"
        entry = _object(item, where, INPUT_KEYS)
        name = _text(entry.get("name"), f"{where}.name")
        datatype = _text(entry.get("datatype"), f"{where}.datatype")
        shape = _shape(entry.get("shape"), f"{where}.shape")
        parameters = _object(entry.get("parameters", {}), f"{where}.parameters", _INPUT_PARAMETERS)
        content_type = parameters.get("content_type")
        if content_type is not None:
            _text(content_type, f"{where}.parameters.content_type")
        data, part = entry.get("data"), None
        if "binary_data_size" in parameters:
            size = _whole(parameters["binary_data_size"], f"{where}.parameters.binary_data_size")
            if data is not None:
                raise Refusal(400, f"{where} has data and binary_data_size; accepted: one of them")
            if start + size > len(raw):
                left = len(raw) - start
                raise Refusal(400, f"{where} has binary_data_size {size}, but {left} bytes follow the JSON for it")
            part = raw[start : start + size]
            start += size
        elif data is None:
            raise Refusal(400, f"{where} has neither data nor binary_data_size; accepted: one of them")
        else:
            _list(data, f"{where}.data")
        tensors.append(InputTensor(name, shape, datatype, content_type, data, part))
    if start != len(raw):
        raise Refusal(400, f"{len(raw)} bytes follow the JSON, but its inputs have binary_data_size {start} together")
    return tuple(tensors)


def _outputs(value: object, *, binary: bool) -> tuple[AskedOutput, ...] | None:
    """The outputs asked for.

    Raises:
        Refusal: 400, not as the protocol says, or one of them twice.
    """
    items = [] if value is None else _list(value, "outputs")
    asked: dict[str, AskedOutput] = {}
    for place, item in enumerate(items):
        where = f"outputs[{place}]"
        entry = _object(item, where, _OUTPUT_KEYS)
        name = _text(entry.get("name"), f"{where}.name")
        parameters = _object(entry.get("parameters", {}), f"{where}.parameters", _OUTPUT_PARAMETERS)
        as_bytes = _flag(parameters.get("binary_data", binary), f"{where}.parameters.binary_data")
        classes = parameters.get("classification")
        if classes is not None and _whole(classes, f"{where}.parameters.classification") == 0:
            raise Refusal(400, f"{where}.parameters.classification is 0; accepted: a whole number from 1")
        if name in asked:
            raise Refusal(400, f"{where}.name is {reprlib.repr(name)}, which comes twice; accepted: each output once")
        asked[name] = AskedOutput(name, as_bytes, classes)
    return tuple(asked.values()) or None


def _object(value: object, where: str, keys: tuple[str, ...] | None) -> Mapping[str, Any]:
    """A JSON object. None stands for an empty one.

    Raises:
        Refusal: 400, something else, or a key that is not accepted.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, f"{where} is {reprlib.repr(value)}; accepted: an object")
    for name in value:
        if keys is not None and name not in keys:
            raise Refusal(400, f"{where} has the entry {reprlib.repr(name)}; accepted: {', '.join(keys)}")
    return value


def _list(value: object, where: str) -> list[Any]:
    """A JSON list.

    Raises:
        Refusal: 400, something else, or too many tensors.
    """
    if not isinstance(value, list):
        found = "is missing" if value is None else f"is {reprlib.repr(value)}"
        raise Refusal(400, f"{where} {found}; accepted: a list")
    if where in {"inputs", "outputs"} and len(value) > _MOST_TENSORS:
        raise Refusal(400, f"{where} has {len(value)} entries; accepted: at most {_MOST_TENSORS}")
    return value


def _text(value: object, where: str, longest: int = 256) -> str:
    """A text.

    Raises:
        Refusal: 400, something else, or too long.
    """
    if not isinstance(value, str) or len(value) > longest:
        found = "is missing" if value is None else f"is {reprlib.repr(value)}"
        raise Refusal(400, f"{where} {found}; accepted: a text of at most {longest} characters")
    return value


def _flag(value: object, where: str) -> bool:
    """A truth value.

    Raises:
        Refusal: 400, something else.
    """
    if not isinstance(value, bool):
        raise Refusal(400, f"{where} is {reprlib.repr(value)}; accepted: true or false")
    return value


def _whole(value: object, where: str) -> int:
    """A whole number from 0.

    Raises:
        Refusal: 400, something else.
    """
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise Refusal(400, f"{where} is {reprlib.repr(value)}; accepted: a whole number from 0")
    return value


def _shape(value: object, where: str) -> tuple[int, ...]:
    """The dimensions of a tensor.

    Raises:
        Refusal: 400, something else, or too many.
    """
    items = _list(value, where)
    if len(items) > _MOST_DIMENSIONS:
        raise Refusal(400, f"{where} has {len(items)} dimensions; accepted: at most {_MOST_DIMENSIONS}")
    return tuple(_whole(item, f"{where}[{place}]") for place, item in enumerate(items))
