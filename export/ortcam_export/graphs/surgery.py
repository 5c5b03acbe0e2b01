"""Graph surgery on ONNX IR: tidy a converted classifier, split it into features and head, build its scorers.

A scorer is the classifier with a front of its own: it picks channels of the maps, upsamples them as two matrix
products, gates them, and multiplies the image, so that a run takes channel indices and gives scores.

==================  ==================  =======================================================================
input               shape               meaning
==================  ==================  =======================================================================
``image``           float32 [1,3,H,W]   preprocessed image X
``maps``            float32 [1,C,h,w]   features, already min-maxed unless the scorer gates
``channels``        int64 [B]           which channels k to mask with
``targets``         int64 [K]           classes c
``scale``           float32 [B]         factor on the mask (not with a gate)
``noise, sigma``    [1,3,H,W], [B]      added to the masked image: sigma_b * noise (scorer "noise")
``keep``            float32 [B]         1, or 0 for padding (with a gate)
``baseline``        float32 [K]         subtracted from the probabilities in the partial sum (with a gate)
``logit_softmax``   bool []             weigh the partial sum by the softmax over the chunk of the logits (with a gate)
==================  ==================  =======================================================================

Outputs: ``probabilities`` [B,K], ``logits`` [B,K] and, with a gate, ``partial_maps`` [K,H,W], the weighted sum of the
chunk's gated maps.
"""

import ast
import contextlib
import dataclasses
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    no_op_transpose_rule,
    transpose_transpose_rule,
)

from ortcam.bundle import GATES, Activation, Cut
from ortcam.scoring.upsampling import bilinear_matrix
from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import Builder, fresh_name

__all__ = [
    "SCORER_KINDS",
    "Interpolation",
    "WeightsFile",
    "append_logits",
    "build_features",
    "build_head",
    "build_scorer",
    "data_nodes",
    "extract",
    "inputs_of",
    "insert_dequantization",
    "insert_order",
    "insert_transposition",
    "logits_of",
    "module_path",
    "tidy",
]

# Where logits are made of probabilities, what a probability of 0 is taken for. Of softmax: the least normal float32. Of
# sigmoid, for 1 - p as well, half the distance of 1 from the float32 below it: ONNX Runtime's Sigmoid is no finer.
_LEAST: Final[dict[Activation, float]] = {"softmax": float(np.finfo(np.float32).tiny), "sigmoid": 2.0**-25}

SCORER_KINDS: Final = ("linear", "noise", *GATES)

# Names of the inputs and outputs of a bundle's graphs, which no other tensor may have.
_RESERVED: Final = (
    *("image", "features", "logits", "all_logits", "probabilities", "maps", "channels", "targets", "scale"),
    *("noise", "sigma", "keep", "baseline", "logit_softmax", "partial_maps"),
)
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_INLINE_BYTES: Final = 1024
_IR_VERSION: Final = 10
_SIMPLIFICATIONS: Final = RewriteRuleSet(
    [
        no_op_cast_rule,
        no_op_expand_rule,
        no_op_transpose_rule,
        transpose_transpose_rule,
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    ]
)


class WeightsFile:
    """The one file of external data that all graphs of a bundle point into.

    Args:
        folder: of the bundle.
        name: of the file in it.
    """

    def __init__(self, folder: Path, name: str = "weights.bin") -> None:
        self._folder = folder
        self.name = name

    def store(self, model: ir.Model) -> None:
        """Move the weights of a model into the file; its extracts then point into it, too."""
        ir.external_data.unload_from_model(
            model, self._folder, self.name, size_threshold_bytes=_INLINE_BYTES, alignment=64, align_threshold=0
        )
        (self._folder / self.name).touch()

    def append(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """Add a tensor; returns the one that points at it."""
        content = tensor.tobytes()
        with (self._folder / self.name).open("ab") as file:
            file.write(bytes(-file.tell() % 64))
            offset = file.tell()
            file.write(content)
        return ir.ExternalTensor(
            self.name,
            offset,
            len(content),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self._folder,
        )


def tidy(model: ir.Model) -> None:
    """Name the input and output as the field does, lift constants, drop what is unused and what names this machine.

    Of the metadata only the module paths stay: stack traces hold paths of the machine that exported.
    """
    graph = model.graph
    _set_aside_reserved_names(graph)
    _rename(graph.inputs[0], "image", graph)
    _rename(graph.outputs[0], "logits", graph)
    _unshare_folded_weights(graph)
    _SIMPLIFICATIONS.apply_to_model(model)
    for step in (
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common_passes.IdentityEliminationPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.TopologicalSortPass(),
    ):
        step(model)
    graph.name = "classifier"
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string, graph.doc_string = "ortcam", None, None, None
    for inner in graph.subgraphs():
        inner.metadata_props.clear()
        inner.doc_string = None
    for node in ir.traversal.RecursiveGraphIterator(graph):
        scopes = node.metadata_props.get(_SCOPES) or _scopes_in_name(node.name)
        node.metadata_props.clear()
        node.doc_string = None
        if scopes is not None:
            node.metadata_props[_SCOPES] = scopes
    for value in _all_values(graph):
        value.metadata_props.clear()
        value.doc_string = None
        tensor = value.const_value
        if tensor is not None and tensor.doc_string:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)


def _set_aside_reserved_names(graph: ir.Graph) -> None:
    """Give every tensor that has a name of the bundle's own another one, those of graphs inside nodes included."""
    values = list(_all_values(graph))
    taken = {value.name for value in values}
    for value in values:
        if value.name in _RESERVED:
            value.name = fresh_name(f"{value.name}_inner", taken)


def _all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """What nodes make, inputs and initializers, of a graph and of the graphs inside its nodes."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs
    for inner in (graph, *graph.subgraphs()):
        yield from (*inner.inputs, *inner.initializers.values())


def _unshare_folded_weights(graph: ir.Graph) -> None:
    """Give layers in front of a BatchNormalization weights of their own, which folding it changes."""
    for node in list(graph):
        if node.op_type != "BatchNormalization" or (data := node.inputs[0]) is None:
            continue
        layer = data.producer()
        if layer is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(list(data.uses())) > 1:
            continue
        for index, value in list(enumerate(layer.inputs))[1:]:
            if value is None or value.const_value is None or not value.is_initializer() or len(list(value.uses())) == 1:
                continue
            own = ir.Value(
                name=f"{value.name}_{data.name}", shape=value.shape, type=value.type, const_value=value.const_value
            )
            graph.register_initializer(own)
            layer.replace_input_with(index, own)


def module_path(node: ir.Node) -> tuple[str, ...]:
    """Paths of the modules around a node, outermost first; empty where the graph does not know."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    # The first entry is the root, the last the operator's own name.
    return tuple(str(path) for path in scopes[1:-1] if path) if isinstance(scopes, list) else ()


def _scopes_in_name(name: str | None) -> str | None:
    """The module paths in the node names of other exporters, in the form that torch's new exporter has.

    torch's old exporter writes "/features/features.3/conv/conv.0/Conv", where each part that repeats the one before
    continues it: features.3.conv.0. TensorFlow's scopes "model/block_1/Relu" are paths as they stand.
    """
    if name is None or "/" not in name:
        return None
    parts = name.split("/")
    if parts[0] != "":
        return repr(["", *("/".join(parts[: index + 1]) for index in range(len(parts) - 1)), parts[-1]])
    scopes: list[str] = []
    previous = ""
    for part in parts[1:-1]:
        own = part.removeprefix(f"{previous}.") if previous else part
        scopes.append(f"{scopes[-1]}.{own}" if scopes else own)
        previous = part
    return repr(["", *scopes, parts[-1]])


def insert_dequantization(graph: ir.Graph, value: ir.Value, scale: ir.Value, zero_point: ir.Value) -> ir.Value:
    """Make integers q go on as Q(DQ(q)); returns the floating tensor in between."""
    dequantize = ir.node("DequantizeLinear", [value, scale, zero_point])
    floating = dequantize.outputs[0]
    floating.type, floating.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    _insert_pair(graph, value, dequantize, ir.node("QuantizeLinear", [floating, scale, zero_point]), "floating")
    return floating


def insert_transposition(graph: ir.Graph, value: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    """Make a tensor, say tokens [T,N,C], go on as it is by way of its transpose, [N,T,C]; returns that."""
    turn = ir.node("Transpose", [value], {"perm": list(perm)})
    turned = turn.outputs[0]
    turned.type = value.type
    if value.shape is not None:
        turned.shape = ir.Shape([value.shape[axis] for axis in perm])
    back = ir.node("Transpose", [turned], {"perm": [int(axis) for axis in np.argsort(perm)]})
    _insert_pair(graph, value, turn, back, "images_first" if perm[0] != 0 else "transposed")
    return turned


def insert_order(graph: ir.Graph, value: ir.Value, order: tuple[int, ...]) -> ir.Value:
    """Make tokens [N,T,C] go on as they are by way of themselves in another order; returns those."""
    there, back = (
        ir.node("Gather", [None, _indices(graph, indices, f"{value.name}_{name}")], {"axis": 1})
        for indices, name in ((np.array(order), "order"), (np.argsort(order), "order_again"))
    )
    ordered = there.outputs[0]
    there.replace_input_with(0, value)
    back.replace_input_with(0, ordered)
    ordered.type, ordered.shape = value.type, value.shape
    _insert_pair(graph, value, there, back, "in_order")
    return ordered


def _indices(graph: ir.Graph, indices: NDArray[np.int64], name: str) -> ir.Value:
    """A constant of a graph, int64 [n]."""
    tensor = ir.tensor(indices.astype(np.int64), name=name)
    value = ir.Value(name=name, shape=ir.Shape(indices.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _insert_pair(graph: ir.Graph, value: ir.Value, there: ir.Node, back: ir.Node, name: str) -> None:
    """Put two nodes behind a tensor, the second of which makes the tensor again for all that used it."""
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
    build = Builder({value.name for node in graph for value in node.outputs} | set(graph.initializers))

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


@contextlib.contextmanager
def saved(model: ir.Model, folder: Path) -> Iterator[Path]:
    """A model as a file in the folder of its weights, gone afterwards."""
    path = folder / f".{secrets.token_hex(4)}.onnx"
    try:
        ir.save(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def extract(model: ir.Model, inputs: Iterable[str], outputs: Iterable[str]) -> ir.Model:
    """The part of a model between tensors, as a model of its own that points to the same external data."""
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(ordered)
    part = ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)
    common_passes.RemoveUnusedNodesPass()(part)
    return part


def build_features(model: ir.Model, cut: str) -> ir.Model:
    """Image [N,3,H,W] -> features."""
    part = extract(model, ["image"], [cut])
    part.graph.name = "features"
    _rename(part.graph.outputs[0], "features", part.graph)
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
    _rename(features, "features", graph)
    return part


def _replace_shape(graph: ir.Graph, node: ir.Node, features: ir.Value) -> None:
    """Shape(image), seen from behind the cut: the batch size is that of the features, the rest is fixed."""
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


def build_scorer(
    model: ir.Model,
    cut: Cut,
    kind: str,
    *,
    height: int,
    width: int,
    weights: "Interpolation",
    activation: Activation = "softmax",
) -> ir.Model:
    """The classifier with a masking front: see the table at the top of this module.

    Args:
        model: image -> logits, weights in the bundle's file.
        cut: where the maps come from; only their shape counts.
        kind: one of `SCORER_KINDS`.
        height: of the model's input.
        width: of the model's input.
        weights: the interpolation matrices, stored once for all scorers.
        activation: from logits to probabilities.
    """
    scorer = extract(model, ["image"], ["logits"])
    graph = scorer.graph
    graph.name = f"scorer-{kind}"
    for node in graph:
        node.metadata_props.clear()
    model_input, all_logits = graph.inputs[0], graph.outputs[0]
    # The symbol of a dimension is the same text in every graph: B masked images, K targets.
    image = _input("image", ir.DataType.FLOAT, (1, 3, height, width))
    maps = _input("maps", ir.DataType.FLOAT, (1, cut.channels, cut.height, cut.width))
    channels = _input("channels", ir.DataType.INT64, ("B",))
    targets = _input("targets", ir.DataType.INT64, ("K",))
    build = Builder({value.name for node in graph for value in node.outputs} | set(graph.initializers))
    rows = build.initializer(weights.rows)
    columns = build.initializer(weights.columns)
    picked = build.op("Gather", [maps, channels], {"axis": 1})
    if kind in GATES:
        inputs = [image, maps, channels, targets]
    else:
        scale = _input("scale", ir.DataType.FLOAT, ("B",))
        inputs = [image, maps, channels, targets, scale]
        picked = build.op("Mul", [picked, build.reshape(scale, 1, -1, 1, 1)])
    upsampled = build.op("MatMul", [rows, build.op("MatMul", [picked, columns])])
    mask = build.reshape(upsampled, -1, 1, height, width)
    if kind in GATES:
        mask = build.gate(kind, mask)
    masked = build.op("Mul", [mask, image])
    if kind == "noise":
        noise = _input("noise", ir.DataType.FLOAT, (1, 3, height, width))
        sigma = _input("sigma", ir.DataType.FLOAT, ("B",))
        inputs += [noise, sigma]
        masked = build.op("Add", [masked, build.op("Mul", [build.reshape(sigma, -1, 1, 1, 1), noise])])
    model_input.replace_all_uses_with(masked)
    _rename(all_logits, "all_logits", graph)
    front = build.take_nodes()
    activated = build.activation(activation, all_logits)
    probabilities = build.output("Gather", [activated, targets], "probabilities", 2)
    logits = build.output("Gather", [all_logits, targets], "logits", 2)
    outputs = [probabilities, logits]
    if kind in GATES:
        extra, partial = _partial_maps(build, probabilities, logits, mask, height, width)
        inputs += extra
        outputs.append(partial)
    graph.insert_before(next(iter(graph)), front)
    graph.extend(build.take_nodes())
    for value in build.initializers:
        graph.register_initializer(value)
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    return scorer


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """The two matrices of bilinear upsampling, R A C: rows float32 [H,h], columns float32 [w,W]."""

    rows: ir.ExternalTensor
    columns: ir.ExternalTensor

    @classmethod
    def store(cls, weights: WeightsFile, cut: Cut, *, height: int, width: int) -> "Interpolation":
        """Write the matrices for a cut and an input size behind the weights."""
        return cls(
            weights.append("upsample_rows", ir.tensor(bilinear_matrix(cut.height, height))),
            weights.append("upsample_columns", ir.tensor(np.ascontiguousarray(bilinear_matrix(cut.width, width).T))),
        )


def _partial_maps(
    build: Builder, probabilities: ir.Value, logits: ir.Value, mask: ir.Value, height: int, width: int
) -> tuple[list[ir.Value], ir.Value]:
    """sum_b alpha_bk gate(U(A_b)) over a chunk, and the inputs that say what alpha is."""
    keep = _input("keep", ir.DataType.FLOAT, ("B",))
    baseline = _input("baseline", ir.DataType.FLOAT, ("K",))
    logit_softmax = _input("logit_softmax", ir.DataType.BOOL, ())
    increase = build.op("Transpose", [build.op("Sub", [probabilities, baseline])], {"perm": [1, 0]})
    softmax = build.op("Softmax", [build.op("Transpose", [logits], {"perm": [1, 0]})], {"axis": 1})
    alpha = build.op("Mul", [build.op("Where", [logit_softmax, softmax, increase]), keep])
    flattened = build.reshape(mask, -1, height * width)
    summed = build.op("MatMul", [alpha, flattened])
    partial = build.output("Reshape", [summed, build.integers(-1, height, width)], "partial_maps", 3)
    partial.shape = ir.Shape(("K", height, width))
    return [keep, baseline, logit_softmax], partial


def _input(name: str, dtype: ir.DataType, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _rename(value: ir.Value, name: str, graph: ir.Graph) -> None:
    """Give a value a name, moving aside any other value that has it."""
    for node in graph:
        for other in node.outputs:
            if other is not value and other.name == name:
                other.name = f"{name}_inner"
    for other in graph.inputs:
        if other is not value and other.name == name:
            other.name = f"{name}_inner"
    value.name = name


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """What a node reads, what its subgraphs read from outside included."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs())
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            inner = list(ir.traversal.RecursiveGraphIterator(graph))
            made = {value for item in inner for value in item.outputs} | set(graph.inputs)
            read = [*graph.outputs, *(value for item in inner for value in item.inputs if value is not None)]
            values += [value for value in read if value not in made]
    return values


def data_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Nodes on a path of data from image to logits; shape arithmetic is not data."""
    reached: set[ir.Value] = {graph.inputs[0]}
    forward = []
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in reached for value in inputs_of(node)):
            forward.append(node)
            reached.update(node.outputs)
    needed: set[ir.Value] = {graph.outputs[0]}
    backward = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            backward.append(node)
            needed.update(value for value in inputs_of(node) if value in reached)
    return backward[::-1]
