"""Arithmetic of a classifier: which operators have weights, and how many multiply-adds they take for one image."""

import math
from collections.abc import Collection

import onnx_ir as ir

from ortcam_export.graphs.batch_axis import sides_for_one
from ortcam_export.graphs.dataflow import data_nodes, inputs_of
from ortcam_export.graphs.layers.operators import FACTORS, RECURRENT

__all__ = ["count_macs", "weights_and_macs_behind", "weights_in_front"]


def count_macs(graph: ir.Graph) -> int | None:
    """Count the multiply-adds of a classifier for one image. None if not all shapes are known."""
    counts = [_macs(node) for node in data_nodes(graph) if node.op_type in FACTORS]
    return None if None in counts else sum(count for count in counts if count is not None)


def weights_and_macs_behind(data: list[ir.Node]) -> tuple[dict[ir.Node, bool], dict[ir.Node, int | None]]:
    """For each data node: whether weights come after it, and the multiply-adds after it for one image."""
    reached = {value for node in data for value in node.outputs}
    weighted: dict[ir.Node, bool] = {}
    macs: dict[ir.Node, int | None] = {}
    seen, total = False, 0
    for node in reversed(data):
        weighted[node], macs[node] = seen, total if total >= 0 else None
        if node.op_type in FACTORS:
            second = node.inputs[FACTORS[node.op_type][1]]
            seen = seen or (second is not None and second not in reached)
            own = _macs(node)
            total = total + own if own is not None and total >= 0 else -1
    return weighted, macs


def _macs(node: ir.Node) -> int | None:
    """Count the multiply-adds of an operator for one image. None if shapes are not known."""
    first, second = (node.inputs[index] for index in FACTORS[node.op_type])
    assert first is not None
    assert second is not None
    out, left, right = (sides_for_one(value) for value in (node.outputs[0], first, second))
    if out is None or left is None or right is None:
        return None
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if "Conv" in node.op_type:
        return math.prod(out) * math.prod(right[1:])
    return math.prod(out) * (left[0] if node.attributes.get_int("transA", 0) else left[-1])


def weights_in_front(graph: ir.Graph, data: list[ir.Node]) -> set[ir.Node]:
    """The nodes with weights in front that mix the image: more than laying out, scaling, resizing or recolouring it."""
    image = graph.inputs[0]
    reached = {image, *(value for node in data for value in node.outputs)}
    channels = image.shape[1] if image.shape is not None else None
    featured: set[ir.Node] = set()
    for node in data:
        inputs = [value for value in inputs_of(node) if value in reached]
        if any(value.producer() in featured for value in inputs) or (
            (node.op_type in FACTORS or node.op_type in RECURRENT)
            and any(value is not None and value not in reached for value in node.inputs)
            and not _recolours(node, {3, channels})
        ):
            featured.add(node)
    return featured


def _recolours(node: ir.Node, colours: Collection[object]) -> bool:
    """Whether an operator only recolours an image of so many channels, pixel for pixel, or only resizes it."""
    first, second = (node.inputs[index] for index in FACTORS.get(node.op_type, (0, 1)))
    before, after = (None if value is None else sides_for_one(value) for value in (first, node.outputs[0]))
    kernel = None if second is None or second.shape is None else second.shape.numpy()
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return False
    if "Conv" in node.op_type:
        few = before[1] in colours and (after[1] <= 3 or after[1] == before[1])
        return few and kernel is not None and math.prod(kernel[2:]) == 1
    # One channel says nothing: a matrix may as well stand in front of the classes.
    return any(before[axis] == after[axis] > 1 and before[axis] in colours for axis in (1, 3))
