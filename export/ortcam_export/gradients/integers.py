"""The float32 copy of a part that computes in 8-bit integers: its derivative is taken in place of that of the steps.

Integer operators are spelled out as dequantizers, the floating operator, and a quantizer. Then quantizers lose their
steps and keep their range, which may stand for a ReLU.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.dataflow import constant_of
from ortcam_export.graphs.gradient import NoDerivativeError
from ortcam_export.graphs.names import taken_names
from ortcam_export.sources.onnx_files.rewriting.dequantization import undo_quantization

__all__ = ["floating_copy"]

# Integer operators of one tensor -> the floating ones: data, its scale and zero point, those of the output.
_OF_ONE: Final = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
# Of two tensors: each with its scale and zero point, then those of the output.
_OF_TWO: Final = {"QLinearAdd": "Add", "QLinearMatMul": "MatMul", "QLinearMul": "Mul"}
_INTEGERS_ALONE: Final = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger")
_BYTES: Final = (ir.DataType.INT8, ir.DataType.UINT8)
_ONLY_OF_INTEGERS: Final = ("channels_last", "opset")


def floating_copy(model: ir.Model, cuts: Iterable[str]) -> ir.Model:
    """Copy a quantized model without its steps.

    Args:
        model: image -> logits, some of it in 8-bit integers.
        cuts: names of floating tensors, which the copy has, too.

    Raises:
        NoDerivativeError: it has an integer operator that has no floating form here.
    """
    copy = model.clone()
    for node in list(copy.graph):
        if node.op_type.startswith("QLinear") or node.op_type == "QGemm":
            _spell_out(copy.graph, node)
    _keep(copy.graph, set(cuts))
    try:
        undo_quantization(copy)
    except ExportError as error:
        raise NoDerivativeError(str(error)) from None
    common_passes.RemoveUnusedNodesPass()(copy)
    for node in copy.graph:
        if node.op_type in _INTEGERS_ALONE:
            raise NoDerivativeError.at(node, "computes in integers alone")
        for value in node.outputs:
            if value.dtype in _BYTES:  # what only moves them moves floating numbers now
                value.dtype = ir.DataType.FLOAT
    copy.graph.outputs[0].name = model.graph.outputs[0].name
    return copy


def _keep(graph: ir.Graph, names: set[str]) -> None:
    """Make tensors outputs that nothing takes away. What quantizes them again is left out: it changes nothing."""
    for node in list(graph):
        for value in node.outputs:
            if value.name not in names:
                continue
            name, users = value.name, list(value.uses())
            value.name = f"{name}_steps"
            kept = ir.node("Identity", [value], name=f"ortcam/{name}")
            kept.outputs[0].name, kept.outputs[0].type, kept.outputs[0].shape = name, value.type, value.shape
            graph.insert_after(node, kept)
            for user, index in users:
                again = [item for item, _ in user.outputs[0].uses()] if user.op_type == "QuantizeLinear" else []
                for reader in again:
                    if reader.op_type == "DequantizeLinear":
                        reader.outputs[0].replace_all_uses_with(kept.outputs[0], replace_graph_outputs=True)
                user.replace_input_with(index, kept.outputs[0])


def _spell_out(graph: ir.Graph, node: ir.Node) -> None:
    """Put dequantizers, the floating operator and a quantizer in the place of an integer operator."""
    build = Builder(taken_names(graph))
    inputs = [*node.inputs, *[None] * 9]
    attributes: dict[str, Any] = {
        name: attribute for name, attribute in node.attributes.items() if name not in _ONLY_OF_INTEGERS
    }
    if node.attributes.get_int("channels_last", 0):
        raise NoDerivativeError.at(node, "with channels last has no derivative")

    def real(index: int, axis: int = 1) -> ir.Value:
        """The real numbers that an input stands for; its scale and zero point come behind it."""
        return build.op("DequantizeLinear", inputs[index : index + 3], {"axis": axis})

    if node.op_type in _OF_ONE:
        made, output = build.op(_OF_ONE[node.op_type], [real(0)], attributes), inputs[3:5]
    elif node.op_type in _OF_TWO:
        made, output = build.op(_OF_TWO[node.op_type], [real(0), real(3)]), inputs[6:8]
    elif node.op_type == "QLinearConv":
        operands = [real(0), real(3, axis=0), _bias(build, node, inputs[8], inputs[1], inputs[4])]
        made, output = build.op("Conv", operands[: 2 + (operands[2] is not None)], attributes), inputs[6:8]
    elif node.op_type == "QGemm":
        axis = 0 if node.attributes.get_int("transB", 0) else 1
        operands = [real(0), real(3, axis=axis), _bias(build, node, inputs[6], inputs[1], inputs[4])]
        made, output = build.op("Gemm", operands[: 2 + (operands[2] is not None)], attributes), inputs[7:9]
    elif node.op_type == "QLinearConcat":
        parts = [real(index) for index in range(2, len(node.inputs), 3)]
        made, output = build.op("Concat", parts, attributes), inputs[:2]
    else:
        raise NoDerivativeError.at(node, "computes in integers alone")
    if output[0] is not None:
        made = build.op("QuantizeLinear", [made, *output])
    graph.insert_before(node, build.take_nodes())
    for value in build.initializers:
        graph.register_initializer(value)
    node.outputs[0].replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _bias(
    build: Builder, node: ir.Node, value: ir.Value | None, scale: ir.Value | None, weights: ir.Value | None
) -> ir.Value | None:
    """The real numbers of a bias, whose scale is that of the products."""
    if value is None:
        return None
    integers, of_data, of_weights = (constant_of(item) for item in (value, scale, weights))
    if integers is None or of_data is None or of_weights is None:
        raise NoDerivativeError.at(node, "has a bias or a scale that is computed")
    alpha = node.attributes.get_float("alpha", 1.0)  # it multiplies the products, and so is in the bias's scale
    real = integers.astype(np.float64) * of_data * of_weights * alpha
    return build.constant(real.astype(np.float32))
