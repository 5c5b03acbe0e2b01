"""What a trace knows so far: the extent of every tensor visited, and the constants it has added to the graph."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.batch_axis.extent import Extent, Shape, extent_of_constant
from ortcam_export.graphs.batch_axis.inference import Inferred, infer
from ortcam_export.graphs.builder import add_constant

__all__ = ["Trace", "describe_node"]


class Trace:
    """What is known of a graph's tensors. Its changes to the graph keep that up to date.

    Args:
        model: one input, whose first dimension is the batch and whose others are fixed.
        known: of the input and the initializers.

    Attributes:
        graph: of the model.
        known: of every tensor visited.
    """

    def __init__(self, model: ir.Model, known: dict[ir.Value, Extent]) -> None:
        self._model = model
        self.graph = model.graph
        self.known = known

    def infer(self, node: ir.Node, index: int) -> Inferred | None:
        """See `inference.infer`."""
        return infer(self._model, node, self.known, index)

    def constant(self, array: NDArray[Any], name: str) -> ir.Value:
        """Add an initializer. Its name is unique, and none that ONNX Runtime makes of tensors' names."""
        value = add_constant(self.graph, array, f"ortcam/{name}")
        self.known[value] = extent_of_constant(value)
        return value

    def register(self, value: ir.Value) -> None:
        """Add an existing initializer under the name it has."""
        self.graph.register_initializer(value)
        self.known[value] = extent_of_constant(value)

    def replace(self, node: ir.Node, other: ir.Node) -> None:
        """Replace a node by another. Both have one output."""
        self.graph.insert_before(node, other)
        node.outputs[0].replace_all_uses_with(other.outputs[0], replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def set_target(self, node: ir.Node, shape: Shape, axis: int) -> None:
        """Give a reshape a constant target, with -1 on the axis of the batch."""
        sides = np.array(shape, np.int64)
        sides[axis] = -1
        node.replace_input_with(1, self.constant(sides, f"{node.outputs[0].name}_shape"))
        node.attributes.pop("allowzero", None)


def describe_node(node: ir.Node) -> str:
    """Describe a node for an error, by its name or by what it makes."""
    return f"{node.op_type} {node.name!r}" if node.name else f"the {node.op_type} that makes {node.outputs[0].name!r}"
