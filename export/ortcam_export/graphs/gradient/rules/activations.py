"""Rules of operators on each element: activations, clipping, and the functions they are made of."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

Results = list[ir.Value | None]


@rule("Identity", "Dropout", thin=True)
def _same(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [g]


@rule("Cast", "CastLike", thin=True)
def _cast(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [g]  # the graph computes in float32 alone, which is checked


@rule("Neg")
def _neg(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.negative(g)]


@rule("Relu", thin=True)
def _relu(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.gate(g, _above(b, b.primal(node.outputs[0]), 0.0))]


@rule("LeakyRelu", thin=True)
def _leaky(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    slope = node.attributes.get_float("alpha", 0.01)
    return [b.op("Where", [_above(b, _x(b, node), 0.0), g, b.scale(g, slope)])]


@rule("PRelu")
def _prelu(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x, slope = node.inputs
    positive = _above(b, b.primal(x), 0.0)
    results: Results = [None, None]
    if b.wants(x):
        results[0] = b.op("Where", [positive, g, b.mul(g, b.primal(slope))])
    if b.wants(slope):
        assert slope is not None
        rest = b.op("Where", [positive, b.constant(np.float32(0)), b.mul(g, b.primal(x))])
        results[1] = b.fold(rest, slope, node.outputs[0])
    return results


@rule("ThresholdedRelu", thin=True)
def _thresholded(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.gate(g, _above(b, _x(b, node), node.attributes.get_float("alpha", 1.0)))]


@rule("Clip", thin=True)
def _clip(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x = _x(b, node)
    conditions = []
    for index, operator in ((1, "GreaterOrEqual"), (2, "LessOrEqual")):
        if index < len(node.inputs) and node.inputs[index] is not None:
            bound = node.inputs[index]
            if b.wants(bound):
                raise b.refusal("has a bound that depends on the input")
            conditions.append(b.op(operator, [x, b.primal(bound)]))
    if not conditions:
        return [g]
    return [b.gate(g, conditions[0] if len(conditions) == 1 else b.op("And", conditions))]


@rule("Elu", "Celu", thin=True)
def _elu(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x, alpha = _x(b, node), node.attributes.get_float("alpha", 1.0)
    power = x if node.op_type == "Elu" else b.scale(x, 1 / alpha)
    slope = b.op("Exp", [b.op("Min", [power, b.constant(np.float32(0))])])
    scaled = b.scale(slope, alpha) if node.op_type == "Elu" else slope
    return [b.op("Where", [_above(b, x, 0.0), g, b.mul(g, scaled)])]


@rule("Selu", thin=True)
def _selu(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x = _x(b, node)
    alpha = node.attributes.get_float("alpha", 1.6732632423543772)
    gamma = node.attributes.get_float("gamma", 1.0507009873554805)
    slope = b.scale(b.op("Exp", [b.op("Min", [x, b.constant(np.float32(0))])]), alpha * gamma)
    return [b.op("Where", [_above(b, x, 0.0), b.scale(g, gamma), b.mul(g, slope)])]


@rule("HardSigmoid", thin=True)
def _hard_sigmoid(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    y = b.primal(node.outputs[0])
    inside = b.op("And", [_above(b, y, 0.0), _below(b, y, 1.0)])
    return [b.scale(b.gate(g, inside), node.attributes.get_float("alpha", 0.2))]


@rule("HardSwish", thin=True)
def _hard_swish(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """X clip(x/6 + 1/2, 0, 1): 0 below -3, 1 above 3, x/3 + 1/2 between."""
    x = _x(b, node)
    slope = b.op("Add", [b.scale(x, 1 / 3), b.constant(np.float32(0.5))])
    inner = b.op("Where", [_below(b, x, 3.0), slope, b.constant(np.float32(1))])
    return [b.mul(g, b.gate(inner, _above(b, x, -3.0)))]


@rule("Shrink", thin=True)
def _shrink(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x = b.op("Abs", [_x(b, node)])
    return [b.gate(g, _above(b, x, node.attributes.get_float("lambd", 0.5)))]


@rule("Gelu", "QuickGelu", "FastGelu", "BiasGelu", thin=True)
def _gelu(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    x = _x(b, node)
    biased = len(node.inputs) > 1 and node.inputs[1] is not None
    if biased:
        x = b.op("Add", [x, b.primal(node.inputs[1])])
    if node.op_type == "QuickGelu":
        slope = _swish_slope(b, x, node.attributes.get_float("alpha", 1.702))
    elif node.op_type == "FastGelu" or node.attributes.get_string("approximate", "none") == "tanh":
        slope = _tanh_gelu_slope(b, x)
    else:
        slope = _gelu_slope(b, x)
    result = b.mul(g, slope)
    if biased and b.wants(node.inputs[1]):
        raise b.refusal("has a bias that depends on the input")
    return [result]


def _gelu_slope(b: Backward, x: ir.Value) -> ir.Value:
    """(1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi)."""
    half, one = b.constant(np.float32(0.5)), b.constant(np.float32(1))
    share = b.mul(half, b.op("Add", [b.op("Erf", [b.scale(x, math.sqrt(0.5))]), one]))
    density = b.op("Exp", [b.mul(b.scale(x, -0.5), x)])
    return b.op("Add", [share, b.mul(b.scale(x, 1 / math.sqrt(2 * math.pi)), density)])


def _tanh_gelu_slope(b: Backward, x: ir.Value) -> ir.Value:
    """Of x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    factor = math.sqrt(2 / math.pi)
    one, half = b.constant(np.float32(1)), b.constant(np.float32(0.5))
    square = b.mul(x, x)
    inner = b.mul(b.scale(x, factor), b.op("Add", [b.scale(square, 0.044715), one]))
    tanh = b.op("Tanh", [inner])
    inner_slope = b.scale(b.op("Add", [b.scale(square, 3 * 0.044715), one]), factor)
    bell = b.op("Sub", [one, b.mul(tanh, tanh)])
    second = b.mul(b.mul(x, bell), inner_slope)
    return b.mul(half, b.op("Add", [b.op("Add", [tanh, one]), second]))


@rule("Swish", thin=True)
def _swish(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.mul(g, _swish_slope(b, _x(b, node), node.attributes.get_float("alpha", 1.0)))]


def _swish_slope(b: Backward, x: ir.Value, alpha: float) -> ir.Value:
    """Of x s(alpha x): s + alpha x s (1 - s)."""
    sigmoid, one = b.op("Sigmoid", [b.scale(x, alpha)]), b.constant(np.float32(1))
    rest = b.mul(b.scale(x, alpha), b.op("Sub", [one, sigmoid]))
    return b.mul(sigmoid, b.op("Add", [one, rest]))


@rule("Mish", thin=True)
def _mish(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Of x t with t = tanh(softplus(x)): t + x (1 - t^2) s(x)."""
    x, one = _x(b, node), b.constant(np.float32(1))
    tanh = b.op("Tanh", [b.op("Softplus", [x])])
    bell = b.op("Sub", [one, b.mul(tanh, tanh)])
    return [b.mul(g, b.op("Add", [tanh, b.mul(b.mul(x, b.op("Sigmoid", [x])), bell)]))]


@rule("ScaledTanh", thin=True)
def _scaled_tanh(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Alpha tanh(beta x)."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    tanh = b.op("Tanh", [b.scale(_x(b, node), beta)])
    return [b.scale(b.mul(g, b.op("Sub", [b.constant(np.float32(1)), b.mul(tanh, tanh)])), alpha * beta)]


@rule("ParametricSoftplus", thin=True)
def _parametric_softplus(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """Alpha log(1 + exp(beta x))."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return [b.scale(b.mul(g, b.op("Sigmoid", [b.scale(_x(b, node), beta)])), alpha * beta)]


@rule("Affine", thin=True)
def _affine(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.scale(g, node.attributes.get_float("alpha", 1.0))]


@rule("Scale", thin=True)
def _scale(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.scale(g, node.attributes.get_float("scale", 1.0))]


def _x(b: Backward, node: ir.Node) -> ir.Value:
    return b.primal(node.inputs[0])


def _above(b: Backward, value: ir.Value, bound: float) -> ir.Value:
    return b.op("Greater", [value, b.constant(np.float32(bound))])


def _below(b: Backward, value: ir.Value, bound: float) -> ir.Value:
    return b.op("Less", [value, b.constant(np.float32(bound))])


# The slope of a function of x, with y = f(x).
Slope = Callable[[Backward, ir.Value, ir.Value], ir.Value]


def _one_minus(b: Backward, value: ir.Value) -> ir.Value:
    return b.op("Sub", [b.constant(np.float32(1)), value])


def _one_plus(b: Backward, value: ir.Value) -> ir.Value:
    return b.op("Add", [b.constant(np.float32(1)), value])


def _inverse(b: Backward, value: ir.Value) -> ir.Value:
    return b.op("Reciprocal", [value])


def _inverse_or_zero(b: Backward, value: ir.Value) -> ir.Value:
    """1 / value, and 0 at 0: where a channel is 0 everywhere, its deviation has no slope, and 0 * inf is no number."""
    return b.gate(_inverse(b, value), _above(b, value, 0.0))


def _square(b: Backward, value: ir.Value) -> ir.Value:
    return b.mul(value, value)


def _inverse_root(b: Backward, value: ir.Value) -> ir.Value:
    return _inverse(b, b.op("Sqrt", [value]))


_SLOPES: Final[dict[str, Slope]] = {
    "Sigmoid": lambda b, x, y: b.mul(y, _one_minus(b, y)),
    "Tanh": lambda b, x, y: _one_minus(b, _square(b, y)),
    "Exp": lambda b, x, y: y,
    "Log": lambda b, x, y: _inverse(b, x),
    "Sqrt": lambda b, x, y: b.scale(_inverse_or_zero(b, y), 0.5),
    "Reciprocal": lambda b, x, y: b.scale(_square(b, y), -1.0),
    "Abs": lambda b, x, y: b.op("Sign", [x]),
    "Erf": lambda b, x, y: b.scale(b.op("Exp", [b.mul(b.scale(x, -1.0), x)]), 2 / math.sqrt(math.pi)),
    "Softplus": lambda b, x, y: b.op("Sigmoid", [x]),
    "Softsign": lambda b, x, y: _inverse(b, _square(b, _one_plus(b, b.op("Abs", [x])))),
    "Sin": lambda b, x, y: b.op("Cos", [x]),
    "Cos": lambda b, x, y: b.scale(b.op("Sin", [x]), -1.0),
    "Tan": lambda b, x, y: _one_plus(b, _square(b, y)),
    "Asin": lambda b, x, y: _inverse_root(b, _one_minus(b, _square(b, x))),
    "Acos": lambda b, x, y: b.scale(_inverse_root(b, _one_minus(b, _square(b, x))), -1.0),
    "Atan": lambda b, x, y: _inverse(b, _one_plus(b, _square(b, x))),
    "Sinh": lambda b, x, y: b.op("Cosh", [x]),
    "Cosh": lambda b, x, y: b.op("Sinh", [x]),
    "Asinh": lambda b, x, y: _inverse_root(b, _one_plus(b, _square(b, x))),
    "Acosh": lambda b, x, y: _inverse_root(b, b.op("Sub", [_square(b, x), b.constant(np.float32(1))])),
    "Atanh": lambda b, x, y: _inverse(b, _one_minus(b, _square(b, x))),
}


@rule(*_SLOPES, thin=True)
def _smooth(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    return [b.mul(g, _SLOPES[node.op_type](b, _x(b, node), b.primal(node.outputs[0])))]
