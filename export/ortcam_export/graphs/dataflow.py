"""Data flow in a graph: what a node reads, which nodes compute with data, which tensors all data pass, constants."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["TO_NHWC", "all_values", "constant_of", "data_nodes", "dominators", "inputs_of", "nodes_in_front"]

# The permutation that takes [N,C,H,W] to [N,H,W,C].
TO_NHWC: Final = [0, 2, 3, 1]


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Everything a node reads, including what its subgraphs read from outside."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs())
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            inner = list(ir.traversal.RecursiveGraphIterator(graph))
            made = {value for item in inner for value in item.outputs} | set(graph.inputs)
            read = [*graph.outputs, *(value for item in inner for value in item.inputs if value is not None)]
            values += [value for value in read if value not in made]
    return values


def data_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Nodes on a path of data from image to logits; shape arithmetic is not data."""
    reached: set[ir.Value] = {graph.inputs[0]}
    forward = []
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in reached for value in inputs_of(node)):
            forward.append(node)
            reached.update(node.outputs)
    needed: set[ir.Value] = {graph.outputs[0]}
    backward = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            backward.append(node)
            needed.update(value for value in inputs_of(node) if value in reached)
    return backward[::-1]


def dominators(source: ir.Value, data: Sequence[ir.Node]) -> Iterator[ir.Value]:
    """The tensors that every path from a source to the output passes, in the order of the graph, without the source.

    Walking the nodes in order, a tensor is a dominator when it is the only one that later nodes still need.

    Args:
        source: say the image.
        data: the data nodes behind it, in order.
    """
    last_use: dict[ir.Value, int] = {}
    for index, node in enumerate(data):
        for value in inputs_of(node):
            last_use[value] = index
    needed = {source}
    for index, node in enumerate(data):
        needed.update(value for value in node.outputs if value in last_use)
        needed = {value for value in needed if last_use.get(value, -1) > index}
        if len(needed) == 1 and (only := next(iter(needed))).producer() is node:
            yield only


def nodes_in_front(value: ir.Value, data: Sequence[ir.Node]) -> list[ir.Node]:
    """The data nodes that compute a tensor, in order."""
    needed = {value}
    found = []
    for node in reversed(data):
        if any(output in needed for output in node.outputs):
            found.append(node)
            needed.update(inputs_of(node))
    return found[::-1]


def all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All tensors of a graph and of the graphs inside its nodes: outputs of nodes, inputs, initializers."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs
    for inner in (graph, *graph.subgraphs()):
        yield from (*inner.inputs, *inner.initializers.values())


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a constant tensor, or None where it is computed."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()
