"""Rules of maximum pools and of local response normalisation."""

import math

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.convolutions import window_of
from ortcam_export.graphs.gradient.rules.registry import rule

Results = list[ir.Value | None]


@rule("MaxPool")
def _max(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Scatter to where each maximum was found: the first of equal ones, as in PyTorch."""
    value, output = node.inputs[0], node.outputs[0]
    batch, channels, *sides = b.shape(value)
    if batch != 1 or node.attributes.get_int("storage_order", 0) == 1:
        raise b.refusal("is stored column by column, or joins images")
    count, steps = math.prod(sides), math.prod(b.shape(output)[2:])
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    places = node.outputs[1]
    places.name = places.name or b.build.name(f"{output.name}_places")
    places.dtype = ir.DataType.INT64
    inside = b.op("Mod", [places, b.build.integers(count)])  # the place in the whole tensor -> in its channel
    kernel = tuple(int(side) for side in node.attributes["kernel_shape"].as_ints())
    window = window_of(node, kernel, tuple(sides), b.shape(output)[2:])
    apart = all(stride >= span for stride, span in zip(window.strides, window.spans, strict=True))
    scattered = scatter(
        b,
        b.build.reshape(g, -1, channels, steps),
        b.build.reshape(inside, -1, channels, steps),
        (channels, count),
        add=not apart,
    )
    return [b.reshape(scattered, value)] if value is not None else [None]


def scatter(b: Backward, g: ir.Value, places: ir.Value, shape: tuple[int, int], *, add: bool) -> ir.Value:
    """Zeros [K, *shape] with an adjoint [K, *, n] put at places [N, *, n] of the last dimension."""
    seeds = b.op("Concat", [b.seeds(), b.build.integers(*shape)], axis=0)
    key = ("zeros", *shape)
    zeros = b.recall(key)
    if zeros is None:
        zeros = b.remember(key, b.op("Expand", [b.constant(np.zeros((1, 1, 1), np.float32)), seeds]))
    count = b.op("Concat", [b.seeds(), b.build.integers(1, 1)], axis=0)
    places = b.op("Expand", [places, count])
    return b.op("ScatterElements", [zeros, places, g], axis=2, **({"reduction": "add"} if add else {}))


@rule("GlobalMaxPool")
def _global_max(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    assert value is not None
    _, channels, *sides = b.shape(value)
    flat = b.build.reshape(b.primal(value), -1, channels, math.prod(sides))
    places = b.op("ArgMax", [flat], axis=2, keepdims=1)
    shape = channels, math.prod(sides)
    return [b.reshape(scatter(b, b.build.reshape(g, -1, channels, 1), places, shape, add=False), value)]


@rule("LRN")
def _local_response(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Of x d^-beta with d = bias + a W x^2, where W sums neighbouring channels.

    It is g d^-beta - 2 a beta x W'(g x d^(-beta - 1)).
    """
    value = node.inputs[0]
    assert value is not None
    size = node.attributes["size"].as_int()
    alpha, beta = node.attributes.get_float("alpha", 1e-4), node.attributes.get_float("beta", 0.75)
    bias = node.attributes.get_float("bias", 1.0)
    sides = b.sides(value)
    channels = np.arange(sides[1])
    distance = channels[None] - channels[:, None]
    window = ((distance >= -((size - 1) // 2)) & (distance <= size // 2)).astype(np.float32)
    x = b.primal(value)
    sums = b.along(b.mul(x, x), window.T, 1, sides)
    base = b.op("Add", [b.scale(sums, alpha / size), b.constant(np.float32(bias))])
    root = b.op("Pow", [base, b.constant(np.float32(-beta))])
    direct = b.mul(g, root)
    rest = b.along(b.op("Div", [b.mul(direct, x), base]), window, 1, sides)
    return [b.op("Sub", [direct, b.mul(x, b.scale(rest, 2 * alpha * beta / size))])]
