"""Integer pixels at the input of a graph, made floating ones with the same values, so that masks can multiply them."""

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.dataflow import constant_of
from ortcam_export.sources.onnx_files.arithmetic import FLOATS, PIXELS

__all__ = ["make_pixels_floating"]

# What only moves pixels, and so does with floating ones what it did with integers.
_MOVING: Final = (
    *("Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)
_SHAPES: Final = ("Shape", "Size")


def make_pixels_floating(graph: ir.Graph) -> None:
    """Make an integer image input float32; nothing is done to one that is floating.

    What moves pixels moves floating ones; casts to floating numbers fall away, and a DequantizeLinear becomes a Sub and
    a Mul. Any other operator gets its integers back by a Round, a Clip to their range, and a Cast: it does what it did.
    Shape and Size read the same shapes.

    Args:
        graph: whose first input is the image; changed in place.
    """
    image = graph.inputs[0]
    if image.dtype not in PIXELS:
        return
    dtype = image.dtype
    assert dtype is not None
    image.dtype = ir.DataType.FLOAT
    pixels = {image: dtype}
    for node in list(graph):
        reads = [index for index, value in enumerate(node.inputs) if value in pixels]
        if not reads or node.op_type in _SHAPES:
            continue
        source = node.inputs[reads[0]]
        assert source is not None
        kind = pixels[source]
        if node.op_type == "Cast" and (to := ir.DataType(node.attributes.get_int("to", 0))) in (*FLOATS, *PIXELS):
            # Every pixel has a place in a wider type; in a narrower one it may wrap.
            if to in FLOATS or (_range(to)[0] <= _range(kind)[0] and _range(kind)[1] <= _range(to)[1]):
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
                node.outputs[0].dtype = ir.DataType.FLOAT
                if to in PIXELS:
                    pixels[node.outputs[0]] = to
                continue
        elif node.op_type == "DequantizeLinear" and reads == [0] and "block_size" not in node.attributes:
            floating = _dequantized(graph, node, source, node.inputs[1], _input(node, 2), f"{node.outputs[0].name}")
            node.outputs[0].replace_all_uses_with(floating, replace_graph_outputs=True)
            continue
        elif node.op_type in _MOVING and all(value in pixels for value in _moved(node)):
            for output in node.outputs:
                pixels[output] = kind
                output.dtype = ir.DataType.FLOAT
            continue
        elif node.op_type.startswith("QLinear") and reads == [0] and node.op_type != "QLinearConcat":
            # The real numbers in between are what a mean is of.
            scale, zero = _input(node, 1), _input(node, 2)
            floating = _dequantized(graph, node, source, scale, zero, f"{node.name}_real")
            again = ir.node("QuantizeLinear", [floating, scale, *([] if zero is None else [zero])])
            _insert(graph, node, again, f"{node.name}_quantized", kind)
            node.replace_input_with(0, again.outputs[0])
            continue
        for index in reads:
            value = node.inputs[index]
            assert value is not None
            node.replace_input_with(index, _integers(graph, node, value, pixels[value]))


def _moved(node: ir.Node) -> list[ir.Value | None]:
    """The inputs of an operator that moves pixels which are pixels."""
    return list(node.inputs) if node.op_type == "Concat" else [node.inputs[0]]


def _integers(graph: ir.Graph, node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
    low, high = (add_constant(graph, np.float32(bound), f"ortcam_pixel_{kind.name.lower()}") for bound in _range(kind))
    rounded = _insert(graph, node, ir.node("Round", [value]), f"{value.name}_rounded")
    bounded = _insert(graph, node, ir.node("Clip", [rounded, low, high]), f"{value.name}_bounded")
    return _insert(graph, node, ir.node("Cast", [bounded], {"to": int(kind)}), f"{value.name}_integers", kind)


def _range(kind: ir.DataType) -> tuple[float, float]:
    """The integers of a type, as far as float32 holds them exactly."""
    limits = np.iinfo(kind.numpy())
    exact = 2**24
    return float(max(limits.min, -exact)), float(min(limits.max, exact))


def _dequantized(
    graph: ir.Graph, node: ir.Node, value: ir.Value, scale: ir.Value | None, zero: ir.Value | None, name: str
) -> ir.Value:
    """(value - zero) * scale, put in front of a node."""
    assert scale is not None
    axis = node.attributes.get_int("axis", 1)
    zeros, factors = constant_of(zero), constant_of(scale)
    if zero is not None:
        if zeros is None:
            offset = _insert(graph, node, ir.node("Cast", [zero], {"to": int(ir.DataType.FLOAT)}), f"{name}_zero")
        else:
            offset = add_constant(graph, _along(zeros, axis, value), f"{name}_zero")
        value = _insert(graph, node, ir.node("Sub", [value, offset]), f"{name}_from_zero")
    factor = scale if factors is None else add_constant(graph, _along(factors, axis, value), f"{name}_scale")
    return _insert(graph, node, ir.node("Mul", [value, factor]), f"{name}_floating")


def _along(array: NDArray[Any], axis: int, value: ir.Value) -> NDArray[np.float32]:
    """A constant of one number, or of one per element of a dimension, for arithmetic with a tensor."""
    if array.size == 1:
        return array.reshape(()).astype(np.float32)
    rank = len(value.shape) if value.shape is not None else 4
    return array.reshape([-1 if index == axis % rank else 1 for index in range(rank)]).astype(np.float32)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _insert(
    graph: ir.Graph, before: ir.Node, node: ir.Node, name: str, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.Value:
    """Put a node in front of another; returns its output."""
    node.name = node.outputs[0].name = f"ortcam/{name}_{node.op_type.lower()}"
    node.outputs[0].dtype = dtype
    graph.insert_before(before, node)
    return node.outputs[0]
