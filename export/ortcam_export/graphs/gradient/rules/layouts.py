"""Rules of operators that arrange elements: reshape, transpose, join, split, repeat."""

import itertools

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

__all__ = ["padded", "zeros"]

Results = list[ir.Value | None]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    assert value is not None
    return [b.reshape(g, value)]


@rule("Transpose")
def _transpose(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    rank = len(b.shape(node.inputs[0]))
    perm = node.attributes.get_ints("perm", list(range(rank))[::-1])
    return [b.op("Transpose", [g], perm=[int(axis) for axis in np.argsort(perm)])]


@rule("Concat")
def _concat(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    axis = node.attributes["axis"].as_int() % len(b.shape(node.outputs[0]))
    lengths = [b.shape(value)[axis] for value in node.inputs]
    ends = list(itertools.accumulate(lengths))
    if all(b.wants(value) for value in node.inputs):
        return list(b.build.ops("Split", [g, b.build.integers(*lengths)], {"axis": axis}, outputs=len(lengths)))
    results: Results = []
    for value, length, end in zip(node.inputs, lengths, ends, strict=True):
        start = b.build.integers(end - length)
        results.append(b.build.slice(g, start, b.build.integers(end), axis) if b.wants(value) else None)
    return results


@rule("Split")
def _split(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    rank = len(b.shape(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % rank
    parts = [b.adjoints.get(value) for value in node.outputs]
    lengths = [b.shape(value)[axis] for value in node.outputs]
    first = next(index for index, part in enumerate(parts) if part is not None)
    last = max(index for index, part in enumerate(parts) if part is not None)
    inner: list[ir.Value] = []
    for index in range(first, last + 1):
        part = parts[index]
        inner.append(part if part is not None else zeros(b, node.outputs[index]))
    joined = b.op("Concat", inner, axis=axis) if len(inner) > 1 else inner[0]
    return [padded(b, joined, axis, sum(lengths[:first]), sum(lengths[last + 1 :]), rank)]


def zeros(b: Backward, value: ir.Value) -> ir.Value:
    """Zeros of the shape of a forward tensor's adjoint."""
    shape = [1 if index == b.batch_axis(value) else side for index, side in enumerate(b.shape(value))]
    axis = b.batch_axis(value)
    if axis is None or b.shape(value)[axis] > 1:
        return b.mul(b.rows(value), b.constant(np.float32(0)))
    one = b.constant(np.zeros([1] * len(shape), np.float32))
    parts = [b.build.integers(*shape[:axis])] if axis else []
    parts += [b.seeds(), *([b.build.integers(*shape[axis + 1 :])] if axis + 1 < len(shape) else [])]
    return b.op("Expand", [one, b.op("Concat", parts, axis=0) if len(parts) > 1 else parts[0]])


def padded(b: Backward, g: ir.Value, axis: int, before: int, after: int, rank: int) -> ir.Value:
    """Put zeros in front of and behind an axis of a tensor of some rank.

    All axes are named: where ONNX Runtime moves a Transpose over a Pad, it does not see that axes may be an input.
    """
    if not before and not after:
        return g
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, after
    return b.op("Pad", [g, b.build.integers(*pads)])


@rule("Expand")
def _expand(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    assert value is not None
    return [b.fold(g, value, node.outputs[0])]


@rule("Tile")
def _tile(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    repeats = b.integers(node.inputs[1], "repeats")
    sides = b.sides(value)
    split: list[int] = []
    axes: list[int] = []
    for side, repeat in zip(sides, repeats, strict=True):
        if repeat > 1:
            axes.append(len(split))
            split.append(repeat)
        split.append(side)
    return [b.sum(b.build.reshape(g, *split), axes, keepdims=False) if axes else g]


@rule("DepthToSpace", "SpaceToDepth")
def _depth(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """The inverse permutation, spelled out, since SpaceToDepth has no mode CRD."""
    size = node.attributes["blocksize"].as_int()
    _, channels, height, width = b.shape(node.inputs[0])
    if node.op_type == "SpaceToDepth":
        opened = b.build.reshape(g, -1, size, size, channels, height // size, width // size)
        turned = b.op("Transpose", [opened], perm=[0, 3, 4, 1, 5, 2])
    elif node.attributes.get_string("mode", "DCR") == "DCR":
        opened = b.build.reshape(g, -1, channels // size**2, height, size, width, size)
        turned = b.op("Transpose", [opened], perm=[0, 3, 5, 1, 2, 4])
    else:
        opened = b.build.reshape(g, -1, channels // size**2, height, size, width, size)
        turned = b.op("Transpose", [opened], perm=[0, 1, 3, 5, 2, 4])
    return [b.build.reshape(turned, -1, channels, height, width)]
