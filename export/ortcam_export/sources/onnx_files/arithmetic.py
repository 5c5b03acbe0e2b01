"""What a graph computes with: the types of its tensors, and arithmetic that the export does in float32 instead."""

from collections.abc import Iterator
from typing import Final, Literal

import onnx_ir as ir

__all__ = [
    "FLOATS",
    "HALVES",
    "PIXELS",
    "REDUCED",
    "Coarse",
    "coarse_arithmetic",
    "computes_with_integers",
    "tensors_of",
]

Coarse = Literal["float16", "bfloat16", "dynamic int8", "16-bit integer", "4-bit", "block-quantized", "float8"]
HALVES: Final[dict[ir.DataType, Coarse]] = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
# Fixed scales that ONNX Runtime has no faster kernels for than those of float32, on the processors that ortcam serves.
REDUCED: Final[dict[Coarse, tuple[ir.DataType, ...]]] = {
    "16-bit integer": (ir.DataType.UINT16, ir.DataType.INT16),
    "4-bit": (ir.DataType.UINT4, ir.DataType.INT4),
    "block-quantized": (),
    "float8": (
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ),
        *(ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ),
    ),
}
_DYNAMIC: Final = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *HALVES)
# Integers that pixels come in. Those of int8 are 128 less, as TFLite's converters make them.
PIXELS: Final = (
    *(ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16),
    *(ir.DataType.UINT32, ir.DataType.INT32, ir.DataType.UINT64, ir.DataType.INT64),
)


def coarse_arithmetic(model: ir.Model) -> Coarse | None:
    """The arithmetic of a graph that the export does in float32 instead; None where there is none."""
    graph = model.graph
    kinds = {graph.inputs[0].dtype, *(tensor.dtype for tensor in tensors_of(model)), *_cast_to(graph)}
    operators = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}
    if operators.intersection(_DYNAMIC):
        return "dynamic int8"
    if "MatMulNBits" in operators:
        return "4-bit"
    quantizers = set(_types_of_quantizers(graph))
    for name, types in REDUCED.items():
        if quantizers.intersection(types):
            return name
    for kind, half in HALVES.items():
        if kind in kinds:
            return half
    return "block-quantized" if _has_blocks(graph) else None


def tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of a model: the initializers of all its graphs, and the attributes of all nodes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    bodies: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    for node in (node for body in bodies for node in ir.traversal.RecursiveGraphIterator(body)):
        for attribute in node.attributes.values():
            if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()


def _cast_to(graph: ir.Graph) -> Iterator[int]:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type == "Cast" and node.domain == "":
            yield node.attributes.get_int("to", 0)


def computes_with_integers(graph: ir.Graph) -> bool:
    """Whether a graph quantizes what it computes; weights alone that are stored as integers do not count."""
    names = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}
    return any(
        name.startswith(("QLinear", "QGemm", "QAttention"))
        or name.endswith("Integer")
        or name in ("QuantizeLinear", "MatMulIntegerToFloat")
        for name in names
    )


def _has_blocks(graph: ir.Graph) -> bool:
    """Whether weights have a scale per block, which ONNX Runtime may multiply with quantized data."""
    return any(node.attributes.get_int("block_size", 0) for node in ir.traversal.RecursiveGraphIterator(graph))


def _types_of_quantizers(graph: ir.Graph) -> Iterator[ir.DataType]:
    """The types of what quantizers make, and of what dequantizers read."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        typed = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        yield from (value.dtype for value in (typed, zero) if value is not None and value.dtype is not None)
        if node.op_type == "QuantizeLinear":
            yield ir.DataType(node.attributes.get_int("output_dtype", 0))
