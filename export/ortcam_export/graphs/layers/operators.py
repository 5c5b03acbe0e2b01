"""What ONNX operators do to maps: pool them, only lay them out, multiply them by weights, quantize them."""

from typing import Final

import onnx_ir as ir

__all__ = ["FACTORS", "MOVES_ONLY", "POOLING", "RECURRENT", "scale_of"]

POOLING: Final = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearReduceMean",
    "ReduceMax",
    "ReduceMean",
)
MOVES_ONLY: Final = (
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Operators with weights, and which of their inputs multiply: data first, weights second.
FACTORS: Final = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "FusedConv": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
# Operators with weights that multiply no single tensor.
RECURRENT: Final = ("Attention", "DeformConv", "Einsum", "GRU", "LSTM", "QAttention", "RNN")
# Which inputs of a quantizing operator are the scale and the zero point of its output.
_OUTPUT_SCALE: Final = {
    "QuantizeLinear": (1, 2),
    "QLinearAdd": (6, 7),
    "QLinearConcat": (0, 1),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearMul": (6, 7),
}
_OUTPUT_SCALE_OF_OTHERS: Final = (3, 4)  # of QLinear operators of one tensor: behind it, its scale and its zero point
_KEEPS_SCALE: Final = (*MOVES_ONLY, "MaxPool", "Relu")


def scale_of(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Find the scale and zero point of a quantized tensor by the operator that makes it. None if nothing tells them."""
    producer = value.producer()
    if producer is None:
        return None
    operator, inputs = producer.op_type, producer.inputs
    places = _OUTPUT_SCALE.get(operator)
    if places is None and operator.startswith("QLinear"):
        places = _OUTPUT_SCALE_OF_OTHERS
    if places is not None:
        scale, zero = (inputs[place] if place < len(inputs) else None for place in places)
        return (scale, zero) if scale is not None and zero is not None else None
    if operator in _KEEPS_SCALE and inputs[0] is not None:
        return scale_of(inputs[0])
    return None
