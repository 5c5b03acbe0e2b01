"""Choose a layer: the one a user names, or the last spatial tensor before the spatial axes are lost."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError, NoDefaultLayerError
from ortcam_export.graphs.batch_axis import sides_for_one
from ortcam_export.graphs.dataflow import constant_of, data_nodes, dominators, inputs_of
from ortcam_export.graphs.layers.finding import IS_IMAGE, find_branch_layers, layers_among, module_ends
from ortcam_export.graphs.layers.layer import Layer, cut_open
from ortcam_export.graphs.layers.layouts import NO_LAYOUT, channel_axes
from ortcam_export.graphs.layers.operators import MOVES_ONLY, POOLING
from ortcam_export.graphs.layers.probed import Probed
from ortcam_export.graphs.names import module_path
from ortcam_export.graphs.running import run_part
from ortcam_export.graphs.surgery import build_head, extract

__all__ = ["choose_layer", "choose_layers"]


def choose_layer(
    layers: list[Layer], name: str | None, *, model: ir.Model, folder: Path, probe: NDArray[np.float32]
) -> Layer:
    """The layer a user names, or the default: the last spatial tensor before space is lost.

    The default is the last layer for which all of this holds:

    1. It has weights behind it, so its channels are features and not classes.
    2. It is no pooling, no other layout of the same features, and no keys and values in one tensor.
    3. If it holds tokens, the patches still reach the logits. Behind the last block of a transformer with a class token
       only that token does.

    A layer that has to be laid out anew at the cut yields to the one in front of it if no weights lie between them.
    A name may also be that of a layer inside a branch, such as of a residual block.

    Raises:
        NoDefaultLayerError: none of the layers is a good default.
        ExportError: no such layer, or none at all.
    """
    probed = Probed(model, folder, probe)
    if name is not None:
        return _named(layers, name, probed)
    features = _Features(model.graph, layers)
    default: Layer | None = None
    for layer in reversed(layers):
        if default is not None and (default.macs_behind is None or layer.macs_behind != default.macs_behind):
            break
        if features.ends_at(layer) and _patches_matter(layer, probed):
            if layer.perm is None and layer.order is None:
                return layer
            default = default or layer
    if default is not None:
        return default
    raise _no_default(layers, features, probed)


def choose_layers(
    layers: list[Layer], names: Sequence[str], *, model: ir.Model, folder: Path, probe: NDArray[np.float32]
) -> list[Layer]:
    """The layers a user names, each once, in the order of the graph, so that the deepest is last; or the default.

    Raises:
        NoDefaultLayerError: none is named, and none is a good default.
        ExportError: no such layer, or none at all.
    """
    asked: Sequence[str | None] = names or [None]
    chosen = [choose_layer(layers, name, model=model, folder=folder, probe=probe) for name in asked]
    places = {value.name: place for place, node in enumerate(model.graph) for value in node.outputs}
    by_tensor = {layer.cut.tensor: layer for layer in chosen}
    return sorted(by_tensor.values(), key=lambda layer: places[layer.cut.tensor])


def _no_default(layers: list[Layer], features: "_Features", probed: Probed) -> ExportError:
    """Make the error for a classifier without a good default. It names layers that may be one."""
    branches = find_branch_layers(probed.model, probed.folder, probed.probe)
    if not layers and not branches:
        return ExportError(
            "the graph has no spatial tensor: none with weights in front of it is a map of the whole image"
            f"{_last_reason(probed)}, so there is nothing to explain; accepted is a classifier with "
            "convolutions or tokens"
        )
    last = [
        layer
        for layer in _last_ones(probed.graph, [layer for layer in branches if features.ends_at(layer)])
        if _patches_matter(layer, probed)
    ]
    names = [layer.cut.module or layer.cut.tensor for layer in (last or branches or layers)[-2:]]
    why = (
        "none that every path passes is a good one"
        if layers
        else "every path goes around some of the maps (two networks side by side?)"
    )
    return NoDefaultLayerError(
        f"no default layer, as {why}: name one with --layer, say "
        f"--layer {' or --layer '.join(names)} (`ortcam inspect` lists them, those inside branches too)"
    )


class _Features:
    """Which layers are the last to hold their features.

    Args:
        graph: of the classifier.
        layers: those that every path passes.
    """

    def __init__(self, graph: ir.Graph, layers: list[Layer]) -> None:
        self._values = {value.name: value for node in graph for value in node.outputs}
        self._tensors = {layer.cut.tensor for layer in layers}

    def ends_at(self, layer: Layer) -> bool:
        """Whether a layer has weights behind it, and its features are not pooled, laid out anew or taken apart."""
        value = self._values[layer.cut.tensor]
        before = list(_moved_from(value))
        origin = before[-1].producer() if before else None
        operator = origin.op_type if origin is not None else layer.operator
        return (
            layer.weighted_behind
            and operator not in POOLING
            and all(item.name not in self._tensors for item in before)
            and not _is_several_in_one(value, _place_axes(layer))
        )


def _last_reason(probed: Probed) -> str:
    """Say which tensor that every path passes came closest to a map, and why it is none."""
    data = data_nodes(probed.graph)
    values = list(dominators(probed.graph.inputs[0], data))
    measured = probed.measure(values)
    _, reasons = layers_among(probed, data, values, measured, inside_branch=False)
    for value, reason in zip(reversed(values), reversed(reasons), strict=True):
        if channel_axes(measured[value.name or ""][0], probed.probe.shape) and reason not in (IS_IMAGE, NO_LAYOUT):
            return f" ({value.name!r} is the last that may be one by its shape, {reason})"
    return ""


def _place_axes(layer: Layer) -> frozenset[int]:
    """The spatial axes of a layer's tensor, as the graph has it."""
    axes = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[layer.cut.layout]
    return frozenset(axes if layer.perm is None else (layer.perm[axis] for axis in axes))


def _is_several_in_one(value: ir.Value, places: frozenset[int]) -> bool:
    """Whether a tensor is only split into parts of one size, such as keys and values, or features and their gates.

    Parts along spatial axes are something else: features of parts of the image.
    """
    parts: set[ir.Value] = set()
    queue = [value]
    while queue:
        current = queue.pop()
        if current is value and any(_taken_along(user, places) for user, _ in current.uses()):
            return False
        for user, index in current.uses():
            constant = all(other is None or other is current or other.is_initializer() for other in user.inputs)
            if user.op_type in ("Gather", "Slice", "Split") and index == 0:
                parts.update(user.outputs)
            elif user.op_type in (*MOVES_ONLY, "Add", "Div", "Mul", "Sub") and constant:
                queue.append(user.outputs[0])
            elif user.op_type != "Shape":
                return False
    return len(parts) > 1 and len({sides_for_one(part) for part in parts}) == 1


def _taken_along(node: ir.Node, axes: frozenset[int]) -> bool:
    """Whether a node takes parts of a tensor along some of these axes."""
    data = node.inputs[0] if node.inputs else None
    if data is None or data.shape is None:
        return False
    if node.op_type in ("Gather", "Split"):
        along = [node.attributes.get_int("axis", 0)]
    elif node.op_type == "Slice":
        starts, given = (constant_of(node.inputs[index]) if len(node.inputs) > index else None for index in (1, 3))
        if starts is None:
            return False
        along = list(range(len(starts))) if given is None else given.tolist()
    else:
        return False
    return any(axis % len(data.shape) in axes for axis in along)


def _last_ones(graph: ir.Graph, layers: list[Layer]) -> list[Layer]:
    """Those of some layers that have none of the others behind them."""
    by_tensor = {layer.cut.tensor: layer for layer in layers}
    followed: set[ir.Value] = set()
    last = []
    for node in reversed(list(graph)):
        found = [by_tensor[value.name] for value in node.outputs if value.name in by_tensor]
        behind = any(value in followed for value in node.outputs)
        last += [] if behind else found
        if behind or found:
            followed.update(inputs_of(node))
    return last[::-1]


def _moved_from(value: ir.Value) -> Iterator[ir.Value]:
    """The tensors in front of this one that hold the same elements in another layout."""
    while (node := value.producer()) is not None and node.op_type in MOVES_ONLY and node.inputs[0] is not None:
        value = node.inputs[0]
        yield value


def _named(layers: list[Layer], name: str, probed: Probed) -> Layer:
    """Find the layer of a name, which may be an index among the layers."""
    if name.isdecimal() and int(name) < len(layers):
        return layers[int(name)]
    if name.removeprefix("-").isdecimal() and layers:
        raise ExportError(f"layer {name}: accepted is an index from 0 to {len(layers) - 1}, a module path, or a tensor")
    found = [layer for layer in layers if name == layer.cut.tensor or name in layer.modules]
    if found:
        return found[-1]
    data = data_nodes(probed.graph)
    end = module_ends(data).get(name)
    inside = [value for node in data for value in node.outputs if value.name == name or node is end]
    branch, reasons = layers_among(probed, data, inside, probed.measure(inside), inside_branch=True)
    if branch:
        return branch[-1]
    if inside:
        shape = sides_for_one(inside[-1])
        raise ExportError(
            f"layer {name!r} gives {list(shape) if shape else 'a tensor'} for an image, {reasons[-1]}; "
            "`ortcam inspect` lists the layers that are maps of the image"
        )
    if _inside_control_flow(probed.graph, name):
        raise ExportError(f"layer {name!r} lies inside an If, Loop or Scan; accepted is one outside of it")
    known = [text for layer in layers for text in (*layer.modules, layer.cut.tensor)]
    everything = [*known, *module_ends(data), *(value.name or "" for node in data for value in node.outputs)]
    hint = did_you_mean(name, everything) or "; `ortcam inspect` lists them"
    raise ExportError(
        f"no layer {name!r} with a spatial or token layout{hint} (a convolution with a BatchNorm behind it is one "
        "operator with it, and has its name)"
    )


def _inside_control_flow(graph: ir.Graph, name: str) -> bool:
    outside = set(graph)
    return any(
        node not in outside and (name in module_path(node) or any(value.name == name for value in node.outputs))
        for node in ir.traversal.RecursiveGraphIterator(graph)
    )


def _patches_matter(layer: Layer, probed: Probed) -> bool:
    """Whether exchanging the patch tokens of two images changes the logits. For maps it always does."""
    if layer.cut.layout != "tokens":
        return True
    folder, images = probed.folder, probed.probe[:2]
    model, cut = cut_open(probed.model, layer)
    (features,) = run_part(extract(model, ["image"], [cut.tensor]), folder, {"image": images})
    exchanged = features.copy()
    exchanged[:, cut.prefix_tokens :] = features[::-1, cut.prefix_tokens :]
    if layer.inside_branch:
        behind, name, feeds = extract(model, ["image", cut.tensor], ["logits"]), cut.tensor, {"image": images}
    else:
        behind, name, feeds = build_head(model, cut.tensor), "features", {}
    (logits,) = run_part(behind, folder, feeds | {name: features})
    (changed,) = run_part(behind, folder, feeds | {name: exchanged})
    return bool(np.abs(changed - logits).max() > 1e-5 * np.abs(logits).max())
