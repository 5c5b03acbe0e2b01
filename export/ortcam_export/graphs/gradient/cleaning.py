"""Clean a gradient graph: nothing twice, nothing unused, and no image where its layers tell the batch size."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import no_op_transpose_rule, transpose_transpose_rule

from ortcam_export.graphs.batch_axis.extent import Extent
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.names import name_nodes

__all__ = ["clean", "take_batch_from"]

_SIMPLIFICATIONS: Final = RewriteRuleSet([no_op_transpose_rule, transpose_transpose_rule])


def take_batch_from(
    graph: ir.Graph, images: Sequence[ir.Value], layer: ir.Value, known: Mapping[ir.Value, Extent]
) -> None:
    """Let the batch size come from a layer [N,...] where it came from the shape of an image."""
    for image in images:
        for node in [user for user, _ in image.uses() if user.op_type == "Shape"]:
            output = node.outputs[0]
            values = known[output].values if output in known else None
            if values is None:
                continue
            tape = ir.tape.Tape()
            parts = []
            for one, three in zip(*values, strict=True):
                if one == three:
                    parts.append(add_constant(graph, np.array([one], np.int64), f"{output.name}_side"))
                else:
                    parts.append(tape.op("Shape", [layer], {"start": 0, "end": 1}))
            shape = parts[0] if len(parts) == 1 else tape.op("Concat", parts, {"axis": 0})
            name_nodes(tape.nodes, (f"{output.name}_{index}" for index in range(len(tape.nodes))))
            graph.insert_before(node, tape.nodes)
            output.replace_all_uses_with(shape)
            graph.remove(node, safe=True)


def clean(model: ir.Model) -> None:
    """Drop what is unused, and compute once what is computed twice."""
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    _SIMPLIFICATIONS.apply_to_model(model)
    for step in (
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.IdentityEliminationPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.TopologicalSortPass(),
    ):
        step(model)
    graph = model.graph
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(ordered)
    for node in graph:
        node.metadata_props.clear()
    graph.metadata_props.clear()
