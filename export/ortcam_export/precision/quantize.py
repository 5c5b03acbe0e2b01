"""Convert a classifier to a coarser arithmetic: integers for weights and activations, or float16 throughout.

Integers are those of ONNX Runtime's static quantisation (QDQ): int8 weights, symmetric, one scale per channel; uint8
activations, one scale per tensor. What lies behind the last convolution, a pooling and the last linear layer, stays
float32: it costs next to nothing, and there 8 bits would round the logits themselves.

The range of an activation is the 90th percentile, over the inputs, of the extremes of each input, not the extremes of
all calibration data. A few inputs saturate; in exchange the other passes have finer steps. On
squeezenet1_1 this gave Score-CAM maps nearer to float32's than the plain extremes (6 photographs: Pearson 0.997 against
0.985, least 0.995 against 0.967); on mobilenet_v2 and resnet18 the two were alike. It needs no histograms in memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.external_data_helper import load_external_data_for_model
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from ortcam_export.errors import ExportError, first_line
from ortcam_export.graphs.running import quiet_session, saved
from ortcam_export.graphs.surgery import extract

__all__ = ["Ranges", "check_float16", "collect_ranges", "to_float16", "to_int8", "to_qnn"]

# Tensor -> least and greatest value that an integer has to reach.
Ranges = dict[str, tuple[float, float]]

_QUANTILE: Final = 0.9

# What ONNX Runtime computes in integers on the CPU; all else stays in float32 between them.
_INTEGER_OPERATORS: Final = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
_LINEAR: Final = ("Gemm", "MatMul")

# Interpolation and the logarithm of probabilities, beside what the converter leaves in float32 by itself.
_NOT_IN_FLOAT16: Final = (*DEFAULT_OP_BLOCK_LIST, "Log", "Resize")


def collect_ranges(
    model: ir.Model, folder: Path, inputs: Iterable[NDArray[np.float32]], *, quantile: float = _QUANTILE
) -> Ranges:
    """Run a classifier on what it will see, and note the range of each floating tensor.

    Args:
        model: image -> logits, its weights in a file of `folder`.
        folder: of the weights.
        inputs: float32 [1,C,H,W] each; one is in memory at a time, with all activations of one pass.
        quantile: of the extremes of the inputs; 1 takes the extremes of all of them.

    Raises:
        ExportError: ONNX Runtime does not run it, or a value is not finite.
    """
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    with saved(extract(model, ["image"], names), folder) as path:
        try:
            session = quiet_session(path)
            lows, highs = [], []
            for image in inputs:
                values = [image, *session.run(names, {"image": image})]
                floating = [value.dtype == np.float32 and value.size > 0 for value in values]
                lows.append([float(v.min()) if is_float else 0.0 for v, is_float in zip(values, floating, strict=True)])
                highs.append(
                    [float(v.max()) if is_float else 0.0 for v, is_float in zip(values, floating, strict=True)]
                )
        except Exception as error:  # ONNX Runtime raises its own types
            raise ExportError(f"ONNX Runtime does not run the graph: {first_line(error)}") from error
    low, high = np.quantile(lows, 1 - quantile, axis=0), np.quantile(highs, quantile, axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ExportError("precision: a value inside the model is not finite on the calibration pictures")
    return {
        name: (float(least), float(greatest))
        for name, least, greatest, is_float in zip(["image", *names], low, high, floating, strict=True)
        if is_float
    }


def to_int8(model: ir.Model, folder: Path, ranges: Ranges) -> ir.Model:
    """A classifier in 8-bit integers, float32 image in and float32 logits out.

    Args:
        model: image -> logits, its weights in a file of `folder`.
        folder: of the weights.
        ranges: of its tensors.

    Returns:
        A model of its own, weights in memory.

    Raises:
        ExportError: ONNX Runtime's quantizer does not accept the graph.
    """
    proto = _read_whole(model, folder)
    try:
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=_tensors_range(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=_behind_last_convolution(proto.graph),
            op_types_to_quantize=list(_INTEGER_OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
    except Exception as error:
        raise ExportError(f"int8: ONNX Runtime's quantizer does not accept the graph: {first_line(error)}") from error
    return _from_proto(quantizer.model.model)


def to_qnn(model: ir.Model, folder: Path, ranges: Ranges) -> ir.Model:
    """A classifier in integers as Qualcomm's NPUs take them, float32 image in and float32 logits out.

    ONNX Runtime's own rules for QNN say which operators have which types: uint16 activations; int8 weights, symmetric,
    with a scale per channel in Conv and Gemm, and one per tensor in MatMul.

    Args:
        model: image -> logits, its weights in a file of `folder`.
        folder: of the weights.
        ranges: of its tensors, extremes: 16 bits are fine enough for them.

    Returns:
        A model of its own, weights in memory.

    Raises:
        ExportError: ONNX Runtime's quantizer does not accept the graph.
    """
    # Only here: it imports ONNX Runtime's tools, which look for PyTorch.
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config  # noqa: PLC0415

    proto = _read_whole(model, folder)
    no_images: Any = None  # the ranges are there already
    types = {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8, "per_channel": True}
    try:
        rules = get_qnn_qdq_config(proto, no_images, **types)
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt16,
            tensors_range=_tensors_range(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=rules.op_types_to_quantize,
            extra_options=rules.extra_options,
        )
        quantizer.quantize_model()
    except Exception as error:
        raise ExportError(f"qnn: ONNX Runtime's quantizer does not accept the graph: {first_line(error)}") from error
    return _from_proto(quantizer.model.model)


def check_float16(model: ir.Model) -> None:
    """Refuse a classifier whose float16 scorers would crash.

    Raises:
        ExportError: it has a LayerNormalization.
    """
    if any(node.op_type == "LayerNormalization" for node in model.graph):
        # Kept in float32 or not: opening such a scorer on the CPU ended the process (onnxruntime 1.31.1).
        raise ExportError(
            "float16: a model with LayerNormalization, as transformers have it, makes ONNX Runtime's CPU provider "
            "crash; leave fp16 out of --precision"
        )


def to_float16(model: ir.Model, folder: Path, ranges: Ranges) -> ir.Model:
    """A classifier in float16, float32 image in and float32 logits out.

    Args:
        model: image -> logits, its weights in a file of `folder`.
        folder: of the weights.
        ranges: of its tensors, extremes. They have to be looked at: ONNX Runtime's CPU provider computes float16 in
            float32, so that what overflows on a GPU passes every test here.

    Returns:
        A model of its own, weights in memory.

    Raises:
        ExportError: a value that float16 does not hold, or ONNX Runtime's converter does not accept the graph.
    """
    name, largest = max(((name, max(-low, high)) for name, (low, high) in ranges.items()), key=lambda item: item[1])
    if largest > float(np.finfo(np.float16).max):
        raise ExportError(
            f"float16: values inside the model reach {largest:.0f} ({name}), float16 ends at 65504; leave fp16 out of "
            "--precision"
        )
    proto = _read_whole(model, folder)
    for node in proto.graph.node:
        if node.op_type == "Resize" and len(node.input) == 4:
            node.input[2] = ""  # empty scales beside sizes: the converter's cast of them would no longer be empty
    try:
        converted = convert_float_to_float16(
            proto, keep_io_types=True, disable_shape_infer=True, op_block_list=list(_NOT_IN_FLOAT16)
        )
    except Exception as error:
        raise ExportError(f"fp16: ONNX Runtime's converter does not accept the graph: {first_line(error)}") from error
    _drop_repeated(converted.graph)
    del converted.graph.value_info[:]  # of the types before
    return _from_proto(converted)


def _tensors_range(ranges: Ranges) -> TensorsData:
    found = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, found)


def _drop_repeated(graph: onnx.GraphProto) -> None:
    """Keep one of the casts that the converter makes of a tensor: it makes one per user, all under one name."""
    made: set[str] = set()
    nodes = []
    for node in graph.node:
        if not made.issuperset(node.output):
            nodes.append(node)
        made.update(node.output)
    del graph.node[:]
    graph.node.extend(nodes)


def _read_whole(model: ir.Model, folder: Path) -> onnx.ModelProto:
    """Read a model with its weights, infer the types of its tensors, and name its nodes."""
    with saved(extract(model, ["image"], ["logits"]), folder) as path:
        proto = onnx.load(path, load_external_data=False)
    # Before the weights are loaded: shapes need none of them, and a message of 2 GB cannot be passed on.
    proto = onnx.shape_inference.infer_shapes(proto)
    load_external_data_for_model(proto, str(folder))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return proto


def _from_proto(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    model.producer_name, model.producer_version, model.domain, model.doc_string = "ortcam", None, None, None
    model.metadata_props.clear()
    model.graph.name = "classifier"
    model.graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
    model.graph.sort()  # the converters put their casts at the end
    return model


def _behind_last_convolution(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes at the end that stay in float32: up to the last convolution, or the last but one linear."""
    constants = {tensor.name for tensor in graph.initializer}
    names, linear = [], 0
    for node in reversed(graph.node):
        if node.op_type == "Conv":
            break
        linear += node.op_type in _LINEAR and node.input[1] in constants
        if linear == 2:
            break
        names.append(node.name)
    return names
