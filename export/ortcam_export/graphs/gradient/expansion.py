"""Spell out operators that have no rule, but that ONNX defines by others."""

from collections.abc import Callable, Mapping
from typing import Final

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ortcam_export.graphs.batch_axis.extent import Extent
from ortcam_export.graphs.gradient.rules import rule_of

__all__ = ["expand_functions"]

_ROUNDS: Final = 4  # a function's body may have operators that are functions

Known = Mapping[ir.Value, Extent]


def expand_functions(
    model: ir.Model,
    measured: Callable[[], Known],
    path_of: Callable[[Known], tuple[list[ir.Node], set[ir.Value]]],
) -> None:
    """Replace the operators on the path of the derivative that have no rule by their definitions.

    Args:
        model: changed in place.
        measured: finds the shapes of its tensors.
        path_of: finds the nodes that carry the derivative.
    """
    for _ in range(_ROUNDS):
        known = measured()
        path, _ = path_of(known)
        found = False
        for index, node in enumerate(path):
            if rule_of(node) is None and (body := _definition(model, node, known, f"ortcam{index}")) is not None:
                node.overload = body.overload
                model.functions[body.identifier()] = body
                found = True
        if not found:
            return
        common_passes.InlinePass()(model)
        model.functions.clear()
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _definition(model: ir.Model, node: ir.Node, known: Known, overload: str) -> ir.Function | None:
    """The body that ONNX gives an operator, or None."""
    version = model.opset_imports.get(node.domain)
    if version is None or node.domain != "":
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    proto = None
    if schema.has_context_dependent_function:  # type: ignore[attr-defined]
        types = []
        for value in node.inputs:
            info = onnx.TypeProto()
            if value is not None:
                if value not in known:
                    return None
                info = onnx.helper.make_tensor_type_proto(int(known[value].dtype), known[value].shapes[0])
            types.append(info.SerializeToString())
        text = schema.get_context_dependent_function(  # type: ignore[attr-defined]
            ir.to_proto(node).SerializeToString(), types
        )
        proto = onnx.FunctionProto.FromString(text) if text else None
    elif schema.has_function:  # type: ignore[attr-defined]
        proto = schema.function_body
    if proto is None:
        return None
    copy = onnx.FunctionProto()
    copy.CopyFrom(proto)
    copy.domain, copy.name, copy.overload = node.domain, node.op_type, overload
    for used in copy.opset_import:  # it is the newest body, and holds for the model's version, too
        used.version = model.opset_imports.get(used.domain, used.version)
    made = {name for item in copy.node for name in item.output}
    kept = [name for name in copy.output if name in made]  # optional outputs that the node does not have
    del copy.output[:]
    copy.output.extend(kept)
    function: ir.Function = ir.serde.deserialize_function(copy)
    return function
