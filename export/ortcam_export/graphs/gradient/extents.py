"""Shapes of tensors for one image and for three, and where a dimension joins the batch with something else."""

import dataclasses
from collections.abc import Collection, Iterable

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.batch_axis.extent import BATCHES, Extent, Shape, extent_of_constant
from ortcam_export.graphs.batch_axis.inference import compute, infer
from ortcam_export.graphs.dataflow import inputs_of

__all__ = ["measure"]


def measure(model: ir.Model, ends: Iterable[ir.Value], starts: Collection[ir.Value]) -> dict[ir.Value, Extent]:
    """Find the extents of all tensors that some tensors are computed from.

    Args:
        model: its nodes are in order.
        ends: the tensors to come to.
        starts: tensors [N,...] to begin at, where their shapes are declared; else the graph's inputs are taken.

    Returns:
        What is known. Tensors behind an operator that nobody can infer are missing.
    """
    known: dict[ir.Value, Extent] = {value: extent_of_constant(value) for value in model.graph.initializers.values()}
    for value in (*model.graph.inputs, *starts):
        extent = _declared(value)
        if extent is not None:
            known[value] = extent
    needed = _needed(model.graph, ends, known)
    for node in model.graph:
        if node in needed:
            _visit(model, node, known)
    return known


def _needed(graph: ir.Graph, ends: Iterable[ir.Value], known: Collection[ir.Value]) -> set[ir.Node]:
    """The nodes between what is known and the ends, and in front of those ends that are known themselves."""
    values = set(ends)
    found: set[ir.Node] = set()
    for node in reversed(list(graph)):
        if any(value in values for value in node.outputs):
            found.add(node)
            values.update(value for value in inputs_of(node) if value not in known)
    return found


def _declared(value: ir.Value) -> Extent | None:
    """The extent of a tensor whose first dimension alone is open, or is 1; None where the declared shape is another."""
    if value.shape is None or value.dtype is None or not len(value.shape):
        return None
    sides = tuple(side for side in list(value.shape)[1:] if isinstance(side, int))
    if len(sides) != len(value.shape) - 1 or value.shape[0] not in (1, "N"):
        return None
    return Extent(value.dtype, ((BATCHES[0], *sides), (BATCHES[1], *sides)))


def _visit(model: ir.Model, node: ir.Node, known: dict[ir.Value, Extent]) -> None:
    inputs = [value for value in node.inputs if value is not None]
    if all(value in known for value in node.outputs) or any(value not in known for value in inputs):
        return
    if node.op_type == "Shape" and node.domain == "":
        _keep_shape(node, known)
        return
    if all(known[value].values is not None for value in inputs):
        results = [compute(node, known, index) for index in (0, 1)]
        if results[0] is not None and results[1] is not None:
            for output, one, three in zip(node.outputs, results[0], results[1], strict=False):
                dtype = ir.DataType.from_numpy(one.dtype)
                known[output] = Extent(dtype, (one.shape, three.shape), values=(one, three))
            return
    inferred = [infer(model, node, known, index) for index in (0, 1)]
    if inferred[0] is None or inferred[1] is None:
        return
    for output in node.outputs:
        if output.name in inferred[0] and output.name in inferred[1]:
            (dtype, one_shape), (_, three_shape) = inferred[0][output.name], inferred[1][output.name]
            known[output] = _with_inner(node, Extent(dtype, (one_shape, three_shape)), known)


def _keep_shape(node: ir.Node, known: dict[ir.Value, Extent]) -> None:
    value = node.inputs[0]
    assert value is not None
    shapes = known[value].shapes
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shapes[0]))
    one, three = (np.array(shape[start:end], np.int64) for shape in shapes)
    known[node.outputs[0]] = Extent(ir.DataType.INT64, (one.shape, three.shape), values=(one, three))


def _with_inner(node: ir.Node, extent: Extent, known: dict[ir.Value, Extent]) -> Extent:
    """Find how the images lie in a dimension that holds the batch and something else; 0 where that cannot be said."""
    axis = extent.batch_axis
    if axis is None or extent.shapes[0][axis] == 1:
        return extent
    sources = [known[value] for value in node.inputs if value is not None and known[value].batch_axis is not None]
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and sources:
        return dataclasses.replace(extent, inner=_inner_after(sources[0], extent.shapes[1], axis))
    same = [source for source in sources if source.batch_axis is not None]
    side = extent.shapes[0][axis]
    inner = next((source.inner for source in same if source.shapes[0][source.batch_axis or 0] == side), 0)
    return dataclasses.replace(extent, inner=inner)


def _inner_after(before: Extent, after: Shape, axis: int) -> int:
    """Follow the number of the image that each element belongs to through a reshape."""
    source = before.batch_axis
    if source is None or before.inner == 0:
        return 0
    shape = before.shapes[1]
    images = (np.arange(shape[source]) // before.inner % BATCHES[1]).astype(np.int8)
    images = images.reshape([-1 if index == source else 1 for index in range(len(shape))])
    lines = np.moveaxis(np.broadcast_to(images, shape).reshape(after), axis, 0).reshape(after[axis], -1)
    if (lines != lines[:, :1]).any():
        return 0
    places = np.arange(after[axis])
    fitting = (inner for inner in range(1, after[axis] // BATCHES[1] + 1) if after[axis] % (inner * BATCHES[1]) == 0)
    return next((inner for inner in fitting if (places // inner % BATCHES[1] == lines[:, 0]).all()), 0)
