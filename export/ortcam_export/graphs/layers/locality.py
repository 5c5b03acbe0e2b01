"""Which tensors are maps of the image by their operators alone: convolutions, poolings, elementwise operators."""

from collections.abc import Iterable
from typing import Final, Literal

import onnx_ir as ir

from ortcam_export.graphs.batch_axis import sides_for_one
from ortcam_export.graphs.dataflow import constant_of, inputs_of

__all__ = ["plain_maps"]

# Operators whose output at a position comes from what lies around it in their inputs, whatever the weights.
_LOCAL: Final = (
    *("Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Celu", "Clip", "Conv", "ConvInteger"),
    *("ConvTranspose", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp", "Expand", "FusedConv"),
    *("Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LRN"),
    *("LeakyRelu", "Log", "LpPool", "Max", "MaxPool", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pad"),
    *("Pow", "QLinearAdd", "QLinearAveragePool", "QLinearConv", "QLinearLeakyRelu", "QLinearMul"),
    *("QLinearSigmoid", "QuantizeLinear", "QuickGelu", "Reciprocal", "Relu", "Resize", "Selu", "Sigmoid"),
    *("Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Upsample"),
)
_REDUCING: Final = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum")

# Maps lie in the image; what was pooled over it says the same of every position, also where it is spread again.
_Kind = Literal["maps", "pooled"]


def plain_maps(graph: ir.Graph, data: Iterable[ir.Node]) -> set[ir.Value]:
    """The tensors [N,C,h,w] that are maps of the whole image, rows by columns, whatever their weights are.

    Nothing has to be measured. Between the image and such a tensor there are only operators that look around a
    position. What was pooled over the image is at most added or multiplied in.

    Args:
        graph: image [N,C,H,W] -> logits, traced.
        data: its data nodes, in order.
    """
    kinds: dict[ir.Value, _Kind] = {graph.inputs[0]: "maps"}
    reached = {graph.inputs[0]}
    for node in data:
        before = [value for value in inputs_of(node) if value in reached]
        reached.update(node.outputs)
        output = node.outputs[0]
        kind = _kind(node, output, before, kinds)
        if kind is not None:
            kinds[output] = kind
    return {value for value, kind in kinds.items() if kind == "maps"} - {graph.inputs[0]}


def _kind(node: ir.Node, output: ir.Value, before: list[ir.Value], kinds: dict[ir.Value, _Kind]) -> _Kind | None:
    sides = sides_for_one(output)
    if sides is None or len(sides) != 4:
        return None
    if sides[2] == sides[3] == 1:
        return "pooled"  # whatever made it, it has no positions to exchange
    if not all(value in kinds for value in before):
        return None
    kind: _Kind = "maps" if any(kinds[value] == "maps" for value in before) else "pooled"
    if node.op_type in _LOCAL:
        return None if _crops(node) else kind
    if node.op_type in ("Concat", "QLinearConcat"):
        return kind if node.attributes.get_int("axis", 1) in (1, -3) else None
    if node.op_type in _REDUCING:
        taken = sides_for_one(before[0])
        return kind if taken is not None and taken[2:] == sides[2:] else "pooled"
    return None


def _crops(node: ir.Node) -> bool:
    """Whether a Pad or a Resize may drop parts of its input."""
    if node.op_type == "Resize":
        return node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if node.op_type == "Pad":
        pads = constant_of(node.inputs[1])
        return pads is None or bool((pads < 0).any())
    return False
