"""Graph surgery: extract parts of a classifier such as features and head; insert or append operators."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import Builder, add_constant
from ortcam_export.graphs.names import rename, taken_names

__all__ = [
    "append_logits",
    "build_features",
    "build_head",
    "extract",
    "insert_dequantization",
    "insert_order",
    "insert_transposition",
    "logits_of",
]

# The least probability that logits are made of. Softmax: the least normal float32. Sigmoid, for 1 - p as well: half the
# distance from 1 to the float32 below it, since ONNX Runtime's Sigmoid is no finer.
_LEAST: Final[dict[Activation, float]] = {"softmax": float(np.finfo(np.float32).tiny), "sigmoid": 2.0**-25}


def extract(model: ir.Model, inputs: Iterable[str], outputs: Iterable[str]) -> ir.Model:
    """The part of a model between tensors, as a model of its own that points to the same external data."""
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(ordered)
    part = ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)
    common_passes.RemoveUnusedNodesPass()(part)
    return part


def build_features(model: ir.Model, cut: str, *layers: str) -> ir.Model:
    """Image [N,C,H,W] -> features and, of further layers, features_1, features_2, ..."""
    part = extract(model, ["image"], [cut, *layers])
    part.graph.name = "features"
    for index, value in enumerate(part.graph.outputs):
        rename(value, f"features_{index}" if index else "features", part.graph)
    return part


def build_head(model: ir.Model, cut: str) -> ir.Model:
    """Features -> logits [N,classes].

    Raises:
        ExportError: the image goes around the cut.
    """
    image = model.graph.inputs[0]
    part = extract(model, [cut, "image"], ["logits"])
    graph = part.graph
    features, image = graph.inputs
    for node in [user for user, _ in image.uses()]:
        if node.op_type != "Shape":
            raise ExportError(f"layer {cut!r}: the image reaches the logits around it, through {node.name!r}")
        _replace_shape(graph, node, features)
    graph.inputs.pop()
    graph.sort()
    common_passes.RemoveUnusedNodesPass()(part)
    graph.name = "head"
    rename(features, "features", graph)
    return part


def _replace_shape(graph: ir.Graph, node: ir.Node, features: ir.Value) -> None:
    """Replace Shape(image) behind the cut: the batch size comes from the features, the other sides are fixed."""
    image = node.inputs[0]
    assert image is not None
    assert image.shape is not None
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(image.shape))
    tape = ir.tape.Tape(graph)
    parts = []
    for size in list(image.shape)[start:end]:
        if isinstance(size, int):
            parts.append(tape.op("Constant", [], {"value_ints": [size]}))
        else:
            parts.append(tape.op("Shape", [features], {"start": 0, "end": 1}))
    shape = tape.op("Concat", parts, {"axis": 0})
    ir.convenience.replace_all_uses_with(node.outputs[0], shape)
    graph.remove(node, safe=True)


def insert_dequantization(graph: ir.Graph, value: ir.Value, scale: ir.Value, zero_point: ir.Value) -> ir.Value:
    """Replace integers q by Q(DQ(q)), which is the same. Returns the floating tensor in between."""
    dequantize = ir.node("DequantizeLinear", [value, scale, zero_point])
    floating = dequantize.outputs[0]
    floating.type, floating.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    _insert_pair(graph, value, dequantize, ir.node("QuantizeLinear", [floating, scale, zero_point]), "floating")
    return floating


def insert_transposition(graph: ir.Graph, value: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    """Transpose a tensor and back, say tokens [T,N,C] by way of [N,T,C]. Returns the transposed one."""
    turn = ir.node("Transpose", [value], {"perm": list(perm)})
    turned = turn.outputs[0]
    turned.type = value.type
    if value.shape is not None:
        turned.shape = ir.Shape([value.shape[axis] for axis in perm])
    back = ir.node("Transpose", [turned], {"perm": [int(axis) for axis in np.argsort(perm)]})
    _insert_pair(graph, value, turn, back, "images_first" if perm[0] != 0 else "transposed")
    return turned


def insert_order(graph: ir.Graph, value: ir.Value, order: tuple[int, ...]) -> ir.Value:
    """Bring tokens [N,T,C] into another order and back. Returns those in the other order."""
    there, back = (
        ir.node("Gather", [None, add_constant(graph, indices, f"{value.name}_{name}")], {"axis": 1})
        for indices, name in ((np.array(order, np.int64), "order"), (np.argsort(order), "order_again"))
    )
    ordered = there.outputs[0]
    there.replace_input_with(0, value)
    back.replace_input_with(0, ordered)
    ordered.type, ordered.shape = value.type, value.shape
    _insert_pair(graph, value, there, back, "in_order")
    return ordered


def _insert_pair(graph: ir.Graph, value: ir.Value, there: ir.Node, back: ir.Node, name: str) -> None:
    """Put two nodes behind a tensor. The second makes the tensor again, for all that used it."""
    users = list(value.uses())
    producer = value.producer()
    assert producer is not None
    for node, suffix in ((there, name), (back, "again")):
        node.name, node.outputs[0].name = f"ortcam/{value.name}_{suffix}", f"{value.name}_{suffix}"
    back.outputs[0].type, back.outputs[0].shape = value.type, value.shape
    for user, index in users:
        if user is not there:
            user.replace_input_with(index, back.outputs[0])
    graph.insert_after(producer, [there, back])


def append_logits(model: ir.Model, activation: Activation) -> None:
    """Make the output of probabilities p one of logits that an activation turns into p again.

    log p for softmax, whose rows sum to 1; log p - log(1 - p) for sigmoid. Both are finite for p of 0 and 1:
    `logits_of` does the same in numpy.
    """
    graph = model.graph
    probabilities = graph.outputs[0]
    probabilities.name = "ortcam_probabilities"
    build = Builder(taken_names(graph))

    def log(value: ir.Value) -> ir.Value:
        return build.op("Log", [build.op("Max", [value, build.constant(np.array(_LEAST[activation], np.float32))])])

    logits = log(probabilities)
    if activation == "sigmoid":
        one = build.constant(np.array(1, np.float32))
        logits = build.op("Sub", [logits, log(build.op("Sub", [one, probabilities]))])
    logits.name, logits.dtype, logits.shape = "logits", ir.DataType.FLOAT, probabilities.shape
    nodes = build.take_nodes()
    nodes[-1].name = "ortcam/logits"  # its own name is free again for another value
    graph.extend(nodes)
    for value in build.initializers:
        graph.register_initializer(value)
    graph.outputs[:] = [logits]


def logits_of(probabilities: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """What `append_logits` computes, in numpy: float32 of the same shape."""
    least = np.float32(_LEAST[activation])
    logits: NDArray[np.float32] = np.log(np.maximum(probabilities, least))
    return logits if activation == "softmax" else logits - np.log(np.maximum(np.float32(1) - probabilities, least))
