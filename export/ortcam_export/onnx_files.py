"""From an `.onnx` file of any make to one classifier, image [N,3,H,W] -> logits [N,classes], without PyTorch."""

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
from onnxscript import version_converter
from onnxscript.optimizer import fold_constants

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.preprocessing import Preprocessing
from ortcam.verification import PARITY_TOLERANCE
from ortcam_export.endings import Ending, take_ending
from ortcam_export.errors import ExportError, first_line
from ortcam_export.graphs import tidy
from ortcam_export.shapes import sides_for_one, trace_batch
from ortcam_export.sources import InputLayout, InputSpec, Source, read_labels, said_preprocessing

__all__ = ["OnnxClassifier", "OnnxFile", "adapt", "open_onnx_file", "read_onnx"]

OLDEST_OPSET: Final = 18
_STANDARD_DOMAINS: Final = ("", "ai.onnx.ml")
_RUNTIME_DOMAINS: Final = ("com.microsoft",)
# Where ONNX Runtime's optimiser puts operators whose tensors are not laid out as their shapes say.
_LAID_OUT_FOR_A_DEVICE: Final = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
Coarse = Literal["float16", "bfloat16", "dynamic int8"]
_HALVES: Final[dict[ir.DataType, Coarse]] = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
_FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *_HALVES)
_BYTES: Final = (ir.DataType.UINT8,)
_CHANNEL_AXIS: Final = {"nchw": 1, "nhwc": 3}
_TO_NHWC: Final = [0, 2, 3, 1]
_TO_NCHW: Final = [0, 3, 1, 2]
_FOLD_BYTES: Final = 1 << 28


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
        coarse: arithmetic that the export does in float32 instead: "float16", "bfloat16", or "dynamic int8", whose
            scale is that of a whole batch; None for none.
        quantized: whether it computes with 8-bit integers of fixed scales.
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
            laid_out = images if self.layout == "nchw" else images.transpose(_TO_NHWC)
            if self.dtype in _BYTES:
                laid_out = np.rint(laid_out)
            feed = np.ascontiguousarray(laid_out.astype(self.dtype.numpy()))
            try:
                (output,) = session.run(None, {self.image: feed})
                rows: NDArray[np.float32] = np.reshape(output, (len(feed), -1)).astype(np.float32)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
                raise ExportError(f"{self.path}: ONNX Runtime does not run it: {first_line(error)}") from None
            return rows

        return run


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


def open_onnx_file(path: Path, spec: InputSpec) -> Source:
    """Read an `.onnx` file, with what the user says of it: a graph does not say how its image is made, nor its labels.

    Raises:
        ExportError: see `read_onnx`; or what only the user can say, all of it in one error.
    """
    file = read_onnx(path, output=spec.output, input_layout=spec.input_layout)
    if file.dtype in _BYTES:
        pixels: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 255.0}
        for name, value in pixels.items():
            if getattr(spec, name) not in (None, value):
                raise ExportError(f"{path}: its input is uint8, pixels as they are; --{name} does not go with it")
            if spec.declared is not None and getattr(spec.declared.preprocessing, name) != value:
                raise ExportError(
                    f"{path}: its input is uint8, pixels as they are; {spec.declared.source} has another {name}"
                )
        spec = dataclasses.replace(spec, **pixels)
    declared = spec.declared
    if declared is not None and spec.input_size is None:
        spec = dataclasses.replace(spec, input_size=(declared.preprocessing.height, declared.preprocessing.width))
    known = spec.partial or declared is not None
    wanted = {
        "--input-size H W": spec.input_size is not None or None not in file.size,
        "--mean R G B": known or spec.mean is not None,
        "--std R G B": known or spec.std is not None,
        "--channel-order rgb|bgr": known or spec.channel_order is not None,
        "--labels FILE": spec.partial or spec.labels is not None,
    }
    if missing := [flag for flag, said in wanted.items() if not said]:
        raise ExportError(f"{path}: what an .onnx file does not say has to be given: {', '.join(missing)}")
    height, width = (
        side if side is not None else said for side, said in zip(file.size, spec.input_size or file.size, strict=True)
    )
    assert height is not None
    assert width is not None
    if spec.input_size not in (None, (height, width)):
        raise ExportError(f"{path}: --input-size {_pair(spec.input_size)}: the graph takes {_pair(file.size)}")
    record = ModelRecord(_as_text(path.stem), "onnx", _as_text(path.name), file_sha256(path))
    return Source(record, file, *said_preprocessing(spec, (height, width)), read_labels(spec.labels))


def _as_text(name: str) -> str:
    """A file's name with what is no Unicode in it replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _pair(size: tuple[int | None, int | None] | None) -> str:
    assert size is not None
    return " x ".join("any" if side is None else str(side) for side in size)


def read_onnx(path: Path, *, output: str | None = None, input_layout: InputLayout | None = None) -> OnnxFile:
    """Read a file and find its image and its logits.

    Args:
        path: of the `.onnx` file.
        output: which output to explain, where there are several.
        input_layout: "nchw" or "nhwc", where the shape of the image leaves it open.

    Raises:
        ExportError: not ONNX, not an image classifier, operators that ONNX Runtime does not have, or what only the user
            can say.
    """
    with _guarded(path):
        model = _load(path)
        return _look_at(model, path, output, input_layout)


def _look_at(model: ir.Model, path: Path, output: str | None, input_layout: InputLayout | None) -> OnnxFile:
    graph = model.graph
    common_passes.RemoveInitializersFromInputsPass()(model)
    _refuse_custom_operators(model, path)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _refuse_training_mode(graph, path)
    image = _image_input(graph, path)
    layout = _layout(image, input_layout, path)
    shape = list(image.shape or ())
    sides = shape[2:] if layout == "nchw" else shape[1:3]
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch is not None and batch > 1:
        raise ExportError(
            f"{path}: the batch size is fixed at {batch}; accepted is a batch of 1, which is opened, or an open one"
        )
    graph.outputs[:] = [_chosen_output(graph, output, path)]
    common_passes.RemoveUnusedNodesPass()(model)
    activated = model.clone()
    _refuse_maps(graph.outputs[0], path)
    ending = take_ending(graph)
    common_passes.RemoveUnusedNodesPass()(model)
    kinds = {image.dtype, *(tensor.dtype for tensor in _tensors(model)), *_cast_to(graph)}
    operators = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)}
    coarse: Coarse | None = next((name for kind, name in _HALVES.items() if kind in kinds), None)
    if "DynamicQuantizeLinear" in operators:
        coarse = "dynamic int8"
    quantized = any(
        name.startswith(("QLinear", "QGemm"))
        or name.endswith("Integer")
        or name in ("QuantizeLinear", "DequantizeLinear")
        for name in operators
    )
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
        quantized and coarse != "dynamic int8",
    )


def _cast_to(graph: ir.Graph) -> Iterator[int]:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type == "Cast" and node.domain == "":
            yield node.attributes.get_int("to", 0)


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
    with _guarded(file.path):
        return _adapt(file, given)


def _adapt(file: OnnxFile, given: Preprocessing) -> OnnxClassifier:
    model = file.model.clone()
    common_passes.InlinePass()(model)
    model = _to_opset(model, file.path)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if file.dtype == ir.DataType.DOUBLE:
        _compute_in_float32(model, (ir.DataType.DOUBLE,))
    if file.coarse in _HALVES.values():
        _compute_in_float32(model, _HALVES)
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


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
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
        _unzip(proto.graph)
        model = ir.from_proto(proto)
    except Exception as error:  # noqa: BLE001 - protobuf raises its own types
        raise ExportError(f"{path}: cannot be read as ONNX: {first_line(error)}") from None
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
    place = (path.parent / tensor.location).resolve()
    if not place.is_relative_to(path.parent.resolve()):
        raise ExportError(
            f"{path}: its weights {tensor.location!s} lie outside its folder; accepted is a file beside it"
        )
    if not place.is_file():
        raise ExportError(f"{path}: its file of weights {tensor.location!s} is missing; put it beside the model")
    offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else tensor.nbytes
    if offset < 0 or length < tensor.nbytes:
        raise ExportError(
            f"{path}: cannot be read as ONNX: {tensor.name!r} takes {tensor.nbytes} bytes, and it says that "
            f"{length} at {offset} of {tensor.location!s} are its"
        )
    if place.stat().st_size < offset + length:
        raise ExportError(
            f"{path}: its file of weights {tensor.location!s} is truncated; {offset + length} bytes are needed"
        )
    tensor.base_dir = path.parent


def _unzip(graph: onnx.GraphProto) -> None:
    """Give out the tensor of scores that a ZipMap, in wrappers of scikit-learn's kind, makes a list of dictionaries."""
    for node in graph.node:
        if node.op_type != "ZipMap":
            continue
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None))
        node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output, name=node.name))


def _refuse_custom_operators(model: ir.Model, path: Path) -> None:
    local = {(function.domain, function.name) for function in model.functions.values()}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain in _LAID_OUT_FOR_A_DEVICE:
            raise ExportError(
                f"{path}: ONNX Runtime's optimiser laid it out for one kind of processor ({node.domain}); accepted is "
                "the file that it was made of, or one optimised at most at level EXTENDED"
            )
        standard = node.domain in _STANDARD_DOMAINS and onnx.defs.has(node.op_type, node.domain)
        if not standard and node.domain not in _RUNTIME_DOMAINS and (node.domain, node.op_type) not in local:
            raise ExportError(
                f"{path}: the custom operator {node.domain or 'ai.onnx'}::{node.op_type} is not one that ONNX Runtime "
                "has; accepted are the operators of ONNX and of com.microsoft"
            )


def _refuse_training_mode(graph: ir.Graph, path: Path) -> None:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        mode = _array(node.inputs[2]) if node.op_type == "Dropout" and len(node.inputs) > 2 else None
        if (mode is not None and mode.any()) or node.attributes.get_int("training_mode", False):
            raise ExportError(
                f"{path}: {node.op_type} {node.name!r} is in training mode; accepted is a model exported for inference"
            )


def _image_input(graph: ir.Graph, path: Path) -> ir.Value:
    inputs = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    listed = ", ".join(_describe(value) for value in inputs)
    if len(inputs) != 1:
        raise ExportError(f"{path}: its inputs are {listed or 'none'}; accepted is one image [N,3,H,W] or [N,H,W,3]")
    image = inputs[0]
    for value in (image, *graph.outputs):
        if value.shape is not None:  # what some exporters write for an open side
            value.shape = ir.Shape(None if isinstance(side, int) and side < 1 else side for side in value.shape)
    if image.dtype not in (*_FLOATS, *_BYTES) or image.shape is None or len(image.shape) != 4:
        what = " (a text model?)" if image.dtype in (ir.DataType.INT64, ir.DataType.INT32) else ""
        raise ExportError(
            f"{path}: its input is {listed}{what}; accepted is an image [N,3,H,W] or [N,H,W,3], floating or uint8"
        )
    graph.inputs[:] = inputs
    return image


def _layout(image: ir.Value, given: InputLayout | None, path: Path) -> InputLayout:
    assert image.shape is not None
    first, last = image.shape[1], image.shape[3]
    possible: list[InputLayout] = []
    for layout, side in (("nchw", first), ("nhwc", last)):
        if side == 3 or not isinstance(side, int):
            possible.append(layout)  # type: ignore[arg-type]
    certain = [layout for layout, side in (("nchw", first), ("nhwc", last)) if side == 3]
    if given is not None:
        if given not in possible:
            raise ExportError(
                f"{path}: --input-layout {given}: the input is {_describe(image)}, which has 3 channels elsewhere"
            )
        return given
    if len(certain) == 1:
        return certain[0]  # type: ignore[return-value]
    if len(possible) == 1:
        return possible[0]
    if not possible:
        raise ExportError(
            f"{path}: its input is {_describe(image)}; accepted is an image of 3 channels, [N,3,H,W] or [N,H,W,3]"
        )
    raise ExportError(
        f"{path}: its input is {_describe(image)}; say which side is the channels with --input-layout nchw or nhwc"
    )


def _chosen_output(graph: ir.Graph, name: str | None, path: Path) -> ir.Value:
    """The output to explain: the one named, or the only one of floating numbers."""
    if name is not None:
        for value in graph.outputs:
            if value.name != name:
                continue
            if not _may_be_scores(value):
                raise ExportError(f"{path}: its output is {_describe(value)}; accepted is one of logits, floating")
            return value
        raise ExportError(f"{path}: no output {name!r}; its outputs are {_listed(graph.outputs)}")
    scores = [value for value in graph.outputs if _may_be_scores(value)]
    if len(scores) == 1:
        return scores[0]
    if not scores:
        raise ExportError(
            f"{path}: its outputs are {_listed(graph.outputs)}; accepted is one of logits, floating [N,classes]"
        )
    raise ExportError(f"{path}: name the output of the logits with --output; its outputs are {_listed(graph.outputs)}")


def _may_be_scores(value: ir.Value) -> bool:
    return value.dtype in (*_FLOATS, None)


def _refuse_maps(output: ir.Value, path: Path) -> None:
    if output.shape is not None and len([side for side in list(output.shape)[1:] if side != 1]) > 1:
        raise ExportError(
            f"{path}: its output is {_describe(output)}, which is not one row of classes an image (a segmenter or a "
            "detector?); accepted is [N,classes]"
        )


def _to_opset(model: ir.Model, path: Path) -> ir.Model:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset >= OLDEST_OPSET or opset == 0:
        return model
    converted = version_converter.ConvertVersionPass(OLDEST_OPSET, fallback=True)(model).model
    if opset < 11:
        # onnx's converter leaves these to Resize's later defaults, which are others.
        for node in converted.graph:
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
                node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                    "coordinate_transformation_mode", "asymmetric"
                )
                node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")
    if converted.opset_imports.get("") != OLDEST_OPSET:
        raise ExportError(
            f"{path}: its operators, of opset {opset}, cannot be brought to opset {OLDEST_OPSET} by onnx's converter"
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
            weights = _array(node.inputs[1])
            offset = _array(node.inputs[3]) if len(node.inputs) > 3 else np.zeros(())
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
    floating = value.dtype not in _BYTES
    taken = []
    while (node := _only_user(value)) is not None:
        affine = _affine(node, value, layout)
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) in [int(kind) for kind in _FLOATS]:
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
        turn = ir.node("Transpose", [image], {"perm": _TO_NHWC}, name="ortcam/to_nhwc")
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
    if layout == "nchw" and perm is not None and list(perm) == _TO_NHWC:
        return "nhwc"
    return None


def _affine(
    node: ir.Node, value: ir.Value, layout: InputLayout
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(a, b) float64 [3] of an operator that is y = a x + b for each channel, a positive; None for any other."""
    if node.op_type == "DequantizeLinear" and node.inputs[0] is value:
        return _dequantization(node)
    first, second, *_ = (*node.inputs, None)
    constant = _array(second if first is value else first)
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
    scale = _array(node.inputs[1])
    zero = _array(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    if scale is None or zero is None or scale.size != 1:
        return None
    return np.full(3, float(scale)), np.full(3, -float(scale) * float(zero))


def _array(value: ir.Value | None) -> NDArray[Any] | None:
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


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
            f"{file.path}: its output is {_describe(output)}, which is not one row of classes an image (a segmenter or "
            "a detector?); accepted is [N,classes]"
        )
    before = math.prod(single[: next(index for index, side in enumerate(sides) if not isinstance(side, int))])
    if before != 1:
        raise ExportError(
            f"{file.path}: its output is {_describe(output)}, the images behind the classes; accepted is [N,classes]"
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


def _describe(value: ir.Value) -> str:
    sides = ",".join(str(side) for side in value.shape) if value.shape is not None else "?"
    kind = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return f"{value.name!r} {kind} [{sides}]"


def _listed(values: Iterable[ir.Value]) -> str:
    return ", ".join(_describe(value) for value in values)
