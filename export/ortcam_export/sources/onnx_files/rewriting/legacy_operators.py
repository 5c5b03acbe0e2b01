"""Operators that ONNX Runtime keeps for old files, spelled out in ONNX's own: WinML's ImageScaler and its like."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.errors import ExportError

__all__ = ["KEPT_OPERATORS", "LEGACY_OPERATORS", "spell_out"]

_SpelledOut = Callable[["_Spelling"], ir.Value]

# Those that are kept, too, and that are not spelled out.
KEPT_OPERATORS: Final = ("DynamicSlice", "GRUUnit", "GivenTensorFill")


def spell_out(model: ir.Model) -> None:
    """Replace the operators of `LEGACY_OPERATORS`, and what others were before they became ONNX's, by others.

    Those that take their place are the same in all opsets, so that this can come before a conversion.

    Raises:
        ExportError: an operator in a form that cannot be spelled out.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    spellings = dict(LEGACY_OPERATORS)
    if opset < 10:
        spellings["ThresholdedRelu"] = _thresholded_relu
    if opset < 9:
        spellings["MeanVarianceNormalization"] = _mean_variance_normalization
    for node in list(model.graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in spellings:
            continue
        spelling = _Spelling(model.graph, node, opset)
        result = spellings[node.op_type](spelling)
        node.outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
        name = node.outputs[0].name
        model.graph.remove(node, safe=True)
        result.name = name


class _Spelling:
    """A node, and the nodes that take its place.

    Args:
        graph: of the node.
        node: to be spelled out.
        opset: of the graph.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node, opset: int) -> None:
        self.node = node
        self.opset = opset
        self._graph = graph
        self._stem = f"ortcam/{node.name or node.outputs[0].name}"
        self._number = 0

    @property
    def data(self) -> ir.Value:
        """The node's first input."""
        value = self.node.inputs[0] if self.node.inputs else None
        if value is None:
            raise ExportError(f"{self.node.op_type} {self.node.name!r} has no input")
        return value

    def number(self, name: str, default: float) -> float:
        """A floating attribute."""
        return float(self.node.attributes.get_float(name, default))

    def op(self, op_type: str, *inputs: "ir.Value | float | NDArray[Any]", **attributes: Any) -> ir.Value:
        """Add a node; numbers and arrays become constants."""
        values = [item if isinstance(item, ir.Value) else self._constant(np.asarray(item)) for item in inputs]
        node = ir.node(op_type, values, attributes, name=self._name())
        node.outputs[0].name = node.name
        self._graph.insert_before(self.node, node)
        return node.outputs[0]

    def _constant(self, array: NDArray[Any]) -> ir.Value:
        if array.dtype.kind == "f":
            dtype = self.node.inputs[0].dtype if self.node.inputs and self.node.inputs[0] is not None else None
            array = array.astype(dtype.numpy() if dtype is not None and dtype.is_floating_point() else np.float32)
        tensor = ir.tensor(array, name=self._name())
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _name(self) -> str:
        self._number += 1
        return f"{self._stem}_{self._number}"


def _image_scaler(new: _Spelling) -> ir.Value:
    bias = new.node.attributes.get_floats("bias", [])
    scaled = new.op("Mul", new.data, new.number("scale", 1.0))
    return new.op("Add", scaled, np.reshape(np.asarray(bias, np.float64), (1, -1, 1, 1))) if bias else scaled


def _affine(new: _Spelling) -> ir.Value:
    return new.op("Add", new.op("Mul", new.data, new.number("alpha", 1.0)), new.number("beta", 0.0))


def _scale(new: _Spelling) -> ir.Value:
    return new.op("Mul", new.data, new.number("scale", 1.0))


def _parametric_softplus(new: _Spelling) -> ir.Value:
    return new.op("Mul", new.op("Softplus", new.op("Mul", new.data, new.number("beta", 1.0))), new.number("alpha", 1.0))


def _scaled_tanh(new: _Spelling) -> ir.Value:
    return new.op("Mul", new.op("Tanh", new.op("Mul", new.data, new.number("beta", 1.0))), new.number("alpha", 1.0))


def _crop(new: _Spelling) -> ir.Value:
    """Cut off a border (left, top, right, bottom), or to a size (height, width) from its left and top."""
    left, top, right, bottom = new.node.attributes.get_ints("border")
    size = new.node.attributes.get_ints("scale", [])
    if size:
        ends = [top + size[0], left + size[1]]
    else:
        ends = [-bottom if bottom else 2**31 - 1, -right if right else 2**31 - 1]
    if new.opset < 10:
        return new.op("Slice", new.data, starts=[top, left], ends=ends, axes=[2, 3])
    bounds = [np.array(values, np.int64) for values in ([top, left], ends, [2, 3])]
    return new.op("Slice", new.data, *bounds)


def _simplified_layer_normalization(new: _Spelling) -> ir.Value:
    """The root mean square norm: x / sqrt(mean(x^2) + epsilon) * scale, over the last dimension."""
    axis = new.node.attributes.get_int("axis", -1)
    if axis != -1 or len([value for value in new.node.outputs if list(value.uses())]) > 1:
        raise ExportError(
            f"SimplifiedLayerNormalization {new.node.name!r} has axis {axis}, or a second output; accepted is axis -1 "
            "with one output"
        )
    scale = new.node.inputs[1]
    assert scale is not None
    squares = new.op("Mul", new.data, new.data)
    axes = {} if new.opset >= 18 else {"axes": [-1]}
    mean = new.op("ReduceMean", squares, *([np.array([-1])] if new.opset >= 18 else []), keepdims=1, **axes)
    root = new.op("Sqrt", new.op("Add", mean, new.number("epsilon", 1e-5)))
    return new.op("Mul", new.op("Div", new.data, root), scale)


def _thresholded_relu(new: _Spelling) -> ir.Value:
    """The input where it is above alpha, else 0: onnx's converter has none before opset 10."""
    dtype = new.data.dtype or ir.DataType.FLOAT
    above = new.op("Cast", new.op("Greater", new.data, new.number("alpha", 1.0)), to=int(dtype))
    return new.op("Mul", new.data, above)


def _mean_variance_normalization(new: _Spelling) -> ir.Value:
    """Opset 1's, which ONNX Runtime takes over the batch, too: the same for the one image of a fixed batch."""
    axes = [1, 2, 3] if new.node.attributes.get_int("across_channels", 0) else [2, 3]
    centred = new.op("Sub", new.data, new.op("ReduceMean", new.data, axes=axes, keepdims=1))
    if not new.node.attributes.get_int("normalize_variance", 1):
        return centred
    variance = new.op("ReduceMean", new.op("Mul", centred, centred), axes=axes, keepdims=1)
    return new.op("Div", centred, new.op("Sqrt", variance))


# Of the standard's domain, in ONNX Runtime's core/graph/contrib_ops/contrib_defs.cc.
LEGACY_OPERATORS: Final[dict[str, _SpelledOut]] = {
    "Affine": _affine,
    "Crop": _crop,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": _scale,
    "ScaledTanh": _scaled_tanh,
    "SimplifiedLayerNormalization": _simplified_layer_normalization,
}
