"""Build ONNX nodes one operator at a time. Names are unique, and each constant exists once."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam_export.graphs.names import fresh_name
from ortcam_export.graphs.weights import weight_key

__all__ = ["Builder", "add_constant"]

_OPERATORS: Final = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "softsign": "Softsign"}


def add_constant(graph: ir.Graph, array: NDArray[Any] | np.generic, name: str) -> ir.Value:
    """Add an array to a graph as an initializer, of the array's shape and type. Its name is made unique."""
    values = np.asarray(array)
    name = fresh_name(name, set(graph.initializers))
    tensor = ir.tensor(np.ascontiguousarray(values).reshape(values.shape), name=name)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


class Builder:
    """Builds nodes that are then put into a graph.

    Args:
        taken: names that are in use already.
    """

    def __init__(self, taken: Iterable[str | None] = ()) -> None:
        self._taken = set(taken)
        self._nodes: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.initializers: list[ir.Value] = []
        self._weights: dict[tuple[Any, ...], ir.Value] = {}

    def inner(self) -> "Builder":
        """A builder for a graph inside a node of this one. Both share names and constants."""
        inner = Builder()
        inner._taken, inner._constants, inner.initializers = self._taken, self._constants, self.initializers
        return inner

    def take_nodes(self) -> list[ir.Node]:
        """The nodes built since the last call."""
        nodes, self._nodes = self._nodes, []
        return nodes

    def adopt(self, nodes: Iterable[ir.Node]) -> None:
        """Take nodes that were built elsewhere; later ones come behind them."""
        self._nodes.extend(nodes)

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None) -> ir.Value:
        """One operator with one output."""
        (value,) = self.ops(op_type, inputs, attributes, outputs=1)
        return value

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None, *, outputs: int
    ) -> Sequence[ir.Value]:
        """One operator with several outputs."""
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        self._nodes.append(node)
        for value in node.outputs:
            value.name = self.name(op_type.lower())
        node.name = f"ortcam/{node.outputs[0].name}"
        return node.outputs

    def output(self, op_type: str, inputs: list[ir.Value], name: str, rank: int) -> ir.Value:
        """Build a graph output [B,K] or [K,H,W]. A Gather works along axis 1."""
        value = self.op(op_type, inputs, {"axis": 1} if op_type == "Gather" else None)
        value.name = name
        value.dtype = ir.DataType.FLOAT
        value.shape = ir.Shape(("B", "K") if rank == 2 else ("K", None, None))
        return value

    def initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A tensor of weights."""
        name = self.name(tensor.name or "constant")
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.initializers.append(value)
        return value

    @property
    def weights(self) -> Iterable[ir.Value]:
        """The initializers that belong to this graph and not to the one around it."""
        return self._weights.values()

    def weight(self, value: ir.Value) -> ir.Value:
        """Copy an initializer of another graph into this graph.

        A graph inside a loop gets its own, too. ONNX Runtime does not bring weights of the graph around it into the
        layout that convolutions are computed in, and then takes half as long again. `fused.sharing` stores equal
        weights once in the file.
        """
        tensor = value.const_value
        assert tensor is not None
        key = weight_key(tensor)
        if key not in self._weights:
            self._weights[key] = ir.Value(
                name=self.name(tensor.name or "weight"), shape=value.shape, type=value.type, const_value=tensor
            )
        return self._weights[key]

    def constant(self, array: NDArray[Any] | np.generic) -> ir.Value:
        """An array as a constant. Equal arrays give the same constant."""
        array = np.asarray(array)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.initializer(ir.tensor(array, name="constant"))
        return self._constants[key]

    def integers(self, *values: int) -> ir.Value:
        """int64 [n]."""
        return self.constant(np.array(values, np.int64))

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        """To a fixed shape, with at most one -1."""
        return self.op("Reshape", [value, self.integers(*shape)])

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """To another type."""
        return self.op("Cast", [value], {"to": dtype.value})

    def slice(self, value: ir.Value, start: ir.Value, end: ir.Value, axis: int) -> ir.Value:
        """A range, int64 [1] each, of an axis."""
        return self.op("Slice", [value, start, end, self.integers(axis)])

    def activation(self, kind: Activation, logits: ir.Value) -> ir.Value:
        """Probabilities of logits [B,classes]."""
        if kind == "identity":
            return logits
        if kind == "softmax":
            return self.op("Softmax", [logits], {"axis": -1})
        # Spelled out: ONNX Runtime's Sigmoid is exact to 1e-7, too coarse for an improbable class.
        one = self.constant(np.float32(1))
        return self.op("Reciprocal", [self.op("Add", [self.op("Exp", [self.op("Neg", [logits])]), one])])

    def gate(self, kind: str, value: ir.Value) -> ir.Value:
        """The activation that takes the place of the min-max in ScoreCAM++."""
        if kind == "mish":
            return self.op("Mul", [value, self.op("Tanh", [self.op("Softplus", [value])])])
        if kind == "swish":
            return self.op("Mul", [value, self.op("Sigmoid", [value])])
        if kind == "sigmoid-relu":
            half = self.constant(np.float32(0.5))
            return self.op("Sigmoid", [self.op("Relu", [self.op("Mul", [value, half])])])
        return self.op(_OPERATORS[kind], [value])

    def name(self, stem: str) -> str:
        """A unique name for a tensor."""
        return fresh_name(f"ortcam_{stem.removeprefix('ortcam_')}", self._taken)
