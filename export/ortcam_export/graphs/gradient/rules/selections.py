"""Rules of operators that pick elements: slice, gather, pad, scatter, the largest ones."""

import math

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.batch_axis.extent import Shape
from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.layouts import padded, zeros
from ortcam_export.graphs.gradient.rules.registry import rule
from ortcam_export.graphs.gradient.rules.separable import apply_matrices, matrices_of

Results = list[ir.Value | None]


@rule("Slice")
def _slice(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    shape = b.shape(value)
    starts, ends = b.integers(node.inputs[1], "starts"), b.integers(node.inputs[2], "ends")
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes = b.integers(given, "axes") if given is not None else list(range(len(starts)))
    step_input = node.inputs[4] if len(node.inputs) > 4 else None
    steps = b.integers(step_input, "steps") if step_input is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        side = axis % len(shape)
        if side == b.batch_axis(value):
            if (start, step) == (0, 1) and end >= 2**31 - 1:
                continue
            raise b.refusal("picks images of a batch")
        picked = np.arange(shape[side])[_python_slice(start, end, step, shape[side])]
        g = _put_back(b, g, side, picked, shape)
    return [g]


def _python_slice(start: int, end: int, step: int, length: int) -> slice:
    """ONNX's clamping of starts and ends, as Python's."""
    start = start + length if start < 0 else start
    end = end + length if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), length), min(max(end, 0), length), step)
    end = min(max(end, -1), length - 1)
    return slice(min(max(start, 0), length - 1), None if end < 0 else end, step)


def _put_back(b: Backward, g: ir.Value, axis: int, picked: np.ndarray, shape: Shape) -> ir.Value:
    """Put what was picked from an axis back to its places; the others are zero.

    Args:
        b: the backward pass.
        g: the adjoint, [..., len(picked), ...].
        axis: which one.
        picked: integers in [0,shape[axis]), each at most once.
        shape: before, for one image.
    """
    length, rank = shape[axis], len(shape)
    if len(picked) and np.array_equal(picked, np.arange(picked[0], picked[0] + len(picked))):
        return padded(b, g, axis, int(picked[0]), length - int(picked[-1]) - 1, rank)
    places = np.full(length, len(picked), np.int64)
    places[picked] = np.arange(len(picked))
    if (places == len(picked)).any():
        g = padded(b, g, axis, 0, 1, rank)
    return b.op("Gather", [g, b.build.constant(places)], axis=axis)


@rule("Gather")
def _gather(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, indices = node.inputs[0], b.array(node.inputs[1])
    assert value is not None
    shape = b.shape(value)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    if len(shape) == 1 and _takes_all(b, node):
        return [b.reshape(g, value)]
    if indices is None:
        raise b.refusal("picks by what is computed from the input")
    if axis == b.batch_axis(value):
        raise b.refusal("picks images of a batch")
    picked = indices.reshape(-1).astype(np.int64) % shape[axis]
    sides = b.sides(value)
    if indices.ndim != 1:
        g = b.build.reshape(g, *sides[:axis], len(picked), *sides[axis + 1 :])
    if len(set(picked.tolist())) == len(picked):
        return [_put_back(b, g, axis, picked, shape)]
    matrix = np.zeros((len(picked), shape[axis]), np.float32)
    matrix[np.arange(len(picked)), picked] = 1
    after = [*sides[:axis], len(picked), *sides[axis + 1 :]]
    return [b.along(g, matrix, axis, after)]


@rule("GatherND")
def _gather_places(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Pick along several axes at once, as PyTorch's exporter spells out adaptive pools."""
    value, indices = node.inputs[0], b.array(node.inputs[1])
    assert value is not None
    if indices is None:
        raise b.refusal("picks by what is computed from the input")
    shape, axes = b.shape(value), indices.shape[-1]
    batch = b.batch_axis(value)
    if node.attributes.get_int("batch_dims", 0) or (batch is not None and batch < axes):
        raise b.refusal("picks images of a batch")
    columns = np.moveaxis(indices.reshape(-1, axes), 1, 0)
    picked = np.ravel_multi_index(tuple(columns % np.array(shape[:axes])[:, None]), shape[:axes])
    rows = b.build.reshape(g, len(picked), -1)
    others = b.op("Shape", [rows], start=1, end=2)
    places = b.op(
        "Expand",
        [
            b.build.constant(picked.astype(np.int64)[:, None]),
            b.op("Concat", [b.build.integers(1), others], axis=0),
        ],
    )
    before = b.op("Concat", [b.build.integers(math.prod(shape[:axes])), others], axis=0)
    nothing = b.op("Expand", [b.constant(np.zeros((1, 1), np.float32)), before])
    return [b.reshape(b.op("ScatterElements", [nothing, places, rows], axis=0, reduction="add"), value)]


def _takes_all(b: Backward, node: ir.Node) -> bool:
    """Whether a flat tensor's elements are all taken in their order, as in a view that PyTorch takes by strides."""
    values = b.extent(node.inputs[1]).values
    lengths = b.extent(node.inputs[0]).shapes
    return values is not None and all(
        np.array_equal(taken.reshape(-1), np.arange(length)) for taken, (length,) in zip(values, lengths, strict=True)
    )


@rule("Pad")
def _pad(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, output = node.inputs[0], node.outputs[0]
    if node.attributes.get_string("mode", "constant") != "constant":
        return [apply_matrices(b, g, matrices_of(b, node), b.sides(value), b.sides(output))]
    shape = b.shape(value)
    pads = b.integers(node.inputs[1], "pads")
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes = [axis % len(shape) for axis in b.integers(given, "axes")] if given is not None else [*range(len(shape))]
    before, after = dict(zip(axes, pads, strict=False)), dict(zip(axes, pads[len(axes) :], strict=False))
    cut = [axis for axis in axes if before[axis] > 0 or after[axis] > 0]
    if cut:
        starts = b.build.integers(*(max(before[axis], 0) for axis in cut))
        whole = b.shape(output)
        ends = b.build.integers(*(whole[axis] - max(after[axis], 0) for axis in cut))
        g = b.op("Slice", [g, starts, ends, b.build.integers(*cut)])
    for axis in axes:
        g = padded(b, g, axis, max(-before[axis], 0), max(-after[axis], 0), len(shape))
    return [g]


@rule("GatherElements")
def _gather_elements(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, indices = node.inputs
    assert value is not None
    assert indices is not None
    return [_scatter(b, g, value, indices, node.attributes.get_int("axis", 0))]


def _scatter(b: Backward, g: ir.Value, value: ir.Value, indices: ir.Value, axis: int) -> ir.Value:
    if axis % len(b.shape(value)) == b.batch_axis(value):
        raise b.refusal("picks images of a batch")
    places = _like_rows(b, indices)
    return b.op("ScatterElements", [zeros(b, value), places, g], axis=axis, reduction="add")


def _like_rows(b: Backward, indices: ir.Value) -> ir.Value:
    """Indices for K images; constant ones [1,...] are repeated."""
    if b.batch_axis(indices) is not None:
        return b.rows(indices)
    shape = b.op("Concat", [b.seeds(), *([b.build.integers(*[1] * (len(b.shape(indices)) - 1))])], axis=0)
    return b.op("Expand", [indices, shape])


@rule("TopK")
def _largest(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    assert value is not None
    return [_scatter(b, g, value, node.outputs[1], node.attributes.get_int("axis", -1)), None]


@rule("Trilu")
def _triangle(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    offset = node.inputs[1] if len(node.inputs) > 1 else None
    return [b.op("Trilu", [g, offset], upper=node.attributes.get_int("upper", 1))]


@rule("ScatterElements", "ScatterND")
def _scattered(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Of data with updates put in: the data where none was, the updates where they went."""
    data, indices, updates = node.inputs
    kind = node.attributes.get_string("reduction", "none")
    if kind not in ("none", "add") or b.extent(indices).per_image:
        raise b.refusal("scatters by what is computed, or multiplies")
    attributes = {"axis": node.attributes.get_int("axis", 0)} if node.op_type == "ScatterElements" else {}
    results: Results = [None, None, None]
    if b.wants(data):
        results[0] = g
        if kind == "none":
            assert updates is not None
            nothing = b.mul(b.rows(updates), b.constant(np.float32(0)))
            results[0] = b.op(node.op_type, [g, indices, nothing], **attributes)
    if b.wants(updates):
        gather = "GatherElements" if node.op_type == "ScatterElements" else "GatherND"
        results[2] = b.op(gather, [g, indices], **attributes)
    return results
