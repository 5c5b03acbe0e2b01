"""Reading an `.onnx` file of any make, without PyTorch: its image, its logits, and what it does not say."""

import contextlib
import dataclasses
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.parity import PARITY_TOLERANCE
from ortcam_export.errors import ExportError, first_line
from ortcam_export.graphs.dataflow import TO_NHWC, constant_of
from ortcam_export.graphs.endings import Ending, take_ending, take_unranked
from ortcam_export.sources.onnx_files.declarations import declarations_of
from ortcam_export.sources.onnx_files.legacy_operators import KEPT_OPERATORS, LEGACY_OPERATORS
from ortcam_export.sources.onnx_files.limits import MOST_ELEMENTS, check_limits
from ortcam_export.sources.opening import (
    COMMON_SIDE,
    InputLayout,
    InputSpec,
    SaidActivation,
    Source,
    assumed_of,
    said_preprocessing,
    unknown_preprocessing,
)

__all__ = [
    "FLOATS",
    "HALVES",
    "PIXELS",
    "REDUCED",
    "Coarse",
    "OnnxFile",
    "computes_with_integers",
    "describe",
    "guarded",
    "open_onnx_file",
    "read_onnx",
]

_STANDARD_DOMAINS: Final = ("", "ai.onnx.ml")
_RUNTIME_DOMAINS: Final = ("com.microsoft",)
# Where ONNX Runtime's optimiser puts operators whose tensors are not laid out as their shapes say.
_LAID_OUT_FOR_A_DEVICE: Final = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
Coarse = Literal["float16", "bfloat16", "dynamic int8", "16-bit integer", "4-bit", "block-quantized", "float8"]
HALVES: Final[dict[ir.DataType, Coarse]] = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
# Fixed scales that ONNX Runtime has no faster kernels for than those of float32, on the processors that ortcam serves.
REDUCED: Final[dict[Coarse, tuple[ir.DataType, ...]]] = {
    "16-bit integer": (ir.DataType.UINT16, ir.DataType.INT16),
    "4-bit": (ir.DataType.UINT4, ir.DataType.INT4),
    "block-quantized": (),
    "float8": (
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ),
        *(ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ),
    ),
}
_DYNAMIC: Final = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *HALVES)
# Integers that pixels come in. Those of int8 are 128 less, as TFLite's converters make them.
PIXELS: Final = (
    *(ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16),
    *(ir.DataType.UINT32, ir.DataType.INT32, ir.DataType.UINT64, ir.DataType.INT64),
)
# What ONNX Runtime takes for an address in its own process, whatever files there are.
_IN_MEMORY: Final = "_ORT_MEM_ADDR_"
# Where the classes of a ZipMap are kept while a graph is looked at.
_CLASS_NAMES: Final = "class_names"


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An `.onnx` file, read and looked at; nothing in its graph has been changed but the activation at its end.

    Attributes:
        path: of the file.
        model: the graph, with its one output of logits.
        activated: the graph with its activation still at the end; None where it has none.
        image: name of the image input.
        layout: of the image: "nchw" or "nhwc".
        dtype: of the image's elements.
        size: (H, W), each None where the graph leaves it open.
        batch: the batch size, None where it is open.
        ending: what the graph ended in.
        coarse: arithmetic that the export does in float32 instead: "float16", "bfloat16", those of `REDUCED`, or
            "dynamic int8", whose scale is that of a whole batch; None for none.
        quantized: whether it computes with 8-bit integers of fixed scales, and goes on doing so.
        batched: whether its image has a dimension for the batch; [3,H,W] and [H,W,3] have none.
        metadata: what the file says of itself.
        class_names: those of a ZipMap at its end.
        all_inputs: its inputs, in words.
        all_outputs: its outputs, in words.
    """

    path: Path
    model: ir.Model
    activated: ir.Model | None
    image: str
    layout: InputLayout
    dtype: ir.DataType
    size: tuple[int | None, int | None]
    batch: int | None
    ending: Ending
    coarse: Coarse | None
    quantized: bool
    batched: bool
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    all_inputs: tuple[str, ...] = ()
    all_outputs: tuple[str, ...] = ()

    def logits(self, images: NDArray[np.float32], *, together: bool) -> NDArray[np.float32]:
        """What the file gives for images, one at a time.

        Args:
            images: float32 [N,3,H,W].
            together: whether to see that an image's logits do not change with the images beside it.

        Returns:
            float32 [N,classes].

        Raises:
            ExportError: ONNX Runtime does not run it; or an image's logits change from run to run, or with the batch.
        """
        run = self._runner(self.model)
        logits = np.concatenate([run(image[None]) for image in images])
        found = {"again": run(images[:1])}
        if together:
            found["with another beside it"] = run(images)
        for how, rows in found.items():
            difference = np.abs(rows - logits[: len(rows)]).max() / max(float(np.abs(logits).max()), 1e-12)
            if difference > PARITY_TOLERANCE:
                raise ExportError(
                    f"{self.path}: its logits for a picture differ by {difference:.1e} relative when it is run {how}; "
                    "accepted is a graph that treats each image on its own and always alike, not one in training mode"
                )
        return logits

    def outputs(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the file gives with its ending, one image at a time: float32 [N,classes].

        Raises:
            ExportError: ONNX Runtime does not run it.
        """
        run = self._runner(self.model if self.activated is None else self.activated)
        return np.concatenate([run(image[None]) for image in images])

    def _runner(self, model: ir.Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Images, float32 [N,3,H,W] -> output, float32 [N,...], in ONNX Runtime on the CPU."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # External data stays where it is.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path.parent))
        try:
            proto = ir.to_proto(model)
            session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
            raise ExportError(f"{self.path}: ONNX Runtime does not load it: {first_line(error)}") from None

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            laid_out = images if self.layout == "nchw" else images.transpose(TO_NHWC)
            if self.dtype in PIXELS:
                laid_out = np.rint(laid_out)
            feed = np.ascontiguousarray(laid_out.astype(self.dtype.numpy()))
            try:
                (output,) = session.run(None, {self.image: feed if self.batched else feed[0]})
                rows: NDArray[np.float32] = np.reshape(output, (len(images), -1)).astype(np.float32)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
                raise ExportError(f"{self.path}: ONNX Runtime does not run it: {first_line(error)}") from None
            return rows

        return run


def open_onnx_file(path: Path, spec: InputSpec) -> Source:
    """Read an `.onnx` file, with what the user says of it: a graph does not say how its image is made, nor its labels.

    Raises:
        ExportError: see `read_onnx`; or what only the user can say, all of it in one error.
    """
    file = read_onnx(path, output=spec.output, input_layout=spec.input_layout, activation=spec.activation)
    if file.dtype in PIXELS:
        spec = _spec_of_integers(file, spec)
    found = declarations_of(path, file.metadata, file.class_names, file.size)
    assumed = []
    declared = spec.declared
    if declared is None and found.preprocessing is not None and not (spec.mean is not None and spec.std is not None):
        declared = found.preprocessing
        spec = dataclasses.replace(spec, declared=declared)
        assumed += [] if found.assumed is None else [found.assumed]
    if declared is not None and spec.input_size is None:
        spec = dataclasses.replace(spec, input_size=(declared.preprocessing.height, declared.preprocessing.width))
    sized = spec.input_size is not None or None not in file.size
    if not sized and spec.partial:
        spec, sized = dataclasses.replace(spec, input_size=_guessed(file.size)), True
        assumed.append(f"an input of {_pair(spec.input_size)}, since the graph leaves it open; --input-size says it")
    if not sized or not spec.says_normalisation:
        raise unknown_preprocessing(str(path), spec, sized=sized)
    assumed += assumed_of(spec, _guessed(file.size, spec.input_size))
    height, width = (
        side if side is not None else said for side, said in zip(file.size, spec.input_size or file.size, strict=True)
    )
    assert height is not None
    assert width is not None
    if spec.input_size not in (None, (height, width)):
        raise ExportError(f"{path}: --input-size {_pair(spec.input_size)}: the graph takes {_pair(file.size)}")
    record = ModelRecord(_as_text(path.stem), "onnx", _as_text(path.name), file_sha256(path))
    return Source(
        record,
        file,
        *said_preprocessing(spec, (height, width), str(path)),
        spec.labels or found.labels,
        labels_source="" if spec.labels else found.labels_source,
        assumed=tuple(assumed),
        metadata=file.metadata,
    )


def _guessed(size: tuple[int | None, int | None], said: tuple[int, int] | None = None) -> tuple[int, int]:
    """(H, W), with what the user said, or the most common side, where the graph leaves one open."""
    height, width = (
        side if side is not None else other for side, other in zip(size, said or (COMMON_SIDE,) * 2, strict=True)
    )
    assert height is not None
    assert width is not None
    return height, width


def _spec_of_integers(file: OnnxFile, spec: InputSpec) -> InputSpec:
    """What a user says of a graph that takes integers, completed: they are pixels.

    Raises:
        ExportError: the user says otherwise.
    """
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    middle = 128.0
    name, what = file.dtype.name.lower(), "pixels as they are"
    accepted: dict[str, tuple[Any, ...]] = {"mean": (zero,), "std": (one,), "scale": (255.0,)}
    if file.dtype == ir.DataType.INT8:
        what = f"pixels less {middle:g}"
        accepted["mean"] = ((middle,) * 3, zero)
    elif file.dtype != ir.DataType.UINT8:
        accepted["scale"] = (255.0, *((spec.scale,) if spec.scale is not None else ()))
    for key, values in accepted.items():
        if getattr(spec, key) not in (None, *values):
            raise ExportError(f"{file.path}: its input is {name}, {what}; --{key} does not go with it")
        if spec.declared is not None and getattr(spec.declared.preprocessing, key) not in values:
            raise ExportError(f"{file.path}: its input is {name}, {what}; {spec.declared.source} has another {key}")
    scale = accepted["scale"][-1]
    return dataclasses.replace(spec, mean=accepted["mean"][0], std=one, scale=scale)


def _as_text(name: str) -> str:
    """A file's name with what is no Unicode in it replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _pair(size: tuple[int | None, int | None] | None) -> str:
    assert size is not None
    return " x ".join("any" if side is None else str(side) for side in size)


def read_onnx(
    path: Path,
    *,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    activation: SaidActivation | None = None,
) -> OnnxFile:
    """Read a file and find its image and its logits.

    Args:
        path: of the `.onnx` file.
        output: which output to explain, where there are several.
        input_layout: "nchw" or "nhwc", where the shape of the image leaves it open.
        activation: what the user said of its outputs.

    Raises:
        ExportError: not ONNX, not an image classifier, operators that ONNX Runtime does not have, or what only the user
            can say.
    """
    with guarded(path):
        model = _load(path)
        return _look_at(model, path, output, input_layout, activation)


def _look_at(
    model: ir.Model,
    path: Path,
    output: str | None,
    input_layout: InputLayout | None,
    activation: SaidActivation | None = None,
) -> OnnxFile:
    graph = model.graph
    common_passes.RemoveInitializersFromInputsPass()(model)
    inputs, outputs = (tuple(map(describe, values)) for values in (graph.inputs, graph.outputs))
    _refuse_custom_operators(model, path)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _refuse_training_mode(graph, path)
    image = _image_input(graph, path)
    layout = _layout(image, input_layout, path)
    shape = list(image.shape or ())
    batched = len(shape) == 4
    sides = shape[-2:] if layout == "nchw" else shape[-3:-1]
    batch = 1 if not batched else shape[0] if isinstance(shape[0], int) else None
    if batch is not None and batch > 1:
        raise ExportError(
            f"{path}: the batch size is fixed at {batch}; accepted is a batch of 1, which is opened, or an open one"
        )
    graph.outputs[:] = [_chosen_output(graph, output, path)]
    common_passes.RemoveUnusedNodesPass()(model)
    ranking = take_unranked(graph)
    common_passes.RemoveUnusedNodesPass()(model)
    activated = model.clone()
    _refuse_maps(graph.outputs[0], path)
    ending = dataclasses.replace(take_ending(graph, said=activation), ranking=ranking)
    common_passes.RemoveUnusedNodesPass()(model)
    kinds = {image.dtype, *(tensor.dtype for tensor in _tensors(model)), *_cast_to(graph)}
    operators = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}
    coarse: Coarse | None = next((name for kind, name in HALVES.items() if kind in kinds), None)
    quantizers = set(_types_of_quantizers(graph))
    coarse = next((name for name, types in REDUCED.items() if quantizers.intersection(types)), coarse)
    if "MatMulNBits" in operators:
        coarse = "4-bit"
    elif coarse is None and _has_blocks(graph):
        coarse = "block-quantized"
    if operators.intersection(_DYNAMIC):
        coarse = "dynamic int8"
    height, width = (side if isinstance(side, int) else None for side in sides)
    assert image.name is not None
    assert image.dtype is not None
    return OnnxFile(
        path,
        model,
        activated if ending.operator is not None else None,
        image.name,
        layout,
        image.dtype,
        (height, width),
        batch,
        ending,
        coarse,
        computes_with_integers(graph) and coarse != "dynamic int8" and coarse not in REDUCED,
        batched,
        dict(model.metadata_props),
        model.meta.get(_CLASS_NAMES),
        inputs,
        outputs,
    )


def _cast_to(graph: ir.Graph) -> Iterator[int]:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type == "Cast" and node.domain == "":
            yield node.attributes.get_int("to", 0)


def computes_with_integers(graph: ir.Graph) -> bool:
    """Whether a graph quantizes what it computes; weights alone that are stored as integers do not count."""
    names = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}
    return any(
        name.startswith(("QLinear", "QGemm", "QAttention"))
        or name.endswith("Integer")
        or name in ("QuantizeLinear", "MatMulIntegerToFloat")
        for name in names
    )


def _has_blocks(graph: ir.Graph) -> bool:
    """Whether weights have a scale per block, which ONNX Runtime may multiply with quantized data."""
    return any(node.attributes.get_int("block_size", 0) for node in ir.traversal.RecursiveGraphIterator(graph))


def _types_of_quantizers(graph: ir.Graph) -> Iterator[ir.DataType]:
    """The types of what quantizers make, and of what dequantizers read."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        typed = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        yield from (value.dtype for value in (typed, zero) if value is not None and value.dtype is not None)
        if node.op_type == "QuantizeLinear":
            yield ir.DataType(node.attributes.get_int("output_dtype", 0))


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Make what onnx, its converters and passes raise of a broken graph one error of ours, and keep their warnings off.

    Raises:
        ExportError: names the file.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExportError as error:
        if str(path) in str(error):
            raise
        raise ExportError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ExportError(f"{path}: its graph cannot be converted: {first_line(error)}") from error
    finally:
        logging.disable(previous)


def _load(path: Path) -> ir.Model:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
        check_limits(proto)
        class_names = _unzip(proto.graph)
        for graph in _graphs(proto):
            _fill_in_sparse(graph)
        model = ir.from_proto(proto)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - protobuf raises its own types
        raise ExportError(f"{path}: cannot be read as ONNX: {first_line(error)}") from None
    model.meta[_CLASS_NAMES] = class_names
    if not model.graph.outputs:
        raise ExportError(f"{path}: cannot be read as ONNX: it has no graph with an output")
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.inputs:
            if value is not None and not (value.producer() or value.is_graph_input() or value.is_initializer()):
                raise ExportError(f"{path}: cannot be read as ONNX: {node.op_type} reads {value.name!r}, made by none")
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _find_weights(tensor, path)
    return model


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of a model: the initializers of all its graphs, and the attributes of all nodes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    bodies: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    for node in (node for body in bodies for node in ir.traversal.RecursiveGraphIterator(body)):
        for attribute in node.attributes.values():
            if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()


def _find_weights(tensor: ir.ExternalTensor, path: Path) -> None:
    """Tell a tensor where its file of weights is, which has to be in the folder of the model and whole."""
    if _IN_MEMORY in str(tensor.location):
        raise ExportError(
            f"{path}: its weights {tensor.location!s} are an address in memory; accepted is a file beside it"
        )
    place = (path.parent / tensor.location).resolve()
    if not place.is_relative_to(path.parent.resolve()):
        raise ExportError(
            f"{path}: its weights {tensor.location!s} lie outside its folder; accepted is a file beside it"
        )
    if not place.is_file():
        raise ExportError(f"{path}: its file of weights {tensor.location!s} is missing; put it beside the model")
    offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else tensor.nbytes
    if offset < 0 or not 0 <= tensor.nbytes <= length:
        raise ExportError(
            f"{path}: cannot be read as ONNX: {tensor.name!r} takes {tensor.nbytes} bytes, and it says that "
            f"{length} at {offset} of {tensor.location!s} are its"
        )
    if place.stat().st_size < offset + length:
        raise ExportError(
            f"{path}: its file of weights {tensor.location!s} is truncated; {offset + length} bytes are needed"
        )
    tensor.base_dir = path.parent


def _unzip(graph: onnx.GraphProto) -> tuple[str, ...] | None:
    """Give out the tensor of scores that a ZipMap, in wrappers of scikit-learn's kind, makes a list of dictionaries.

    Returns:
        The names of the classes in it, if it has any.
    """
    names = None
    for node in graph.node:
        if node.op_type != "ZipMap":
            continue
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None))
        for attribute in node.attribute:
            if attribute.name == "classlabels_strings":
                names = tuple(name.decode("utf-8", "replace") for name in attribute.strings) or None
        node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output, name=node.name))
    return names


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph of a file, its functions, and all graphs inside their nodes."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _fill_in_sparse(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Make dense tensors of sparse ones: initializers, and the values of Constant nodes.

    Raises:
        ValueError: indices that do not fit, or values in a file of their own.
    """
    if isinstance(graph, onnx.GraphProto):
        graph.initializer.extend(_dense(tensor, tensor.values.name) for tensor in graph.sparse_initializer)
        graph.ClearField("sparse_initializer")
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                tensor = _dense(attribute.sparse_tensor, node.output[0])
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    if onnx.external_data_helper.uses_external_data(sparse.values):
        raise ValueError(f"the sparse tensor {name!r} has its values in another file, which is not supported")
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    if any(side < 0 for side in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(
            f"the sparse tensor {name!r} has {math.prod(shape):.1e} elements; {MOST_ELEMENTS} are accepted"
        )
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), shape)
    dense = np.zeros(shape, values.dtype)
    dense.reshape(-1)[indices.reshape(-1)] = values.reshape(-1)
    return onnx.numpy_helper.from_array(dense, name)


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
    inputs = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    listed = ", ".join(describe(value) for value in inputs)
    if len(inputs) != 1:
        raise ExportError(f"{path}: its inputs are {listed or 'none'}; accepted is one image [N,3,H,W] or [N,H,W,3]")
    image = inputs[0]
    for value in (image, *graph.outputs):
        if value.shape is not None:  # what some exporters write for an open side
            value.shape = ir.Shape(None if isinstance(side, int) and side < 1 else side for side in value.shape)
    rank = None if image.shape is None else len(image.shape)
    if image.dtype not in (*FLOATS, *PIXELS) or rank not in (3, 4):
        what = " (a text model?)" if image.dtype in (ir.DataType.INT64, ir.DataType.INT32) and rank != 4 else ""
        raise ExportError(
            f"{path}: its input is {listed}{what}; accepted is an image [N,3,H,W] or [N,H,W,3], or one without N, "
            "floating or of integers"
        )
    graph.inputs[:] = inputs
    return image


def _layout(image: ir.Value, given: InputLayout | None, path: Path) -> InputLayout:
    assert image.shape is not None
    first, last = image.shape[-3], image.shape[-1]
    possible: list[InputLayout] = []
    for layout, side in (("nchw", first), ("nhwc", last)):
        if side == 3 or not isinstance(side, int):
            possible.append(layout)  # type: ignore[arg-type]
    certain = [layout for layout, side in (("nchw", first), ("nhwc", last)) if side == 3]
    if given is not None:
        if given not in possible:
            raise ExportError(
                f"{path}: --input-layout {given}: the input is {describe(image)}, which has 3 channels elsewhere"
            )
        return given
    if not certain:  # as Hugging Face's exporter names open sides: batch_size, num_channels, height, width
        certain = [layout for layout, side in (("nchw", first), ("nhwc", last)) if "channel" in str(side).lower()]
    if len(certain) == 1 and certain[0] in possible:
        return certain[0]
    if len(possible) == 1:
        return possible[0]
    if not possible:
        raise ExportError(
            f"{path}: its input is {describe(image)}; accepted is an image of 3 channels, [N,3,H,W] or [N,H,W,3]"
        )
    raise ExportError(
        f"{path}: its input is {describe(image)}; say which side is the channels with --input-layout nchw or nhwc"
    )


def _chosen_output(graph: ir.Graph, name: str | None, path: Path) -> ir.Value:
    """The output to explain: the one named, or the only one of floating numbers."""
    if name is not None:
        for value in graph.outputs:
            if value.name != name:
                continue
            if not _may_be_scores(value):
                raise ExportError(f"{path}: its output is {describe(value)}; accepted is one of logits, floating")
            return value
        raise ExportError(f"{path}: no output {name!r}; its outputs are {_listed(graph.outputs)}")
    scores = [value for value in graph.outputs if _may_be_scores(value)]
    if len(scores) == 1:
        return scores[0]
    if not scores:
        raise ExportError(
            f"{path}: its outputs are {_listed(graph.outputs)}; accepted is one of logits, floating [N,classes]"
        )
    raise ExportError(
        f"{path}: name the output of the logits with --model-output; its outputs are {_listed(graph.outputs)}"
    )


def _may_be_scores(value: ir.Value) -> bool:
    return value.dtype in (*FLOATS, None)


def _refuse_maps(output: ir.Value, path: Path) -> None:
    if output.shape is not None and len([side for side in list(output.shape)[1:] if side != 1]) > 1:
        raise ExportError(
            f"{path}: its output is {describe(output)}, which is not one row of classes an image (a segmenter or a "
            "detector?); accepted is [N,classes]"
        )


def describe(value: ir.Value) -> str:
    """A tensor's name, type and shape, for an error."""
    sides = ",".join(str(side) for side in value.shape) if value.shape is not None else "?"
    kind = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return f"{value.name!r} {kind} [{sides}]"


def _listed(values: Iterable[ir.Value]) -> str:
    return ", ".join(describe(value) for value in values)
