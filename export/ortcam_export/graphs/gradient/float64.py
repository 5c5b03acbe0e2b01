"""Run graphs in float64, to have something exact to compare a derivative with.

ONNX Runtime has no convolution in float64. Here onnx's reference evaluator runs the graph, with the operators of
`float64_operators` in place of its own.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from ortcam_export.graphs.gradient.float64_operators import OPERATORS, Floats

__all__ = ["Float64Graph", "central_differences"]


class Float64Graph:
    """A graph whose floating tensors are all float64.

    Args:
        model: in float32. Its weights are read.

    Example:
        >>> logits, = Float64Graph(ir.load("head.onnx")).run({"features": features})  # doctest: +SKIP
    """

    def __init__(self, model: ir.Model) -> None:
        proto = ir.to_proto(_without_files(model))
        _widen(proto.graph)
        self._evaluator = ReferenceEvaluator(proto, new_ops=[*OPERATORS])
        self.inputs = tuple(value.name or "" for value in model.graph.inputs)

    def run(self, feeds: Mapping[str, NDArray[np.floating[Any]]]) -> list[Floats]:
        """The outputs, in their order, of inputs in any floating type."""
        wide = {name: np.asarray(array, np.float64) for name, array in feeds.items()}
        with np.errstate(all="ignore"):  # what is not finite is found where the numbers are compared
            return [np.asarray(output) for output in self._evaluator.run(None, wide)]


def central_differences(
    graph: Float64Graph,
    feeds: Mapping[str, NDArray[np.floating[Any]]],
    name: str,
    direction: Floats,
    seed: Floats,
    step: float,
) -> float:
    """(f(x + step d) - f(x - step d)) / (2 step), with f the sum of the first output times a seed.

    Args:
        graph: whose first output is differentiated.
        feeds: its inputs.
        name: the input to move.
        direction: d, of that input's shape.
        seed: of the output's shape.
        step: the error falls with its square, until rounding takes over.
    """
    moved = [
        graph.run({**feeds, name: np.asarray(feeds[name], np.float64) + sign * step * direction})[0] for sign in (1, -1)
    ]
    return float(((moved[0] - moved[1]) * seed).sum() / (2 * step))


def _without_files(model: ir.Model) -> ir.Model:
    """A copy whose weights lie in memory."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    return copy


def _widen(graph: onnx.GraphProto) -> None:
    """Make what is float32 float64: weights, constants, casts, declared types."""
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen(attribute.g)
            if attribute.name in ("to", "dtype") and attribute.i in _NARROW:
                attribute.i = onnx.TensorProto.DOUBLE
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values = np.array(attribute.f if attribute.name == "value_float" else attribute.floats, np.float64)
                attribute.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(values)))
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


_NARROW: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
