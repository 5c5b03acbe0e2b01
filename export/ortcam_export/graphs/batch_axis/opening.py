"""Open a batch that was fixed at 1: rewrite each operator that has it baked in.

Each function changes a node in place or puts others in front of it or in its place. It yields the new nodes, which the
tracer visits before the function goes on.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam_export.errors import ExportError
from ortcam_export.graphs.batch_axis.extent import BATCHES, Extent
from ortcam_export.graphs.batch_axis.reshapes import batch_axis_after_reshape
from ortcam_export.graphs.batch_axis.trace import Trace, describe_node
from ortcam_export.graphs.names import name_nodes

__all__ = ["open_node"]


def open_node(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Open a node, if it may have the batch baked in. Yields the nodes that it is replaced by or needs.

    Raises:
        ExportError: a reshape that cannot be opened.
    """
    if node.domain == "" and node.op_type in _OPENERS:
        yield from _OPENERS[node.op_type](trace, node)


def _open_reshape(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Put -1 into the target where the batch goes."""
    data, target = node.inputs[0], node.inputs[1]
    assert data is not None
    assert target is not None
    extent, aim = trace.known[data], trace.known[target]
    axis = extent.batch_axis
    if axis is None or aim.values is None or not np.array_equal(*aim.values):
        return  # nothing of the images, or a target that already follows the batch
    one = trace.infer(node, 0)
    if one is None:
        return
    shape = one[node.outputs[0].name or ""][1]
    found = batch_axis_after_reshape(extent.shapes[0], axis, extent.inner, shape)
    if found is None:
        raise ExportError(
            f"the batch size is fixed in the graph, and {describe_node(node)} from {list(extent.shapes[0])} to "
            f"{list(shape)} cannot be opened; export the model with an open batch dimension"
        )
    after, inner = found
    trace.set_target(node, shape, after)
    grown = tuple(BATCHES[1] * side if index == after else side for index, side in enumerate(shape))
    trace.known[node.outputs[0]] = Extent(extent.dtype, (shape, grown), inner=inner)
    yield from ()


def _open_resize(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Take the batch size from the image, and keep the sizes of all dimensions.

    Sizes of the other dimensions alone, with `axes`, would mean the same. But ONNX Runtime's optimiser moves
    transpositions through a Resize as if it had sizes of all dimensions.
    """
    if len(node.inputs) < 4 or node.inputs[3] is None or "axes" in node.attributes:
        return
    data = node.inputs[0]
    assert data is not None
    sizes = trace.known[node.inputs[3]].values
    axis = trace.known[data].batch_axis
    if sizes is None or axis is None or not np.array_equal(*sizes):
        return
    name = f"{node.outputs[0].name}_sizes"
    tape = ir.tape.Tape()
    batch = _batch_size(tape, data, axis)
    parts = [trace.constant(sizes[0][:axis], name)] if axis else []
    parts += [batch, trace.constant(sizes[0][axis + 1 :], name)]
    whole = tape.op("Concat", parts, {"axis": 0})
    name_nodes(tape.nodes, (f"{name}_batch", f"{name}_whole"))
    trace.graph.insert_before(node, tape.nodes)
    node.replace_input_with(3, whole)
    yield from tape.nodes


def _open_concat(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Repeat for each image what is joined along another dimension, such as a class token."""
    extents = [trace.known[value] for value in node.inputs if value is not None]
    axis = _only_batch_axis(extents)
    if axis is None or node.attributes.get_int("axis", 0) % len(extents[0].shapes[0]) == axis:
        return
    template = next(value for value in node.inputs if value is not None and trace.known[value].per_image)
    for index, (value, extent) in enumerate(zip(node.inputs, extents, strict=True)):
        if extent.per_image or extent.shapes[0][axis] != trace.known[template].shapes[0][axis]:
            continue
        assert value is not None
        tape = ir.tape.Tape()
        repeated = _repeat(trace, tape, value, template, axis)
        name_nodes(
            tape.nodes, (f"{node.outputs[0].name}_{index}_{suffix}" for suffix in ("batch", "shape", "expanded"))
        )
        trace.graph.insert_before(node, tape.nodes)
        node.replace_input_with(index, repeated)
        yield from tape.nodes


def _only_batch_axis(extents: list[Extent]) -> int | None:
    """The axis of the batch, if some of the tensors have it, all on the same axis, and others have none."""
    axes = {extent.batch_axis for extent in extents} - {None}
    if len(axes) != 1 or all(extent.per_image for extent in extents):
        return None
    return axes.pop()


def _repeat(trace: Trace, tape: ir.tape.Tape, value: ir.Value, template: ir.Value, axis: int) -> ir.Value:
    """Expand a tensor along an axis to the length that another tensor has there."""
    batch = _batch_size(tape, template, axis)
    ones = np.ones(1, np.int64)
    rank = len(trace.known[value].shapes[0])
    parts = [trace.constant(ones, "one") if side != axis else batch for side in range(rank)]
    return tape.op("Expand", [value, tape.op("Concat", parts, {"axis": 0})])


def _batch_size(tape: ir.tape.Tape, value: ir.Value, axis: int) -> ir.Value:
    """The length of an axis, int64 [1]."""
    return tape.op("Shape", [value], {"start": axis, "end": axis + 1})


def _open_gather(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Replace a gather of all elements in their order by a reshape; torch makes such gathers of some views."""
    data, picked = node.inputs[0], node.inputs[1]
    assert data is not None
    assert picked is not None
    extent, indices = trace.known[data], trace.known[picked].values
    if (
        extent.batch_axis != 0
        or len(extent.shapes[0]) != 1
        or indices is None
        or extent.shapes[0] != (indices[0].size,)
    ):
        return
    if not np.array_equal(indices[0].reshape(-1), np.arange(indices[0].size)):
        return
    reshape = ir.node("Reshape", [data, picked], name=node.name, metadata_props=dict(node.metadata_props))
    reshape.outputs[0].name = f"{node.outputs[0].name}_view"
    shape = np.array(indices[0].shape, np.int64)
    reshape.replace_input_with(1, trace.constant(shape, f"{node.outputs[0].name}_shape"))
    trace.replace(node, reshape)
    yield reshape


def _open_squeeze(trace: Trace, node: ir.Node) -> Iterator[ir.Node]:
    """Squeeze all dimensions of size 1 but the batch."""
    data = node.inputs[0]
    assert data is not None
    extent = trace.known[data]
    axis = extent.batch_axis
    if axis is None or extent.shapes[0][axis] != 1:
        return
    rank = len(extent.shapes[0])
    axes: list[int] = [index for index, side in enumerate(extent.shapes[0]) if side == 1]
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = trace.known[node.inputs[1]].values
        if given is None:
            return
        axes = [int(index) % rank for index in given[0]]
    axes = [index for index in axes if index != axis]
    if not axes:  # without any, ONNX Runtime squeezes a batch of one image, too
        same = ir.node("Identity", [data], name=node.name, metadata_props=dict(node.metadata_props))
        same.outputs[0].name = f"{node.outputs[0].name}_same"
        trace.replace(node, same)
        yield same
        return
    constant = trace.constant(np.array(axes, np.int64), f"{node.outputs[0].name}_axes")
    if len(node.inputs) == 1:
        node.resize_inputs(2)
    node.replace_input_with(1, constant)


_OPENERS: Final[dict[str, Callable[[Trace, ir.Node], Iterator[ir.Node]]]] = {
    "Reshape": _open_reshape,
    "Resize": _open_resize,
    "Concat": _open_concat,
    "Gather": _open_gather,
    "Squeeze": _open_squeeze,
}
