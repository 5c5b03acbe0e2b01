"""Reads the inputs, outputs and weights of a graph file without ONNX, and refuses what no bundle has.

ONNX Runtime parses a graph with protobuf, and some of its versions read any file that a graph names. This reader is
stricter than protobuf, so that both see the same: each field is known and of its type, no single field comes twice, and
each number has its shortest form.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ortcam.errors import BundleError

__all__ = ["FLOAT32", "GraphContents", "GraphReader", "Value"]

FLOAT32: Final = 1

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_WIRES: Final = {
    "V": (_VARINT,),
    "F": (_FOUR,),
    "B": (_BYTES,),
    "V*": (_VARINT, _BYTES),
    "F*": (_FOUR, _BYTES),
    "D*": (_EIGHT, _BYTES),
    "B*": (_BYTES,),
}


_Table = dict[int, tuple[int, bool]]


def _table(text: str) -> _Table:
    """Number and wire type, as they stand before a field -> its number, and whether it may repeat."""
    fields = [(int(field.rstrip("VFDB*")), field.lstrip("0123456789")) for field in text.split()]
    return {number << 3 | wire: (number, len(kind) > 1) for number, kind in fields for wire in _WIRES[kind]}


# Field numbers of onnx.proto: V a number, F and D 4 and 8 bytes, B a text or a message; * any number of them. Fields
# that are left out are refused: sparse tensors, segments, references to attributes of functions, devices.
_MODEL: Final = _table("1V 2B 3B 4B 5V 6B 7B 8B* 14B* 20B* 25B*")
_GRAPH: Final = _table("1B* 2B 5B* 10B 11B* 12B* 13B* 14B* 16B*")
_NODE: Final = _table("1B* 2B* 3B 4B 5B* 6B 7B 8B 9B*")
_ATTRIBUTE: Final = _table("1B 2F 3V 4B 5B 6B 7F* 8V* 9B* 10B* 11B* 13B 20V")
_TENSOR: Final = _table("1V* 2V 4F* 5V* 6B* 7V* 8B 9B 10D* 11V* 12B 13B* 14V 16B*")
_ENTRY: Final = _table("1B 2B")
_VALUE: Final = _table("1B 2B 3B 4B*")
_TYPE: Final = _table("1B 4B 5B 6B 7B 8B 9B")
_TYPES: Final = (1, 4, 5, 7, 8, 9)
_TENSOR_TYPE: Final = _table("1V 2B")
_SHAPE: Final = _table("1B*")
_SIDE: Final = _table("1V 2B 3B")

_PLAIN: Final = "a graph of plain operators"
# Not `ai.onnx.ml`: a tree of some megabytes, deeper than the stack, ends the process. The exporter writes none of it.
_DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
_LOOPS: Final = ("If", "Loop", "Scan", "SequenceMap")
_READ_FILES: Final = ("EPContext", "Snpe")  # what other tools have compiled, by the name of its file
_ATTRIBUTE_TYPES: Final = (0, 1, 2, 3, 4, 6, 7, 8, 9)  # neither graphs, sparse tensors nor types
_EXTERNAL: Final = 1
_DATA: Final = (4, 5, 6, 7, 9, 10, 11)  # fields of a tensor that hold its elements
# Bits of an element, by TensorProto.DataType.
_BITS: Final = {
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((15,), 128),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}

# The largest classifiers have some thousand nodes, five fields each and as many values.
_MOST_NODES: Final = 20_000
_MOST_FIELDS: Final = 1_000_000
_MOST_SIDES: Final = 64
_LARGEST: Final = 2**31 - 1  # what protobuf reads
_LONGEST_NAME: Final = 65_536
_QUOTED: Final = 100
_REMEMBERED: Final = 4096  # bytes; nodes and tensors that all scorers have are looked at once

_Span = tuple[int, int]
_Part = tuple[str, int, int]  # of a file: its name, offset, length


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a graph, as it declares it.

    Attributes:
        dtype: TensorProto.DataType; 0 if it is no tensor.
        shape: one number per dimension, None for an open one; None if the graph does not say.
    """

    dtype: int
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class GraphContents:
    """What the rest of the program needs to know about a graph.

    Attributes:
        inputs: by name.
        outputs: by name.
        weights: parts of other files that it names: file, offset, length.
    """

    inputs: dict[str, Value]
    outputs: dict[str, Value]
    weights: frozenset[_Part]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of those files, sorted."""
        return tuple(sorted({name for name, _, _ in self.weights}))


class GraphReader:
    """Reads the graphs of one bundle.

    Args:
        sizes: of the files of the bundle, by name. A graph may name no other file.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._seen: dict[bytes, list[_Part]] = {}

    def read(self, data: bytes, path: Path) -> GraphContents:
        """Check each node and tensor of a graph. Embedded weights are not copied.

        Args:
            data: of the file.
            path: of the file, for messages.

        Raises:
            BundleError: no ONNX file; nodes that hold graphs, functions, or operators of other tools; weights in a file
                outside the bundle, or beyond the end of a file; more nodes than any classifier has.
        """
        try:
            return self._model(_Message(data))
        except _Refused as refused:
            raise BundleError(f"{path}: {refused}") from None
        except IndexError:  # behind the end of the file there is nothing to read
            raise BundleError(f"{path}: not an ONNX file, or a truncated one") from None

    def external_tensors(self, data: bytes) -> dict[str, tuple[int, list[int], _Part]]:
        """Type (TensorProto.DataType), shape and place of each initializer in another file, by name; after `read`."""
        file = _Message(data)
        graph = file.fields(file.fields((0, len(data)), _MODEL, "ModelProto")[7][0], _GRAPH, "GraphProto")
        tensors = [file.fields(span, _TENSOR, "TensorProto") for span in graph.get(5, ())]
        return {
            name: (file.number(tensor, 2), file.numbers(tensor, 1), self._place(file, tensor, name))
            for tensor in tensors
            if file.number(tensor, 14) == _EXTERNAL and (name := file.text(tensor, 8))
        }

    def _model(self, file: "_Message") -> GraphContents:
        size = len(file.data)
        if size > _LARGEST:
            raise _Refused(f"{size} bytes; accepted are {_LARGEST}, and weights in a file of their own")
        if file.data[4:8] == b"ORTM":  # which ONNX Runtime takes for one, whatever else it is
            raise _Refused("a file in ONNX Runtime's own format; accepted is ONNX")
        model = file.fields((0, size), _MODEL, "ModelProto")
        for number, what in ((20, "training graphs"), (25, "functions")):
            if number in model:
                raise _Refused(f"it has {what}, which may run for ever; accepted is {_PLAIN}")
        if 7 not in model:
            raise _Refused("not an ONNX file: it has no graph")
        graph = file.fields(model[7][0], _GRAPH, "GraphProto")
        nodes = graph.get(1, ())
        if len(nodes) > _MOST_NODES:
            raise _Refused(f"it has {len(nodes)} nodes; accepted are {_MOST_NODES}")
        parts: set[_Part] = set()
        for spans, look in ((nodes, self._node), (graph.get(5, ()), self._tensor)):
            for span in spans:
                parts.update(self._once(file, span, look))
        inputs, outputs = (dict(_values(file, graph.get(number, ()))) for number in (11, 12))
        return GraphContents(inputs, outputs, frozenset(parts))

    def _once(self, file: "_Message", span: _Span, look: Callable[["_Message", _Span], list[_Part]]) -> list[_Part]:
        """Check parts that are equal byte for byte only once: scorers share most of their nodes and tensors."""
        start, stop = span
        if stop - start > _REMEMBERED:
            return look(file, span)
        kind = b"n" if look == self._node else b"t"
        key = kind + file.data[start:stop]
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = look(file, span)
        return found

    def _node(self, file: "_Message", span: _Span) -> list[_Part]:
        node = file.fields(span, _NODE, "NodeProto")
        operator, domain, name = (file.text(node, number) for number in (4, 7, 3))
        said = f"node {_quoted(name)} is of {_quoted(operator)}"
        if domain not in _DOMAINS:
            raise _Refused(f"{said} in {_quoted(domain)}; accepted are the operators of ONNX and of com.microsoft")
        if operator in _READ_FILES:
            raise _Refused(f"{said}, which reads files of its own; accepted is {_PLAIN}")
        attributes = [file.fields(inner, _ATTRIBUTE, "AttributeProto") for inner in node.get(5, ())]
        if operator in _LOOPS or any(number in attribute for attribute in attributes for number in (6, 11)):
            raise _Refused(f"{said} and holds a graph, which may run for ever; accepted is {_PLAIN}")
        for attribute in attributes:
            if file.number(attribute, 20) not in _ATTRIBUTE_TYPES:
                raise _Refused(f"{said}, with an attribute of type {file.number(attribute, 20)}; accepted is {_PLAIN}")
            for tensor in (*attribute.get(5, ()), *attribute.get(10, ())):
                # ONNX Runtime takes those of initializers from memory, and looks for these on a disk.
                if self._tensor(file, tensor):
                    raise _Refused(f"{said}, with a tensor in another file; accepted are initializers there")
        return []

    def _tensor(self, file: "_Message", span: _Span) -> list[_Part]:
        """Find where a tensor lies, if in another file."""
        tensor = file.fields(span, _TENSOR, "TensorProto")
        said, dtype, sides = f"tensor {_quoted(file.text(tensor, 8))}", file.number(tensor, 2), file.numbers(tensor, 1)
        bits = _BITS.get(dtype)
        size = None if bits is None else -(-math.prod(sides) * bits // 8)
        if file.number(tensor, 14) != _EXTERNAL:
            if 13 in tensor:
                raise _Refused(f"{said} names a file and is not in it (data_location {file.number(tensor, 14)})")
            spans = [span for number in _DATA for span in tensor.get(number, ())]
            length = sum(stop - start for start, stop in spans)
            # What is not raw has a text, or a byte or more, for each element, or for four of the smallest.
            if (size != length) if 9 in tensor else math.prod(sides) > 4 * max(length, len(spans)):
                raise _Refused(f"{said} of type {dtype} and shape {sides} has {length} bytes")
            return []
        if any(number in tensor for number in _DATA):
            raise _Refused(f"{said} lies in another file and in the graph; accepted is one of the two")
        where, offset, length = self._place(file, tensor, said)
        if size != length or offset + length > self._sizes[where]:
            raise _Refused(
                f"{said} of type {dtype} and shape {sides} is said to be the {length} bytes at {offset} of "
                f"{_quoted(where)}, which has {self._sizes[where]}"
            )
        return [(where, offset, length)]

    def _place(self, file: "_Message", tensor: Mapping[int, Sequence[_Span]], said: str) -> _Part:
        entries: dict[str, str] = {}
        for inner in tensor.get(13, ()):
            entry = file.fields(inner, _ENTRY, "StringStringEntryProto")
            key = file.text(entry, 1)
            if key in entries or key not in ("location", "offset", "length"):
                raise _Refused(f"{said} has the external data {_quoted(key)}; accepted: location, offset, length, once")
            entries[key] = file.text(entry, 2)
        where = entries.get("location", "")
        if where not in self._sizes:
            raise _Refused(f"{said} lies in {_quoted(where)}, which is not one of the bundle's files")
        numbers = [entries.get(key, "") for key in ("offset", "length")]
        if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in numbers):
            raise _Refused(f"{said} has offset and length {_quoted(numbers)}; accepted are two whole numbers")
        return where, int(numbers[0]), int(numbers[1])


def _values(file: "_Message", spans: Sequence[_Span]) -> Iterator[tuple[str, Value]]:
    """Names and types of inputs or outputs."""
    for span in spans:
        value = file.fields(span, _VALUE, "ValueInfoProto")
        kind = file.fields(value[2][0], _TYPE, "TypeProto") if 2 in value else {}
        _one_of(kind, _TYPES)
        tensor = file.fields(kind[1][0], _TENSOR_TYPE, "TypeProto.Tensor") if 1 in kind else {}
        shape: tuple[int | None, ...] | None = None
        if 2 in tensor:
            sides = file.fields(tensor[2][0], _SHAPE, "TensorShapeProto").get(1, ())
            dimensions = [file.fields(side, _SIDE, "Dimension") for side in sides]
            for dimension in dimensions:
                _one_of(dimension, (1, 2))
            shape = tuple(file.number(side, 1) if 1 in side else None for side in dimensions)
        yield file.text(value, 1), Value(file.number(tensor, 1), shape)


def _one_of(message: Mapping[int, object], numbers: Sequence[int]) -> None:
    """Protobuf keeps the last one of such fields."""
    if sum(number in message for number in numbers) > 1:
        raise _Refused(f"it has an input or output of two types; accepted is one (fields {[*message]})")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


class _Refused(Exception):  # noqa: N818 - it becomes a BundleError
    """What is wrong with a graph."""


class _Message:
    """The bytes of a file, and the fields of the messages in it, as spans (start, stop)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _MOST_FIELDS + 1

    def fields(self, span: _Span, known: _Table, name: str) -> dict[int, list[_Span]]:  # noqa: PLR0912 - no calls: fast
        """Index the fields of a message: number -> where its values are.

        Raises:
            _Refused: an unknown field, one of another type, or a single field given twice.
            IndexError: the file ends inside the message.
        """
        data, (at, stop) = self.data, span
        found: dict[int, list[_Span]] = {}
        left = self._left
        while at < stop:
            tag = data[at]
            if tag < 128:  # as nearly all are
                at += 1
            else:
                tag, at = self._varint(at)
            if tag not in known:
                raise _Refused(f"not the ONNX that bundles have: field {tag >> 3} of {name}, wire type {tag & 7}")
            number, repeated = known[tag]
            start = at
            if tag & 7 == _BYTES:
                size = data[at]
                if size < 128:
                    start += 1
                else:
                    size, start = self._varint(at)
                at = start + size
            elif tag & 7 == _VARINT:
                _, at = self._varint(at)
            else:
                at += 4 if tag & 7 == _FOUR else 8
            if at > stop:
                raise _Refused(f"not an ONNX file, or a truncated one: field {number} of {name}")
            if number not in found:
                found[number] = [(start, at)]
            elif repeated:
                found[number].append((start, at))
            else:
                raise _Refused(f"field {number} of {name} comes twice; accepted is once")
            left -= 1
            if not left:
                raise _Refused(f"it has more than {_MOST_FIELDS} fields; accepted is a graph of fewer")
        self._left = left
        return found

    def text(self, message: Mapping[int, Sequence[_Span]], number: int) -> str:
        """The text of a field; empty if absent."""
        if number not in message:
            return ""
        start, stop = message[number][0]
        if stop - start > _LONGEST_NAME:
            raise _Refused(f"it has a name of {stop - start} bytes; accepted are {_LONGEST_NAME}")
        return self.data[start:stop].decode("utf-8", "backslashreplace")

    def number(self, message: Mapping[int, Sequence[_Span]], number: int) -> int:
        """The number of a field; 0 if absent."""
        return self._varint(message[number][0][0])[0] if number in message else 0

    def numbers(self, message: Mapping[int, Sequence[_Span]], number: int) -> list[int]:
        """The numbers of a field, one by one or packed; at most as many as a tensor may have dimensions."""
        values: list[int] = []
        for start, stop in message.get(number, ()):
            at = start
            while at < stop:
                value, at = self._varint(at)
                values.append(value)
                if len(values) > _MOST_SIDES:
                    raise _Refused(f"it has a tensor of more than {_MOST_SIDES} sides")
        return values

    def _varint(self, at: int) -> tuple[int, int]:
        """Read a number of 7 bits per byte, and find where it ends."""
        data = self.data
        byte = data[at]
        if byte < 128:
            return byte, at + 1
        value, shift = byte & 127, 0
        while byte > 127:
            at, shift = at + 1, shift + 7
            byte = data[at]
            value |= (byte & 127) << shift
        if byte == 0 or value >> 64 or shift > 63:
            raise _Refused("not an ONNX file: a number in it is longer than it has to be")
        return value, at + 1
