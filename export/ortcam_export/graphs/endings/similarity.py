"""The ending of a zero-shot classifier: cosines of an image's embedding with those of the classes, as logits."""

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.names import rename, taken_names

__all__ = ["append_similarity"]

# The least length that an embedding is divided by: of one that is 0, as of a black image, all cosines are 0.
_LEAST: Final = np.float32(np.finfo(np.float32).tiny)


def append_similarity(model: ir.Model, rows: NDArray[np.float32], scale: float, bias: float) -> None:
    """Make the output z [N,D] of a graph logits [N,K]: scale * z / |z| . rows^T + bias.

    Args:
        model: whose one output is float32 [N,D], named "logits"; changed in place.
        rows: float32 [K,D], of unit length each.
        scale: of the cosines.
        bias: of the logits.
    """
    graph = model.graph
    embedding = graph.outputs[0]
    rename(embedding, "ortcam_embedding", graph)
    build = Builder(taken_names(graph))
    length = build.op("ReduceL2", [embedding, build.integers(1)], {"keepdims": 1})
    unit = build.op("Div", [embedding, build.op("Max", [length, build.constant(_LEAST)])])
    weights = build.constant(np.ascontiguousarray((rows.astype(np.float64) * scale).T.astype(np.float32)))
    logits = build.op("MatMul", [unit, weights])
    logits = build.op("Add", [logits, build.constant(np.float32(bias))])
    logits.name, logits.dtype, logits.shape = "logits", ir.DataType.FLOAT, ir.Shape(("N", len(rows)))
    nodes = build.take_nodes()
    nodes[-1].name = "ortcam/logits"  # its own name is free again for another value
    graph.extend(nodes)
    for value in build.initializers:
        graph.register_initializer(value)
    graph.outputs[:] = [logits]
