"""Operators that ONNX Runtime's optimiser fused, taken apart where the fused one hides a tensor that can be cut."""

from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.builder import Builder

__all__ = ["split_fused"]

_SUFFIX: Final = "_output_0"  # what torch's exporter puts behind a node's name for the name of its output


def split_fused(model: ir.Model) -> int:
    """Take residual additions out of the normalisations they were fused with; returns how many.

    A SkipLayerNormalization gives the sum and its normalisation, which both go on: no tensor inside or behind it is
    passed by every path. As an Add and a LayerNormalization they are what they were before, and the sum can be cut.
    SkipSimplifiedLayerNormalization is the same with a division by the root mean square. Other fused operators give one
    tensor, and stay as they are.

    Args:
        model: of opset 17 or later; changed in place.
    """
    split = 0
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain != "com.microsoft" or not node.op_type.startswith("Skip") or node.graph is None:
            continue
        if node.op_type in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
            _split_normalization(model, node)
            split += 1
    return split


def _split_normalization(model: ir.Model, node: ir.Node) -> None:
    graph = node.graph
    assert graph is not None
    simplified = node.op_type == "SkipSimplifiedLayerNormalization"
    inputs: list[ir.Value | None] = [*node.inputs, None, None]
    data, skip, gamma = inputs[:3]
    beta, bias = (None, inputs[3]) if simplified else (inputs[3], inputs[4])
    build = Builder(
        {value.name for item in ir.traversal.RecursiveGraphIterator(model.graph) for value in item.outputs}
        | {value.name for inner in model.graphs() for value in (*inner.inputs, *inner.initializers.values())}
    )
    total = build.op("Add", [data, skip])
    if bias is not None:
        total = build.op("Add", [total, bias])
    epsilon = node.attributes.get_float("epsilon", 1e-12)
    if simplified:
        normalized, mean, inverse = build.op("Mul", [_by_root_mean_square(build, total, epsilon), gamma]), None, None
    else:
        inputs = [total, gamma] if beta is None else [total, gamma, beta]
        normalized, mean, inverse = build.ops("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon}, outputs=3)
    for old, new in zip(node.outputs, (normalized, mean, inverse, total), strict=False):
        if new is None:
            continue
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if old.name:
            new.name, old.name = old.name, f"{old.name}_fused"
            maker = new.producer()
            assert maker is not None
            maker.name = new.name.removesuffix(_SUFFIX)
    graph.insert_before(node, build.take_nodes())
    for value in build.initializers:
        model.graph.register_initializer(value)
    graph.remove(node, safe=True)


def _by_root_mean_square(build: Builder, value: ir.Value, epsilon: float) -> ir.Value:
    """The RMS norm without its factors, x / sqrt(mean(x^2) + epsilon), the mean over the last axis."""
    square = build.op("ReduceMean", [build.op("Mul", [value, value]), build.integers(-1)], {"keepdims": 1})
    root = build.op("Sqrt", [build.op("Add", [square, build.constant(np.float32(epsilon))])])
    return build.op("Div", [value, root])
