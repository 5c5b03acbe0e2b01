"""Where a classifier can be cut: the tensors that every path from image to logits passes, and the best of them."""

import dataclasses
import difflib
import tempfile
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam_export.errors import ExportError
from ortcam_export.graphs import build_head, extract, module_path

__all__ = ["Layer", "choose_layer", "find_layers"]

_POOLING: Final = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "ReduceMax",
    "ReduceMean",
)
_MOVES_ONLY: Final = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_MAX_PREFIX_TOKENS: Final = 16


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tensor the classifier can be cut at.

    Attributes:
        cut: its name, module and shape.
        modules: all module paths whose output it is, outermost first.
        operator: ONNX operator that makes it.
        weighted_behind: whether a layer with weights lies behind it.
    """

    cut: Cut
    modules: tuple[str, ...]
    operator: str
    weighted_behind: bool


def find_layers(model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> list[Layer]:
    """All layers the classifier can be cut at, in the order of the graph.

    A cut has to be a dominator: a tensor through which every path from image to logits passes, shape arithmetic left
    out. In topological order that is the moment when exactly one tensor is still needed. Shapes are measured.

    Args:
        model: image -> logits, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,3,H,W], N at least 2.
    """
    dominators = _dominators(model.graph)
    shapes = _measure(model, [value.name or "" for value in dominators], folder, probe)
    ends = _module_ends(model.graph)
    weighted = _has_weights_behind(model.graph)
    layers = []
    for value in dominators:
        producer = value.producer()
        assert producer is not None
        cut = _as_cut(value.name or "", shapes[value.name or ""], probe.shape)
        if cut is None:
            continue
        modules = tuple(path for path in module_path(producer) if ends[path] is producer)
        cut = dataclasses.replace(cut, module=modules[0] if modules else None)
        layers.append(Layer(cut, modules, producer.op_type, weighted[producer]))
    return layers


def choose_layer(
    layers: list[Layer], name: str | None, *, model: ir.Model, folder: Path, probe: NDArray[np.float32]
) -> Layer:
    """The layer a user names, or the default: the last spatial tensor before space is lost.

    The default is the last layer that (1) has weights behind it, so that its channels are features and not classes,
    (2) is not itself a pooling, and (3) for tokens, still passes the patches on: behind the last block of a transformer
    with a class token only that token reaches the logits.

    Raises:
        ExportError: no such layer, or none at all.
    """
    if not layers:
        raise ExportError(
            "the graph has no spatial tensor that every path from image to logits passes: nothing to explain"
        )
    if name is not None:
        return _named(layers, name)
    for layer in reversed(layers):
        if not layer.weighted_behind or layer.operator in (*_POOLING, *_MOVES_ONLY):
            continue
        if layer.cut.layout != "tokens" or _patches_matter(layer.cut, model, folder, probe):
            return layer
    raise ExportError("no default layer: name one with --layer (`ortcam inspect` lists them)")


def _named(layers: list[Layer], name: str) -> Layer:
    if name.isdecimal() and int(name) < len(layers):
        return layers[int(name)]
    found = [layer for layer in layers if name == layer.cut.tensor or name in layer.modules]
    if found:
        return found[-1]
    known = [text for layer in layers for text in (*layer.modules, layer.cut.tensor)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"accepted: {', '.join(dict.fromkeys(known))}"
    raise ExportError(
        f"layer {name!r} is not one that every path from image to logits passes, with a spatial or token layout; {hint}"
    )


def _data_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Nodes on a path of data from image to logits; shape arithmetic is not data."""
    reached: set[ir.Value] = {graph.inputs[0]}
    forward = []
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in reached for value in node.inputs):
            forward.append(node)
            reached.update(node.outputs)
    needed: set[ir.Value] = {graph.outputs[0]}
    backward = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            backward.append(node)
            needed.update(value for value in node.inputs if value is not None and value in reached)
    return backward[::-1]


def _dominators(graph: ir.Graph) -> list[ir.Value]:
    nodes = _data_nodes(graph)
    last_use: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None:
                last_use[value] = index
    open_values: set[ir.Value] = {graph.inputs[0]}
    dominators = []
    for index, node in enumerate(nodes):
        open_values.update(value for value in node.outputs if value in last_use)
        open_values = {value for value in open_values if last_use.get(value, -1) > index}
        if len(open_values) == 1 and (only := next(iter(open_values))).producer() is node:
            dominators.append(only)
    return dominators


def _has_weights_behind(graph: ir.Graph) -> dict[ir.Node, bool]:
    """For every data node, whether a layer with weights comes after it; for a dominator, after it means behind it."""
    behind: dict[ir.Node, bool] = {}
    seen = False
    for node in reversed(_data_nodes(graph)):
        behind[node] = seen
        if node.op_type in _WEIGHTED and any(value is not None and value.is_initializer() for value in node.inputs):
            seen = True
    return behind


def _module_ends(graph: ir.Graph) -> dict[str, ir.Node]:
    """The last data node of every module."""
    return {path: node for node in _data_nodes(graph) for path in module_path(node)}


def _measure(
    model: ir.Model, names: list[str], folder: Path, probe: NDArray[np.float32]
) -> dict[str, tuple[tuple[int, ...], bool]]:
    """The shape of each tensor on the probe, and whether it is float."""
    if not names:
        return {}
    outputs = run_part(extract(model, ["image"], names), folder, {"image": probe})
    return {name: (value.shape, value.dtype.kind == "f") for name, value in zip(names, outputs, strict=True)}


def run_part(part: ir.Model, folder: Path, feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Run a model whose weights are in a file of `folder`, in ONNX Runtime on the CPU."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as file:
        ir.save(part, file.name)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, feeds)
    return outputs


def _as_cut(name: str, measured: tuple[tuple[int, ...], bool], image: tuple[int, ...]) -> Cut | None:
    """The layout of a tensor, or None where it has none: [N,C,h,w] first, then [N,h,w,C], then tokens [N,T,C]."""
    shape, is_float = measured
    if not is_float or shape[0] != image[0]:
        return None
    if len(shape) == 4:
        _, first, second, third = shape
        if _is_grid(second, third, image):
            return _cut(name, "nchw", first, second, third)
        if _is_grid(first, second, image):
            return _cut(name, "nhwc", third, first, second)
    if len(shape) == 3:
        grid = _token_grid(shape[1], image)
        if grid is not None:
            prefix, height, width = grid
            return _cut(name, "tokens", shape[2], height, width, prefix)
    return None


def _cut(
    name: str, layout: Literal["nchw", "nhwc", "tokens"], channels: int, height: int, width: int, prefix: int = 0
) -> Cut:
    return Cut(name, None, layout, channels, height, width, prefix)


def _is_grid(height: int, width: int, image: tuple[int, ...]) -> bool:
    """Whether h x w is the image at a smaller scale: more than one cell, one scale on both axes up to a cell."""
    if height * width < 2 or height > image[2] or width > image[3]:
        return False
    return abs(height * image[3] - width * image[2]) <= max(image[2], image[3]) * 1.5


def _token_grid(tokens: int, image: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(prefix, h, w) with prefix + h w = tokens and patches that tile the image, fewest prefix tokens first."""
    for prefix in range(_MAX_PREFIX_TOKENS):
        patches = tokens - prefix
        for height in range(2, image[2] // 2 + 1):
            width, rest = divmod(patches, height)
            if rest == 0 and width >= 2 and image[2] // height == image[3] // width and image[2] % height == 0:
                return prefix, height, width
    return None


def _patches_matter(cut: Cut, model: ir.Model, folder: Path, probe: NDArray[np.float32]) -> bool:
    """Whether the logits change when the patch tokens of one image are exchanged for those of another."""
    (features,) = run_part(extract(model, ["image"], [cut.tensor]), folder, {"image": probe[:2]})
    exchanged = features.copy()
    exchanged[:, cut.prefix_tokens :] = features[::-1, cut.prefix_tokens :]
    head = build_head(model, cut.tensor)
    (logits,) = run_part(head, folder, {"features": features})
    (changed,) = run_part(head, folder, {"features": exchanged})
    return bool(np.abs(changed - logits).max() > 1e-5 * np.abs(logits).max())
