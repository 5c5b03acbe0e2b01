"""Quantized: QDQ, QOperator, dynamic, 4, 8 and 16 bits."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tests.export.zoo.graphs import (
    CLASSES,
    HEIGHT,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
    pictures,
)
from tests.export.zoo.plain import Builder, enter, plain

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


class Calibration(CalibrationDataReader):
    """Eight pictures, one at a time."""

    def __init__(self) -> None:
        tensors = InputForm().tensor(pictures(8, HEIGHT, WIDTH, seed=1))
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{"image": row[None]} for row in tensors])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


# A step or two of an 8-bit activation, relative to its range.
INT8_TOLERANCE: Final = 2e-2


def quantized(folder: Path, form: QuantFormat, activation: QuantType, *, opset: int = 17, **options: Any) -> ZooFile:
    """The plain net through ONNX Runtime's static quantization."""
    raw, prepared, path = (folder / name for name in ("float.onnx", "prepared.onnx", "net.onnx"))
    plain(folder, name=raw.name, opset=opset)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(raw, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Calibration(),
            quant_format=form,
            activation_type=activation,
            weight_type=QuantType.QInt8,
            **options,
        )
    finally:
        logging.disable(previous)
    raw.unlink()
    prepared.unlink()
    return ZooFile(path, precision="int8", tolerance=INT8_TOLERANCE)


@zoo
def int8_qdq_per_channel(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QDQ, QuantType.QUInt8, per_channel=True)


@zoo
def int8_qdq_signed(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QDQ, QuantType.QInt8, extra_options={"ActivationSymmetric": True})


@zoo
def int8_qoperator_per_channel(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QUInt8, per_channel=True)


@zoo
def int8_qoperator_signed(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QInt8)


@zoo
def int8_qoperator_of_opset_11(folder: Path) -> ZooFile:
    return quantized(folder, QuantFormat.QOperator, QuantType.QUInt8, opset=11)


# A step or two of a 16-bit activation, relative to its range, and what the layers behind make of it.
INT16_TOLERANCE: Final = 1e-3


@zoo
def int16_qdq(folder: Path) -> ZooFile:
    """16-bit activations and 8-bit weights, as Qualcomm's QNN takes them; their Q and DQ are com.microsoft's."""
    file = quantized(folder, QuantFormat.QDQ, QuantType.QUInt16)
    return ZooFile(file.path, tolerance=INT16_TOLERANCE)


@zoo
def int16_qdq_signed_of_opset_21(folder: Path) -> ZooFile:
    file = quantized(folder, QuantFormat.QDQ, QuantType.QInt16, opset=21, per_channel=True)
    return ZooFile(file.path, tolerance=INT16_TOLERANCE)


@zoo
def int4_weights(folder: Path) -> ZooFile:
    """DequantizeLinear of 4-bit weights: per channel, and in blocks."""
    g = GraphBuilder(opset=21)
    generator = np.random.default_rng(0)
    x = g.features("image")
    kernel = helper.make_tensor("kernel", onnx.TensorProto.INT4, [16, 16, 3, 3], generator.integers(-8, 8, 2304))
    matrix = helper.make_tensor("matrix", onnx.TensorProto.UINT4, [16, 16], generator.integers(0, 16, 256))
    middle = helper.make_tensor("middle", onnx.TensorProto.UINT4, [2, 16], generator.integers(6, 9, 32))
    g.initializers += [kernel, matrix, middle]
    kernel = g.op("DequantizeLinear", "kernel", g.constant(generator.uniform(0.01, 0.04, 16)), axis=0)
    x = g.op("Relu", g.op("Conv", x, kernel, pads=[1, 1, 1, 1]))
    scales = g.constant(generator.uniform(0.05, 0.1, (2, 16)))
    matrix = g.op("DequantizeLinear", "matrix", scales, "middle", axis=0, block_size=8)
    g.dense(g.op("MatMul", g.pooled(x), matrix), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], ir_version=10)
    return ZooFile(path, tolerance=INT16_TOLERANCE)


@zoo
def weights_of_4_bits_packed(folder: Path) -> ZooFile:
    """MatMulNBits with zero points, 40 inputs in blocks of 16."""
    g = GraphBuilder(opset=17)
    generator = np.random.default_rng(0)
    x = g.op("Relu", g.dense(g.pooled(g.features("image")), 16, 40))
    packed = g.constant(generator.integers(0, 256, (CLASSES, 3, 8)), np.uint8)
    scales = g.constant(generator.uniform(0.05, 0.2, CLASSES * 3))
    zeros = g.constant(generator.integers(0, 256, CLASSES * 2), np.uint8)
    sizes = {"K": 40, "N": CLASSES, "bits": 4, "block_size": 16}
    g.op("MatMulNBits", x, packed, scales, zeros, domain="com.microsoft", out="logits", **sizes)
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"com.microsoft": 1})
    return ZooFile(path)


@zoo
def int8_dynamic_after_the_optimiser(folder: Path) -> ZooFile:
    """Level EXTENDED: DynamicQuantizeMatMul, and MatMulIntegerToFloat where two products share an input."""
    raw, plainly, path = folder / "float.onnx", folder / "plain.onnx", folder / "net.onnx"
    g = GraphBuilder()
    x = g.op("Relu", g.op("MatMul", g.pooled(g.features("image")), g.random(16, 16, scale=0.35)))
    two = [g.op("Add", g.op("MatMul", x, g.random(16, CLASSES, scale=0.5)), g.random(CLASSES)) for _ in range(2)]
    g.op("Add", *two, out="logits")
    g.save(raw, [image_info()], [classes_info("logits")])
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(raw, plainly, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(previous)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(plainly, options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} <= operators, operators
    raw.unlink()
    plainly.unlink()
    return ZooFile(path, tolerance=INT8_TOLERANCE)


@zoo
def int8_dynamic(folder: Path) -> ZooFile:
    """ConvInteger, MatMulInteger, DynamicQuantizeLinear.

    Its scales come from all the images of a run together, so a bundle computes in float32 to treat each on its own.
    """
    raw, path = folder / "float.onnx", folder / "net.onnx"
    g = GraphBuilder()
    hidden = g.op("Relu", g.op("MatMul", g.pooled(g.features("image")), g.random(16, 16, scale=0.35)))
    g.op("MatMul", hidden, g.random(16, CLASSES, scale=0.5), out="logits")
    g.save(raw, [image_info()], [classes_info("logits")])
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(raw, path, weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv", "MatMul"])
    finally:
        logging.disable(previous)
    raw.unlink()
    return ZooFile(path, tolerance=INT8_TOLERANCE)
