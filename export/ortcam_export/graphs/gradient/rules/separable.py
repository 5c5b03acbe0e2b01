"""Rules of operators that are linear in each dimension by itself: resizing, average pools, padding by reflection.

Such an operator is a matrix per dimension. The matrices are read off the operator itself, run on one line at a time.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.rules.registry import rule
from ortcam_export.graphs.running import quiet_session

__all__ = ["apply_matrices", "matrices_of"]

Results = list[ir.Value | None]

# Up to this many elements the matrices of several dimensions become one.
_LARGEST_JOINT: Final = 1 << 16


@rule("Resize", "Upsample")
def _resize(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, output = node.inputs[0], node.outputs[0]
    return [apply_matrices(b, g, matrices_of(b, node), b.sides(value), b.sides(output))]


@rule("AveragePool")
def _average(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value, output = node.inputs[0], node.outputs[0]
    return [apply_matrices(b, g, matrices_of(b, node), b.sides(value), b.sides(output))]


@rule("GlobalAveragePool")
def _global_average(b: Backward, node: ir.Node, g: ir.Value) -> Results:
    value = node.inputs[0]
    assert value is not None
    return [b.spread(b.scale(g, 1 / math.prod(b.shape(value)[2:])))]


def matrices_of(b: Backward, node: ir.Node) -> dict[int, NDArray[np.float64]]:
    """The matrix [after, before] of each dimension but the batch, without those that leave it as it is.

    Raises:
        NoDerivativeError: the operator is none of this kind.
    """
    value = node.inputs[0]
    before, after, batch = b.shape(value), b.shape(node.outputs[0]), b.batch_axis(value)
    run = _runner(b, node)
    whole = run(np.ones(before, np.float32)).astype(np.float64)
    place = np.unravel_index(np.abs(whole).argmax(), after)
    found: dict[int, NDArray[np.float64]] = {}
    for axis, side in enumerate(before):
        if axis == batch or (side == 1 and after[axis] == 1):
            continue
        if axis == 1 and node.op_type == "AveragePool":
            continue
        columns = []
        for index in range(side):
            line = np.zeros(before, np.float32)
            line[(slice(None),) * axis + (index,)] = 1
            cut: tuple[Any, ...] = tuple(slice(None) if other == axis else int(p) for other, p in enumerate(place))
            columns.append(run(line)[cut].astype(np.float64))
        matrix = np.stack(columns, axis=1)
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(side)):
            found[axis] = matrix
    if not found:
        return {}
    first = next(iter(found))
    return {axis: matrix if axis == first else matrix / whole[place] for axis, matrix in found.items()}


def _runner(b: Backward, node: ir.Node) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The operator alone, as a function of its first input, without the constant that lies outside of it."""
    value = node.inputs[0]
    assert value is not None
    proto = ir.to_proto(node)
    del proto.output[1:]
    for attribute in list(proto.attribute):
        if attribute.name == "extrapolation_value":
            proto.attribute.remove(attribute)
    proto.input[0], proto.output[0] = "probed", "result"
    constants = {}
    for index, item in enumerate(node.inputs[1:], 1):
        if item is not None:
            values = b.extent(item).values
            if values is None:
                raise b.refusal("has an operand that depends on the input")
            constants[proto.input[index]] = values[0]
    graph = onnx.helper.make_graph(
        [proto],
        "probe",
        [onnx.helper.make_tensor_value_info("probed", onnx.TensorProto.FLOAT, b.shape(value))],
        [onnx.ValueInfoProto(name="result")],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in b.opsets.items()]
    session = quiet_session(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))

    def run(array: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"probed": array})[0]
        return result

    return run


def apply_matrices(
    b: Backward, g: ir.Value, matrices: dict[int, NDArray[np.float64]], before: Sequence[int], after: Sequence[int]
) -> ir.Value:
    """Multiply each dimension of an adjoint by its matrix [after, before]."""
    sides = list(after)
    axes = sorted(matrices)
    if len(axes) == 2 and axes[1] == axes[0] + 1:
        joint = np.kron(matrices[axes[0]], matrices[axes[1]])
        if joint.size <= _LARGEST_JOINT:
            merged = [*sides[: axes[0]], len(joint), *sides[axes[1] + 1 :]]
            flat = b.along(b.build.reshape(g, *merged), joint, axes[0], merged)
            return b.build.reshape(flat, *before)
    for axis in reversed(axes):
        g = b.along(g, matrices[axis], axis, sides)
        sides[axis] = matrices[axis].shape[1]
    return g
