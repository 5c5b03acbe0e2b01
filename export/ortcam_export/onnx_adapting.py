"""From an `.onnx` file as read to the one form of a classifier that the export works on."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray
from onnxscript import version_converter
from onnxscript.optimizer import fold_constants

from ortcam.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.graphs import tidy
from ortcam_export.onnx_files import BYTES, FLOATS, HALVES, TO_NHWC, OnnxFile, constant_of, describe, guarded
from ortcam_export.shapes import sides_for_one, trace_batch
from ortcam_export.sources import InputLayout
from ortcam_export.splitting import split_fused

__all__ = ["OnnxClassifier", "adapt"]

_OLDEST_OPSET: Final = 18
_CHANNEL_AXIS: Final = {"nchw": 1, "nhwc": 3}
_TO_NCHW: Final = [0, 3, 1, 2]
_FOLD_BYTES: Final = 1 << 28


@dataclasses.dataclass(frozen=True)
class OnnxClassifier:
    """A file made into a classifier.

    Attributes:
        model: image float32 [N,3,H,W] -> logits float32 [N,classes], N open.
        preprocessing: from a photograph to `image`; normalisation that the graph began with is part of it.
        folded: the operators of that normalisation, in words; "" for none.
        opened: whether the file's graph takes one image at a time, and was rewritten.
    """

    model: ir.Model
    preprocessing: Preprocessing
    folded: str
    opened: bool


def adapt(file: OnnxFile, given: Preprocessing) -> OnnxClassifier:
    """Make a file's graph the one form that the rest of the export works on; the file's own model is left as it is.

    Functions are inlined, operators brought to opset 18, half precision computed in float32, the image made NCHW, a
    fixed batch opened, normalisation at the start moved into the preprocessing, and the output made logits [N,classes].

    Args:
        file: as read.
        given: from a photograph to the file's own input, in its channel order; NCHW, whatever the file's layout.

    Raises:
        ExportError: a graph that cannot be brought to this form, or whose output is not one row of classes an image.
    """
    with guarded(file.path):
        return _adapt(file, given)


def _adapt(file: OnnxFile, given: Preprocessing) -> OnnxClassifier:
    model = file.model.clone()
    common_passes.InlinePass()(model)
    model = _to_opset(model, file.path)
    split_fused(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if file.dtype == ir.DataType.DOUBLE:
        _compute_in_float32(model, (ir.DataType.DOUBLE,))
    if file.coarse in HALVES.values():
        _compute_in_float32(model, HALVES)
    if file.coarse == "dynamic int8":
        _undo_dynamic_quantization(model)
    preprocessing, folded = _new_front(model, file, given)
    common_passes.RemoveUnusedNodesPass()(model)
    opened = _open_batch(model, file)
    _rows_of_classes(model.graph, file)
    common_passes.RemoveUnusedNodesPass()(model)
    if not file.quantized:
        fold_constants(model, input_size_limit=_FOLD_BYTES, output_size_limit=_FOLD_BYTES)
    tidy(model)
    return OnnxClassifier(model, preprocessing, folded, opened)


def _to_opset(model: ir.Model, path: Path) -> ir.Model:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset >= _OLDEST_OPSET or opset == 0:
        return model
    converted = version_converter.ConvertVersionPass(_OLDEST_OPSET, fallback=True)(model).model
    if opset < 11:
        # onnx's converter leaves these to Resize's later defaults, which are others.
        for node in converted.graph:
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
                node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                    "coordinate_transformation_mode", "asymmetric"
                )
                node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")
    if converted.opset_imports.get("") != _OLDEST_OPSET:
        raise ExportError(
            f"{path}: its operators, of opset {opset}, cannot be brought to opset {_OLDEST_OPSET} by onnx's converter"
        )
    return converted


def _compute_in_float32(model: ir.Model, kinds: Iterable[ir.DataType]) -> None:
    """Make tensors, constants and casts of other floating types float32 ones."""
    kinds = tuple(kinds)
    for value in (value for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values())):
        if value.const_value is not None and value.const_value.dtype in kinds:
            value.const_value = _as_float32(value.const_value)
        if value.dtype in kinds and value is not model.graph.inputs[0]:
            value.dtype = ir.DataType.FLOAT
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in kinds:
                node.attributes[name] = ir.AttrTensor(name, _as_float32(attribute.as_tensor()))
            elif name in ("to", "dtype", "output_dtype") and attribute.as_int() in [int(kind) for kind in kinds]:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
        for value in node.outputs:
            if value.dtype in kinds:
                value.dtype = ir.DataType.FLOAT


def _undo_dynamic_quantization(model: ir.Model) -> None:
    """Let what was quantized by the range of a whole batch stay floating; the 8-bit weights keep their values.

    q, scale, zero = DynamicQuantizeLinear(x) becomes x, 1, 0, and integer products of q products of x.
    """
    graph = model.graph
    one, zero = (
        _initializer(graph, np.array(value, np.float32), f"ortcam_dynamic_{name}")
        for name, value in (("one", 1), ("zero", 0))
    )
    for node in list(graph):
        if node.op_type == "DynamicQuantizeLinear":
            for output, value in zip(node.outputs, (node.inputs[0], one, zero), strict=False):
                assert value is not None
                output.replace_all_uses_with(value)
        elif node.op_type in ("ConvInteger", "MatMulInteger"):
            weights = constant_of(node.inputs[1])
            offset = constant_of(node.inputs[3]) if len(node.inputs) > 3 else np.zeros(())
            if weights is None or offset is None:
                raise ExportError(
                    f"{node.op_type} {node.name!r} multiplies two dynamically quantized tensors; not supported"
                )
            if offset.ndim == 1 and node.op_type == "ConvInteger":
                offset = offset.reshape(-1, *[1] * (weights.ndim - 1))
            floating = weights.astype(np.float32) - offset.astype(np.float32)
            constant = _initializer(graph, floating, f"{node.inputs[1].name}_floating")  # type: ignore[union-attr]
            product = ir.node(
                node.op_type.removesuffix("Integer"),
                [node.inputs[0], constant],
                dict(node.attributes),
                name=node.name,
            )
            product.outputs[0].name = f"{node.outputs[0].name}_floating"
            graph.insert_before(node, product)
            node.outputs[0].replace_all_uses_with(product.outputs[0])


def _initializer(graph: ir.Graph, array: NDArray[Any], stem: str) -> ir.Value:
    name, number = stem, 0
    while name in graph.initializers:
        number += 1
        name = f"{stem}_{number}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().astype(np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([side for side in tensor.shape if isinstance(side, int)]),
        name=tensor.name,
    )


def _new_front(model: ir.Model, file: OnnxFile, given: Preprocessing) -> tuple[Preprocessing, str]:
    """Give the graph the input image float32 [N,3,H,W]; what only lays out and normalises the image is taken out.

    Masks multiply the preprocessed image, whose zero is the mean colour; so the graph has to begin behind its own
    normalisation. That is y = a x + b for each channel, and the photograph's is x = (pixel/255 S - mean) / std.

    Returns:
        The preprocessing from a photograph to the new input, and the operators that became part of it.
    """
    graph = model.graph
    value = graph.inputs[0]
    layout: InputLayout = file.layout
    factor, offset = np.ones(3), np.zeros(3)
    floating = value.dtype not in BYTES
    taken = []
    while (node := _only_user(value)) is not None:
        affine = _affine(node, value, layout)
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) in [int(kind) for kind in FLOATS]:
            floating = True
        elif node.op_type == "Transpose" and (turned := _turned(node, layout)) is not None:
            layout = turned
        elif affine is not None and (floating or node.op_type == "DequantizeLinear"):
            factor, offset = affine[0] * factor, affine[0] * offset + affine[1]
            floating = True
            taken.append(node.op_type)
        elif node.op_type != "Identity":
            break
        value = node.outputs[0]
    if not floating:
        raise ExportError(
            f"{file.path}: its input {file.image!r} is uint8 and goes on as such; accepted is a graph that makes it "
            "floating first"
        )
    image = ir.Value(
        name="image",
        shape=ir.Shape(("N", 3, given.height, given.width)),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    graph.inputs[0].name = f"{file.image}_file"
    front = image
    if layout == "nhwc":
        turn = ir.node("Transpose", [image], {"perm": TO_NHWC}, name="ortcam/to_nhwc")
        turn.outputs[0].name = "image_nhwc"
        graph.insert_before(graph[0], turn)
        front = turn.outputs[0]
    value.replace_all_uses_with(front)
    graph.inputs[:] = [image]
    if not taken:
        return given, ""
    mean = np.asarray(given.mean) - offset * np.asarray(given.std) / factor
    std = np.asarray(given.std) / factor
    return dataclasses.replace(given, mean=_triple(mean), std=_triple(std)), ", ".join(taken)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _only_user(value: ir.Value) -> ir.Node | None:
    users = {user for user, _ in value.uses()}
    return users.pop() if len(users) == 1 and not value.is_graph_output() else None


def _turned(node: ir.Node, layout: InputLayout) -> InputLayout | None:
    perm = node.attributes.get_ints("perm", None)
    if layout == "nhwc" and perm is not None and list(perm) == _TO_NCHW:
        return "nchw"
    if layout == "nchw" and perm is not None and list(perm) == TO_NHWC:
        return "nhwc"
    return None


def _affine(
    node: ir.Node, value: ir.Value, layout: InputLayout
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(a, b) float64 [3] of an operator that is y = a x + b for each channel, a positive; None for any other."""
    if node.op_type == "DequantizeLinear" and node.inputs[0] is value:
        return _dequantization(node)
    first, second, *_ = (*node.inputs, None)
    constant = constant_of(second if first is value else first)
    channels = _per_channel(constant, layout) if constant is not None and first is not second else None
    if channels is None:
        return None
    one, none = np.ones(3), np.zeros(3)
    positive = bool((channels > 0).all())
    results = {
        "Add": (one, channels),
        "Sub": (one, -channels) if first is value else None,
        "Mul": (channels, none) if positive else None,
        "Div": (1 / channels, none) if positive and first is value else None,
    }
    return results.get(node.op_type)


def _dequantization(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    scale = constant_of(node.inputs[1])
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    if scale is None or zero is None or scale.size != 1:
        return None
    return np.full(3, float(scale)), np.full(3, -float(scale) * float(zero))


def _per_channel(constant: NDArray[Any], layout: InputLayout) -> NDArray[np.float64] | None:
    """float64 [3] of a constant that is one number, or one a channel."""
    if constant.ndim > 4:
        return None
    shape = (1,) * (4 - constant.ndim) + constant.shape
    expected = [1, 1, 1, 1]
    expected[_CHANNEL_AXIS[layout]] = 3
    if constant.size == 1:
        return np.full(3, float(constant.reshape(())))
    if list(shape) != expected:
        return None
    return constant.reshape(3).astype(np.float64)


def _open_batch(model: ir.Model, file: OnnxFile) -> bool:
    """Make the graph take any number of images; a graph that only says it does is opened like one with a batch of 1.

    Returns:
        Whether it had to be opened.
    """
    if file.batch is None:
        try:
            known = trace_batch(model, fixed=False)
        except ExportError:
            known = {}
        if model.graph.outputs[0] in known:
            return False
    known = trace_batch(model, fixed=True)
    if file.batch is not None and model.graph.outputs[0] not in known:
        stop = next(node for node in model.graph if any(value not in known for value in node.outputs))
        raise ExportError(
            f"{file.path}: the batch size is fixed in the graph and {stop.op_type} {stop.name!r} cannot be opened; "
            "export the model with an open batch dimension"
        )
    return model.graph.outputs[0] in known


def _rows_of_classes(graph: ir.Graph, file: OnnxFile) -> None:
    """Make the output float32 [N,classes]."""
    output = graph.outputs[0]
    shape = output.shape
    if shape is None:
        raise ExportError(
            f"{file.path}: the shape of its output {output.name!r} cannot be inferred; accepted is a graph of standard "
            "operators with shapes that follow from the image's"
        )
    sides = list(shape)
    if all(isinstance(side, int) for side in sides):
        raise ExportError(f"{file.path}: its output {output.name!r} {sides} does not depend on the image's batch")
    single = sides_for_one(output)
    if single is None and len(sides) == 2 and isinstance(sides[1], int):
        single = (1, sides[1])  # behind what cannot be traced the file's own word counts
    if single is None or len([side for side in single if side != 1]) > 1:
        raise ExportError(
            f"{file.path}: its output is {describe(output)}, which is not one row of classes an image (a segmenter or "
            "a detector?); accepted is [N,classes]"
        )
    before = math.prod(single[: next(index for index, side in enumerate(sides) if not isinstance(side, int))])
    if before != 1:
        raise ExportError(
            f"{file.path}: its output is {describe(output)}, the images behind the classes; accepted is [N,classes]"
        )
    if output.dtype != ir.DataType.FLOAT:
        output = _append(graph, "Cast", [output], {"to": int(ir.DataType.FLOAT)})
    if len(single) != 2 or isinstance(sides[0], int) or single[0] != 1:
        target = _initializer(graph, np.array([-1, math.prod(single)], np.int64), "rows_of_classes")
        output = _append(graph, "Reshape", [output, target])
    output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape(("N", math.prod(single)))
    graph.outputs[:] = [output]


def _append(
    graph: ir.Graph, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any] | None = None
) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=f"ortcam/{op_type.lower()}")
    node.outputs[0].name = f"ortcam/{op_type.lower()}_logits"
    graph.append(node)
    return node.outputs[0]
