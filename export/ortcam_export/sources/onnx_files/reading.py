"""Reading an `.onnx` file of any make, without PyTorch: finding its image and its logits."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ortcam_export.errors import ExportError, as_export_errors
from ortcam_export.graphs.dataflow import constant_of
from ortcam_export.graphs.endings import Ending, take_ending, take_unranked
from ortcam_export.sources.given.fixed_inputs import GivenInput
from ortcam_export.sources.onnx_files.arithmetic import (
    FLOATS,
    PIXELS,
    REDUCED,
    coarse_arithmetic,
    computes_with_integers,
)
from ortcam_export.sources.onnx_files.file import OnnxFile, describe
from ortcam_export.sources.onnx_files.fixed_inputs import fix_inputs, used_inputs
from ortcam_export.sources.onnx_files.layout import sides_of
from ortcam_export.sources.onnx_files.loading import CLASS_NAMES, load_model
from ortcam_export.sources.onnx_files.outputs import chosen_output, joined_outputs, refuse_maps, refuse_picked
from ortcam_export.sources.onnx_files.rewriting.legacy_operators import KEPT_OPERATORS, LEGACY_OPERATORS
from ortcam_export.sources.types import InputLayout, SaidActivation

__all__ = ["read_onnx"]

_STANDARD_DOMAINS: Final = ("", "ai.onnx.ml")
_RUNTIME_DOMAINS: Final = ("com.microsoft",)
# Where ONNX Runtime's optimiser puts operators whose tensors are not laid out as their shapes say.
_LAID_OUT_FOR_A_DEVICE: Final = ("com.microsoft.nchwc", "com.ms.internal.nhwc")


def read_onnx(
    path: Path,
    *,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    activation: SaidActivation | None = None,
    inputs: Mapping[str, GivenInput] | None = None,
    encoder: bool = False,
    channels: int | None = None,
) -> OnnxFile:
    """Read a file and find its image and its logits.

    Args:
        path: of the `.onnx` file.
        output: which output to explain, where there are several; several with commas between, of values.
        input_layout: "nchw" or "nhwc", where the shape of the image leaves it open.
        activation: what the user said of its outputs.
        inputs: values for all its inputs but the image.
        encoder: whether its output is the embedding of an image.
        channels: of its image, where the user said it.

    Raises:
        ExportError: not ONNX, not an image classifier, operators that ONNX Runtime does not have, or what only the user
            can say.
    """
    with as_export_errors(path):
        return _look_at(
            load_model(path), path, _Asked(output, input_layout, activation, inputs or {}, encoder, channels)
        )


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a user said of a file; see `read_onnx`."""

    output: str | None
    input_layout: InputLayout | None
    activation: SaidActivation | None
    inputs: Mapping[str, GivenInput]
    encoder: bool
    channels: int | None


def _look_at(model: ir.Model, path: Path, asked: _Asked) -> OnnxFile:
    graph = model.graph
    common_passes.RemoveInitializersFromInputsPass()(model)
    inputs, outputs = (tuple(map(describe, values)) for values in (graph.inputs, graph.outputs))
    _refuse_custom_operators(model, path)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _refuse_training_mode(graph, path)
    fixed = fix_inputs(graph, asked.inputs, path)
    image = _image_input(graph, path)
    sides = sides_of(image, asked.input_layout, asked.channels, path)
    batched = image.shape is not None and len(image.shape) == 4
    batch = _batch(image, path) if batched else 1
    activated, ending = _take_ending(model, asked, path)
    if joined_outputs(graph) and not batched:
        raise ExportError(
            f"{path}: several outputs go with an image that has a batch dimension; accepted is one output"
        )
    coarse = coarse_arithmetic(model)
    assert image.name is not None
    assert image.dtype is not None
    return OnnxFile(
        path,
        model,
        activated,
        image.name,
        sides.layout,
        image.dtype,
        (sides.height, sides.width),
        batch,
        ending,
        coarse,
        computes_with_integers(graph) and coarse != "dynamic int8" and coarse not in REDUCED,
        batched,
        dict(model.metadata_props),
        model.meta.get(CLASS_NAMES),
        inputs,
        outputs,
        fixed,
        asked.activation == "identity",
        sides.channels,
        sides.guessed,
    )


def _take_ending(model: ir.Model, asked: _Asked, path: Path) -> tuple[ir.Model | None, Ending]:
    """Make the logits the one output of a graph.

    Returns:
        The graph with its activation still at the end, None where it has none; and what it ended in.
    """
    graph = model.graph
    raw = asked.activation == "identity"
    graph.outputs[:] = [chosen_output(graph, asked.output, path, raw=raw)]
    common_passes.RemoveUnusedNodesPass()(model)
    refuse_picked(graph, path)
    if raw:
        return None, Ending(None, None)
    if asked.encoder:
        refuse_maps(graph.outputs[0], path)
        return None, Ending(None, None)
    ranking = take_unranked(graph)
    common_passes.RemoveUnusedNodesPass()(model)
    activated = model.clone()
    refuse_maps(graph.outputs[0], path)
    ending = dataclasses.replace(take_ending(graph, said=asked.activation), ranking=ranking)
    common_passes.RemoveUnusedNodesPass()(model)
    return (activated if ending.operator is not None else None), ending


def _refuse_custom_operators(model: ir.Model, path: Path) -> None:
    local = {(function.domain, function.name) for function in model.functions.values()}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain in _LAID_OUT_FOR_A_DEVICE:
            raise ExportError(
                f"{path}: ONNX Runtime's optimiser laid it out for one kind of processor ({node.domain}); accepted is "
                "the file that it was made of, or one optimised at most at level EXTENDED"
            )
        standard = node.domain in _STANDARD_DOMAINS and onnx.defs.has(node.op_type, node.domain)
        standard = standard or (node.domain in ("", "ai.onnx") and node.op_type in LEGACY_OPERATORS)
        if node.domain in ("", "ai.onnx") and node.op_type in KEPT_OPERATORS:
            raise ExportError(
                f"{path}: the operator {node.op_type}, which ONNX Runtime keeps for old files, is not supported; "
                "accepted are the operators of ONNX and of com.microsoft"
            )
        if not standard and node.domain not in _RUNTIME_DOMAINS and (node.domain, node.op_type) not in local:
            raise ExportError(
                f"{path}: the custom operator {node.domain or 'ai.onnx'}::{node.op_type} is not one that ONNX Runtime "
                "has; accepted are the operators of ONNX and of com.microsoft"
            )


def _refuse_training_mode(graph: ir.Graph, path: Path) -> None:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        mode = constant_of(node.inputs[2]) if node.op_type == "Dropout" and len(node.inputs) > 2 else None
        if (mode is not None and mode.any()) or node.attributes.get_int("training_mode", False):
            raise ExportError(
                f"{path}: {node.op_type} {node.name!r} is in training mode; accepted is a model exported for inference"
            )


def _image_input(graph: ir.Graph, path: Path) -> ir.Value:
    inputs = used_inputs(graph)
    listed = ", ".join(describe(value) for value in inputs)
    if len(inputs) > 1:
        others = _others_than_the_image(inputs)
        flags = " ".join(f"--input {value.name}=FILE|VALUE" for value in others)
        raise ExportError(f"{path}: its inputs are {listed}; accepted is one image: fix the others, say {flags}")
    if not inputs:
        raise ExportError(f"{path}: its inputs are {listed or 'none'}; accepted is one image [N,C,H,W] or [N,H,W,C]")
    image = inputs[0]
    for value in (image, *graph.outputs):
        if value.shape is not None:  # what some exporters write for an open side
            value.shape = ir.Shape(None if isinstance(side, int) and side < 1 else side for side in value.shape)
    rank = None if image.shape is None else len(image.shape)
    if image.dtype not in (*FLOATS, *PIXELS) or rank not in (3, 4):
        what = " (a text model?)" if image.dtype in (ir.DataType.INT64, ir.DataType.INT32) and rank != 4 else ""
        raise ExportError(
            f"{path}: its input is {listed}{what}; accepted is an image [N,C,H,W] or [N,H,W,C], or one without N, "
            "floating or of integers"
        )
    graph.inputs[:] = inputs
    return image


def _others_than_the_image(inputs: list[ir.Value]) -> list[ir.Value]:
    """All inputs but the first that has four dimensions as an image has, or the first of all."""
    image = next((value for value in inputs if value.shape is not None and len(value.shape) == 4), inputs[0])
    return [value for value in inputs if value is not image]


def _batch(image: ir.Value, path: Path) -> int | None:
    """The batch size; None where it is open."""
    batch = image.shape[0] if image.shape is not None else None
    if not isinstance(batch, int):
        return None
    if batch > 1:
        raise ExportError(
            f"{path}: the batch size is fixed at {batch}; accepted is a batch of 1, which is opened, or an open one"
        )
    return batch
