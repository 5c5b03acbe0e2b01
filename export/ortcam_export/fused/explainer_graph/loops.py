"""Loops in an ONNX graph: a body that runs a number of times, and what it carries from turn to turn."""

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.builder import Builder

__all__ = ["Carried", "Turn", "filled", "loop", "tensor"]

# From the builder of a body, the number of the turn, int64 [], and the state, to the state after it.
Turn = Callable[[Builder, ir.Value, list[ir.Value]], list[ir.Value]]


@dataclasses.dataclass(frozen=True)
class Carried:
    """What a loop carries from one turn to the next.

    Attributes:
        value: in front of the first turn.
        dtype: of it.
        rank: of it.
    """

    value: ir.Value
    dtype: ir.DataType
    rank: int


def loop(
    build: Builder,
    turns: ir.Value,
    carried: list[Carried],
    make_body: Turn,
) -> list[ir.Value]:
    """Build a Loop of so many turns, int64 []. Returns what the last turn carries out."""
    inner = build.inner()
    turn = ir.Value(name=build.name("turn"), shape=ir.Shape(()), type=ir.TensorType(ir.DataType.INT64))
    going = ir.Value(name=build.name("going"), shape=ir.Shape(()), type=ir.TensorType(ir.DataType.BOOL))
    state = [
        ir.Value(name=build.name("state"), shape=ir.Shape([None] * item.rank), type=ir.TensorType(item.dtype))
        for item in carried
    ]
    results = make_body(inner, turn, state)
    outputs = [inner.op("Identity", [going]), *results]
    for output, like in zip(outputs, (going, *state), strict=True):
        output.shape, output.type = like.shape, like.type
    body = ir.Graph(
        [turn, going, *state],
        outputs,
        nodes=inner.take_nodes(),
        initializers=[value for value in inner.weights if value.uses()],
        name=build.name("body"),
    )
    given = [turns, build.constant(np.bool_(True)), *(item.value for item in carried)]
    return [*build.ops("Loop", given, {"body": body}, outputs=len(carried))]


def filled(build: Builder, shape: ir.Value, value: np.generic) -> ir.Value:
    """A tensor of a shape, int64 [rank], with one value everywhere."""
    return build.op("ConstantOfShape", [shape], {"value": ir.tensor(np.array([value]))})


def tensor(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    """A tensor that no node makes: an input of a graph."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
