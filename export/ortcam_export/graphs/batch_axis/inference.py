"""Infer shapes and types of a node's outputs: by the operator's schema, or by running it on zeros."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from ortcam_export.graphs.batch_axis.extent import Extent, Shape
from ortcam_export.graphs.running import quiet_session

__all__ = ["Inferred", "compute", "infer"]

# Name of an output -> its type and shape.
Inferred = dict[str, tuple[ir.DataType, Shape]]

# Operators of ONNX Runtime that ONNX has as well -> its operator set that has all their types. To run them would take a
# session per node, and a graph in integers has hundreds of them.
_ALSO_STANDARD: Final = {"DequantizeLinear": 21, "QuantizeLinear": 21}


def compute(node: ir.Node, known: Mapping[ir.Value, Extent], index: int) -> list[NDArray[Any]] | None:
    """Compute a node's outputs at one of the two batch sizes. None if the evaluator cannot.

    Args:
        node: with inputs whose values are known.
        known: what is known of them.
        index: of the batch size in `BATCHES`.
    """
    feeds = {}
    for value in node.inputs:
        if value is not None:
            values = known[value].values
            assert values is not None
            feeds[value.name or ""] = values[index]
    try:
        return [np.asarray(item) for item in ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)]
    except Exception:  # noqa: BLE001 - an operator the evaluator does not know stays in the graph
        return None


def infer(
    model: ir.Model, node: ir.Node, known: Mapping[ir.Value, Extent], index: int, *, by_running: bool = True
) -> Inferred | None:
    """Infer types and shapes of a node's outputs at one of the two batch sizes. None if nobody can.

    Args:
        model: whose operator sets count.
        node: one of its nodes.
        known: what is known of its inputs.
        index: of the batch size in `BATCHES`.
        by_running: whether the node may be run on zeros where its schema does not say.
    """
    inferred = _infer_by_schema(model, node, known, index)
    return inferred if inferred is not None or not by_running else _infer_by_running(model, node, known, index)


def _infer_by_schema(model: ir.Model, node: ir.Node, known: Mapping[ir.Value, Extent], index: int) -> Inferred | None:
    domain, version = node.domain, model.opset_imports.get(node.domain)
    if domain == "com.microsoft" and node.op_type in _ALSO_STANDARD:
        domain, version = "", _ALSO_STANDARD[node.op_type]
    if version is None:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    types, data = {}, {}
    for value in node.inputs:
        if value is None:
            continue
        extent = known[value]
        types[value.name] = onnx.helper.make_tensor_type_proto(int(extent.dtype), extent.shapes[index])
        if extent.values is not None:
            data[value.name] = onnx.numpy_helper.from_array(np.asarray(extent.values[index]), value.name)
    try:
        outputs = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.to_proto(node),
            types,  # type: ignore[arg-type]
            data,  # type: ignore[arg-type]
            opset_imports=_opsets(model),
            ir_version=model.ir_version,
        )
    except Exception:  # noqa: BLE001 - shapes that do not fit, or an operator without inference
        return None
    result = {}
    for value in node.outputs:
        if not value.name:
            continue
        if value.name not in outputs:
            return None
        tensor = outputs[value.name].tensor_type
        sides = tensor.shape.dim
        if not tensor.HasField("shape") or any(not side.HasField("dim_value") for side in sides):
            return None
        result[value.name] = (ir.DataType(tensor.elem_type), tuple(side.dim_value for side in sides))
    return result


def _infer_by_running(model: ir.Model, node: ir.Node, known: Mapping[ir.Value, Extent], index: int) -> Inferred | None:
    """Run the one operator on zeros: for operators that ONNX Runtime has beyond the standard's."""
    inputs, initializers = [], []
    feeds = {}
    for value in dict.fromkeys(value for value in node.inputs if value is not None):
        extent = known[value]
        if value.is_initializer() or extent.values is not None:
            tensor = extent.values[index] if value.const_value is None and extent.values else _numpy(value)
            initializers.append(onnx.numpy_helper.from_array(np.asarray(tensor), value.name))
        else:
            inputs.append(onnx.helper.make_tensor_value_info(value.name or "", int(extent.dtype), extent.shapes[index]))
            feeds[value.name] = np.zeros(extent.shapes[index], extent.dtype.numpy())
    outputs = [onnx.ValueInfoProto(name=value.name) for value in node.outputs if value.name]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "node", inputs, outputs, initializers)
    proto = onnx.helper.make_model(graph, opset_imports=_opsets(model), ir_version=min(model.ir_version, 10))
    try:
        results = quiet_session(proto).run(None, feeds)
    except Exception:  # noqa: BLE001 - ONNX Runtime raises its own types
        return None
    names = [value.name for value in outputs]
    return {
        name: (ir.DataType.from_numpy(result.dtype), result.shape) for name, result in zip(names, results, strict=True)
    }


def _opsets(model: ir.Model) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(domain, number) for domain, number in model.opset_imports.items()]


def _numpy(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()
