"""Graphs that take one image without a batch dimension, [C,H,W] or [H,W,C]: given one."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.optimizer import fold_constants

from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.dataflow import constant_of

__all__ = ["add_batch_dimension"]

_SHAPE_ELEMENTS: Final = 64
_ELEMENTWISE: Final = frozenset(
    (
        *("Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Dropout", "Exp", "Floor", "Identity", "Log", "Max", "Mean"),
        *("Min", "Mul", "Neg", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Round", "Sigmoid", "Sqrt", "Sub"),
        *("Sum", "Tanh", "Where"),
    )
)
_REDUCTIONS: Final = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
_WITH_AN_AXIS: Final = ("Concat", "Gather", "LogSoftmax", "Softmax", "Split")


def add_batch_dimension(model: ir.Model) -> None:
    """Make the image of a graph one of a batch, [N,C,H,W] or [N,H,W,C]; what works on one image then works on each.

    Tensors of one image get their batch dimension in front, up to where the graph puts one there itself; a squeeze of
    that takes it away only in name. Behind it the graph is one for a batch of 1.

    Args:
        model: whose first input is [C,H,W] or [H,W,C], at opset 13 or later; changed in place.

    Raises:
        ExportError: an operator that is not known to treat each image on its own.
    """
    graph = model.graph
    image = graph.inputs[0]
    assert image.shape is not None
    fold_constants(model, input_size_limit=_SHAPE_ELEMENTS, output_size_limit=_SHAPE_ELEMENTS)
    lift = _Lift(graph, image)
    image.shape = ir.Shape(("N", *image.shape))
    for node in list(graph):
        lift.visit(node)


class _Lift:
    """Visits nodes in the order of the graph, and keeps which tensors had no batch dimension."""

    def __init__(self, graph: ir.Graph, image: ir.Value) -> None:
        assert image.shape is not None
        self._graph = graph
        # Their number of dimensions as the graph has it, where it is known.
        self._bare: dict[ir.Value, int | None] = {image: len(image.shape)}
        self._batched: set[ir.Value] = set()

    def visit(self, node: ir.Node) -> None:
        """Give the outputs of a node a batch dimension."""
        bare = [value for value in node.inputs if value in self._bare]
        if not bare:
            self._visit_batched(node)
            return
        handlers: dict[str, Callable[[ir.Node], None]] = {
            "Unsqueeze": self._unsqueeze,
            "Squeeze": self._squeeze,
            "Reshape": self._reshape,
            "Transpose": self._transpose,
            "Slice": self._slice,
            "Pad": self._pad,
            "Resize": self._resize,
            **dict.fromkeys(_REDUCTIONS, self._reduce),
            **dict.fromkeys(_WITH_AN_AXIS, self._with_axis),
            **dict.fromkeys(_ELEMENTWISE, self._elementwise),
        }
        if node.domain != "" or node.op_type not in handlers:
            raise self._refusal(node)
        handlers[node.op_type](node)

    def _visit_batched(self, node: ir.Node) -> None:
        """A node behind the graph's own batch dimension of 1, which a squeeze may take away again."""
        if not any(value in self._batched for value in node.inputs if value is not None):
            return
        data, output = node.inputs[0], node.outputs[0]
        if data in self._batched and node.op_type == "Squeeze" and node.domain == "":
            axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
            if axes is not None and 0 in axes:
                if (axes != 0).any():
                    self._set(node, 1, axes[axes != 0])
                    self._bare[output] = None
                else:
                    self._bare[self._same(node, data)] = None
                return
        if data in self._batched and node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
            index = constant_of(node.inputs[1])
            if index is not None and index.ndim == 0 and int(index) == 0:
                self._bare[self._same(node, data)] = None
                return
        self._batched.update(node.outputs)

    def _rank(self, node: ir.Node) -> int:
        data = node.inputs[0]
        rank = self._bare.get(data) if data is not None else None
        if rank is None:
            raise self._refusal(node)
        return rank

    def _goes_on(self, node: ir.Node, rank: int | None) -> None:
        for output in node.outputs:
            self._bare[output] = rank
            output.shape = None

    def _elementwise(self, node: ir.Node) -> None:
        ranks = [self._bare.get(value) for value in node.inputs if value in self._bare]
        if len({item for item in ranks if item is not None}) > 1:
            raise self._refusal(node)  # the batch of one would meet another dimension of the other
        rank = max((item for item in ranks if item is not None), default=None)
        for value in node.inputs:
            if value is None or value in self._bare:
                continue
            array = constant_of(value)
            if array is None or (rank is not None and array.ndim > rank) or value in self._batched:
                raise self._refusal(node)
        self._goes_on(node, rank)

    def _unsqueeze(self, node: ir.Node) -> None:
        axes = self._constant(node, 1)
        data = node.inputs[0]
        rank = self._bare[data] if data is not None else None
        size = None if rank is None else rank + len(axes)
        places = [int(axis) % size if size is not None else int(axis) for axis in axes]
        if places == [0]:
            # The batch that the graph adds itself; it is there already.
            self._batched.add(self._same(node, data))
            return
        if 0 in places or any(axis < 0 for axis in places):
            raise self._refusal(node)
        self._set(node, 1, np.array([axis + 1 for axis in places]))
        self._goes_on(node, size)

    def _same(self, node: ir.Node, data: ir.Value | None) -> ir.Value:
        """Put an Identity in the place of a node; returns its output."""
        assert data is not None
        same = ir.node("Identity", [data], name=f"ortcam/{node.outputs[0].name}_same")
        same.outputs[0].name = f"{node.outputs[0].name}_same"
        same.outputs[0].type = data.type
        self._graph.insert_before(node, same)
        node.outputs[0].replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
        return same.outputs[0]

    def _squeeze(self, node: ir.Node) -> None:
        axes, rank = self._constant(node, 1), self._rank(node)
        self._set(node, 1, np.array([int(axis) % rank + 1 for axis in axes]))
        self._goes_on(node, rank - len(axes))

    def _reshape(self, node: ir.Node) -> None:
        target = self._constant(node, 1)
        if len(target) > 1 and target[0] == 1:
            self._batched.update(node.outputs)
            return
        self._set(node, 1, np.array([1, *target]))
        self._goes_on(node, len(target))

    def _transpose(self, node: ir.Node) -> None:
        rank = self._rank(node)
        perm = node.attributes.get_ints("perm", None) or range(rank)[::-1]
        node.attributes["perm"] = ir.AttrInt64s("perm", [0, *(axis + 1 for axis in perm)])
        self._goes_on(node, rank)

    def _slice(self, node: ir.Node) -> None:
        starts = self._constant(node, 1)
        given = constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
        axes = np.arange(len(starts)) if given is None else given
        if len(node.inputs) < 4:
            node.resize_inputs(4)
        self._set(node, 3, np.array([int(axis) + 1 if axis >= 0 else int(axis) for axis in axes]))
        self._goes_on(node, self._bare_rank(node))

    def _pad(self, node: ir.Node) -> None:
        pads, rank = self._constant(node, 1), self._rank(node)
        axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
        if axes is not None:
            self._set(node, 3, np.array([int(axis) % rank + 1 for axis in axes]))
        else:
            half = len(pads) // 2
            self._set(node, 1, np.array([0, *pads[:half], 0, *pads[half:]]))
        self._goes_on(node, rank)

    def _resize(self, node: ir.Node) -> None:
        if "axes" in node.attributes:
            rank = self._rank(node)
            axes = node.attributes.get_ints("axes")
            node.attributes["axes"] = ir.AttrInt64s("axes", [axis % rank + 1 for axis in axes])
            self._goes_on(node, rank)
            return
        for index in (2, 3):
            if len(node.inputs) > index and node.inputs[index] is not None:
                values = self._constant(node, index)
                if values.size:
                    self._set(node, index, np.concatenate([np.ones(1, values.dtype), values]))
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
                raise self._refusal(node)
            node.replace_input_with(1, None)
        self._goes_on(node, self._bare_rank(node))

    def _reduce(self, node: ir.Node) -> None:
        axes, rank = self._constant(node, 1), self._rank(node)
        self._set(node, 1, np.array([int(axis) % rank + 1 for axis in axes]))
        self._goes_on(node, rank if node.attributes.get_int("keepdims", 1) else rank - len(axes))

    def _with_axis(self, node: ir.Node) -> None:
        default = -1 if node.op_type in ("Softmax", "LogSoftmax") else 0
        axis = node.attributes.get_int("axis", default)
        rank = self._bare_rank(node)
        if node.op_type == "Concat" and not all(value in self._bare for value in node.inputs):
            raise self._refusal(node)
        if node.op_type == "Gather":
            indices = constant_of(node.inputs[1])
            if indices is None:
                raise self._refusal(node)
            rank = None if rank is None else rank - 1 + indices.ndim
        if axis >= 0:
            node.attributes["axis"] = ir.AttrInt64("axis", axis + 1)
        self._goes_on(node, rank)

    def _bare_rank(self, node: ir.Node) -> int | None:
        data = node.inputs[0]
        return self._bare.get(data) if data is not None else None

    def _constant(self, node: ir.Node, index: int) -> NDArray[Any]:
        value = node.inputs[index] if len(node.inputs) > index else None
        array = constant_of(value)
        if array is None:
            raise self._refusal(node)
        return array

    def _set(self, node: ir.Node, index: int, values: NDArray[Any] | Sequence[int]) -> None:
        array = np.asarray(values)
        array = array.astype(np.int64) if array.dtype.kind != "f" else array
        node.replace_input_with(index, add_constant(self._graph, array, f"ortcam/{node.outputs[0].name}_{index}"))

    def _refusal(self, node: ir.Node) -> ExportError:
        return ExportError(
            f"its input has no batch dimension, and {node.op_type} {node.name!r} cannot be given one; accepted is an "
            "image [N,C,H,W] or [N,H,W,C]"
        )
