"""Maps inside a graph: from scores to weights, from weights to the weighted sum, and to the finished saliency."""

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam.scoring import LEAST_RANGE, ROUNDING
from ortcam_export.fused.explainer_graph.masks import Chosen, Masks, upsampling, value_range
from ortcam_export.fused.explainer_graph.spec import Masking
from ortcam_export.graphs.builder import Builder

__all__ = ["baseline_of", "finish", "upsampled", "weigh", "weighted_sum"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


def baseline_of(build: Builder, spec: Masking, targets: ir.Value) -> ir.Value:
    """What the blank image gives, float32 [K], if it is subtracted; else zero, float32 [1]. Targets are of `Passes`."""
    if spec.baseline is None:
        return build.constant(np.zeros(1, np.float32))
    if len(spec.baseline) == 1:
        return build.constant(spec.baseline)
    places = build.op("Sub", [targets, build.integers(spec.column)]) if spec.column else targets
    return build.op("Gather", [build.constant(spec.baseline), places])


def weigh(build: Builder, spec: Masking, scores: ir.Value, chosen: Chosen, targets: ir.Value) -> ir.Value:
    """The weights alpha of the chosen channels, float64 [n,K], from scores float32 [samples x n,K].

    Targets are those of `Passes`.
    """
    plan = spec.plan
    scores = build.cast(scores, _DOUBLE)
    if plan.samples > 1:
        shape = [build.integers(plan.samples), chosen.count, build.op("Shape", [targets])]
        by_sample = build.op("Reshape", [scores, build.op("Concat", shape, {"axis": 0})], {"allowzero": 1})
        scores = build.op("ReduceMean", [by_sample, build.integers(0)], {"keepdims": 0})
    if plan.weighting == "logit-softmax":
        return build.op("Softmax", [scores], {"axis": 0})
    baseline = build.cast(baseline_of(build, spec, targets), _DOUBLE)
    weights = build.op("Sub", [scores, baseline])
    return _without_rounding(build, weights, scores, baseline) if spec.signed else weights


def _without_rounding(build: Builder, weights: ir.Value, scores: ir.Value, baseline: ir.Value) -> ir.Value:
    """No weights where rounding alone is left of scores that are all the same, as in `ortcam.scoring.scores`."""
    first = build.integers(0)

    def largest(values: ir.Value) -> ir.Value:
        return build.op("ReduceMax", [build.op("Abs", [values]), first], {"keepdims": 1})

    bound = build.op("Max", [largest(scores), build.op("Abs", [baseline])])
    bound = build.op("Mul", [bound, build.constant(np.float64(ROUNDING))])
    some = build.op("Greater", [largest(weights), bound])
    return build.op("Where", [some, weights, build.constant(np.float64(0))])


def weighted_sum(
    build: Builder, spec: Masking, cut: Cut, weights: ir.Value, maps: ir.Value, masks: Masks, chosen: Chosen
) -> ir.Value:
    """Sum alpha_k A_k over the chosen channels, or what takes the place of A_k: float64 [K,h,w]."""
    plan = spec.plan
    summed = masks.maps if plan.maps == "normalized" else maps
    if plan.gate_sum and plan.gate is not None:
        summed = build.gate(plan.gate, masks.maps)
    rows = build.op("Gather", [build.reshape(summed, cut.channels, -1), chosen.channels])
    # Not Transpose and MatMul, of which ONNX Runtime 1.24 makes a FusedMatMul that it lacks in float64.
    product = build.op("Gemm", [weights, build.cast(rows, _DOUBLE)], {"transA": 1})
    return build.reshape(product, -1, cut.height, cut.width)


def finish(
    build: Builder, cut: Cut, size: tuple[int, int], raw: ir.Value, *, at_image_size: bool
) -> tuple[ir.Value, ir.Value]:
    """ReLU at image size and min-max, as `ortcam.scoring.finish`: float32 [K,H,W], and bool [K] for flat maps.

    Args:
        build: of the graph.
        cut: of the features.
        size: H and W.
        raw: the sum before ReLU, float64 [K,h,w] or [K,H,W].
        at_image_size: whether it is [K,H,W].
    """
    if not at_image_size:
        raw = upsampled(build, cut, size, raw)
    positive = build.op("Relu", [raw])
    low, high = value_range(build, positive)
    span = build.op("Sub", [high, low])
    _, scale = value_range(build, build.op("Abs", [raw]))
    flat = build.op("LessOrEqual", [span, build.op("Mul", [scale, build.constant(np.float64(LEAST_RANGE))])])
    divisor = build.op("Where", [flat, build.constant(np.float64(1)), span])
    scaled = build.op("Div", [build.op("Sub", [positive, low]), divisor])
    saliency = build.op("Where", [flat, build.constant(np.float32(0)), build.cast(scaled, _FLOAT)])
    return saliency, build.reshape(flat, -1)


def upsampled(build: Builder, cut: Cut, size: tuple[int, int], maps: ir.Value) -> ir.Value:
    """Maps float64 [K,h,w] at image size: float64 [K,H,W]."""
    rows, columns = upsampling(build, cut, size, np.float64)
    return build.op("MatMul", [rows, build.op("MatMul", [maps, columns])])
