"""Whether a node meets the conditions that providers document: fixed shapes, ranks, types, constant inputs."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import onnx_ir as ir

from ortcam_export.providers.documented import Documented

__all__ = ["refusal"]

_POOLS: Final = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "QLinearAveragePool")
_CONVOLUTIONS: Final = ("Conv", "ConvTranspose", "QLinearConv", "QLinearConvTranspose")
# Operators whose further inputs are shapes, axes and the like, which are no data.
_SHAPED_BY: Final = (
    *("Expand", "Gather", "GatherElements", "GatherND", "Pad", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape"),
    *("Resize", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"),
)
_FLOATING: Final = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_WHOLE: Final = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.DOUBLE)
# Provider and operator -> places of inputs that have to be constant, and of which type they need not be.
_CONSTANT: Final[Mapping[str, Mapping[str, tuple[tuple[int, ...], ir.DataType | None]]]] = {
    "NnapiExecutionProvider": {
        "Conv": ((1, 2), None),
        "DequantizeLinear": ((1, 2), None),
        "Gather": ((1,), ir.DataType.INT32),
        "Pad": ((1, 2), None),
        "QuantizeLinear": ((1, 2), None),
        "Split": ((1,), None),
        "Squeeze": ((1,), None),
        "Unsqueeze": ((1,), None),
    },
    "CoreMLExecutionProvider": {
        "Conv": ((2,), None),
        "ConvTranspose": ((1, 2), None),
        "Gemm": ((1,), None),
        "Slice": ((1, 2, 3, 4), None),
        "Split": ((1,), None),
    },
    "XnnpackExecutionProvider": {"Conv": ((1, 2), None), "ConvTranspose": ((1, 2), None)},
}
_TWO_DIMENSIONAL: Final = {
    "NnapiExecutionProvider": (4,),
    "CoreMLExecutionProvider": (3, 4),
    "XnnpackExecutionProvider": (4,),
}


def refusal(node: ir.Node, provider: Documented, operators: Mapping[str, str], dynamic: Collection[str]) -> str | None:
    """Why a provider would not take a node, in words; None if nothing speaks against it.

    Args:
        node: of a graph whose shapes were inferred.
        provider: as documented.
        operators: of it.
        dynamic: names of tensors whose shapes are not fixed.
    """
    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
    if name not in operators:
        return "operator not in the list"
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if provider.static and any(value.name in dynamic for value in values):
        return "dynamic shape"
    checks: tuple[Callable[[ir.Node, Documented], str | None], ...] = (_too_many_axes, _type, _rank, _constants, _axis)
    return next((reason for check in checks if (reason := check(node, provider)) is not None), None)


def _too_many_axes(node: ir.Node, provider: Documented) -> str | None:
    if provider.most_axes is None:
        return None
    ranks = [len(v.shape) for v in (*node.inputs, *node.outputs) if v is not None and v.shape is not None]
    if max(ranks, default=0) <= provider.most_axes:
        return None
    return f"{max(ranks)} axes; accepted are {provider.most_axes}"


def _type(node: ir.Node, provider: Documented) -> str | None:
    """Refuse data in integers that are no quantized values."""
    if provider.integers:
        return None
    inputs = node.inputs[:1] if node.op_type in _SHAPED_BY else node.inputs
    if node.op_type == "Where":  # its condition is of bool everywhere
        inputs = node.inputs[1:]
    for value in (*inputs, *node.outputs):
        if value is not None and value.dtype in _WHOLE:
            return f"type {value.dtype.name.lower()}"
    return None


def _rank(node: ir.Node, provider: Documented) -> str | None:
    accepted, data = _TWO_DIMENSIONAL.get(provider.name), node.inputs[0] if node.inputs else None
    if accepted is None or data is None or data.shape is None:
        return None
    if node.op_type in _POOLS:
        accepted = (4,)
    elif node.op_type in ("Gemm", "MatMul") and provider.name.startswith("Xnnpack"):
        accepted = (2,)
    elif node.op_type not in _CONVOLUTIONS:
        return None
    return (
        None
        if len(data.shape) in accepted
        else f"{len(data.shape)} axes; accepted are {' or '.join(map(str, accepted))}"
    )


def _constants(node: ir.Node, provider: Documented) -> str | None:
    places, unless = _CONSTANT.get(provider.name, {}).get(node.op_type, ((), None))
    for place in places:
        value = node.inputs[place] if place < len(node.inputs) else None
        if value is None or value.const_value is not None or (unless is not None and value.dtype == unless):
            continue
        of = "" if unless is None or value.dtype is None else f" of {value.dtype.name.lower()}"
        return f"input {place}{of} is not constant"
    return None


def _axis(node: ir.Node, provider: Documented) -> str | None:
    if node.op_type != "Softmax" or not provider.name.startswith("Xnnpack"):
        return None
    data = node.inputs[0]
    last = None if data is None or data.shape is None else len(data.shape) - 1
    return None if node.attributes.get_int("axis", -1) in (-1, last) else "not along the last axis"
