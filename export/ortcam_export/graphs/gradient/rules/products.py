"""Rules of matrix products: MatMul, Gemm, Einsum."""

import string
from collections.abc import Sequence

import onnx_ir as ir

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule

Results = list[ir.Value | None]


@rule("MatMul")
def _matmul(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    one, other = node.inputs
    assert one is not None
    assert other is not None
    output = node.outputs[0]
    if len(b.shape(one)) == 1 or len(b.shape(other)) == 1:
        return _matmul_of_vectors(b, node, g)
    results: Results = [None, None]
    if b.wants(one):
        if len(b.shape(output)) == 2:
            results[0] = b.op("Gemm", [g, b.primal(other)], transB=1)
        else:
            results[0] = _fold(b, b.op("MatMul", [g, _swapped(b, other)]), one, output)
    if b.wants(other):
        results[1] = _fold(b, b.op("MatMul", [_swapped(b, one), g]), other, output)
    return results


def _swapped(b: Backward, value: ir.Value) -> ir.Value:
    rank = len(b.shape(value))
    return b.turned(value, [*range(rank - 2), rank - 1, rank - 2])


def _fold(b: Backward, adjoint: ir.Value, operand: ir.Value, output: ir.Value) -> ir.Value:
    """Sum over the leading dimensions that an operand was broadcast along; its last two are already its own."""
    before, after = b.extent(operand).shapes[1], b.extent(output).shapes[1]
    missing = len(after) - len(before)
    axes = [
        axis for axis in range(len(after) - 2) if (axis < missing or before[axis - missing] == 1) and after[axis] != 1
    ]
    if axes:
        adjoint = b.sum(adjoint, axes)
    return b.reshape(adjoint, operand) if missing else adjoint


def _matmul_of_vectors(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    """A vector [k] on one side; on the left it stands for one row, on the right for one column."""
    one, other = node.inputs
    assert one is not None
    assert other is not None
    left, right = len(b.shape(one)) == 1, len(b.shape(other)) == 1
    if (left and b.wants(one)) or (right and b.wants(other)):
        raise b.refusal("multiplies by a vector that depends on the input")
    if right:
        column = b.build.reshape(g, *b.sides(node.outputs[0]), 1)
        return [b.mul(column, b.primal(other)), None]
    sides = b.sides(node.outputs[0])
    row = b.build.reshape(g, *sides[:-1], 1, sides[-1])
    return [None, b.mul(b.build.reshape(b.primal(one), -1, 1), row)]


@rule("Gemm")
def _gemm(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    one, other = node.inputs[0], node.inputs[1]
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    turned, other_turned = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
    results: Results = [None, None, None]
    if b.wants(one):
        if turned:
            results[0] = b.op("Gemm", [b.primal(other), g], alpha=alpha, transA=other_turned, transB=1)
        else:
            results[0] = _product(b, g, b.primal(other), alpha, turned=not other_turned)
    if b.wants(other):
        pair = [g, b.primal(one)] if other_turned else [b.primal(one), g]
        first = 1 if other_turned or not turned else 0
        second = 1 if other_turned and turned else 0
        results[1] = b.op("Gemm", pair, alpha=alpha, transA=first, transB=second)
    if len(node.inputs) > 2 and b.wants(node.inputs[2]):
        addend = node.inputs[2]
        assert addend is not None
        results[2] = b.fold(b.scale(g, beta), addend, node.outputs[0])
    return results


def _product(b: Backward, g: ir.Value, matrix: ir.Value, alpha: float, *, turned: bool) -> ir.Value:
    if alpha == 1 and not turned:
        return b.op("MatMul", [g, matrix])
    return b.op("Gemm", [g, matrix], alpha=alpha, transB=int(turned))


@rule("Einsum")
def _einsum(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    equation = node.attributes["equation"].as_string()
    ranks = [len(b.shape(value)) for value in node.inputs]
    terms, output = _spelled(equation, ranks, len(b.shape(node.outputs[0])))
    if any(len(set(term)) != len(term) for term in (*terms, output)):
        raise b.refusal(f"takes a diagonal in its equation {equation!r}")
    results: Results = []
    for index, value in enumerate(node.inputs):
        if value is None or not b.wants(value):
            results.append(None)
            continue
        others = [position for position in range(len(terms)) if position != index]
        known = set(output).union(*(terms[position] for position in others))
        kept = "".join(letter for letter in terms[index] if letter in known)
        inputs = [b.rows(item) if (item := node.inputs[position]) is not None else None for position in others]
        inner = ",".join([output, *(terms[position] for position in others)])
        adjoint = b.op("Einsum", [g, *inputs], equation=f"{inner}->{kept}")
        results.append(_with_missing(b, adjoint, value, terms[index], kept))
    return results


def _with_missing(b: Backward, adjoint: ir.Value, value: ir.Value, term: str, kept: str) -> ir.Value:
    """Repeat along the letters that only this operand has."""
    if kept == term:
        return adjoint
    sides = [side if letter in kept else 1 for letter, side in zip(term, b.sides(value), strict=True)]
    return b.expand(b.build.reshape(adjoint, *sides), value)


def _spelled(equation: str, ranks: Sequence[int], rank: int) -> tuple[list[str], str]:
    """The terms of an equation, its output named, and the dots spelled out with letters that are free."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = sorted(set(left) - {",", "."})
        right = ("..." if "..." in left else "") + "".join(letter for letter in letters if left.count(letter) == 1)
    free = [letter for letter in string.ascii_letters if letter not in left]
    most = max([count - len(term.replace("...", "")) for term, count in zip(terms, ranks, strict=True)], default=0)
    dots = "".join(free[:most])

    def spell(term: str, count: int) -> str:
        missing = count - len(term.replace("...", ""))
        return term.replace("...", dots[len(dots) - missing :] if missing else "")

    return [spell(term, count) for term, count in zip(terms, ranks, strict=True)], spell(right, rank)
