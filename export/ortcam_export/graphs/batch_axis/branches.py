"""Replace each If whose condition is known by the branch that runs."""

import numpy as np
import onnx_ir as ir

from ortcam_export.graphs.batch_axis.trace import Trace

__all__ = ["branch_that_runs", "put_branch_in_place"]


def branch_that_runs(trace: Trace, node: ir.Node) -> ir.Graph | None:
    """The branch of an If that runs for every batch size. None for other nodes, and if it is not known."""
    condition = node.inputs[0] if node.op_type == "If" else None
    if condition is None or condition not in trace.known:
        return None
    values = trace.known[condition].values
    if values is None or not np.array_equal(*values):
        return None
    return node.attributes["then_branch" if bool(values[0]) else "else_branch"].as_graph()


def put_branch_in_place(trace: Trace, node: ir.Node, branch: ir.Graph) -> list[ir.Node]:
    """Replace an If by one of its branches. Returns the nodes of the branch."""
    outputs, nodes = list(branch.outputs), list(branch)
    _move_names(trace, branch, nodes, prefix=str(node.outputs[0].name))
    branch.outputs.clear()
    branch.remove(nodes)
    trace.graph.insert_before(node, nodes)
    for before, after in zip(node.outputs, outputs, strict=True):
        before.replace_all_uses_with(after, replace_graph_outputs=True)
    trace.graph.remove(node, safe=True)
    return nodes


def _move_names(trace: Trace, branch: ir.Graph, nodes: list[ir.Node], *, prefix: str) -> None:
    """Prefix the names of a branch, since another branch may have the same ones, and take its initializers."""
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        value.name = f"{prefix}/{value.name}"
        trace.register(value)
    for value in (value for inner in nodes for value in inner.outputs if value.name):
        value.name = f"{prefix}/{value.name}"
