"""Quantized arithmetic that a bundle does in float32: dynamic int8, 16-bit activations, weights of 4 bits, float8."""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.dataflow import constant_of

__all__ = ["undo_dynamic_quantization", "undo_quantization"]

_LARGEST_FLOAT8: Final = {
    ir.DataType.FLOAT8E4M3FN: 448.0,
    ir.DataType.FLOAT8E4M3FNUZ: 240.0,
    ir.DataType.FLOAT8E5M2: 57344.0,
    ir.DataType.FLOAT8E5M2FNUZ: 57344.0,
}
_WEIGHTS_OF_BITS: Final = "MatMulNBits"
_ROUNDERS: Final = ("Floor", "Round", "Cast")
_QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear")


def undo_dynamic_quantization(model: ir.Model) -> None:
    """Let what was quantized by the range of a whole batch stay floating; the 8-bit weights keep their values.

    q, scale, zero = DynamicQuantizeLinear(x) becomes x, 1, 0, and integer products of q products of x; so do those that
    ONNX Runtime's optimiser fuses: DynamicQuantizeMatMul, MatMulIntegerToFloat, DynamicQuantizeLSTM and QAttention.

    Raises:
        ExportError: a product of two tensors that are both computed.
    """
    graph = model.graph
    floats = _Floats(graph)
    one, zero = floats.constant(np.array(1, np.float32), "one"), floats.constant(np.array(0, np.float32), "zero")
    for node in list(graph):
        inputs = [*node.inputs, *[None] * 12]
        if node.op_type == "DynamicQuantizeLinear":
            for output, value in zip(node.outputs, (inputs[0], one, zero), strict=False):
                assert value is not None
                output.replace_all_uses_with(value)
        elif node.op_type in ("ConvInteger", "MatMulInteger"):
            _keep_bias_floating(node)
            weights = floats.weights(node, inputs[1], None, inputs[3], axis=0 if node.op_type == "ConvInteger" else -1)
            floats.replace(node, node.op_type.removesuffix("Integer"), [inputs[0], weights], dict(node.attributes))
        elif node.op_type == "DynamicQuantizeMatMul":
            floats.matmul(node, inputs[0], floats.weights(node, inputs[1], inputs[2], inputs[3], axis=-1), inputs[4])
        elif node.op_type == "MatMulIntegerToFloat":
            weights = floats.weights(node, inputs[1], inputs[3], inputs[5], axis=-1)
            data = floats.real(node, inputs[0], inputs[2], inputs[4], unless=(one, zero))
            floats.matmul(node, data, weights, inputs[6])
        elif node.op_type == "QAttention":
            weights = floats.weights(node, inputs[1], inputs[4], inputs[7], axis=-1)
            data = floats.real(node, inputs[0], inputs[3], inputs[6], unless=(one, zero))
            floats.replace(
                node,
                "Attention",
                [data, weights, inputs[2], inputs[5], inputs[8]],
                dict(node.attributes),
                domain="com.microsoft",
            )
        elif node.op_type == "DynamicQuantizeLSTM":
            kernel, recurrent = (
                floats.weights(node, inputs[index], inputs[scale], inputs[scale + 1], axis=-1, transposed=True)
                for index, scale in ((1, 8), (2, 10))
            )
            floats.replace(node, "LSTM", [inputs[0], kernel, recurrent, *inputs[3:8]], dict(node.attributes))


def _keep_bias_floating(node: ir.Node) -> None:
    """Take the rounding from a bias that is added to an integer product; ONNX Runtime's first quantizer rounded it."""
    for add in (user for user, _ in node.outputs[0].uses() if user.op_type == "Add"):
        behind = list(add.inputs)
        while behind:
            value = behind.pop()
            made = None if value is None else value.producer()
            if made is None or made.op_type not in (*_ROUNDERS, "Reshape", "Unsqueeze"):
                continue
            behind.append(made.inputs[0])
            if made.op_type in _ROUNDERS and made.inputs[0] is not None:
                made.outputs[0].replace_all_uses_with(made.inputs[0])


def undo_quantization(model: ir.Model) -> None:
    """Make quantizers of fixed scales float32: integers keep their range but not their steps, weights their values.

    A DequantizeLinear of weights becomes a constant. A QuantizeLinear with a DequantizeLinear of the same scale behind
    it becomes a Clip to what its integers can hold, which may stand for a ReLU that was taken out; where other
    operators lie between the two, the numbers between them are those of the integers.

    Raises:
        ExportError: scales that are computed.
    """
    floats = _Floats(model.graph)
    for node in list(model.graph):
        if node.op_type == _WEIGHTS_OF_BITS:
            data, bias = node.inputs[0], node.inputs[5] if len(node.inputs) > 5 else None
            floats.matmul(node, data, floats.constant(_weights_of_bits(node), f"{node.name}_weights"), bias)
        elif node.op_type in _QUANTIZERS:
            scale, zero = _scale(node)
            values = constant_of(node.inputs[0])
            if node.op_type == "QuantizeLinear":
                low, high = _limits(node)
                floats.quantize(node, scale, zero, low, high)
            elif values is not None:
                real = _dequantized(values, scale, zero, node)
                node.outputs[0].replace_all_uses_with(floats.constant(real, f"{node.outputs[0].name}_real"), True)
            else:
                floats.dequantize(node, scale, zero)


def _scale(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scale = constant_of(node.inputs[1])
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if scale is None or zero is None:
        raise ExportError(f"{node.op_type} {node.name!r} has a scale or a zero point that is computed; not supported")
    return scale.astype(np.float64), zero.astype(np.float64)


def _limits(node: ir.Node) -> tuple[float, float]:
    """The least and the largest number of a quantizer's type."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    kind = ir.DataType(node.attributes.get_int("output_dtype", 0)) if zero is None else zero.dtype
    kind = ir.DataType.UINT8 if kind in (None, ir.DataType.UNDEFINED) else kind
    assert kind is not None
    if kind in _LARGEST_FLOAT8:
        return -_LARGEST_FLOAT8[kind], _LARGEST_FLOAT8[kind]
    if kind.name.startswith("INT"):
        return -(2.0 ** (kind.bitwidth - 1)), 2.0 ** (kind.bitwidth - 1) - 1
    return 0.0, 2.0**kind.bitwidth - 1


def _dequantized(
    values: NDArray[Any], scale: NDArray[np.float64], zero: NDArray[np.float64], node: ir.Node
) -> NDArray[np.float32]:
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if block:
        scale, zero = (
            np.repeat(item, block, axis)[_up_to(values.shape[axis], axis, values.ndim)] if item.ndim else item
            for item in (scale, zero)
        )
    else:
        scale, zero = (_along(item, axis, values.ndim) for item in (scale, zero))
    real: NDArray[np.float32] = ((values.astype(np.float64) - zero) * scale).astype(np.float32)
    return real


def _up_to(end: int, axis: int, rank: int) -> tuple[slice, ...]:
    return tuple(slice(end) if index == axis % rank else slice(None) for index in range(rank))


def _along(item: NDArray[np.float64], axis: int, rank: int) -> NDArray[np.float64]:
    """One number, or one per element of a dimension, for arithmetic with a tensor of that rank."""
    if item.size == 1:
        return item.reshape(())
    return item.reshape([-1 if index == axis % rank else 1 for index in range(rank)])


def _weights_of_bits(node: ir.Node) -> NDArray[np.float32]:
    """The weights [K,N] of com.microsoft's MatMulNBits: see its description in ONNX Runtime's ContribOperators.md."""
    columns, rows, bits, block = (node.attributes.get_int(name) for name in ("N", "K", "bits", "block_size"))
    packed, scale = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    zeros = constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    groups = constant_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if packed is None or scale is None or bits not in (2, 4, 8):
        raise ExportError(f"{node.op_type} {node.name!r} has weights of {bits} bits, or computed ones; not supported")
    blocks = math.ceil(rows / block)
    values = _unpacked(packed.reshape(columns, -1), bits).reshape(columns, -1)[:, :rows].astype(np.float64)
    if zeros is None:
        offsets = np.full((columns, blocks), 2.0 ** (bits - 1))
    elif zeros.dtype == np.uint8:
        offsets = _unpacked(zeros.reshape(columns, -1), bits)[:, :blocks].astype(np.float64)
    else:
        offsets = zeros.reshape(columns, blocks).astype(np.float64)
    of_block = np.arange(rows) // block if groups is None else groups.astype(np.int64)
    scales = scale.reshape(columns, blocks).astype(np.float64)
    return np.ascontiguousarray(((values - offsets[:, of_block]) * scales[:, of_block]).T.astype(np.float32))


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Bytes [R,n] as their numbers of some bits, the lowest first: uint8 [R,n*8/bits]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values: NDArray[np.uint8] = (packed.astype(np.uint8)[..., None] >> shifts) & np.uint8(2**bits - 1)
    return values.reshape(len(packed), -1)


class _Floats:
    """Puts floating operators into a graph, in place of others."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def constant(self, array: NDArray[Any], stem: str) -> ir.Value:
        """A new initializer; its name is made unique."""
        return add_constant(self._graph, array, f"ortcam/{stem}")

    def replace(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> None:
        """Put an operator in the place of a node."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        new = ir.node(
            op_type,
            given,
            attributes,
            domain=domain,
            name=node.name,
            num_outputs=len(node.outputs),
            metadata_props=dict(node.metadata_props),
        )
        for before, after in zip(node.outputs, new.outputs, strict=True):
            after.name = f"{before.name}_floating" if before.name else before.name
        self._graph.insert_before(node, new)
        for before, after in zip(node.outputs, new.outputs, strict=True):
            before.replace_all_uses_with(after, replace_graph_outputs=True)

    def matmul(self, node: ir.Node, data: ir.Value | None, weights: ir.Value, bias: ir.Value | None) -> None:
        """Put a MatMul, and an Add of its bias, in the place of a node."""
        if bias is None:
            self.replace(node, "MatMul", [data, weights])
            return
        product = self._op(node, "MatMul", [data, weights], "product")
        self.replace(node, "Add", [product, bias])

    def weights(
        self,
        node: ir.Node,
        value: ir.Value | None,
        scale: ir.Value | None,
        zero: ir.Value | None,
        *,
        axis: int,
        transposed: bool = False,
    ) -> ir.Value:
        """Quantized weights as floating ones; per channel along an axis, or per direction of an LSTM and channel."""
        array = constant_of(value)
        factor, offset = (constant_of(item) if item is not None else np.zeros(()) for item in (scale, zero))
        if array is None or factor is None or offset is None:
            raise ExportError(f"{node.op_type} {node.name!r} multiplies two quantized tensors; not supported")
        assert value is not None
        parts = []
        for item in (factor if scale is not None else np.ones(()), offset):
            if (
                transposed and item.ndim
            ):  # [directions] or [directions, channels], of weights [directions, in, channels]
                parts.append(item.reshape(len(item), 1, -1))
            else:
                parts.append(_along(item, axis, array.ndim) if item.ndim < 2 else item)
        floating = ((array.astype(np.float64) - parts[1]) * parts[0]).astype(np.float32)
        return self.constant(floating.swapaxes(1, 2) if transposed else floating, f"{value.name}_floating")

    def real(
        self,
        node: ir.Node,
        value: ir.Value | None,
        scale: ir.Value | None,
        zero: ir.Value | None,
        *,
        unless: tuple[ir.Value, ir.Value],
    ) -> ir.Value | None:
        """Quantized data as the real numbers they stand for; data that stayed floating as they are."""
        if scale is unless[0]:
            return value
        floating = self._op(node, "Cast", [value], "data", {"to": int(ir.DataType.FLOAT)})
        if zero is not None:
            cast = self._op(node, "Cast", [zero], "zero", {"to": int(ir.DataType.FLOAT)})
            floating = self._op(node, "Sub", [floating, cast], "from_zero")
        return self._op(node, "Mul", [floating, scale], "real")

    def quantize(
        self, node: ir.Node, scale: NDArray[np.float64], zero: NDArray[np.float64], low: float, high: float
    ) -> None:
        """A quantizer without its steps; what dequantizes by the same scale takes the real numbers from in front."""
        data = node.inputs[0]
        rank = 4 if data is None or data.shape is None else len(data.shape)
        factor, offset = (_along(item, node.attributes.get_int("axis", 1), rank) for item in (scale, zero))
        stem = node.outputs[0].name
        bounds = [self.constant(((end - offset) * factor).astype(np.float32), f"{stem}_bound") for end in (low, high)]
        real = self._op(node, "Min", [self._op(node, "Max", [data, bounds[0]], "above"), bounds[1]], "below")
        if factor.ndim == 0 and offset.ndim == 0:
            real = self._op(node, "Clip", [data, *bounds], "real")
        for user, _ in list(node.outputs[0].uses()):
            if user.op_type == "DequantizeLinear" and all(map(np.array_equal, _scale(user), (scale, zero))):
                user.outputs[0].replace_all_uses_with(real, replace_graph_outputs=True)
        divided = self._op(node, "Div", [real, self.constant(factor.astype(np.float32), f"{stem}_scale")], "divided")
        self.replace(node, "Add", [divided, self.constant(offset.astype(np.float32), f"{stem}_zero")])

    def dequantize(self, node: ir.Node, scale: NDArray[np.float64], zero: NDArray[np.float64]) -> None:
        """A dequantizer of numbers that need not be integers."""
        data = node.inputs[0]
        rank = 4 if data is None or data.shape is None else len(data.shape)
        factor, offset = (
            self.constant(_along(item, node.attributes.get_int("axis", 1), rank).astype(np.float32), node.name or "dq")
            for item in (scale, zero)
        )
        self.replace(node, "Mul", [self._op(node, "Sub", [data, offset], "from_zero"), factor])

    def _op(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        name: str,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        """A new node in front of another; returns its output."""
        new = ir.node(op_type, list(inputs), attributes, name=f"{node.name or node.outputs[0].name}/{name}")
        new.outputs[0].name = f"{node.outputs[0].name}_{name}"
        self._graph.insert_before(node, new)
        return new.outputs[0]
