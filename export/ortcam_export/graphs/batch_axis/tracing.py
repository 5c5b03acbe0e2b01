"""Follow the batch through a graph: every operator is looked at for one image and for three."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.errors import ExportError
from ortcam_export.graphs.batch_axis.branches import branch_that_runs, put_branch_in_place
from ortcam_export.graphs.batch_axis.extent import BATCHES, MOST_VALUES, Extent, extent_of_constant, symbolic_shape
from ortcam_export.graphs.batch_axis.inference import compute
from ortcam_export.graphs.batch_axis.opening import open_node
from ortcam_export.graphs.batch_axis.trace import Trace, describe_node
from ortcam_export.graphs.names import name_nodes

__all__ = ["trace_batch"]

_RANDOM: Final = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_INTEGERS: Final = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def trace_batch(model: ir.Model, *, fixed: bool) -> dict[ir.Value, Extent]:
    """Follow the batch through a graph image [N,...] -> ..., and fold shape arithmetic on the way.

    Every operator is looked at for batch sizes 1 and 3. Integer tensors that follow from shapes alone are computed.
    Those that do not depend on the batch become constants. A reshape whose one open dimension is the batch gets the
    constant -1 there. If the batch was fixed at 1, everything that has it baked in is rewritten: target shapes of
    reshapes, sizes of a resize, constants joined to the images' tensors, squeezes.

    Args:
        model: one input, whose first dimension is the batch and whose others are fixed.
        fixed: whether the batch was fixed at 1 and has to be opened.

    Returns:
        What is known of each tensor. Tensors behind an operator that nobody can infer are missing.

    Raises:
        ExportError: an operator loses the batch, or cannot be opened.
    """
    graph = model.graph
    image = graph.inputs[0]
    assert image.shape is not None
    assert image.dtype is not None
    size = tuple(side for side in image.shape if isinstance(side, int))
    assert len(size) == 3
    known: dict[ir.Value, Extent] = {
        image: Extent(image.dtype, ((BATCHES[0], *size), (BATCHES[1], *size))),
        **{value: extent_of_constant(value) for value in graph.initializers.values()},
    }
    trace = Trace(model, known)
    tracer = _Tracer(trace, fixed=fixed)
    for node in list(graph):
        tracer.visit(node)
    _settle_batch_sizes(trace)
    for value, extent in known.items():
        if not value.is_initializer():
            value.dtype = extent.dtype
            value.shape = symbolic_shape(extent)
    return known


class _Tracer:
    """Visits nodes in the order of the graph and keeps what is known of their outputs."""

    def __init__(self, trace: Trace, *, fixed: bool) -> None:
        self._trace = trace
        self._known = trace.known
        self._fixed = fixed

    def visit(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        branch = branch_that_runs(self._trace, node)
        if branch is not None:
            for inner in put_branch_in_place(self._trace, node, branch):
                self.visit(inner)
            return
        if any(value not in self._known for value in inputs) or _has_subgraphs(node):
            return
        if node.op_type in ("Shape", "Size") and node.domain == "":
            self._fold(node, [self._shape_of(node, index) for index in (0, 1)])
            return
        if self._is_arithmetic(node, inputs):
            self._fold(node, [compute(node, self._known, index) for index in (0, 1)])
            return
        if self._fixed:
            for new in open_node(self._trace, node):
                self.visit(new)
        if node.graph is None:
            return  # opened as another
        if node.outputs[0] not in self._known:
            self._infer(node)
        if node.op_type == "Reshape":
            self._settle_reshape(node)
        self._check_batch(node)

    def _is_arithmetic(self, node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
        """Whether a node computes with shapes: all its inputs are known, and at least one is no plain weight."""
        if node.op_type in _RANDOM or node.domain != "" or any(self._known[value].values is None for value in inputs):
            return False
        integers = all(self._known[value].dtype in _INTEGERS for value in inputs)
        return integers or any(not value.is_initializer() for value in inputs)

    def _shape_of(self, node: ir.Node, index: int) -> list[NDArray[Any]]:
        value = node.inputs[0]
        assert value is not None
        shape = self._known[value].shapes[index]
        if node.op_type == "Size":
            return [np.array(math.prod(shape), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape[start:end], np.int64)]

    def _fold(self, node: ir.Node, results: Sequence[list[NDArray[Any]] | None]) -> None:
        """Keep the values of a node's outputs. Those that are the same for any batch become constants."""
        one, three = results
        if one is None or three is None:
            self._infer(node)
            return
        for output, a, b in zip(node.outputs, one, three, strict=True):
            values = (a, b) if max(a.size, b.size) <= MOST_VALUES else None
            self._known[output] = Extent(ir.DataType.from_numpy(a.dtype), (a.shape, b.shape), values=values)
            if values is not None and a.shape == b.shape and np.array_equal(a, b) and not output.is_graph_output():
                output.replace_all_uses_with(self._trace.constant(a, f"{output.name}_folded"))

    def _infer(self, node: ir.Node) -> None:
        """Infer the outputs of a node at both batch sizes."""
        results = [self._trace.infer(node, index) for index in (0, 1)]
        if results[0] is None or results[1] is None:
            if self._fixed and any(self._known[value].per_image for value in node.inputs if value is not None):
                raise ExportError(
                    f"the batch size is fixed in the graph and {describe_node(node)} cannot be opened; export the "
                    "model with an open batch dimension"
                )
            return
        for output in node.outputs:
            if output.name not in results[0] or output.name not in results[1]:
                continue
            (dtype, one), (_, three) = results[0][output.name], results[1][output.name]
            self._known[output] = self._with_inner(node, Extent(dtype, (one, three)))

    def _with_inner(self, node: ir.Node, extent: Extent) -> Extent:
        axis = extent.batch_axis
        if axis is None:
            return extent
        side = extent.shapes[0][axis]
        for value in node.inputs:
            if value is None:
                continue
            before = self._known[value]
            if before.batch_axis is not None and before.shapes[0][before.batch_axis] == side:
                return dataclasses.replace(extent, inner=before.inner)
        return dataclasses.replace(extent, inner=side)

    def _check_batch(self, node: ir.Node) -> None:
        """Refuse a node whose output has not exactly one dimension for the images."""
        if not any(self._known[value].per_image for value in node.inputs if value is not None):
            return
        for output in node.outputs:
            extent = self._known.get(output)
            if extent is not None and extent.batch_axis is None and extent.values is None:
                raise ExportError(
                    f"{describe_node(node)} mixes or drops the images of a batch: its output is "
                    f"{list(extent.shapes[0])} for one image and {list(extent.shapes[1])} for three; accepted is a "
                    "graph that treats each on its own"
                )

    def _settle_reshape(self, node: ir.Node) -> None:
        """Give a reshape a constant target, with -1 for the batch, if only the batch is open."""
        target, output = node.inputs[1], node.outputs[0]
        assert target is not None
        extent = self._known.get(output)
        if target.is_initializer() or extent is None or extent.batch_axis is None or 0 in extent.shapes[0]:
            return
        self._trace.set_target(node, extent.shapes[0], extent.batch_axis)


def _settle_batch_sizes(trace: Trace) -> None:
    """Take the batch size from the image everywhere, so that no tensor is kept only for its shape."""
    graph, known = trace.graph, trace.known
    image = graph.inputs[0]
    for node in [node for node in graph if node.op_type == "Shape" and node.domain == ""]:
        value, output = node.inputs[0], node.outputs[0]
        if value is None or value is image or value not in known or known[value].batch_axis is None:
            continue
        values = known[output].values if output in known else None
        if values is None:
            continue
        tape = ir.tape.Tape()
        parts = []
        for one, three in zip(*values, strict=True):
            if one == three:
                parts.append(trace.constant(np.array([one]), f"{output.name}_side"))
                continue
            side = tape.op("Shape", [image], {"start": 0, "end": 1})
            factor = trace.constant(np.array([one]), f"{output.name}_factor")
            parts.append(side if one == 1 else tape.op("Mul", [side, factor]))
        shape = parts[0] if len(parts) == 1 else tape.op("Concat", parts, {"axis": 0})
        name_nodes(tape.nodes, (f"{output.name}_{index}" for index in range(len(tape.nodes))))
        graph.insert_before(node, tape.nodes)
        output.replace_all_uses_with(shape)
        known[shape] = Extent(ir.DataType.INT64, ((len(parts),), (len(parts),)), values=values)
        graph.remove(node, safe=True)


def _has_subgraphs(node: ir.Node) -> bool:
    return any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    )
