"""The operators in front of the first layer: what only moves pixels, what keeps colours, what makes features."""

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from ortcam_export.graphs.dataflow import dominators, nodes_in_front

__all__ = ["MIXERS", "branch_from", "describe_operators", "is_quantized", "keeps_colours", "until_first_layer"]

_LAYERS: Final = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "QLinearConv")
_MOVES: Final = (
    *("Cast", "CastLike", "Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
    *("Split", "SplitToSequence", "SequenceAt", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"),
)
# What keeps an image of one colour one of one colour, edges aside.
_COLOUR_OPERATORS: Final = frozenset(
    (
        *_MOVES,
        *("Add", "AveragePool", "BatchNormalization", "CenterCropPad", "Clip", "DequantizeLinear", "Div", "Floor"),
        *("Max", "Min", "Mul", "Neg", "Pad", "QuantizeLinear", "Resize", "Round", "Sub", "Upsample"),
    )
)
_COLOURS: Final = 3
# What makes fewer channels of three, or others.
MIXERS: Final = frozenset(("Einsum", "MatMul", "Mean", "ReduceMean", "ReduceSum", "Sum"))


def until_first_layer(image: ir.Value, data: list[ir.Node], channels: int) -> Iterator[ir.Value]:
    """The image, of so many channels, and its dominators up to the first layer that makes features of it."""
    yield image
    places = {node: place for place, node in enumerate(data)}
    end = next((place for place, node in enumerate(data) if _makes_features(node, channels)), len(data))
    for value in dominators(image, data):
        producer = value.producer()
        if producer is None or places[producer] >= end:
            return
        yield value


def _makes_features(node: ir.Node, channels: int) -> bool:
    """Whether a node is a layer that makes more than colours of its image: more than three channels, or its own."""
    if node.op_type not in _LAYERS:
        return False
    weights = node.inputs[3 if node.op_type == "QLinearConv" else 1]
    if weights is None or weights.shape is None:
        return True
    # Of a convolution the outputs come first; a matrix may stand on either side, and be transposed.
    made = weights.shape[:1] if "Conv" in node.op_type else (weights.shape[0], weights.shape[-1])
    same = all(count == channels for count in made) and all(side == 1 for side in weights.shape[2:])
    return not same and not any(isinstance(count, int) and count <= _COLOURS for count in made)


def _is_pointwise_conv(node: ir.Node) -> bool:
    weights = node.inputs[1] if node.op_type == "Conv" else None
    return weights is not None and weights.shape is not None and list(weights.shape)[2:] == [1, 1]


def branch_from(node: ir.Node, data: list[ir.Node], channels: int) -> Iterator[ir.Value]:
    """The tensors of a branch, from its first node to where it forks or makes features."""
    known = set(data)
    current: ir.Node | None = node
    while current is not None and not _makes_features(current, channels) and len(current.outputs) == 1:
        value = current.outputs[0]
        yield value
        users = {user for user, _ in value.uses() if user in known}
        current = users.pop() if len(users) == 1 else None


def keeps_colours(value: ir.Value, data: list[ir.Node], others: frozenset[str] = frozenset()) -> bool:
    """Whether an image of one colour is still of one colour at a tensor, edges aside.

    Args:
        value: the tensor.
        data: the data nodes of the graph.
        others: operators that are fine, too.
    """
    return all(
        node.op_type in _COLOUR_OPERATORS or node.op_type in others or _is_pointwise_conv(node)
        for node in nodes_in_front(value, data)
    )


def is_quantized(value: ir.Value, data: list[ir.Node]) -> bool:
    """Whether something in front of a tensor rounds to steps."""
    return any(node.op_type in ("QuantizeLinear", "Round", "Floor") for node in nodes_in_front(value, data))


def describe_operators(values: list[ir.Value], data: list[ir.Node]) -> str:
    """Name the operators in front of tensors, without those that only move pixels: "Sub, Div"."""
    operators = [node.op_type for value in values for node in nodes_in_front(value, data)]
    return ", ".join(dict.fromkeys(operator for operator in operators if operator not in _MOVES))
