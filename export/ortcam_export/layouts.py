"""What the axes of a tensor inside a classifier mean: a grid of channels first or last, or a sequence of tokens."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam_export.shapes import sides_for_one

__all__ = ["as_cut"]

_MAX_PREFIX_TOKENS: Final = 16
# Operators that keep every element where it is, whatever stands beside them.
_ELEMENTWISE: Final = (
    *("Abs", "Add", "Cast", "Celu", "Clip", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow"),
    *("QLinearAdd", "QLinearMul", "QuantizeLinear", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"),
)
# Operators whose channels lie on axis 1, of what they take and of what they make.
_CHANNELS_FIRST: Final = (
    *("AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "FusedConv", "GlobalAveragePool"),
    *("GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool", "QLinearConv"),
)
# Operators whose channels lie on the last axis.
_CHANNELS_LAST: Final = ("FusedMatMul", "LayerNormalization", "MatMul", "MatMulInteger", "QLinearMatMul")


def as_cut(value: ir.Value, shape: tuple[int, ...], image: tuple[int, ...]) -> Cut | None:
    """The layout of a tensor by its shape, [N,C,h,w] or [N,h,w,C] or tokens [N,T,C], or None where it has none.

    Where the shape leaves several possible, the operators around it tell; where they do not, the first of these counts.

    Args:
        value: of a traced graph.
        shape: as measured for the image.
        image: shape of the image, [N,3,H,W].
    """
    if not shape or shape[0] != image[0]:
        return None
    name = value.name or ""
    if len(shape) == 4:
        _, first, second, third = shape
        possible = {1: _is_grid(second, third, image), 3: _is_grid(first, second, image)}
        if not any(possible.values()):
            return None
        channels = _channel_axis(value) if all(possible.values()) else None
        if channels == 3 or not possible[1]:
            return _cut(name, "nhwc", third, first, second)
        return _cut(name, "nchw", first, second, third)
    if len(shape) == 3 and shape[2] > 1:
        grid = _token_grid(shape[1], image)
        if grid is None or (_token_grid(shape[2], image, prefixes=1) is not None and _channel_axis(value) == 1):
            return None
        prefix, height, width = grid
        return _cut(name, "tokens", shape[2], height, width, prefix)
    return None


def _cut(
    name: str, layout: Literal["nchw", "nhwc", "tokens"], channels: int, height: int, width: int, prefix: int = 0
) -> Cut:
    return Cut(name, None, layout, channels, height, width, prefix)


def _is_grid(height: int, width: int, image: tuple[int, ...]) -> bool:
    """Whether h x w is the image at a smaller scale: more than one cell, one scale on both axes up to a cell."""
    if height * width < 2 or height > image[2] or width > image[3]:
        return False
    return abs(height * image[3] - width * image[2]) <= max(image[2], image[3]) * 1.5


def _token_grid(
    tokens: int, image: tuple[int, ...], *, prefixes: int = _MAX_PREFIX_TOKENS
) -> tuple[int, int, int] | None:
    """(prefix, h, w) with prefix + h w = tokens and patches that tile the image, fewest prefix tokens first."""
    for prefix in range(prefixes):
        patches = tokens - prefix
        for height in range(2, image[2] // 2 + 1):
            width, rest = divmod(patches, height)
            if rest == 0 and width >= 2 and image[2] // height == image[3] // width and image[2] % height == 0:
                return prefix, height, width
    return None


def _channel_axis(value: ir.Value) -> int | None:
    """The axis that the nearest operator to care takes for the channels; None where none is found.

    Of a sequence only the maps that it was made of tell: a matrix product may mix tokens as well as channels.
    """
    sides = sides_for_one(value)
    if sides is None:
        return None
    sequence = len(sides) == 3
    # A tensor, and for each of its axes the axis of `value` that it is.
    queue: deque[tuple[ir.Value, tuple[int, ...]]] = deque([(value, tuple(range(len(sides))))])
    seen = {value}
    while queue:
        current, axes = queue.popleft()
        for node, other, forward in _neighbours(current):
            if node.op_type in _CHANNELS_FIRST and len(axes) == 4 and node.inputs[0] in (current, other):
                return axes[1]
            if node.op_type in _CHANNELS_LAST and not sequence and node.inputs[0] in (current, other):
                return axes[-1]
            moved = _moved(node, current, other, axes, forward=forward)
            if moved is not None and other not in seen:
                seen.add(other)
                queue.append((other, moved))
    return None


def _neighbours(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value, bool]]:
    """The nodes around a tensor, the tensor on their other side, and whether they lie behind it."""
    for user, _ in value.uses():
        yield user, user.outputs[0], True
    producer = value.producer()
    if producer is not None:
        for other in producer.inputs:
            if other is not None and not other.is_initializer():
                yield producer, other, False


def _moved(
    node: ir.Node, current: ir.Value, other: ir.Value, axes: tuple[int, ...], *, forward: bool
) -> tuple[int, ...] | None:
    """The axes of the tensor on the other side of a node, by those of this one; None where they are lost."""
    ours, theirs = sides_for_one(current), sides_for_one(other)
    if ours is None or theirs is None:
        return None
    if node.op_type in _ELEMENTWISE:
        return axes if len(ours) == len(theirs) else None
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm", None)
        if perm is None or len(perm) != len(axes):
            return None
        return tuple(axes[axis] for axis in (perm if forward else np.argsort(perm)))
    if node.op_type == "Reshape" and not forward and len(ours) == 3 and len(theirs) == 4:
        if theirs[:2] == ours[:2]:  # [N,C,h,w] -> [N,C,hw]
            return (axes[0], axes[1], axes[2], axes[2])
        if theirs[3] == ours[2]:  # [N,h,w,C] -> [N,hw,C]
            return (axes[0], axes[1], axes[1], axes[2])
    return None
