"""Bounds of a graph's output for any image: an output that cannot leave [0,1] holds no logits."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir

__all__ = ["Bounds", "bounds_of"]

Bounds = tuple[float, float]

_UNBOUNDED: Final[Bounds] = (-math.inf, math.inf)
_BOUNDED: Final[dict[str, Bounds]] = {
    "HardSigmoid": (0.0, 1.0),
    "LogSoftmax": (-math.inf, 0.0),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softsign": (-1.0, 1.0),
    "Tanh": (-1.0, 1.0),
}
# Each element of the output is one of the inputs, or lies between some of them.
_BETWEEN: Final = (
    *("AveragePool", "Cast", "Concat", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
    *("Dropout", "Max", "MaxPool", "Mean", "Min", "ReduceMax", "ReduceMean", "ReduceMin", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
# Of the others the first input alone holds values.
_OF_ALL_INPUTS: Final = ("Concat", "Max", "Mean", "Min")


def bounds_of(value: ir.Value) -> Bounds:
    """The least and greatest value that an element of a tensor can have, as far as its operators tell.

    Interval arithmetic. (-inf, inf) means that nothing is known. It knows the operators that combine probabilities:
    means, products, sums, 1 - p and 1 / (1 + exp(-x)).
    """
    return _bounds(value, {})


def _bounds(value: ir.Value, known: dict[ir.Value, Bounds]) -> Bounds:
    if value in known:
        return known[value]
    # From the inputs on, without recursion: real graphs are deeper than Python's stack.
    waiting = [value]
    while waiting:
        current = waiting[-1]
        node = current.producer()
        needed = [] if node is None or node.op_type in _BOUNDED else [i for i in node.inputs if i is not None]
        if missing := [item for item in needed if item not in known]:
            waiting += missing
            continue
        known[current] = _constant(current) if node is None or node.op_type == "Constant" else _of_node(node, known)
        waiting.pop()
    return known[value]


def _constant(value: ir.Value) -> Bounds:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        return _UNBOUNDED
    array = tensor.numpy()
    if array.size == 0 or not np.issubdtype(array.dtype, np.number):
        return _UNBOUNDED
    return float(array.min()), float(array.max())


def _of_node(node: ir.Node, known: dict[ir.Value, Bounds]) -> Bounds:
    if node.domain not in ("", "ai.onnx"):
        return _UNBOUNDED
    if node.op_type in _BOUNDED:
        return _BOUNDED[node.op_type]
    inputs = [_UNBOUNDED if value is None else known[value] for value in node.inputs]
    if not inputs:
        return _UNBOUNDED
    if node.op_type in _BETWEEN:
        held = inputs if node.op_type in _OF_ALL_INPUTS else inputs[:1]
        return min(low for low, _ in held), max(high for _, high in held)
    operation = _OPERATIONS.get(node.op_type)
    if operation is None:
        return _UNBOUNDED
    low, high = operation(inputs)
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def _sum(inputs: list[Bounds]) -> Bounds:
    return sum(low for low, _ in inputs), sum(high for _, high in inputs)


def _difference(inputs: list[Bounds]) -> Bounds:
    (low, high), (other_low, other_high) = inputs
    return low - other_high, high - other_low


def _product(inputs: list[Bounds]) -> Bounds:
    first, second = inputs
    ends = [0.0 if 0 in (a, b) else a * b for a in first for b in second]  # 0 x inf is 0 here: the end is not reached
    return min(ends), max(ends)


def _quotient(inputs: list[Bounds]) -> Bounds:
    return _product([inputs[0], _reciprocal(inputs[1:])])


def _reciprocal(inputs: list[Bounds]) -> Bounds:
    low, high = inputs[0]
    if low <= 0 <= high:
        return (0.0, math.inf) if low == 0 else _UNBOUNDED
    return 1 / high, 1 / low


def _exponential(inputs: list[Bounds]) -> Bounds:
    low, high = inputs[0]
    return (math.exp(low) if low < 700 else math.inf), (math.exp(high) if high < 700 else math.inf)


def _clip(inputs: list[Bounds]) -> Bounds:
    low, high = inputs[0]
    least = inputs[1][0] if len(inputs) > 1 else -math.inf
    most = inputs[2][1] if len(inputs) > 2 else math.inf
    return max(low, least), min(high, most)


_OPERATIONS: Final[dict[str, Callable[[list[Bounds]], Bounds]]] = {
    "Abs": lambda inputs: (0.0, max(abs(end) for end in inputs[0])),
    "Add": _sum,
    "Clip": _clip,
    "Div": _quotient,
    "Exp": _exponential,
    "Mul": _product,
    "Neg": lambda inputs: (-inputs[0][1], -inputs[0][0]),
    "Reciprocal": _reciprocal,
    "Relu": lambda inputs: (max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)),
    "Softplus": lambda _: (0.0, math.inf),
    "Sqrt": lambda _: (0.0, math.inf),
    "Sub": _difference,
    "Sum": _sum,
}
