"""How many pieces a graph falls into where a provider takes some of its nodes and the CPU the others."""

from collections import deque
from collections.abc import Collection

import onnx_ir as ir

__all__ = ["count_partitions"]


def count_partitions(graph: ir.Graph, taken: Collection[ir.Node]) -> int:
    """Count groups of nodes that a provider runs in one go, as ONNX Runtime forms them.

    Nodes are visited in the order of the data flow. A group grows as long as there is a node that can run without
    waiting for one of the CPU's that needs the group itself.

    Args:
        graph: in topological order.
        taken: those of its nodes that the provider takes.

    Example:
        A chain of nodes of which the provider lacks one in the middle has two partitions.
    """
    chosen = set(taken)
    waiting = {node: len(_producers(node)) for node in graph}
    ready = deque(node for node, count in waiting.items() if count == 0)
    later: deque[ir.Node] = deque()
    border: set[ir.Node] = set()
    open_group, groups = False, 0
    while ready or later:
        if not ready:
            ready, later, border, open_group = later, deque(), set(), False
            continue
        node = ready.popleft()
        if node not in chosen and node in border:  # it needs the group, so the group ends in front of it
            later.append(node)
            continue
        if node in chosen:
            groups += not open_group
            open_group = True
            border.update(_consumers(node))
        for consumer in _consumers(node):
            waiting[consumer] -= 1
            if waiting[consumer] == 0:
                ready.append(consumer)
    return groups


def _producers(node: ir.Node) -> list[ir.Node]:
    found = (value.producer() for value in node.inputs if value is not None)
    return list(dict.fromkeys(producer for producer in found if producer is not None))


def _consumers(node: ir.Node) -> list[ir.Node]:
    return list(dict.fromkeys(user for value in node.outputs for user, _ in value.uses()))
