"""Tensors of the protocol: data types, values from JSON or bytes, and back.

In JSON, data are flat or nested lists in row-major order. As bytes they are little-endian without padding, and an
element of BYTES is its length as uint32 and then its content.
"""

import base64
import dataclasses
import itertools
import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import NotFiniteError
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.instances import decode_base64
from ortcam.serve.protocols.v2.envelope import InputTensor

__all__ = ["OutputTensor", "byte_strings", "numbers"]

_DIGITS: Final = {"FP32": 12, "INT64": 4, "BOOL": 6}  # characters of a value in JSON, about
_NUMPY: Final[dict[str, str]] = {
    "UINT8": "<u1",
    "UINT16": "<u2",
    "INT16": "<i2",
    "FP32": "<f4",
    "INT64": "<i8",
    "BOOL": "|b1",
}


@dataclasses.dataclass(frozen=True, eq=False)
class OutputTensor:
    """An output.

    Attributes:
        name: as in the metadata.
        datatype: "FP32", "INT64", "BOOL" or "BYTES".
        shape: of the whole batch.
        values: the array; or for BYTES the elements in row-major order.
        is_text: for BYTES: whether every element is UTF-8. What is not is base64 in JSON.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | tuple[bytes, ...]
    is_text: bool = True

    @classmethod
    def of_array(cls, name: str, datatype: str, array: NDArray[Any]) -> "OutputTensor":
        """An output of numbers.

        Raises:
            NotFiniteError: one is infinite or not a number, which JSON cannot hold.
        """
        if datatype == "FP32" and not np.isfinite(array).all():
            raise NotFiniteError(f"the output {name!r} has values that are infinite or not a number")
        return cls(name, datatype, array.shape, np.ascontiguousarray(array, _NUMPY[datatype]))

    @classmethod
    def of_texts(cls, name: str, texts: Sequence[str]) -> "OutputTensor":
        """An output of texts, [1, K]."""
        return cls(name, "BYTES", (1, len(texts)), tuple(text.encode("utf-8", "backslashreplace") for text in texts))

    @classmethod
    def batch(cls, parts: Sequence["OutputTensor"]) -> "OutputTensor":
        """One tensor of those of single images, which are alike."""
        first = parts[0]
        shape = (len(parts), *first.shape[1:])
        values: NDArray[Any] | tuple[bytes, ...]
        if isinstance(first.values, tuple):
            values = tuple(itertools.chain.from_iterable(part.values for part in parts))
        else:
            values = np.concatenate([part.values for part in parts])
        return cls(first.name, first.datatype, shape, values, first.is_text)

    def size(self, *, binary: bool) -> int:
        """About how many bytes the data have in an answer, as bytes or in JSON."""
        if isinstance(self.values, tuple):
            content = sum(map(len, self.values))
            return content * 4 // 3 if self.in_base64 and not binary else content
        return self.values.nbytes if binary else self.values.size * _DIGITS[self.datatype]

    def as_bytes(self) -> bytes:
        """The data as the binary extension has them."""
        if isinstance(self.values, tuple):
            return b"".join(part for value in self.values for part in (struct.pack("<I", len(value)), value))
        return self.values.tobytes()

    def as_json(self) -> Iterator[str]:
        """The data as pieces of a JSON list, flat. Nine digits keep every float32 apart from its neighbours."""
        return itertools.chain("[", _joined(self._elements()), "]")

    @property
    def in_base64(self) -> bool:
        """Whether the JSON has base64."""
        return self.datatype == "BYTES" and not self.is_text

    def _elements(self) -> Iterable[str]:
        if isinstance(self.values, tuple):
            if self.in_base64:
                return (f'"{base64.b64encode(value).decode()}"' for value in self.values)
            return (json.dumps(value.decode()) for value in self.values)
        flat = self.values.ravel()
        if self.datatype == "FP32":
            return (f"{value:.9g}" for value in flat.tolist())
        if self.datatype == "BOOL":
            return ("true" if value else "false" for value in flat.tolist())
        return map(str, flat.tolist())


def _joined(elements: Iterable[str]) -> Iterator[str]:
    iterator = iter(elements)
    separator = ""
    while chunk := list(itertools.islice(iterator, 4096)):
        yield separator + ",".join(chunk)
        separator = ","


def numbers(tensor: InputTensor, where: str) -> NDArray[Any]:
    """The values of a tensor of UINT8, UINT16, INT16 or FP32, in its shape.

    Args:
        tensor: as it came.
        where: how messages name it.

    Returns:
        uint8, uint16, int16 or float32. Values of float32 may be infinite or not a number if they came as bytes.

    Raises:
        Refusal: 400, not as many values as the shape says, or values of another type.
    """
    kind = np.dtype(_NUMPY[tensor.datatype])
    count = math.prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != count * kind.itemsize:
            needed = f"{tensor.datatype} {list(tensor.shape)} has {count * kind.itemsize} bytes"
            raise Refusal(400, f"{where} has binary_data_size {len(tensor.raw)}, but {needed}")
        return np.frombuffer(tensor.raw, kind).reshape(tensor.shape)
    values = _array(tensor.data or [], where, "numbers" if kind.kind == "f" else "whole numbers")
    if (
        values.size != count
        or values.ndim not in {1, len(tensor.shape)}
        or (values.ndim > 1 and values.shape != tensor.shape)
    ):
        found = f"{values.size} values" if values.ndim <= 1 else f"the shape {list(values.shape)}"
        accepted = f"{count} values, flat or nested as the shape {list(tensor.shape)}"
        raise Refusal(400, f"{where}.data has {found}; accepted: {accepted}")
    values = values.reshape(tensor.shape)
    if kind.kind != "f":
        ends = np.iinfo(kind)
        if values.size and (values.dtype.kind not in "iu" or values.min() < ends.min or values.max() > ends.max):
            accepted = f"whole numbers from {ends.min} to {ends.max}"
            raise Refusal(400, f"{where}.data has values that are not {tensor.datatype}; accepted: {accepted}")
        return values.astype(kind)
    with np.errstate(over="ignore"):
        return values.astype(kind)


def _array(data: list[Any], where: str, accepted: str) -> NDArray[Any]:
    """The values of a JSON list, as it is nested. Every value is checked first: numpy takes more than numbers for one.

    Returns:
        int64 where all are whole numbers, else float64.

    Raises:
        Refusal: 400, values that are not numbers, or lists of different lengths.
    """
    shape, level = [len(data)], data
    while level and isinstance(level[0], list):
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1:
            raise Refusal(400, f"{where}.data has lists of different lengths; accepted: {accepted}, flat or nested")
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    kinds = set(map(type, level))
    if not kinds <= {int, float}:
        raise Refusal(400, f"{where}.data has values that are not numbers; accepted: {accepted}")
    try:
        return np.fromiter(level, np.int64 if kinds == {int} else np.float64, len(level)).reshape(shape)
    except OverflowError:
        raise Refusal(400, f"{where}.data has a number that is too large; accepted: {accepted}") from None


def byte_strings(tensor: InputTensor, where: str) -> tuple[bytes, ...]:
    """The elements of a tensor of BYTES, in row-major order.

    Args:
        tensor: as it came.
        where: how messages name it.

    Raises:
        Refusal: 400, not as many elements as the shape says, or lengths that do not add up.
        ImageError: a text that is no base64.
    """
    count = math.prod(tensor.shape)
    if tensor.raw is not None:
        return _of_bytes(tensor.raw, count, where)
    if tensor.content_type not in {None, "base64"}:
        raise Refusal(400, f"{where}.parameters.content_type is {tensor.content_type!r}; accepted: 'base64'")
    texts = list(itertools.islice(_flat(tensor.data or []), count + 1))
    if len(texts) != count:
        found = len(texts) if len(texts) < count else f"more than {count}"
        raise Refusal(
            400, f"{where}.data has {found} elements; accepted: {count}, as the shape {list(tensor.shape)} says"
        )
    return tuple(decode_base64(text, f"{where}.data[{place}]") for place, text in enumerate(texts))


def _of_bytes(raw: memoryview, count: int, where: str) -> tuple[bytes, ...]:
    elements: list[bytes] = []
    start = 0
    while start < len(raw) and len(elements) < count:
        if start + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, start)
        if start + 4 + length > len(raw):
            break
        elements.append(bytes(raw[start + 4 : start + 4 + length]))
        start += 4 + length
    if start != len(raw) or len(elements) != count:
        accepted = f"{count} elements, each with its length as uint32 before it, and nothing behind them"
        raise Refusal(400, f"the {len(raw)} bytes of {where} are not BYTES of its shape; accepted: {accepted}")
    return tuple(elements)


def _flat(data: list[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
