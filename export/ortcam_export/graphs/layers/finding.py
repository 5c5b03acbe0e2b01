"""Where a classifier can be cut: the tensors that every path from image to logits passes, and the best of them."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError, NoDefaultLayerError
from ortcam_export.graphs.batch_axis import sides_for_one
from ortcam_export.graphs.layouts import NO_LAYOUT, Arrangement, arrange, channel_axes
from ortcam_export.graphs.locality import plain_maps
from ortcam_export.graphs.painting import paint
from ortcam_export.graphs.running import run_part
from ortcam_export.graphs.surgery import (
    build_head,
    data_nodes,
    extract,
    inputs_of,
    insert_dequantization,
    insert_order,
    insert_transposition,
    module_path,
)
from ortcam_export.sources.onnx_files.reading import constant_of

__all__ = ["Layer", "choose_layer", "count_macs", "cut_open", "find_branch_layers", "find_layers"]

_POOLING: Final = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearReduceMean",
    "ReduceMax",
    "ReduceMean",
)
_MOVES_ONLY: Final = (
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Operators with weights, and which of their inputs multiply: data first, weights second.
_FACTORS: Final = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "FusedConv": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
_BYTES: Final = ("int8", "uint8")
# Operators with weights that multiply no single tensor.
_RECURRENT: Final = ("Attention", "DeformConv", "Einsum", "GRU", "LSTM", "QAttention", "RNN")
_IMAGES_FIRST: Final = (1, 0, 2)
_IS_IMAGE: Final = "which is the image itself: no layer with weights lies in front of it"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tensor the classifier can be cut at.

    Attributes:
        cut: its name, module and shape.
        modules: all module paths whose output it is, outermost first.
        operator: ONNX operator that makes it.
        weighted_behind: whether a layer with weights lies behind it.
        macs_behind: multiply-adds of the part behind it, for one image; None inside a branch and where not known.
        quantized: whether it holds 8-bit integers, which are made floating at the cut.
        perm: of its axes, where it is laid out anew at the cut: tokens [T,N,C] as [N,T,C], say; None where it is not.
        order: of its tokens, where they are brought in order at the cut; None where they are in order.
        inside_branch: whether data reach the logits around it, so that no head of these features alone exists.
    """

    cut: Cut
    modules: tuple[str, ...]
    operator: str
    weighted_behind: bool
    macs_behind: int | None
    quantized: bool = False
    perm: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    inside_branch: bool = False


def find_layers(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> list[Layer]:
    """All layers the classifier can be cut at, in the order of the graph.

    A cut has to be a dominator: a tensor through which every path from image to logits passes, shape arithmetic left
    out. In topological order that is the moment when exactly one tensor is still needed. Shapes are measured. In a
    quantized graph the integers themselves are cut, not the floating tensors before and after them, so that both halves
    keep their integer kernels.

    Args:
        model: image -> logits, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,3,H,W], N at least 2.
    """
    data = data_nodes(model.graph)
    values = _dominators(model.graph, data)
    measured = _measure(model, [value.name or "" for value in values], folder, probe)
    return _as_layers(model, data, values, measured, folder, probe, inside_branch=False)[0]


def find_branch_layers(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> list[Layer]:
    """The layers inside branches, around which data reach the logits: outputs of modules, where the graph names these.

    Args:
        model: image -> logits, traced, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,3,H,W], N at least 2.
    """
    data = data_nodes(model.graph)
    passed = set(_dominators(model.graph, data))
    ends = set(module_ends(data).values())
    measured = {}
    values = []
    for node in data:
        if node.op_type in _MOVES_ONLY or node.op_type in _POOLING or (ends and node not in ends):
            continue
        for value in node.outputs:
            traced = _traced(value, len(probe))
            if value not in passed and traced is not None:
                values.append(value)
                measured[value.name or ""] = traced
    return _as_layers(model, data, values, measured, folder, probe, inside_branch=True)[0]


def choose_layer(
    layers: list[Layer], name: str | None, *, model: ir.Model, folder: Path, probe: NDArray[np.float32]
) -> Layer:
    """The layer a user names, or the default: the last spatial tensor before space is lost.

    The default is the last layer that (1) has weights behind it, so that its channels are features and not classes,
    (2) is not itself a pooling, nor the same features only laid out in another way, nor keys and values in one, and (3)
    for tokens, still passes the patches on: behind the last block of a transformer with a class token only that token
    reaches the logits. One that has to be laid out anew at the cut yields to the one in front of it where no weights
    lie between the two.

    A name may also be that of a layer inside a branch, say of a residual block.

    Raises:
        NoDefaultLayerError: none of the layers is a good default.
        ExportError: no such layer, or none at all.
    """
    if name is not None:
        return _named(layers, name, model, folder, probe)
    by_tensor = {layer.cut.tensor: layer for layer in layers}
    values = {value.name: value for value in _values(model.graph)}

    def is_last_of_its_features(layer: Layer) -> bool:
        before = list(_moved_from(values[layer.cut.tensor]))
        origin = before[-1].producer() if before else None
        operator = origin.op_type if origin is not None else layer.operator
        return (
            layer.weighted_behind
            and operator not in _POOLING
            and all(item.name not in by_tensor for item in before)
            and not _is_several_in_one(values[layer.cut.tensor], _place_axes(layer))
        )

    default: Layer | None = None
    for layer in reversed(layers):
        if default is not None and (default.macs_behind is None or layer.macs_behind != default.macs_behind):
            break
        if is_last_of_its_features(layer) and _patches_matter(layer, model, folder, probe):
            if layer.perm is None and layer.order is None:
                return layer
            default = default or layer
    if default is not None:
        return default
    branches = find_branch_layers(model, folder, probe)
    if not layers and not branches:
        raise ExportError(
            "the graph has no spatial tensor: none with weights in front of it is a map of the whole image"
            f"{_last_reason(model, folder, probe)}, so there is nothing to explain; accepted is a classifier with "
            "convolutions or tokens"
        )
    last = [
        layer
        for layer in _last_ones(model.graph, [layer for layer in branches if is_last_of_its_features(layer)])
        if _patches_matter(layer, model, folder, probe)
    ]
    names = [layer.cut.module or layer.cut.tensor for layer in (last or branches or layers)[-2:]]
    why = (
        "none that every path passes is a good one"
        if layers
        else "every path goes around some of the maps (two networks side by side?)"
    )
    raise NoDefaultLayerError(
        f"no default layer, as {why}: name one with --layer, say "
        f"--layer {' or --layer '.join(names)} (`ortcam inspect` lists them, those inside branches too)"
    )


def _last_reason(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> str:
    """Which of the tensors that every path passes came closest to a map, the last of them, and why it is none."""
    data = data_nodes(model.graph)
    values = _dominators(model.graph, data)
    measured = _measure(model, [value.name or "" for value in values], folder, probe)
    _, reasons = _as_layers(model, data, values, measured, folder, probe, inside_branch=False)
    for value, reason in zip(reversed(values), reversed(reasons), strict=True):
        if channel_axes(measured[value.name or ""][0], probe.shape) and reason not in (_IS_IMAGE, NO_LAYOUT):
            return f" ({value.name!r} is the last that may be one by its shape, {reason})"
    return ""


def _place_axes(layer: Layer) -> frozenset[int]:
    """The axes of a layer's tensor, as the graph has it, along which the places in the image lie."""
    axes = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[layer.cut.layout]
    return frozenset(axes if layer.perm is None else (layer.perm[axis] for axis in axes))


def _is_several_in_one(value: ir.Value, places: frozenset[int]) -> bool:
    """Whether a tensor is only taken apart, into parts of one size: keys and values, or features and their gates.

    Taken apart along the axes of its places, it is features of parts of the image.
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
            elif user.op_type in (*_MOVES_ONLY, "Add", "Div", "Mul", "Sub") and constant:
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
    """Those of some layers behind which no other of them lies."""
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


def cut_open(model: ir.Model, layer: Layer) -> tuple[ir.Model, Cut]:
    """A model with a floating tensor [N,...] at a layer, and that as the cut; the model itself where it has one.

    Integers q become Q(DQ(q)), which is q again; what is laid out anew, or brought in order, is brought back behind the
    cut. The cut lies between the two.
    """
    if not layer.quantized and layer.perm is None and layer.order is None:
        return model, layer.cut
    model = model.clone()
    value = next(value for value in _values(model.graph) if value.name == layer.cut.tensor)
    if layer.quantized:
        scale = _scale_of(value)
        assert scale is not None
        value = insert_dequantization(model.graph, value, *scale)
    if layer.perm is not None:
        value = insert_transposition(model.graph, value, layer.perm)
    if layer.order is not None:
        value = insert_order(model.graph, value, layer.order)
    return model, dataclasses.replace(layer.cut, tensor=value.name or "")


def _moved_from(value: ir.Value) -> Iterator[ir.Value]:
    """The tensors that hold the same elements as this one, before it was laid out anew."""
    while (node := value.producer()) is not None and node.op_type in _MOVES_ONLY and node.inputs[0] is not None:
        value = node.inputs[0]
        yield value


def _named(layers: list[Layer], name: str, model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> Layer:
    if name.isdecimal() and int(name) < len(layers):
        return layers[int(name)]
    if name.removeprefix("-").isdecimal() and layers:
        raise ExportError(f"layer {name}: accepted is an index from 0 to {len(layers) - 1}, a module path, or a tensor")
    found = [layer for layer in layers if name == layer.cut.tensor or name in layer.modules]
    if found:
        return found[-1]
    data = data_nodes(model.graph)
    inside = [
        value for node in data for value in node.outputs if value.name == name or module_ends(data).get(name) is node
    ]
    measured = _measure(model, [value.name or "" for value in inside], folder, probe)
    branch, reasons = _as_layers(model, data, inside, measured, folder, probe, inside_branch=True)
    if branch:
        return branch[-1]
    if inside:
        shape = sides_for_one(inside[-1])
        raise ExportError(
            f"layer {name!r} gives {list(shape) if shape else 'a tensor'} for an image, {reasons[-1]}; "
            "`ortcam inspect` lists the layers that are maps of the image"
        )
    if _inside_control_flow(model.graph, name):
        raise ExportError(f"layer {name!r} lies inside an If, Loop or Scan; accepted is one outside of it")
    known = [text for layer in layers for text in (*layer.modules, layer.cut.tensor)]
    everything = [*known, *module_ends(data), *(value.name or "" for node in data for value in node.outputs)]
    hint = did_you_mean(name, everything) or "; `ortcam inspect` lists them"
    raise ExportError(
        f"no layer {name!r} with a spatial or token layout{hint} (a convolution with a BatchNorm behind it is one "
        "operator with it, and has its name)"
    )


def _as_layers(
    model: ir.Model,
    data: list[ir.Node],
    values: list[ir.Value],
    measured: Mapping[str, tuple[tuple[int, ...], str]],
    folder: Path,
    probe: NDArray[np.float32],
    *,
    inside_branch: bool,
) -> tuple[list[Layer], list[str]]:
    """Those of some tensors that are maps of the image, as layers, and for each of the others why it is none.

    Args:
        model: image -> logits, weights in a file of `folder`.
        data: its data nodes.
        values: the tensors, outputs of data nodes.
        measured: shape of each on the probe, and its element type by numpy's name.
        folder: where the model's external data is.
        probe: float32 [N,3,H,W], N at least 2.
        inside_branch: whether they lie inside branches.
    """
    ends = module_ends(data)
    weighted, macs = _behind(data)
    featured = _weights_in_front(model.graph, data)
    chosen = set(values)
    shapes: dict[ir.Value, tuple[int, ...]] = {}
    firsts: dict[ir.Value, tuple[int, ...] | None] = {}
    wanted = {}
    for value in values:
        shape, kind = measured[value.name or ""]
        producer = value.producer()
        quantized = kind in _BYTES and _scale_of(value) is not None
        if not (quantized or kind == "float32") or (kind == "float32" and _is_beside_integers(value, chosen)):
            continue
        images_second = len(shape) == 3 and shape[1] == len(probe) and (shape[0] != len(probe) or _is_fixed(value))
        if _is_fixed(value) and not images_second:
            continue  # as many of something else as there are images: keys and values, say
        firsts[value] = _IMAGES_FIRST if images_second else None
        shapes[value] = shape = tuple(shape[axis] for axis in _IMAGES_FIRST) if images_second else shape
        if producer in featured:
            wanted[value.name or ""] = (firsts[value], channel_axes(shape, probe.shape))
    plain = {value for value in plain_maps(model.graph, data) if 1 in wanted.get(value.name or "", (None, ()))[1]}
    known = {value.name for value in plain}
    answers = paint(model, {name: asked for name, asked in wanted.items() if name not in known}, folder, probe)
    layers, reasons = [], []
    for value in values:
        name, producer = value.name or "", value.producer()
        assert producer is not None
        if value not in shapes:
            reasons.append("which holds no floating numbers for each image, nor 8-bit integers of a known scale")
            continue
        if name not in wanted:
            reasons.append(_IS_IMAGE)
            continue
        if value in plain:
            _, channels, height, width = shapes[value]
            found: Arrangement | str = Arrangement("nchw", channels, height, width)
        else:
            found = arrange(shapes[value], probe.shape, {axis: answers[name, axis] for axis in wanted[name][1]})
        if isinstance(found, str):
            reasons.append(found)
            continue
        shape, kind = measured[name]
        if value.shape is None:  # behind what cannot be traced
            value.shape = ir.Shape(("N", *shape[1:]))
        modules = _modules_of(value, ends)
        layers.append(
            Layer(
                Cut(
                    name,
                    modules[0] if modules else None,
                    found.layout,
                    found.channels,
                    found.height,
                    found.width,
                    found.prefix_tokens,
                ),
                modules,
                producer.op_type,
                weighted[producer],
                None if inside_branch else macs[producer],
                kind in _BYTES,
                _composed(firsts[value], found),
                found.order,
                inside_branch,
            )
        )
    return layers, reasons


def _is_fixed(value: ir.Value) -> bool:
    """Whether the first axis of a traced tensor is known to be of one length whatever the batch."""
    return value.shape is not None and len(value.shape) > 0 and isinstance(value.shape[0], int)


def _composed(first: tuple[int, ...] | None, found: Arrangement) -> tuple[int, ...] | None:
    """The permutation that brings the images first, and then rows before columns, or tokens before channels."""
    if not found.transposed:
        return first
    exchanged = {"nchw": (0, 1, 3, 2), "nhwc": (0, 2, 1, 3), "tokens": (0, 2, 1)}[found.layout]
    return exchanged if first is None else tuple(first[axis] for axis in exchanged)


def _traced(value: ir.Value, images: int) -> tuple[tuple[int, ...], str] | None:
    """The shape of a traced tensor for so many images, and its element type by numpy's name; None where not known."""
    sides = sides_for_one(value)
    if sides is None or value.shape is None or value.dtype is None:
        return None
    shape = tuple(
        side if isinstance(known, int) else side * images for side, known in zip(sides, value.shape, strict=True)
    )
    return shape, value.dtype.numpy().name


def _weights_in_front(graph: ir.Graph, data: list[ir.Node]) -> set[ir.Node]:
    """The nodes whose output is more than the image laid out, scaled, resized or recoloured: weights mixed it."""
    reached = {graph.inputs[0], *(value for node in data for value in node.outputs)}
    featured: set[ir.Node] = set()
    for node in data:
        inputs = [value for value in inputs_of(node) if value in reached]
        if any(value.producer() in featured for value in inputs) or (
            (node.op_type in _FACTORS or node.op_type in _RECURRENT)
            and any(value is not None and value not in reached for value in node.inputs)
            and not _recolours(node)
        ):
            featured.add(node)
    return featured


def _recolours(node: ir.Node) -> bool:
    """Whether an operator makes three channels of three without mixing positions, or of an image a resized one."""
    first, second = (node.inputs[index] for index in _FACTORS.get(node.op_type, (0, 1)))
    before, after = (None if value is None else sides_for_one(value) for value in (first, node.outputs[0]))
    kernel = None if second is None or second.shape is None else second.shape.numpy()
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return False
    if "Conv" in node.op_type:
        return before[1] == 3 and after[1] <= 3 and kernel is not None and math.prod(kernel[2:]) == 1
    return any(before[axis] == after[axis] == 3 for axis in (1, 3))


def _modules_of(value: ir.Value, ends: dict[str, ir.Node]) -> tuple[str, ...]:
    """Module paths whose output a tensor is; a quantizer's is that of the tensor it quantizes."""
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
    """Whether a floating tensor only goes into, or comes out of, a quantized one that can be cut itself."""
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] in others:
        return True
    users = [user for user, _ in value.uses()]
    return len(users) == 1 and users[0].op_type == "QuantizeLinear" and users[0].outputs[0] in others


def _scale_of(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The scale and zero point of a quantized tensor, by the operator that makes it."""
    producer = value.producer()
    if producer is None:
        return None
    inputs = producer.inputs
    if producer.op_type == "QuantizeLinear":
        pair = (inputs[1], inputs[2] if len(inputs) > 2 else None)
    elif producer.op_type in ("QLinearConv", "QLinearMatMul"):
        pair = (inputs[6], inputs[7])
    elif producer.op_type in ("QLinearAdd", "QLinearMul"):
        pair = (inputs[6], inputs[7] if len(inputs) > 7 else None)
    elif producer.op_type == "QLinearConcat":
        pair = (inputs[0], inputs[1])
    elif producer.op_type.startswith("QLinear") and len(inputs) >= 4:
        pair = (inputs[3], inputs[4] if len(inputs) > 4 else None)
    elif producer.op_type in (*_MOVES_ONLY, "MaxPool", "Relu") and inputs[0] is not None:
        return _scale_of(inputs[0])
    else:
        return None
    scale, zero = pair
    return (scale, zero) if scale is not None and zero is not None else None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def _inside_control_flow(graph: ir.Graph, name: str) -> bool:
    outside = set(graph)
    return any(
        node not in outside and (name in module_path(node) or any(value.name == name for value in node.outputs))
        for node in ir.traversal.RecursiveGraphIterator(graph)
    )


def _dominators(graph: ir.Graph, data: list[ir.Node]) -> list[ir.Value]:
    last_use: dict[ir.Value, int] = {}
    for index, node in enumerate(data):
        for value in inputs_of(node):
            last_use[value] = index
    open_values: set[ir.Value] = {graph.inputs[0]}
    dominators = []
    for index, node in enumerate(data):
        open_values.update(value for value in node.outputs if value in last_use)
        open_values = {value for value in open_values if last_use.get(value, -1) > index}
        if len(open_values) == 1 and (only := next(iter(open_values))).producer() is node:
            dominators.append(only)
    return dominators


def _behind(data: list[ir.Node]) -> tuple[dict[ir.Node, bool], dict[ir.Node, int | None]]:
    """For every data node, whether weights come after it, and the multiply-adds after it for one image."""
    reached = {value for node in data for value in node.outputs}
    weighted: dict[ir.Node, bool] = {}
    macs: dict[ir.Node, int | None] = {}
    seen, total = False, 0
    for node in reversed(data):
        weighted[node], macs[node] = seen, total if total >= 0 else None
        if node.op_type in _FACTORS:
            second = node.inputs[_FACTORS[node.op_type][1]]
            seen = seen or (second is not None and second not in reached)
            own = _macs(node)
            total = total + own if own is not None and total >= 0 else -1
    return weighted, macs


def count_macs(graph: ir.Graph) -> int | None:
    """Multiply-adds of a classifier for one image; None where not all shapes are known."""
    counts = [_macs(node) for node in data_nodes(graph) if node.op_type in _FACTORS]
    return None if None in counts else sum(count for count in counts if count is not None)


def _macs(node: ir.Node) -> int | None:
    """Multiply-adds of an operator for one image; None where shapes are not known."""
    first, second = (node.inputs[index] for index in _FACTORS[node.op_type])
    assert first is not None
    assert second is not None
    out, left, right = (sides_for_one(value) for value in (node.outputs[0], first, second))
    if out is None or left is None or right is None:
        return None
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if "Conv" in node.op_type:
        return math.prod(out) * math.prod(right[1:])
    return math.prod(out) * (left[0] if node.attributes.get_int("transA", 0) else left[-1])


def module_ends(data: list[ir.Node]) -> dict[str, ir.Node]:
    """The last data node of every module, quantizers left out: they have the name of what they quantize."""
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    return {path: node for node in data if node.op_type not in quantizers for path in module_path(node)}


def _measure(
    model: ir.Model, names: list[str], folder: Path, probe: NDArray[np.float32]
) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape of each tensor on the probe, and its element type by numpy's name."""
    if not names:
        return {}
    outputs = run_part(extract(model, ["image"], names), folder, {"image": probe})
    return {name: (value.shape, value.dtype.name) for name, value in zip(names, outputs, strict=True)}


def _patches_matter(layer: Layer, model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> bool:
    """Whether the logits change when the patch tokens of one image are exchanged for another's; those of maps do."""
    if layer.cut.layout != "tokens":
        return True
    model, cut = cut_open(model, layer)
    (features,) = run_part(extract(model, ["image"], [cut.tensor]), folder, {"image": probe[:2]})
    exchanged = features.copy()
    exchanged[:, cut.prefix_tokens :] = features[::-1, cut.prefix_tokens :]
    if layer.inside_branch:
        behind, name, feeds = extract(model, ["image", cut.tensor], ["logits"]), cut.tensor, {"image": probe[:2]}
    else:
        behind, name, feeds = build_head(model, cut.tensor), "features", {}
    (logits,) = run_part(behind, folder, feeds | {name: features})
    (changed,) = run_part(behind, folder, feeds | {name: exchanged})
    return bool(np.abs(changed - logits).max() > 1e-5 * np.abs(logits).max())
