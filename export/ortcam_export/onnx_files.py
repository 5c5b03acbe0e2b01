"""From an `.onnx` file of any make to one classifier, image [N,3,H,W] -> logits [N,classes], without PyTorch."""

import dataclasses
import logging
import math
from collections.abc import Iterable
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

from ortcam.bundle import Activation, ModelRecord, file_sha256
from ortcam.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.graphs import tidy
from ortcam_export.shapes import sides_for_one, trace_batch
from ortcam_export.sources import InputLayout, InputSpec, Source, read_labels

__all__ = ["OnnxClassifier", "OnnxFile", "adapt", "open_onnx_file", "read_onnx"]

OLDEST_OPSET: Final = 18
_STANDARD_DOMAINS: Final = ("", "ai.onnx.ml")
_RUNTIME_DOMAINS: Final = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
Coarse = Literal["float16", "bfloat16", "dynamic int8"]
_HALVES: Final[dict[ir.DataType, Coarse]] = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
_FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *_HALVES)
_BYTES: Final = (ir.DataType.UINT8,)
_CHANNEL_AXIS: Final = {"nchw": 1, "nhwc": 3}
_TO_NHWC: Final = [0, 2, 3, 1]
_TO_NCHW: Final = [0, 3, 1, 2]
# What may stand between the activation at the end and the output.
_PASSING: Final = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_ACTIVATIONS: Final[dict[str, Activation]] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_QUANTIZED_ACTIVATIONS: Final[dict[str, Activation]] = {"QLinearSoftmax": "softmax", "QLinearSigmoid": "sigmoid"}
_FOLD_BYTES: Final = 1 << 28


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An `.onnx` file, read and looked at; nothing in its graph has been changed but the activation at its end.

    Attributes:
        path: of the file.
        model: the graph, with its one output of logits.
        image: name of the image input.
        layout: of the image: "nchw" or "nhwc".
        dtype: of the image's elements.
        size: (H, W), each None where the graph leaves it open.
        batch: the batch size, None where it is open.
        activation: the one that the graph ended in, or None.
        coarse: arithmetic that the export does in float32 instead: "float16", "bfloat16", or "dynamic int8", whose
            scale is that of a whole batch; None for none.
        quantized: whether it computes with 8-bit integers of fixed scales.
    """

    path: Path
    model: ir.Model
    image: str
    layout: InputLayout
    dtype: ir.DataType
    size: tuple[int | None, int | None]
    batch: int | None
    activation: Activation | None
    coarse: Coarse | None
    quantized: bool

    def session(self) -> ort.InferenceSession:
        """The graph as it is in ONNX Runtime on the CPU; external data stays where it is."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path.parent))
        proto = ir.to_proto(self.model)
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def feed(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Images, float32 [N,3,H,W], in the layout and type that the file takes."""
        laid_out = images if self.layout == "nchw" else images.transpose(_TO_NHWC)
        if self.dtype in _BYTES:
            laid_out = np.rint(laid_out)
        return np.ascontiguousarray(laid_out.astype(self.dtype.numpy()))


@dataclasses.dataclass(frozen=True)
class OnnxClassifier:
    """A file made into a classifier.

    Attributes:
        model: image float32 [N,3,H,W] -> logits float32 [N,classes], N open.
        preprocessing: from a photograph to `image`; normalisation that the graph began with is part of it.
        folded: the operators of that normalisation, in words; "" for none.
    """

    model: ir.Model
    preprocessing: Preprocessing
    folded: str


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
        spec = dataclasses.replace(spec, **pixels)
    wanted = {
        "--input-size H W": spec.input_size or None not in file.size or None,
        "--mean R G B": spec.mean,
        "--std R G B": spec.std,
        "--channel-order rgb|bgr": spec.channel_order,
        "--labels FILE": spec.labels,
    }
    if missing := [flag for flag, value in wanted.items() if value is None]:
        raise ExportError(f"{path}: what an .onnx file does not say has to be given: {', '.join(missing)}")
    height, width = (
        side if side is not None else said for side, said in zip(file.size, spec.input_size or file.size, strict=True)
    )
    assert height is not None
    assert width is not None
    if spec.input_size not in (None, (height, width)):
        raise ExportError(f"{path}: --input-size {_pair(spec.input_size)}: the graph takes {_pair(file.size)}")
    record = ModelRecord(path.stem, "onnx", path.name, file_sha256(path))
    return Source(record, file, spec.preprocessing(height, width), "given by the user", read_labels(spec.labels))


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
    model = _load(path)
    graph = model.graph
    common_passes.RemoveInitializersFromInputsPass()(model)
    _refuse_custom_operators(model, path)
    image = _image_input(graph, path)
    layout = _layout(image, input_layout, path)
    shape = list(image.shape or ())
    sides = shape[2:] if layout == "nchw" else shape[1:3]
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch is not None and batch > 1:
        raise ExportError(
            f"{path}: the batch size is fixed at {batch}; accepted is a batch of 1, which is opened, or an open one"
        )
    logits, activation = _logits(_chosen_output(graph, output, path), path)
    graph.outputs[:] = [logits]
    common_passes.RemoveUnusedNodesPass()(model)
    kinds = {value.dtype for value in graph.initializers.values()} | {image.dtype}
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
        image.name,
        layout,
        image.dtype,
        (height, width),
        batch,
        activation,
        coarse,
        quantized and coarse != "dynamic int8",
    )


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
    _open_batch(model, file)
    _rows_of_classes(model.graph, file)
    common_passes.RemoveUnusedNodesPass()(model)
    if not file.quantized:
        fold_constants(model, input_size_limit=_FOLD_BYTES, output_size_limit=_FOLD_BYTES)
    tidy(model)
    return OnnxClassifier(model, preprocessing, folded)


def _load(path: Path) -> ir.Model:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
        _unzip(proto.graph)
        model = ir.from_proto(proto)
    except Exception as error:  # noqa: BLE001 - protobuf raises its own types
        raise ExportError(f"{path}: cannot be read as ONNX: {_first_line(error)}") from None
    ir.external_data.set_base_dir(model.graph, path.parent)
    if not model.graph.outputs:
        raise ExportError(f"{path}: cannot be read as ONNX: it has no graph with an output")
    folder = path.parent.resolve()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        place = (path.parent / tensor.location).resolve()
        if not place.is_relative_to(folder):
            raise ExportError(
                f"{path}: its weights {tensor.location!s} lie outside its folder; accepted is a file beside it"
            )
        if not place.is_file():
            raise ExportError(f"{path}: its file of weights {tensor.location!s} is missing; put it beside the model")
        needed = (tensor.offset or 0) + (tensor.length or 0)
        if place.stat().st_size < needed:
            raise ExportError(
                f"{path}: its file of weights {tensor.location!s} is truncated; {needed} bytes are needed"
            )
    return model


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
        standard = node.domain in _STANDARD_DOMAINS and onnx.defs.has(node.op_type, node.domain)
        if not standard and node.domain not in _RUNTIME_DOMAINS and (node.domain, node.op_type) not in local:
            raise ExportError(
                f"{path}: the custom operator {node.domain or 'ai.onnx'}::{node.op_type} is not one that ONNX Runtime "
                "has; accepted are the operators of ONNX and of com.microsoft"
            )


def _image_input(graph: ir.Graph, path: Path) -> ir.Value:
    inputs = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    listed = ", ".join(_describe(value) for value in inputs)
    if len(inputs) != 1:
        raise ExportError(f"{path}: its inputs are {listed or 'none'}; accepted is one image [N,3,H,W] or [N,H,W,3]")
    image = inputs[0]
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
            if value.name == name:
                return value
        raise ExportError(f"{path}: no output {name!r}; its outputs are {_listed(graph.outputs)}")
    scores = [value for value in graph.outputs if value.dtype in (*_FLOATS, None)]
    if len(scores) == 1:
        return scores[0]
    if not scores:
        raise ExportError(
            f"{path}: its outputs are {_listed(graph.outputs)}; accepted is one of logits, floating [N,classes]"
        )
    raise ExportError(f"{path}: name the output of the logits with --output; its outputs are {_listed(graph.outputs)}")


def _logits(output: ir.Value, path: Path) -> tuple[ir.Value, Activation | None]:
    """What goes into the activation at the end of the graph, or the output itself; the activation is taken out."""
    if output.shape is not None and len([side for side in list(output.shape)[1:] if side != 1]) > 1:
        raise ExportError(
            f"{path}: its output is {_describe(output)}, which is not one row of classes an image (a segmenter or a "
            "detector?); accepted is [N,classes]"
        )
    chain: list[ir.Node] = []
    value = output
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type in _ACTIVATIONS and node.domain == "":
            for quantizer in (item for item in chain if item.op_type in ("QuantizeLinear", "DequantizeLinear")):
                output = _bypass(quantizer, output)
            return _bypass(node, output), _ACTIVATIONS[node.op_type]
        if node.op_type in _QUANTIZED_ACTIVATIONS and chain and chain[-1].op_type == "DequantizeLinear":
            dequantizer = chain[-1]
            for position in (0, 1, 2):
                dequantizer.replace_input_with(position, node.inputs[position])
            return output, _QUANTIZED_ACTIVATIONS[node.op_type]
        if node.op_type not in (*_PASSING, "QuantizeLinear", "DequantizeLinear"):
            break
        chain.append(node)
        value = node.inputs[0]
    return output, None


def _bypass(node: ir.Node, output: ir.Value) -> ir.Value:
    """Take a node out of the chain that ends in `output`; returns where the chain ends now."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if result is output:
        return source
    result.replace_all_uses_with(source)
    return output


def _to_opset(model: ir.Model, path: Path) -> ir.Model:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset >= OLDEST_OPSET or opset == 0:
        return model
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        converted = version_converter.ConvertVersionPass(OLDEST_OPSET, fallback=True)(model).model
    finally:
        logging.disable(previous)
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
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in kinds:
            value.const_value = _as_float32(tensor)
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


def _initializer(graph: ir.Graph, array: NDArray[Any], name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().astype(np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=tensor.shape,
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
    mean = tuple(float(item) for item in np.asarray(given.mean) - offset * np.asarray(given.std) / factor)
    std = tuple(float(item) for item in np.asarray(given.std) / factor)
    return dataclasses.replace(given, mean=mean, std=std), ", ".join(taken)


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
        scale, zero = _array(node.inputs[1]), _array(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
        if scale is None or zero is None or scale.size != 1:
            return None
        return np.full(3, float(scale)), np.full(3, -float(scale) * float(zero))
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is second:
        return None
    constant = _array(second if first is value else first)
    if constant is None:
        return None
    channels = _per_channel(constant, layout)
    if channels is None:
        return None
    one, none = np.ones(3), np.zeros(3)
    if node.op_type == "Add":
        return one, channels
    if node.op_type == "Sub":
        return (one, -channels) if first is value else None
    if (channels <= 0).any() or (node.op_type == "Div" and first is not value):
        return None
    return (channels, none) if node.op_type == "Mul" else (1 / channels, none)


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


def _open_batch(model: ir.Model, file: OnnxFile) -> None:
    """Make the graph take any number of images; a graph that only says it does is opened like one with a batch of 1."""
    if file.batch is None:
        try:
            known = trace_batch(model, fixed=False)
        except ExportError:
            known = {}
        if model.graph.outputs[0] in known:
            return
    trace_batch(model, fixed=True)


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
    if output.dtype != ir.DataType.FLOAT:
        output = _append(graph, "Cast", [output], {"to": int(ir.DataType.FLOAT)})
        output.dtype = ir.DataType.FLOAT
    wide = [side for side in sides[1:] if side != 1]
    if str(sides[0]) == "N" and len(wide) > 1:
        raise ExportError(
            f"{file.path}: its output {output.name!r} is {['N', *sides[1:]]}, which is not one row of classes an image "
            "(a segmenter or a detector?); accepted is [N,classes]"
        )
    if len(sides) != 2 or str(sides[0]) != "N":
        classes = math.prod(sides_for_one(output) or ())
        target = _initializer(graph, np.array([-1, classes], np.int64), "rows_of_classes")
        output = _append(graph, "Reshape", [output, target])
        output.dtype = ir.DataType.FLOAT
        output.shape = ir.Shape(("N", classes))
    graph.outputs[:] = [output]


def _append(
    graph: ir.Graph, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any] | None = None
) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=f"ortcam/{op_type.lower()}")
    node.outputs[0].name = f"ortcam_{op_type.lower()}_logits"
    node.outputs[0].shape = inputs[0].shape
    graph.append(node)
    return node.outputs[0]


def _describe(value: ir.Value) -> str:
    sides = ",".join(str(side) for side in value.shape) if value.shape is not None else "?"
    kind = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return f"{value.name!r} {kind} [{sides}]"


def _listed(values: Iterable[ir.Value]) -> str:
    return ", ".join(_describe(value) for value in values)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
