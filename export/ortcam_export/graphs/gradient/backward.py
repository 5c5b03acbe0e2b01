"""What a rule works with: it builds nodes of the backward pass, and knows the tensors of the forward pass.

A forward tensor has N images on its batch axis, its adjoint has K. N is 1 or K, so that the two broadcast.

Weights stay as they are in the file that a bundle's graphs share, so that whoever changes that file changes all graphs.
What is computed from weights alone, such as a transposed one, is nodes: a session folds them when it opens the graph.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from ortcam_export.graphs.batch_axis.extent import Extent, Shape
from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.dataflow import constant_of
from ortcam_export.graphs.gradient.refusals import NoDerivativeError

__all__ = ["Backward"]


class Backward:
    """Builds the backward pass.

    Args:
        build: takes the nodes.
        extents: of the forward tensors.
        seed: float32 [K,...], where K is read from.
        wanted: the forward tensors that have adjoints.
        opsets: versions of the operators.

    Attributes:
        build: the same.
        opsets: the same.
        thin: adjoints that only broadcast to the shapes of their forward tensors.
        node: the one that is being differentiated.
        adjoints: of the outputs of that node.
    """

    def __init__(
        self,
        build: Builder,
        extents: Mapping[ir.Value, Extent],
        seed: ir.Value,
        wanted: Collection[ir.Value],
        opsets: Mapping[str, int],
    ) -> None:
        self.opsets = opsets
        self.build = build
        self.extents = extents
        self.seed = seed
        self._wanted = wanted
        self._memo: dict[tuple[Any, ...], ir.Value] = {}
        self._scaled: dict[ir.Value, tuple[ir.Value, float]] = {}
        self.thin: set[ir.Value] = set()
        self.node: ir.Node | None = None
        self.adjoints: Mapping[ir.Value, ir.Value] = {}

    # Facts about forward tensors.

    def wants(self, value: ir.Value | None) -> bool:
        """Whether a forward tensor's adjoint is asked for."""
        return value is not None and value in self._wanted

    def extent(self, value: ir.Value | None) -> Extent:
        """What is known of a forward tensor.

        Raises:
            NoDerivativeError: nothing is.
        """
        if value is None or value not in self.extents:
            name = None if value is None else value.name
            raise self.refusal(f"has a tensor of unknown shape, {name!r}")
        return self.extents[value]

    def shape(self, value: ir.Value | None) -> Shape:
        """The shape of a forward tensor for one image."""
        return self.extent(value).shapes[0]

    def sides(self, value: ir.Value | None) -> list[int]:
        """The target of a reshape to a forward tensor's shape: -1 for the batch."""
        extent = self.extent(value)
        axis = self.batch_axis(value)
        return [-1 if index == axis else side for index, side in enumerate(extent.shapes[0])]

    def batch_axis(self, value: ir.Value | None) -> int | None:
        """The dimension with the batch, or None for a tensor that has none.

        Raises:
            NoDerivativeError: several dimensions depend on the batch.
        """
        extent = self.extent(value)
        if extent.per_image and extent.batch_axis is None:
            raise self.refusal("mixes the images of a batch")
        return extent.batch_axis

    def array(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The values of a forward tensor that is the same for every input; None where it is not."""
        constant = constant_of(value)
        if constant is not None or value is None:
            return constant
        values = self.extents[value].values if value in self.extents else None
        return values[0] if values is not None and np.array_equal(*values) else None

    def integers(self, value: ir.Value | None, what: str) -> list[int]:
        """The values of an integer tensor that has to be constant, such as axes.

        Raises:
            NoDerivativeError: it is not.
        """
        array = self.array(value)
        if array is None:
            raise self.refusal(f"has {what} that are computed")
        return [int(item) for item in array.reshape(-1)]

    def refusal(self, why: str) -> NoDerivativeError:
        """The error for the node that is being differentiated."""
        assert self.node is not None
        return NoDerivativeError.at(self.node, why)

    # Forward tensors as operands of the backward pass.

    def primal(self, value: ir.Value | None) -> ir.Value:
        """A forward tensor that broadcasts against adjoints.

        Where a dimension holds the batch and something else, [heads * N, T, d], N = 1 does not broadcast: it is
        repeated K times.
        """
        assert value is not None
        extent = self.extent(value)
        axis = self.batch_axis(value)
        if extent.dtype.is_floating_point() and extent.dtype != ir.DataType.FLOAT:
            key = ("float32", value)
            value = self._memo.get(key) or self._memo.setdefault(key, self.build.cast(value, ir.DataType.FLOAT))
        return value if axis is None or extent.shapes[0][axis] == 1 else self._repeated(value, axis, extent)

    def rows(self, value: ir.Value) -> ir.Value:
        """A forward tensor with K images on its batch axis, for operators that do not broadcast."""
        axis = self.batch_axis(value)
        return value if axis is None else self._repeated(value, axis, self.extent(value))

    def _repeated(self, value: ir.Value, axis: int, extent: Extent) -> ir.Value:
        key = ("rows", value)
        if key not in self._memo:
            shape, inner = extent.shapes[0], extent.inner
            if inner == 0:
                raise self.refusal("mixes the images of a batch")
            merged = shape[axis] > 1
            data, place, rank = value, axis, len(shape)
            if merged:
                opened = [*shape[:axis], shape[axis] // inner, -1, inner, *shape[axis + 1 :]]
                data, place, rank = self.build.reshape(value, *opened), axis + 1, len(shape) + 2
            parts = [self.build.integers(*[1] * place)] if place else []
            parts.append(self.seeds())
            parts += [self.build.integers(*[1] * (rank - place - 1))] if place < rank - 1 else []
            data = self.op("Expand", [data, self.op("Concat", parts, axis=0) if len(parts) > 1 else parts[0]])
            sides = [-1 if index == axis else side for index, side in enumerate(shape)]
            self._memo[key] = self.build.reshape(data, *sides) if merged else data
        return self._memo[key]

    def seeds(self) -> ir.Value:
        """K, int64 [1]."""
        key = ("seeds",)
        if key not in self._memo:
            self._memo[key] = self.op("Shape", [self.seed], start=0, end=1)
        return self._memo[key]

    def turned(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """A transposed forward tensor; of a weight, a session folds it when it opens the graph."""
        if list(perm) == sorted(perm):
            return self.primal(value)
        key = ("turned", value, *perm)
        if key not in self._memo:
            self._memo[key] = self.op("Transpose", [self.primal(value)], perm=list(perm))
        return self._memo[key]

    def remember(self, key: tuple[Any, ...], value: ir.Value) -> ir.Value:
        """Keep a tensor that other rules may need, too; returns the one kept first."""
        return self._memo.setdefault(key, value)

    def recall(self, key: tuple[Any, ...]) -> ir.Value | None:
        """What was kept under a key."""
        return self._memo.get(key)

    # Building.

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Build one operator with one output."""
        return self.build.op(op_type, inputs, attributes)

    def constant(self, array: ArrayLike) -> ir.Value:
        """A constant; floating ones become float32."""
        values = np.asarray(array)
        return self.build.constant(values.astype(np.float32) if values.dtype.kind == "f" else values)

    def mul(self, one: ir.Value, other: ir.Value) -> ir.Value:
        """Multiply."""
        return self.op("Mul", [one, other])

    def scale(self, value: ir.Value, factor: float) -> ir.Value:
        """Multiply by a number; factors one behind another become one."""
        base, before = self._scaled.get(value, (value, 1.0))
        if before * factor == 1:
            return base
        result = self.mul(base, self.constant(np.float32(before * factor)))
        self._scaled[result] = base, before * factor
        if value in self.thin:
            self.thin.add(result)
        return result

    def negative(self, value: ir.Value) -> ir.Value:
        """Change the sign."""
        return self.scale(value, -1.0)

    def sum(self, value: ir.Value, axes: Sequence[int], *, keepdims: bool = True, mean: bool = False) -> ir.Value:
        """Sum, or average, over axes."""
        kind = "ReduceMean" if mean else "ReduceSum"
        return self.op(kind, [value, self.build.integers(*axes)], keepdims=int(keepdims))

    def gate(self, adjoint: ir.Value, condition: ir.Value) -> ir.Value:
        """The adjoint where a condition holds, else 0."""
        return self.op("Where", [condition, adjoint, self.constant(np.float32(0))])

    def expand(self, adjoint: ir.Value, value: ir.Value) -> ir.Value:
        """Broadcast an adjoint to the shape of its forward tensor; the batch stays as it is."""
        axis = self.batch_axis(value)
        shape = [1 if index == axis else side for index, side in enumerate(self.shape(value))]
        return self.op("Expand", [adjoint, self.build.integers(*shape)]) if max(shape, default=1) > 1 else adjoint

    def full(self, adjoint: ir.Value, value: ir.Value) -> ir.Value:
        """An adjoint of its forward tensor's shape: one that only broadcasts to it is expanded."""
        return self.expand(adjoint, value) if adjoint in self.thin else adjoint

    def spread(self, adjoint: ir.Value) -> ir.Value:
        """Mark an adjoint that only broadcasts to its forward tensor's shape; it is expanded where it has to be."""
        self.thin.add(adjoint)
        return adjoint

    def fold(self, adjoint: ir.Value, operand: ir.Value, output: ir.Value) -> ir.Value:
        """Sum an adjoint of an output's shape over what an operand was broadcast along."""
        before, after = self.extent(operand).shapes[1], self.extent(output).shapes[1]
        padded = (1,) * (len(after) - len(before)) + before
        axes = [axis for axis, (a, b) in enumerate(zip(padded, after, strict=True)) if a == 1 and b != 1]
        if axes:
            adjoint = self.sum(adjoint, axes)
        return self.build.reshape(adjoint, *self.sides(operand)) if len(before) != len(after) else adjoint

    def reshape(self, adjoint: ir.Value, value: ir.Value) -> ir.Value:
        """Reshape an adjoint to a forward tensor's shape."""
        return self.build.reshape(adjoint, *self.sides(value))

    def along(self, adjoint: ir.Value, matrix: NDArray[Any], axis: int, sides: Sequence[int]) -> ir.Value:
        """Multiply one axis of an adjoint by a matrix [before, after].

        Args:
            adjoint: of shape `sides`.
            matrix: float.
            axis: which one.
            sides: with at most one -1.
        """
        if axis == len(sides) - 1:
            return self.op("MatMul", [adjoint, self.constant(matrix.astype(np.float32))])
        behind = list(sides[axis + 1 :])
        if len(behind) > 1 and -1 not in behind:
            adjoint = self.build.reshape(adjoint, *sides[: axis + 1], math.prod(behind))
        elif len(behind) > 1:
            raise self.refusal("works along a dimension in front of the batch")
        result = self.op("MatMul", [self.constant(np.ascontiguousarray(matrix.T, np.float32)), adjoint])
        return self.build.reshape(result, *sides[:axis], len(matrix[0]), *behind) if len(behind) > 1 else result
