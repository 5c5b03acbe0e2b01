"""Find layers: maps of the image that every path from image to logits passes, and those inside branches."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam_export.graphs.batch_axis import sides_for_one
from ortcam_export.graphs.dataflow import data_nodes, dominators
from ortcam_export.graphs.layers.arithmetic import weights_and_macs_behind, weights_in_front
from ortcam_export.graphs.layers.layer import Layer
from ortcam_export.graphs.layers.layouts import Arrangement, arrange, channel_axes
from ortcam_export.graphs.layers.locality import plain_maps
from ortcam_export.graphs.layers.operators import MOVES_ONLY, POOLING, scale_of
from ortcam_export.graphs.layers.painting import paint
from ortcam_export.graphs.layers.probed import Measured, Probed
from ortcam_export.graphs.names import module_path

__all__ = ["IS_IMAGE", "find_branch_layers", "find_layers", "layers_among", "module_ends"]

# Why a tensor is no layer, where its layout is not the reason.
IS_IMAGE: Final = "which is the image itself: no layer with weights lies in front of it"
_NOT_FLOATING: Final = "which holds no floating numbers for each image, nor 8-bit integers of a known scale"

_BYTES: Final = ("int8", "uint8")
_IMAGES_FIRST: Final = (1, 0, 2)


def find_layers(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> list[Layer]:
    """All layers the classifier can be cut at, in the order of the graph.

    A cut has to be a dominator: a tensor that every path from image to logits passes, apart from shape arithmetic.
    Shapes are measured. In a quantized graph the integers themselves are cut, not the floating tensors before and after
    them, so that both halves keep their integer kernels.

    Args:
        model: image -> logits, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,C,H,W], N at least 2.
    """
    probed, data = Probed(model, folder, probe), data_nodes(model.graph)
    values = list(dominators(model.graph.inputs[0], data))
    return layers_among(probed, data, values, probed.measure(values), inside_branch=False)[0]


def find_branch_layers(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> list[Layer]:
    """All layers inside branches, where data reach the logits around them. If the graph names modules: their outputs.

    Args:
        model: image -> logits, traced, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,C,H,W], N at least 2.
    """
    data = data_nodes(model.graph)
    passed = set(dominators(model.graph.inputs[0], data))
    ends = set(module_ends(data).values())
    measured = {}
    values = []
    for node in data:
        if node.op_type in MOVES_ONLY or node.op_type in POOLING or (ends and node not in ends):
            continue
        for value in node.outputs:
            traced = _traced(value, len(probe))
            if value not in passed and traced is not None:
                values.append(value)
                measured[value.name or ""] = traced
    return layers_among(Probed(model, folder, probe), data, values, measured, inside_branch=True)[0]


def layers_among(
    probed: Probed, data: list[ir.Node], values: list[ir.Value], measured: Measured, *, inside_branch: bool
) -> tuple[list[Layer], list[str]]:
    """Sort tensors: layers of those that are maps of the image, and for each of the others the reason why it is none.

    Args:
        probed: the classifier.
        data: its data nodes.
        values: the tensors, outputs of data nodes.
        measured: shape and element type of each on the probe.
        inside_branch: whether they lie inside branches.
    """
    candidates = {item.value: item for item in _candidates(values, measured, len(probed.probe))}
    arrangements = _arrangements(probed, data, candidates.values())
    weighted, macs = weights_and_macs_behind(data)
    ends = module_ends(data)
    layers, reasons = [], []
    for value in values:
        found = arrangements.get(value, _NOT_FLOATING)
        if isinstance(found, str):
            reasons.append(found)
            continue
        candidate, producer, name = candidates[value], value.producer(), value.name or ""
        assert producer is not None
        if value.shape is None:  # behind what cannot be traced
            value.shape = ir.Shape(("N", *measured[name][0][1:]))
        modules = _modules_of(value, ends)
        module = modules[0] if modules else None
        layers.append(
            Layer(
                Cut(name, module, found.layout, found.channels, found.height, found.width, found.prefix_tokens),
                modules,
                producer.op_type,
                weighted[producer],
                None if inside_branch else macs[producer],
                candidate.quantized,
                _composed(candidate.perm, found),
                found.order,
                inside_branch,
            )
        )
    return layers, reasons


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A tensor that holds numbers for each image.

    Attributes:
        value: the tensor.
        shape: on the probe, the images first.
        perm: of its axes, that brings the images first; None where they are.
        quantized: whether it holds 8-bit integers.
    """

    value: ir.Value
    shape: tuple[int, ...]
    perm: tuple[int, ...] | None
    quantized: bool


def _candidates(values: list[ir.Value], measured: Measured, images: int) -> list[_Candidate]:
    """Keep the tensors that hold floating numbers, or integers of a known scale, for each image of the probe."""
    chosen = set(values)
    found = []
    for value in values:
        shape, kind = measured[value.name or ""]
        quantized = kind in _BYTES
        if (quantized and scale_of(value) is None) or not (quantized or kind == "float32"):
            continue
        if kind == "float32" and _is_beside_integers(value, chosen):
            continue
        images_second = len(shape) == 3 and shape[1] == images and (shape[0] != images or _is_fixed(value))
        if _is_fixed(value) and not images_second:
            continue  # as many of something else as there are images: keys and values, say
        perm = _IMAGES_FIRST if images_second else None
        found.append(_Candidate(value, shape if perm is None else tuple(shape[axis] for axis in perm), perm, quantized))
    return found


def _arrangements(
    probed: Probed, data: list[ir.Node], candidates: Iterable[_Candidate]
) -> dict[ir.Value, Arrangement | str]:
    """How each candidate holds maps of the image, or why it holds none. Measured unless its operators tell."""
    featured = weights_in_front(probed.graph, data)
    axes = {
        item.value: channel_axes(item.shape, probed.probe.shape)
        for item in candidates
        if item.value.producer() in featured
    }
    plain = {value for value in plain_maps(probed.graph, data) if 1 in axes.get(value, ())}
    wanted = {
        item.value.name or "": (item.perm, axes[item.value])
        for item in candidates
        if item.value in axes and item.value not in plain
    }
    answers = paint(probed.model, wanted, probed.folder, probed.probe)
    found: dict[ir.Value, Arrangement | str] = {}
    for item in candidates:
        value = item.value
        if value not in axes:
            found[value] = IS_IMAGE
        elif value in plain:
            _, channels, height, width = item.shape
            found[value] = Arrangement("nchw", channels, height, width)
        else:
            seen = {axis: answers[value.name or "", axis] for axis in axes[value]}
            found[value] = arrange(item.shape, probed.probe.shape, seen)
    return found


def _is_fixed(value: ir.Value) -> bool:
    """Whether the first axis of a traced tensor is known to have one length for every batch."""
    return value.shape is not None and len(value.shape) > 0 and isinstance(value.shape[0], int)


def _composed(first: tuple[int, ...] | None, found: Arrangement) -> tuple[int, ...] | None:
    """The permutation that brings images first, then rows before columns, or tokens before channels."""
    if not found.transposed:
        return first
    exchanged = {"nchw": (0, 1, 3, 2), "nhwc": (0, 2, 1, 3), "tokens": (0, 2, 1)}[found.layout]
    return exchanged if first is None else tuple(first[axis] for axis in exchanged)


def _traced(value: ir.Value, images: int) -> tuple[tuple[int, ...], str] | None:
    """The shape of a traced tensor for so many images, and its element type by numpy's name. None if not known."""
    sides = sides_for_one(value)
    if sides is None or value.shape is None or value.dtype is None:
        return None
    shape = tuple(
        side if isinstance(known, int) else side * images for side, known in zip(sides, value.shape, strict=True)
    )
    return shape, value.dtype.numpy().name


def _modules_of(value: ir.Value, ends: dict[str, ir.Node]) -> tuple[str, ...]:
    """The paths of modules that output a tensor. A quantizer counts to the module of the tensor it quantizes."""
    producer = value.producer()
    while producer is not None and producer.op_type == "QuantizeLinear" and producer.inputs[0] is not None:
        before = producer.inputs[0].producer()
        if before is None:
            break
        producer = before
    if producer is None:
        return ()
    return tuple(path for path in module_path(producer) if ends.get(path) is producer)


def _is_beside_integers(value: ir.Value, others: set[ir.Value]) -> bool:
    """Whether a floating tensor stands beside a quantized one that can be cut instead."""
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] in others:
        return True
    users = [user for user, _ in value.uses()]
    return len(users) == 1 and users[0].op_type == "QuantizeLinear" and users[0].outputs[0] in others


def module_ends(data: list[ir.Node]) -> dict[str, ir.Node]:
    """The last data node of each module, without quantizers: these have the name of what they quantize."""
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    return {path: node for node in data if node.op_type not in quantizers for path in module_path(node)}
