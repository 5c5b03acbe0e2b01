"""Take early what is picked late: a head that reads one token computes that token alone as far back as it can.

Where all that reads a tensor picks the same range of one axis, the operator that makes the tensor can work on that
range. A transformer's last block then runs its matrices on the class token, and only keys and values on all tokens; the
derivative, too.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.batch_axis.extent import Extent
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.dataflow import constant_of
from ortcam_export.graphs.names import fresh_name, taken_names

__all__ = ["pick_early"]

_BROADCASTING: Final = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Where")
_EACH: Final = (
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "QuickGelu", "FastGelu", "Sigmoid", "Tanh", "Softplus"),
    *("HardSwish", "HardSigmoid", "Mish", "Erf", "Exp", "Neg", "Clip", "Sqrt", "Reciprocal", "Identity", "Softsign"),
)
_NORMALISING: Final = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_RESHAPING: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclasses.dataclass(frozen=True)
class _Range:
    """A range of one axis."""

    axis: int
    start: int
    end: int

    def at(self, axis: int) -> "_Range":
        """The same range of another axis."""
        return _Range(axis, self.start, self.end)


# For each input of a node the range that it is read in, or None for all of it; None where the node reads more.
Ranges = Sequence[_Range | None] | None


def pick_early(model: ir.Model, known: Mapping[ir.Value, Extent], kept: Collection[ir.Value]) -> None:
    """Move ranges towards the input of a graph.

    Args:
        model: changed in place; its nodes are in order.
        known: its shapes.
        kept: tensors to leave as they are.
    """
    picker = _Picker(model.graph, known, {*kept, *model.graph.outputs})
    for node in reversed(list(model.graph)):
        picker.visit(node)


class _Picker:
    """Visits nodes from the last to the first."""

    def __init__(self, graph: ir.Graph, known: Mapping[ir.Value, Extent], kept: Collection[ir.Value]) -> None:
        self._graph = graph
        self._known = known
        self._kept = kept
        self._names = taken_names(graph) | {value.name for value in graph.inputs}
        self._picked: dict[ir.Value, dict[_Range, ir.Value]] = {}

    def visit(self, node: ir.Node) -> None:
        """Spell out a node that picks, or let one whose output is only picked from work on what is picked."""
        if len(node.outputs) != 1 or node.outputs[0] in self._kept or node.domain not in ("", "com.microsoft"):
            return
        if any(value not in self._known for value in (*node.outputs, *node.inputs) if value is not None):
            return
        if (found := self._picks(node)) is not None:
            self._spell_out(node, found)
            return
        output = node.outputs[0]
        ranges = self._picked.get(output, {})
        if len(ranges) != 1 or any(user.outputs[0] not in ranges.values() for user, _ in output.uses()):
            return
        (taken,) = ranges
        needed = _ranges_of_inputs(self._known, node, taken)
        if needed is None or any(self._is_batch(value, item) for value, item in zip(node.inputs, needed, strict=True)):
            return
        if any(item is not None for item in needed):
            self._narrow(node, taken, needed)

    def _is_batch(self, value: ir.Value | None, taken: _Range | None) -> bool:
        """Whether a range is one of images."""
        return value is not None and taken is not None and self._known[value].batch_axis == taken.axis

    def _picks(self, node: ir.Node) -> _Range | None:
        """The range that a node picks from its input, along one axis that is not the batch."""
        value = node.inputs[0] if node.inputs else None
        if value is None or value.is_initializer():
            return None
        shape = self._known[value].shapes[0]
        if node.op_type == "Gather":
            indices = constant_of(node.inputs[1])
            axis = node.attributes.get_int("axis", 0) % len(shape)
            if indices is None or indices.size != 1 or indices.ndim > 1:
                return None
            start = int(indices.reshape(-1)[0]) % shape[axis]
            found = _Range(axis, start, start + 1)
        elif node.op_type == "Slice":
            constants = [constant_of(item) for item in node.inputs[1:]]
            if len(constants) < 3 or any(item is None or item.size != 1 for item in constants):
                return None
            start, end, axis, *step = (int(item.reshape(-1)[0]) for item in constants if item is not None)
            axis %= len(shape)
            start, end = (
                min(max(place + shape[axis] if place < 0 else place, 0), shape[axis]) for place in (start, end)
            )
            if step not in ([], [1]) or start >= end:
                return None
            found = _Range(axis, start, end)
        else:
            return None
        batch = self._known[value].batch_axis
        return None if batch is None or batch == found.axis or found.end - found.start == shape[found.axis] else found

    def _spell_out(self, node: ir.Node, taken: _Range) -> None:
        """Put a slice in place of a gather of one element, and remember a slice."""
        value, output = node.inputs[0], node.outputs[0]
        assert value is not None
        if node.op_type == "Slice":
            self._picked.setdefault(value, {}).setdefault(taken, output)
            if self._picked[value][taken] is not output:
                output.replace_all_uses_with(self._picked[value][taken])
                self._graph.remove(node, safe=True)
            return
        picked = self._pick(value, taken, before=node)
        indices = constant_of(node.inputs[1])
        if indices is not None and indices.ndim == 0:
            axes = self._constant([taken.axis], f"{output.name}_axis")
            picked = self._node("Squeeze", [picked, axes], {}, before=node, name=f"{output.name}_squeezed")
        output.replace_all_uses_with(picked)
        self._graph.remove(node, safe=True)

    def _pick(self, value: ir.Value, taken: _Range, before: ir.Node) -> ir.Value:
        found = self._picked.setdefault(value, {}).get(taken)
        if found is None:
            numbers = (taken.start, taken.end, taken.axis)
            constants = [self._constant([item], f"{value.name}_range") for item in numbers]
            producer = value.producer()
            found = self._node("Slice", [value, *constants], {}, before=before, name=f"{value.name}_picked")
            self._picked[value][taken] = found
            if producer is not None and producer.graph is self._graph:  # in front of all that may come to read it
                slicing = found.producer()
                assert slicing is not None
                self._graph.remove(slicing)
                self._graph.insert_after(producer, slicing)
        return found

    def _narrow(self, node: ir.Node, taken: _Range, needed: Sequence[_Range | None]) -> None:
        """Let a node work on ranges of its inputs."""
        output = node.outputs[0]
        inputs = list(node.inputs)
        for index, (value, part) in enumerate(zip(node.inputs, needed, strict=True)):
            if value is not None and part is not None:
                inputs[index] = self._pick(value, part, before=node)
        attributes: dict[str, Any] = dict(node.attributes.items())
        op_type = node.op_type
        if op_type in _RESHAPING:
            extent = self._known[output]
            sides = [-1 if axis == extent.batch_axis else side for axis, side in enumerate(extent.shapes[0])]
            sides[taken.axis] = taken.end - taken.start
            target = self._constant(sides, f"{output.name}_target")
            op_type, inputs, attributes = "Reshape", [inputs[0], target], {}
        narrow = self._node(op_type, inputs, attributes, before=node, name=f"{output.name}_narrow", domain=node.domain)
        picked = self._picked[output].pop(taken)
        picked.replace_all_uses_with(narrow)
        slicing = picked.producer()
        assert slicing is not None
        self._graph.remove([slicing, node], safe=True)

    def _constant(self, numbers: Sequence[int], name: str) -> ir.Value:
        return add_constant(self._graph, np.array(numbers, np.int64), fresh_name(name, self._names))

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        *,
        before: ir.Node,
        name: str,
        domain: str = "",
    ) -> ir.Value:
        node = ir.Node(domain, op_type, inputs, [*attributes.values()])
        node.name = node.outputs[0].name = fresh_name(name, self._names)
        self._graph.insert_before(before, node)
        return node.outputs[0]


def _ranges_of_inputs(known: Mapping[ir.Value, Extent], node: ir.Node, taken: _Range) -> Ranges:
    for kinds, rule in _RULES:
        if node.op_type in kinds:
            extents = [known[value] if value is not None else None for value in node.inputs]
            return rule(_Use(node, taken, extents, known[node.outputs[0]]))
    return None


Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Use:
    """A node of whose output a range is taken.

    Attributes:
        node: the same.
        taken: that range.
        inputs: what is known of them.
        output: what is known of it.
    """

    node: ir.Node
    taken: _Range
    inputs: Sequence[Extent | None]
    output: Extent

    @property
    def shapes(self) -> Sequence[Shape]:
        """Of the inputs, for one image."""
        return [extent.shapes[0] if extent is not None else () for extent in self.inputs]

    @property
    def after(self) -> Shape:
        """The shape of the output, for one image."""
        return self.output.shapes[0]

    def first(self, taken: _Range | None = None) -> Ranges:
        """The range of the first input, all of the others."""
        return [taken or self.taken, *[None] * (len(self.shapes) - 1)]

    @property
    def own_axis(self) -> int:
        """The attribute `axis`, not negative."""
        return self.node.attributes.get_int("axis", -1) % len(self.after)


def _of_each(use: _Use) -> Ranges:
    return use.first()


def _of_broadcasting(use: _Use) -> Ranges:
    ranges: list[_Range | None] = []
    for shape in use.shapes:
        axis = use.taken.axis - (len(use.after) - len(shape))
        ranges.append(use.taken.at(axis) if axis >= 0 and shape[axis] > 1 else None)
    return ranges


def _of_normalising(use: _Use) -> Ranges:
    return use.first() if use.taken.axis < use.own_axis else None


def _of_softmax(use: _Use) -> Ranges:
    return use.first() if use.taken.axis != use.own_axis else None


def _of_product(use: _Use) -> Ranges:
    one, other = use.shapes
    if len(one) < 2 or len(other) < 2:
        return None
    if use.taken.axis == len(use.after) - 2:
        return [use.taken.at(len(one) - 2), None]
    if use.taken.axis == len(use.after) - 1:
        return [None, use.taken.at(len(other) - 1)]
    return _of_broadcasting(use)


def _of_transposing(use: _Use) -> Ranges:
    perm = use.node.attributes.get_ints("perm", list(range(len(use.after)))[::-1])
    return use.first(use.taken.at(int(perm[use.taken.axis])))


def _of_reshaping(use: _Use) -> Ranges:
    """Where an axis stays as it is for any number of images, with as many elements behind it."""
    source = use.inputs[0]
    assert source is not None
    axis = use.taken.axis

    def places(number: int) -> set[int]:
        before, after = source.shapes[number], use.output.shapes[number]
        wanted = after[axis], math.prod(after[axis + 1 :])
        return {index for index, side in enumerate(before) if (side, math.prod(before[index + 1 :])) == wanted}

    both = places(0) & places(1)
    return use.first(use.taken.at(both.pop())) if len(both) == 1 else None


def _of_joining(use: _Use) -> Ranges:
    return None if use.own_axis == use.taken.axis else [use.taken] * len(use.shapes)


_RULES: Final[Sequence[tuple[Collection[str], Callable[[_Use], Ranges]]]] = (
    (_EACH, _of_each),
    (_BROADCASTING, _of_broadcasting),
    (_NORMALISING, _of_normalising),
    (("Softmax", "LogSoftmax"), _of_softmax),
    (("MatMul",), _of_product),
    (("Transpose",), _of_transposing),
    (_RESHAPING, _of_reshaping),
    (("Concat",), _of_joining),
)
