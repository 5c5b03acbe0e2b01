"""Rules of reductions, softmax, and running sums."""

import math

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

__all__ = ["reduced_axes"]

Results = list[ir.Value | None]


def reduced_axes(b: Backward, node: ir.Node) -> list[int]:
    """The axes that a reduction sums over, none negative."""
    rank = len(b.shape(node.inputs[0]))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = b.integers(given, "axes") if given is not None else [int(a) for a in node.attributes.get_ints("axes", [])]
    if not axes:
        axes = [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _kept(b: Backward, node: ir.Node, value: ir.Value, axes: list[int]) -> ir.Value:
    """An adjoint of a reduction, or its output, with the reduced axes as ones."""
    if node.attributes.get_int("keepdims", 1) or not axes:
        return value
    sides = b.sides(node.inputs[0])
    return b.build.reshape(value, *(1 if axis in axes else side for axis, side in enumerate(sides)))


def _output(b: Backward, node: ir.Node, axes: list[int]) -> ir.Value:
    return _kept(b, node, b.primal(node.outputs[0]), axes)


@rule("ReduceSum", "ReduceMean")
def _sum(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, axes = node.inputs[0], reduced_axes(b, node)
    assert value is not None
    if not axes:
        return [g]
    kept = _kept(b, node, g, axes)
    if node.op_type == "ReduceMean":
        kept = b.scale(kept, 1 / math.prod(b.shape(value)[axis] for axis in axes))
    return [b.spread(kept)]


@rule("ReduceSumSquare", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "ReduceLogSum", "ReduceProd")
def _norms(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    axes = reduced_axes(b, node)
    kept, x = _kept(b, node, g, axes), b.primal(node.inputs[0])
    kind = node.op_type
    if kind == "ReduceSumSquare":
        return [b.mul(b.scale(kept, 2.0), x)]
    if kind == "ReduceL1":
        return [b.mul(kept, b.op("Sign", [x]))]
    y = _output(b, node, axes)
    if kind == "ReduceL2":
        some = b.op("Greater", [y, b.constant(np.float32(0))])  # of zeros it has no slope, and 0 / 0 is no number
        return [b.mul(b.gate(b.op("Div", [kept, y]), some), x)]
    if kind == "ReduceLogSumExp":
        return [b.mul(kept, b.op("Exp", [b.op("Sub", [x, y])]))]
    if kind == "ReduceLogSum":
        value = node.inputs[0]
        assert value is not None
        return [b.spread(b.op("Div", [kept, b.op("Exp", [y])]))]
    return [b.op("Div", [b.mul(kept, y), x])]


@rule("ReduceMax", "ReduceMin")
def _extreme(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """In equal parts to all that are the greatest, or least."""
    axes = reduced_axes(b, node)
    taken = b.op("Equal", [b.primal(node.inputs[0]), _output(b, node, axes)])
    ones = b.build.cast(taken, ir.DataType.FLOAT)
    share = b.op("Div", [_kept(b, node, g, axes), b.sum(ones, axes)])
    return [b.mul(share, ones)]


@rule("Softmax", "LogSoftmax")
def _softmax(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    rank = len(b.shape(node.inputs[0]))
    axis = node.attributes.get_int("axis", -1) % rank
    y = b.primal(node.outputs[0])
    if node.op_type == "LogSoftmax":
        return [b.op("Sub", [g, b.mul(b.op("Exp", [y]), b.sum(g, [axis]))])]
    part = b.mul(g, y)
    return [b.op("Sub", [part, b.mul(y, b.sum(part, [axis]))])]


@rule("CumSum")
def _running_sum(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    attributes = {
        "exclusive": node.attributes.get_int("exclusive", 0),
        "reverse": 1 - node.attributes.get_int("reverse", 0),
    }
    return [b.op("CumSum", [g, node.inputs[1]], **attributes)]


@rule("LpNormalization")
def _lp(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Of x / n: (g - s(x) sum(g y)) / n, with s(x) = y for p = 2 and sign(x) for p = 1."""
    axis, p = node.attributes.get_int("axis", -1), node.attributes.get_int("p", 2)
    x, y = b.primal(node.inputs[0]), b.primal(node.outputs[0])
    norm = b.op("ReduceL2" if p == 2 else "ReduceL1", [x, b.build.integers(axis)], keepdims=1)
    slope = y if p == 2 else b.op("Sign", [x])
    rest = b.mul(slope, b.sum(b.mul(g, y), [axis]))
    return [b.op("Div", [b.op("Sub", [g, rest]), b.op("Max", [norm, b.constant(np.finfo(np.float32).tiny)])])]
