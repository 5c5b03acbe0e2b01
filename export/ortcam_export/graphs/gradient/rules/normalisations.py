"""Rules of normalisations: by stored statistics, and by those of the tensor itself."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

Results = list[ir.Value | None]


@rule("BatchNormalization")
def _batch(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """With stored statistics: g scale / sqrt(var + epsilon), per channel."""
    if node.attributes.get_int("training_mode", 0):
        raise b.refusal("is in training mode, where it mixes the images of a batch")
    _, scale, _, _, variance = node.inputs
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    rank = len(b.shape(node.inputs[0]))
    if any(b.wants(item) for item in node.inputs[1:]):
        raise b.refusal("has statistics that depend on the input")
    deviation = b.op("Sqrt", [b.op("Add", [b.primal(variance), b.constant(np.float32(epsilon))])])
    factor = b.op("Div", [b.primal(scale), deviation])
    return [b.mul(g, b.build.reshape(factor, -1, *[1] * (rank - 2)))]


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, scale = node.inputs[0], node.inputs[1]
    rank = len(b.shape(value))
    first = node.attributes.get_int("axis", -1) % rank
    if any(b.wants(item) for item in node.inputs[1:]):
        raise b.refusal("has a scale that depends on the input")
    axes = list(range(first, rank))
    scaled = b.mul(g, b.primal(scale)) if scale is not None else g
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [normalised(b, scaled, b.primal(value), axes, epsilon, centred=node.op_type == "LayerNormalization")]


@rule("InstanceNormalization")
def _instance(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, scale = node.inputs[0], node.inputs[1]
    if any(b.wants(item) for item in node.inputs[1:]):
        raise b.refusal("has a scale that depends on the input")
    rank = len(b.shape(value))
    per_channel = b.build.reshape(b.primal(scale), -1, *[1] * (rank - 2))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [normalised(b, b.mul(g, per_channel), b.primal(value), list(range(2, rank)), epsilon)]


@rule("GroupNormalization")
def _group(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, scale = node.inputs[0], node.inputs[1]
    if any(b.wants(item) for item in node.inputs[1:]):
        raise b.refusal("has a scale that depends on the input")
    groups = node.attributes["num_groups"].as_int()
    _, channels, *sides = b.shape(value)
    factor = b.primal(scale)
    if b.shape(scale)[0] == groups != channels:  # before opset 21 one per group
        factor = b.op("Expand", [b.build.reshape(factor, groups, 1), b.build.integers(1, channels // groups)])
    scaled = b.mul(g, b.build.reshape(factor, channels, *[1] * len(sides)))
    inside = channels // groups * math.prod(sides)
    opened, data = (b.build.reshape(item, -1, groups, inside) for item in (scaled, b.primal(value)))
    result = normalised(b, opened, data, [2], node.attributes.get_float("epsilon", 1e-5))
    assert value is not None
    return [b.reshape(result, value)]


def normalised(
    b: Backward, g: ir.Value, x: ir.Value, axes: Sequence[int], epsilon: float, *, centred: bool = True
) -> ir.Value:
    """The adjoint of (x - mean) / sqrt(var + epsilon), or without the mean.

    With the normalised n and its deviation s: (g - mean(g) - n mean(g n)) / s.
    """
    middle = b.op("Sub", [x, b.sum(x, axes, mean=True)]) if centred else x
    variance = b.sum(b.mul(middle, middle), axes, mean=True)
    deviation = b.op("Sqrt", [b.op("Add", [variance, b.constant(np.float32(epsilon))])])
    normal = b.op("Div", [middle, deviation])
    rest = b.mul(normal, b.sum(b.mul(g, normal), axes, mean=True))
    if centred:
        rest = b.op("Add", [rest, b.sum(g, axes, mean=True)])
    return b.op("Div", [b.op("Sub", [g, rest]), deviation])
