"""Take the scores in front of a ranking at the end of a graph, or refuse the graph."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.errors import ExportError
from ortcam_export.graphs.endings.operators import ACTIVATIONS, ONLY_FOR_PROBABILITIES, PASSING

__all__ = ["refuse_ranks", "take_unranked"]

# What picks elements by indices, which may be computed, and what gives indices themselves.
_PICKING: Final = ("ArrayFeatureExtractor", "Compress", "Gather", "GatherElements", "GatherND", "NonMaxSuppression")
_INDICES: Final = ("ArgMax", "ArgMin", "NonMaxSuppression")
_SORTING: Final = ("NonMaxSuppression", "TopK", "Unique")
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_ACCEPTED: Final = "accepted is one score for each class, always in the same order"


def take_unranked(graph: ir.Graph) -> str | None:
    """Make a graph that ends in scores by rank give the scores of all classes in their order.

    Returns:
        The operator that sorted them and was taken out. None if they were not sorted.

    Raises:
        ExportError: an output of indices, or of scores that are picked by what the image says.
    """
    value = graph.outputs[0]
    chain: list[ir.Node] = []
    while (node := value.producer()) is not None:
        if node.op_type in _INDICES or (node.op_type == "TopK" and value is node.outputs[1]):
            raise ExportError(
                f"its output {graph.outputs[0].name!r} holds indices, which {node.op_type} gives; {_ACCEPTED}"
            )
        if node.op_type == "TopK":
            break
        picked = node.inputs[0] if node.inputs else None
        if node.op_type in _PICKING and any(other is not None and _depends(other, graph) for other in node.inputs[1:]):
            raise ExportError(
                f"{node.op_type} at its end picks the scores by indices computed from the image, so that they change "
                f"places from image to image; {_ACCEPTED}"
            )
        if picked is None or node.op_type not in (*PASSING, *ONLY_FOR_PROBABILITIES, *ACTIVATIONS, *_PICKING):
            return None
        chain.append(node)
        value = picked
    if node is None:
        return None
    scores = node.inputs[0]
    assert scores is not None
    if node.attributes.get_int("axis", -1) == 0 or any(item.op_type in ("Reshape", *_PICKING) for item in chain):
        raise ExportError(f"TopK at its end gives its scores by rank, not by class; {_ACCEPTED}")
    for item in chain:
        for output in item.outputs:
            output.shape = None  # that of fewer classes
    node.outputs[0].replace_all_uses_with(scores, replace_graph_outputs=True)
    return node.op_type


def _depends(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether a tensor is computed from the image, not from its shape alone."""
    return any(found in graph.inputs for found in _behind(value, lambda node: node.op_type in ("Shape", "Size")))


def _behind(value: ir.Value, stop: Callable[[ir.Node], bool]) -> Iterator[ir.Value]:
    """A tensor and all that it is computed from, without what goes into the nodes to stop at."""
    queue, seen = [value], {value}
    while queue:
        current = queue.pop()
        yield current
        node = current.producer()
        if node is not None and not stop(node):
            new = {other for other in node.inputs if other is not None} - seen
            seen |= new
            queue += new


def refuse_ranks(model: str, graph: ir.Graph, outputs: NDArray[np.float32]) -> None:
    """Refuse scores that are sorted for every image, where something in the graph sorts and no weights lie behind it.

    Scores that are sorted otherwise may be meant so: the probabilities of being older than 10, 20, 30.

    Args:
        model: its name, for the error.
        graph: image -> outputs.
        outputs: float32 [N,classes], for images that differ.

    Raises:
        ExportError: see above.
    """
    steps = np.diff(outputs, axis=1)
    in_order = bool((steps <= 0).all() or (steps >= 0).all()) and bool((steps != 0).any(axis=1).all())
    if in_order and any(
        (node := value.producer()) is not None and node.op_type in _SORTING
        for value in _behind(graph.outputs[0], lambda node: node.op_type in _WEIGHTED)
    ):
        raise ExportError(
            f"{model}: its {outputs.shape[1]} scores are sorted for every picture, so they are by rank; {_ACCEPTED}"
        )
