"""Tidy a converted classifier: the field's names, no unused nodes, and no trace of the machine that exported it."""

from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    no_op_transpose_rule,
    transpose_transpose_rule,
)

from ortcam_export.graphs.dataflow import all_values
from ortcam_export.graphs.names import NAME_SCOPES, rename, scopes_in_name, set_aside_reserved_names

__all__ = ["tidy"]

_IR_VERSION: Final = 10
_SIMPLIFICATIONS: Final = RewriteRuleSet(
    [
        no_op_cast_rule,
        no_op_expand_rule,
        no_op_transpose_rule,
        transpose_transpose_rule,
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    ]
)


def tidy(model: ir.Model) -> None:
    """Name input and output as the field does, lift constants, and drop unused nodes and metadata.

    Only the module paths stay of the metadata. Stack traces hold paths of the machine that exported.
    """
    graph = model.graph
    set_aside_reserved_names(graph)
    rename(graph.inputs[0], "image", graph)
    rename(graph.outputs[0], "logits", graph)
    _unshare_folded_weights(graph)
    _SIMPLIFICATIONS.apply_to_model(model)
    for step in (
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common_passes.IdentityEliminationPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.TopologicalSortPass(),
    ):
        step(model)
    graph.name = "classifier"
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.producer_name, model.producer_version, model.domain, model.model_version = "ortcam", None, None, None
    model.doc_string = graph.doc_string = None
    for inner in graph.subgraphs():
        inner.metadata_props.clear()
        inner.doc_string = None
    for node in ir.traversal.RecursiveGraphIterator(graph):
        scopes = node.metadata_props.get(NAME_SCOPES) or scopes_in_name(node.name)
        node.metadata_props.clear()
        node.doc_string = None
        if scopes is not None:
            node.metadata_props[NAME_SCOPES] = scopes
    for value in all_values(graph):
        value.metadata_props.clear()
        value.doc_string = None
        tensor = value.const_value
        if tensor is not None and tensor.doc_string:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)


def _unshare_folded_weights(graph: ir.Graph) -> None:
    """Copy shared weights of layers in front of a BatchNormalization, since folding it changes them."""
    for node in list(graph):
        if node.op_type != "BatchNormalization" or (data := node.inputs[0]) is None:
            continue
        layer = data.producer()
        if layer is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(list(data.uses())) > 1:
            continue
        for index, value in list(enumerate(layer.inputs))[1:]:
            if value is None or value.const_value is None or not value.is_initializer() or len(list(value.uses())) == 1:
                continue
            own = ir.Value(
                name=f"{value.name}_{data.name}", shape=value.shape, type=value.type, const_value=value.const_value
            )
            graph.register_initializer(own)
            layer.replace_input_with(index, own)
