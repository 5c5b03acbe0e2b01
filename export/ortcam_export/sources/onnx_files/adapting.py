"""From an `.onnx` file as read to the one form of a classifier that the export works on."""

import copy
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript import version_converter
from onnxscript.optimizer import fold_constants

from ortcam.bundle import OutputPart
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError, as_export_errors
from ortcam_export.graphs.batch_axis import sides_for_one, trace_batch
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.normalisation import Taken, take_normalisation
from ortcam_export.graphs.tidying import tidy
from ortcam_export.sources.onnx_files.arithmetic import HALVES, REDUCED
from ortcam_export.sources.onnx_files.file import OnnxFile, describe
from ortcam_export.sources.onnx_files.outputs import HOW_TO_TAKE_VALUES, joined_outputs
from ortcam_export.sources.onnx_files.rewriting.dequantization import undo_dynamic_quantization, undo_quantization
from ortcam_export.sources.onnx_files.rewriting.integer_pixels import make_pixels_floating
from ortcam_export.sources.onnx_files.rewriting.legacy_operators import spell_out
from ortcam_export.sources.onnx_files.rewriting.single_images import add_batch_dimension
from ortcam_export.sources.onnx_files.rewriting.splitting import split_fused
from ortcam_export.sources.types import BaselineValue

__all__ = ["OnnxClassifier", "adapt"]

_OLDEST_OPSET: Final = 18
_FOLD_BYTES: Final = 1 << 28


@dataclasses.dataclass(frozen=True)
class OnnxClassifier:
    """A file made into a classifier.

    Attributes:
        model: image float32 [N,C,H,W] -> logits float32 [N,classes], N open.
        taken: from a photograph to `image`, and the normalisation of the graph's own that became part of that.
        opened: whether the file's graph takes one image at a time, and was rewritten.
        output_shape: of one image's output, before it was flattened; (D,) also of [N,D,1,1].
        parts: the outputs that make up this one, where there are several.
    """

    model: ir.Model
    taken: Taken
    opened: bool
    output_shape: tuple[int, ...]
    parts: tuple[OutputPart, ...]


def adapt(file: OnnxFile, given: Preprocessing, baseline: BaselineValue | None = None) -> OnnxClassifier:
    """Make a file's graph the one form that the rest of the export works on; the file's own model is left as it is.

    Functions are inlined, operators brought to opset 18, half precision computed in float32, the image made NCHW, a
    fixed batch opened, normalisation at the start moved into the preprocessing, and the output made logits [N,classes].

    Args:
        file: as read.
        given: from a photograph to the file's own input, in its channel order; NCHW, whatever the file's layout.
        baseline: what masks hide to, where the user said it.

    Raises:
        ExportError: a graph that cannot be brought to this form, or whose output is not one row of classes an image.
    """
    with as_export_errors(file.path):
        return _adapt(file, given, baseline)


def _adapt(file: OnnxFile, given: Preprocessing, baseline: BaselineValue | None) -> OnnxClassifier:
    model = _copied(file.model)
    common_passes.InlinePass()(model)
    spell_out(model)
    model = _to_opset(model, file.path)
    split_fused(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if file.dtype == ir.DataType.DOUBLE:
        _compute_in_float32(model, (ir.DataType.DOUBLE,))
    if file.coarse is not None:
        _compute_in_float32(model, HALVES)
    if file.coarse == "dynamic int8":
        undo_dynamic_quantization(model)
    elif file.coarse in REDUCED:
        undo_quantization(model)
    common_passes.RemoveUnusedNodesPass()(model)
    make_pixels_floating(model.graph)
    model.graph.inputs[0].dtype = ir.DataType.FLOAT
    if not file.batched:
        count, sides = given.channels, (given.height, given.width)
        model.graph.inputs[0].shape = ir.Shape((count, *sides) if file.layout == "nchw" else (*sides, count))
        add_batch_dimension(model)
    taken = take_normalisation(model, file.layout, given, baseline)
    common_passes.RemoveUnusedNodesPass()(model)
    opened = _open_batch(model, file)
    joined = joined_outputs(model.graph)
    parts = tuple(OutputPart(value.name or "", _shape_of(value, file)) for value in joined)
    shape = _rows_of_classes(model.graph, file)
    common_passes.RemoveUnusedNodesPass()(model)
    if not file.quantized:
        fold_constants(model, input_size_limit=_FOLD_BYTES, output_size_limit=_FOLD_BYTES)
    tidy(model)
    return OnnxClassifier(model, taken, opened, shape, parts)


def _copied(model: ir.Model) -> ir.Model:
    """A copy whose tensors can be given other types: those of a clone share theirs with the original's."""
    model = model.clone()
    for graph in model.graphs():
        made = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            value.type = copy.deepcopy(value.type)
    return model


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


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().astype(np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([side for side in tensor.shape if isinstance(side, int)]),
        name=tensor.name,
    )


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


def _rows_of_classes(graph: ir.Graph, file: OnnxFile) -> tuple[int, ...]:
    """Make the output float32 [N,classes], or [N,values] of an output of any shape; returns that of one image."""
    output = _with_images_in_front(graph, file)
    single = _output_for_one(output, file)
    sides = list(output.shape or ())
    count = math.prod(single)
    if output.dtype != ir.DataType.FLOAT:
        output = _append(graph, "Cast", [output], {"to": int(ir.DataType.FLOAT)})
    if len(single) != 2 or isinstance(sides[0], int) or single[0] != 1:
        target = add_constant(graph, np.array([-1, count], np.int64), "rows_of_classes")
        output = _append(graph, "Reshape", [output, target])
    output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape(("N", count))
    graph.outputs[:] = [output]
    return _without_batch(single)


def _shape_of(output: ir.Value, file: OnnxFile) -> tuple[int, ...]:
    """The shape of one of several outputs for one image."""
    return _without_batch(_output_for_one(output, file))


def _without_batch(single: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an output without the batch: (D,) also of [1,D,1,1], and (1,) of [1]."""
    shape = tuple(single[1:])
    return (math.prod(single),) if not shape or shape[1:] == (1, 1) else shape


def _with_images_in_front(graph: ir.Graph, file: OnnxFile) -> ir.Value:
    """The output, with what has the images behind its steps, as recurrent layers have it, turned: values [N,T,C]."""
    output = graph.outputs[0]
    sides = list(output.shape or ())
    places = [index for index, side in enumerate(sides) if not isinstance(side, int)]
    if not file.raw or len(places) != 1 or str(sides[places[0]]) != "N" or math.prod(sides[: places[0]]) == 1:
        return output
    order = [*places, *(index for index in range(len(sides)) if index not in places)]
    turned = _append(graph, "Transpose", [output], {"perm": order})
    turned.type, turned.shape = output.type, ir.Shape([sides[index] for index in order])
    return turned


def _output_for_one(output: ir.Value, file: OnnxFile) -> tuple[int, ...]:
    """The shape of the output for one image.

    Raises:
        ExportError: it is not known, no row of classes where it should be one, or has the images not in front.
    """
    if output.shape is None:
        raise ExportError(
            f"{file.path}: the shape of its output {output.name!r} cannot be inferred; accepted is a graph of standard "
            "operators with shapes that follow from the image's"
        )
    sides = list(output.shape)
    if all(isinstance(side, int) for side in sides):
        raise ExportError(f"{file.path}: its output {output.name!r} {sides} does not depend on the image's batch")
    single = sides_for_one(output)
    if single is None and (len(sides) == 2 or file.raw):
        rest = [side for side in sides[1:] if isinstance(side, int)]
        single = (1, *rest) if len(rest) == len(sides) - 1 else None  # what cannot be traced: the file's own word
    if single is None and file.raw:
        raise ExportError(
            f"{file.path}: its output is {describe(output)}, with sides that the image decides; accepted is one whose "
            "shape for an image is always the same"
        )
    if single is None or (not file.raw and len([side for side in single if side != 1]) > 1):
        raise ExportError(
            f"{file.path}: its output is {describe(output)}, which is not one row of classes an image (a segmenter or "
            f"a detector?); accepted is [N,classes]; `--activation identity` {HOW_TO_TAKE_VALUES}"
        )
    before = math.prod(single[: next(index for index, side in enumerate(sides) if not isinstance(side, int))])
    if before != 1 or (file.raw and single[0] != 1):
        accepted = "[N,...]" if file.raw else "[N,classes]"
        raise ExportError(
            f"{file.path}: its output is {describe(output)}, the images behind the classes; accepted is {accepted}"
        )
    return single


def _append(
    graph: ir.Graph, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any] | None = None
) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=f"ortcam/{op_type.lower()}")
    node.outputs[0].name = f"ortcam/{op_type.lower()}_logits"
    graph.append(node)
    return node.outputs[0]
