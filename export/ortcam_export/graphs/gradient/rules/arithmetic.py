"""Rules of operators on several tensors of one shape, with broadcasting: sums, products, powers, choices."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule


def _each(b: Backward, node: ir.Node, adjoints: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Sum the adjoints of the inputs over what these were broadcast along."""
    return [
        None if adjoint is None or value is None else b.fold(adjoint, value, node.outputs[0])
        for adjoint, value in zip(adjoints, node.inputs, strict=True)
    ]


@rule("Add", "Sum")
def _add(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    return _each(b, node, [g if b.wants(value) else None for value in node.inputs])


@rule("Mean")
def _mean(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    part = b.scale(g, 1 / len(node.inputs))
    return _each(b, node, [part if b.wants(value) else None for value in node.inputs])


@rule("Sub")
def _sub(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    one, other = node.inputs
    return _each(b, node, [g if b.wants(one) else None, b.negative(g) if b.wants(other) else None])


@rule("Mul")
def _mul(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    one, other = node.inputs
    if one is other and one is not None:
        return [b.scale(b.mul(g, b.primal(one)), 2.0), None]
    return _each(
        b,
        node,
        [_times(b, g, other) if b.wants(one) else None, _times(b, g, one) if b.wants(other) else None],
    )


def _times(b: Backward, g: ir.Value, factor: ir.Value | None) -> ir.Value:
    array = b.array(factor)
    if array is not None and array.size == 1:
        return b.scale(g, float(array.reshape(-1)[0]))
    return b.mul(g, b.primal(factor))


@rule("Div")
def _div(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    one, other = node.inputs
    array = b.array(other)
    if array is not None and array.size == 1:
        part = b.scale(g, 1 / float(array.reshape(-1)[0]))
    else:
        part = b.op("Div", [g, b.primal(other)])
    above = part if b.wants(one) else None
    below = b.negative(b.mul(part, b.primal(node.outputs[0]))) if b.wants(other) else None
    return _each(b, node, [above, below])


@rule("Pow")
def _pow(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    base, exponent = node.inputs
    results: list[ir.Value | None] = [None, None]
    if b.wants(base):
        results[0] = b.mul(g, _power_slope(b, base, exponent))
    if b.wants(exponent):
        logarithm = b.op("Log", [b.primal(base)])
        results[1] = b.mul(g, b.mul(b.primal(node.outputs[0]), logarithm))
    return _each(b, node, results)


def _power_slope(b: Backward, base: ir.Value | None, exponent: ir.Value | None) -> ir.Value:
    """Y x^(y-1)."""
    array = b.array(exponent)
    x = b.primal(base)
    if array is None or array.size != 1:
        one = b.constant(np.float32(1))
        y = b.primal(exponent)
        if not b.extent(exponent).dtype.is_floating_point():  # ONNX lets it be of another type than the base
            y = b.build.cast(y, ir.DataType.FLOAT)
        return b.mul(y, b.op("Pow", [x, b.op("Sub", [y, one])]))
    power = float(array.reshape(-1)[0])
    if power == 2:
        return b.scale(x, 2.0)
    if power == 1:
        return b.constant(np.float32(1))
    return b.scale(b.op("Pow", [x, b.constant(np.float32(power - 1))]), power)


@rule("Max", "Min")
def _extreme(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    """To the first of those that are the greatest, or least."""
    output = b.primal(node.outputs[0])
    left = g
    results: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        taken = b.op("Equal", [b.primal(value), output])
        results.append(b.gate(left, taken) if b.wants(value) else None)
        if index + 1 < len(node.inputs) and any(b.wants(later) for later in node.inputs[index + 1 :]):
            left = b.op("Where", [taken, b.constant(np.float32(0)), left])
    return _each(b, node, results)


@rule("Where")
def _where(b: Backward, node: ir.Node, g: ir.Value) -> list[ir.Value | None]:
    condition, one, other = node.inputs
    chosen, nothing = b.primal(condition), b.constant(np.float32(0))
    return _each(
        b,
        node,
        [
            None,
            b.op("Where", [chosen, g, nothing]) if b.wants(one) else None,
            b.op("Where", [chosen, nothing, g]) if b.wants(other) else None,
        ],
    )
