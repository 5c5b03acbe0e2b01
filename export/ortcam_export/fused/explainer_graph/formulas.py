"""The formulas of `ortcam.methods.gradient_formulas` in a graph, in float64: from features and gradients to maps.

Maps A are float64 [1,C,h,w], gradients g float64 [K,C,h,w], and each formula gives the map before ReLU, float64
[K,h,w]. The docstrings of `ortcam.methods.gradient_formulas` have the sources.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam.methods.gradient_formulas import CANCELLED
from ortcam_export.graphs.builder import Builder

__all__ = ["FORMULAS", "Formula", "grad_attention", "smooth_grad_cam_plus_plus"]

# From maps, gradients and the options of the method to the maps before ReLU.
Formula = Callable[[Builder, ir.Value, ir.Value, Mapping[str, Any]], ir.Value]

_POSITIONS: Final = (2, 3)


def smooth_grad_cam_plus_plus(
    build: Builder, maps: ir.Value, gradients: ir.Value, options: Mapping[str, Any]
) -> ir.Value:
    """Grad-CAM++ of the means over noisy images.

    Args:
        build: of the graph.
        maps: A of the image without noise, float64 [1,C,h,w].
        gradients: g of every noisy image, float64 [samples,K,C,h,w].
        options: of the method.
    """
    square = build.op("Mul", [gradients, gradients])
    powers = gradients, square, build.op("Mul", [square, gradients])
    first, second, third = (_reduced(build, "ReduceMean", power, 0) for power in powers)
    return _plus_plus(build, maps, (first, second, third), options["epsilon"])


def grad_attention(build: Builder, relevance: ir.Value, cut: Cut, options: Mapping[str, Any]) -> ir.Value:
    """What the patches give through attention, as `ortcam.methods.attention`: float64 [K,h,w].

    Args:
        build: of the graph.
        relevance: float32 [K,heads,T], of all tokens.
        cut: of the tokens.
        options: of the method.
    """
    end = cut.prefix_tokens + cut.height * cut.width
    patches = build.slice(relevance, build.integers(cut.prefix_tokens), build.integers(end), 2)
    kept = build.cast(patches, ir.DataType.DOUBLE)
    if options["positive"] == "heads":
        kept = build.op("Relu", [kept])
    return build.reshape(_reduced(build, "ReduceSum", kept, 1), -1, cut.height, cut.width)


def _grad_cam(build: Builder, maps: ir.Value, gradients: ir.Value, _: Mapping[str, Any]) -> ir.Value:
    return _summed(build, _reduced(build, "ReduceMean", gradients, *_POSITIONS), maps)


def _grad_cam_plus_plus(build: Builder, maps: ir.Value, gradients: ir.Value, options: Mapping[str, Any]) -> ir.Value:
    square = build.op("Mul", [gradients, gradients])
    cube = build.op("Mul", [square, gradients])
    return _plus_plus(build, maps, (gradients, square, cube), options["epsilon"])


def _xgrad_cam(build: Builder, maps: ir.Value, gradients: ir.Value, options: Mapping[str, Any]) -> ir.Value:
    products = _reduced(build, "ReduceSum", build.op("Mul", [gradients, maps]), *_POSITIONS)
    sums = _shifted(build, _reduced(build, "ReduceSum", maps, *_POSITIONS), options["epsilon"])
    return _summed(build, _divided(build, products, sums), maps)


def _layer_cam(build: Builder, maps: ir.Value, gradients: ir.Value, _: Mapping[str, Any]) -> ir.Value:
    return _by_position(build, maps, build.op("Relu", [gradients]))


def _hires_cam(build: Builder, maps: ir.Value, gradients: ir.Value, _: Mapping[str, Any]) -> ir.Value:
    raw = _by_position(build, maps, gradients)
    total = _by_position(build, build.op("Abs", [maps]), build.op("Abs", [gradients]))
    left, most = (
        build.op("ReduceMax", [values, build.integers(1, 2)], {"keepdims": 1})
        for values in (build.op("Abs", [raw]), total)
    )
    bound = build.op("Mul", [most, build.constant(np.float64(CANCELLED))])
    return build.op("Where", [build.op("Greater", [left, bound]), raw, build.constant(np.float64(0))])


def _plus_plus(build: Builder, maps: ir.Value, powers: Sequence[ir.Value], epsilon: float) -> ir.Value:
    """Grad-CAM++ from what stands for g, g^2 and g^3, float64 [K,C,h,w] each."""
    first, second, third = powers
    sums = build.op("ReduceSum", [maps, build.integers(*_POSITIONS)], {"keepdims": 1})
    denominator = build.op("Add", [build.op("Add", [second, second]), build.op("Mul", [sums, third])])
    shares = _divided(build, second, _shifted(build, denominator, epsilon))
    weighed = build.op("Mul", [shares, build.op("Relu", [first])])
    return _summed(build, _reduced(build, "ReduceSum", weighed, *_POSITIONS), maps)


def _divided(build: Builder, value: ir.Value, divisor: ir.Value) -> ir.Value:
    """The quotient, and 0 where the divisor is 0."""
    zero, one = build.constant(np.float64(0)), build.constant(np.float64(1))
    nothing = build.op("Equal", [divisor, zero])
    quotient = build.op("Div", [value, build.op("Where", [nothing, one, divisor])])
    return build.op("Where", [nothing, zero, quotient])


def _shifted(build: Builder, value: ir.Value, epsilon: float) -> ir.Value:
    return build.op("Add", [value, build.constant(np.float64(epsilon))]) if epsilon else value


def _summed(build: Builder, weights: ir.Value, maps: ir.Value) -> ir.Value:
    """Sum w_k A_k, float64 [K,h,w], of weights float64 [K,C]."""
    weights = build.op("Unsqueeze", [weights, build.integers(*_POSITIONS)])
    return _reduced(build, "ReduceSum", build.op("Mul", [weights, maps]), 1)


def _by_position(build: Builder, maps: ir.Value, weights: ir.Value) -> ir.Value:
    """The sum over channels of weights float64 [K,C,h,w] times maps: float64 [K,h,w]."""
    return _reduced(build, "ReduceSum", build.op("Mul", [weights, maps]), 1)


def _reduced(build: Builder, kind: str, value: ir.Value, *axes: int) -> ir.Value:
    return build.op(kind, [value, build.integers(*axes)], {"keepdims": 0})


FORMULAS: Final[Mapping[str, Formula]] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "xgrad-cam": _xgrad_cam,
    "layer-cam": _layer_cam,
    "hires-cam": _hires_cam,
    "finer-cam": _grad_cam,
}
