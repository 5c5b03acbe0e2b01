"""Quantized operators made floating: what ONNX Runtime computes with integers, to within the steps of these."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ortcam.images.preprocessing import Preprocessing
from ortcam_export import ExportError
from ortcam_export.sources.onnx_files.conversion import convert_file
from ortcam_export.sources.onnx_files.reading import read_onnx
from ortcam_export.sources.onnx_files.rewriting.dequantization import undo_dynamic_quantization, undo_quantization

RNG = np.random.default_rng(0)


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], shape: tuple[int, ...], opset: int = 17
) -> ir.Model:
    """A model of one input `x` and one output `y`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def run(model: ir.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


def operators(model: ir.Model) -> set[str]:
    import onnx_ir.passes.common as passes

    passes.RemoveUnusedNodesPass()(model)
    return {node.op_type for node in model.graph}


def quantized(weights: NDArray[np.float64], axis: tuple[int, ...]) -> tuple[NDArray[Any], ...]:
    """(int8 weights, float32 scale) per what is left of the axes.

    Weights of 7 bits: without VNNI, ONNX Runtime adds two products with uint8 data in 16 bits, and 2 x 255 x 127 is
    beyond these.
    """
    scale = np.abs(weights).max(axis=axis, keepdims=True) / 63
    return np.rint(weights / scale).astype(np.int8), scale.squeeze(axis).astype(np.float32)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_dynamically_quantized_lstm_is_an_lstm(per_channel: bool) -> None:
    inputs, hidden = 6, 5
    constants: dict[str, NDArray[Any]] = {"b": RNG.normal(size=(2, 8 * hidden)).astype(np.float32)}
    for name, rows in (("w", inputs), ("r", hidden)):
        weights = RNG.normal(size=(2, rows, 4 * hidden))
        values, scale = quantized(weights, (1,) if per_channel else (1, 2))
        zeros = np.zeros(scale.shape, np.int8)
        constants |= {name: values, f"{name}_scale": scale, f"{name}_zero": zeros}
    names = ["x", "w", "r", "b", "", "", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    attributes = {"hidden_size": hidden, "direction": "bidirectional"}
    node = helper.make_node("DynamicQuantizeLSTM", names, ["y"], domain="com.microsoft", **attributes)
    model = model_of([node], constants, (7, 3, inputs))
    x = RNG.normal(size=(7, 3, inputs)).astype(np.float32)
    expected = run(model, x)
    undo_dynamic_quantization(model)
    assert operators(model) == {"LSTM"}
    # The data are quantized with 255 steps for their range, at each of the 7 steps of time.
    np.testing.assert_allclose(run(model, x), expected, atol=0.05)


def test_a_dynamically_quantized_attention_is_an_attention() -> None:
    width = 8
    weights, scale = quantized(RNG.normal(size=(width, 3 * width)), (0, 1))
    constants = {
        "w": weights,
        "w_scale": scale,
        "w_zero": np.int8(0),
        "b": RNG.normal(size=3 * width).astype(np.float32),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node(
            "QAttention",
            ["q", "w", "b", "scale", "w_scale", "", "zero", "w_zero"],
            ["y"],
            domain="com.microsoft",
            num_heads=2,
        ),
    ]
    model = model_of(nodes, {key: np.asarray(value) for key, value in constants.items()}, (2, 5, width))
    x = RNG.normal(size=(2, 5, width)).astype(np.float32)
    expected = run(model, x)
    undo_dynamic_quantization(model)
    assert operators(model) == {"Attention"}
    np.testing.assert_allclose(run(model, x), expected, atol=0.02 * np.abs(expected).max())


def test_a_bias_that_was_rounded_beside_an_integer_product_is_floating() -> None:
    """As ONNX Runtime's first quantizer wrote it: floor(bias / scale) as int32, added to the product of integers."""
    weights, scale = quantized(RNG.normal(size=(4, 3, 3, 3)), (0, 1, 2, 3))
    bias = RNG.normal(size=4).astype(np.float32)
    constants = {"w": weights, "zero_w": np.int8(0), "w_scale": scale, "b": bias, "four": np.array([1, 4, 1, 1])}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("ConvInteger", ["q", "w", "zero", "zero_w"], ["product"]),
        helper.make_node("Mul", ["scale", "w_scale"], ["both"]),
        helper.make_node("Div", ["b", "both"], ["steps"]),
        helper.make_node("Floor", ["steps"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["integers"], to=TensorProto.INT32),
        helper.make_node("Reshape", ["integers", "four"], ["row"]),
        helper.make_node("Add", ["product", "row"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "both"], ["y"]),
    ]
    model = model_of(nodes, {key: np.asarray(value) for key, value in constants.items()}, (2, 3, 8, 8))
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = run(model, x)
    undo_dynamic_quantization(model)
    assert not operators(model) & {"Floor", "ConvInteger", "DynamicQuantizeLinear"}
    # Half a step of each of the 27 factors, and the whole step that the bias was rounded by.
    step = (x.max() - x.min()) / 255
    bound = (0.5 * np.abs(weights).astype(np.float64).sum((1, 2, 3)).max() + 1) * float(scale) * step
    found = run(model, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    assert np.abs(found - expected).max() > 0


def test_two_computed_matrices_are_named() -> None:
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "scale"], ["y"], domain="com.microsoft", name="product")
    nodes = [helper.make_node("Cast", ["x"], ["w"], to=TensorProto.INT8), node]
    model = model_of(nodes, {"scale": np.float32([1])}, (4, 4))
    with pytest.raises(ExportError, match="DynamicQuantizeMatMul 'product' multiplies two quantized tensors"):
        undo_dynamic_quantization(model)


def test_what_a_quantizer_cuts_off_stays_cut_off() -> None:
    """ONNX Runtime's quantizer takes a Relu out where the integers behind it begin at 0."""
    constants = {"scale": np.float32(0.001), "zero": np.uint16(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], domain="com.microsoft"),
    ]
    model = model_of(nodes, {key: np.asarray(value) for key, value in constants.items()}, (2, 50))
    x = np.linspace(-100, 100, 100, dtype=np.float32).reshape(2, 50)
    expected = run(model, x)
    assert expected.min() == 0
    undo_quantization(model)
    assert operators(model) == {"Clip"}
    np.testing.assert_allclose(run(model, x), expected, atol=0.0005 + 1e-5)


def test_integers_that_go_on_as_such_keep_their_numbers() -> None:
    """Behind a resize of the integers another scale follows, as where a quantizer was left out."""
    constants = {
        "scale": np.float32(0.01),
        "zero": np.int16(-300),
        "other": np.float32(0.02),
        "sizes": np.array([1, 3, 8, 8]),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("DequantizeLinear", ["t", "other", "zero"], ["y"]),
    ]
    model = model_of(nodes, {key: np.asarray(value) for key, value in constants.items()}, (1, 3, 4, 4), opset=21)
    x = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
    expected = run(model, x)
    undo_quantization(model)
    assert not operators(model) & {"QuantizeLinear", "DequantizeLinear"}
    np.testing.assert_allclose(run(model, x), expected, atol=0.01 + 1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "floating"])
def test_packed_weights_are_those_that_onnx_runtime_multiplies_with(bits: int, zeros: str) -> None:
    rows, columns, block = 72, 6, 32
    blocks = -(-rows // block)
    constants: dict[str, NDArray[Any]] = {
        "w": RNG.integers(0, 256, (columns, blocks, block * bits // 8)).astype(np.uint8),
        "scales": RNG.uniform(0.01, 0.1, (columns, blocks)).astype(np.float32),
    }
    if zeros == "packed":
        constants["zeros"] = RNG.integers(0, 256, (columns, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros == "floating":
        constants["zeros"] = RNG.uniform(0, 2**bits, (columns, blocks)).astype(np.float32)
    attributes = {"K": rows, "N": columns, "bits": bits, "block_size": block}
    node = helper.make_node(
        "MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", name="product", **attributes
    )
    model = model_of([node], constants, (3, rows))
    x = RNG.normal(size=(3, rows)).astype(np.float32)
    try:
        expected = run(model, x)
    except Exception:  # noqa: BLE001 - ONNX Runtime raises its own types
        pytest.skip("this ONNX Runtime has no kernel for it")
    undo_quantization(model)
    assert operators(model) == {"MatMul"}
    # Sums of 72 products in float32, in any order.
    bound = 72 * np.finfo(np.float32).eps * np.abs(x).max() * 2**bits * 0.1 * 72
    np.testing.assert_allclose(run(model, x), expected, atol=bound)


def file_that_rounds(folder: Path, *, twice: bool) -> Path:
    """Logits of an image [N,1,8,8], a fifth of which is what its integers are off by.

    Args:
        folder: for the file.
        twice: whether what they are off by is rounded again. A pixel that changes by a hundredth of a step then changes
            all of it. Otherwise it changes by a hundredth, too.
    """
    stages = 2 if twice else 1
    constants = {
        "pixels": RNG.normal(size=(64, 32)).astype(np.float32),
        "rounding": (50 * RNG.normal(size=(64, 32))).astype(np.float32),
        "identity": np.eye(64, dtype=np.uint8),
        "axes": np.array([0, -1]),
        "steps": np.float32(255),
    }
    nodes = [helper.make_node("Reshape", ["image", "axes"], ["rest0"])]
    for stage in range(stages):
        names = [f"{name}{stage}" for name in ("q", "scale", "zero", "near", "off")]
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [f"rest{stage}"], names[:3]),
            helper.make_node("MatMulInteger", [names[0], "identity", names[2]], [f"levels{stage}"]),
            helper.make_node("Cast", [f"levels{stage}"], [f"real{stage}"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"real{stage}", names[1]], [names[3]]),
            helper.make_node("Sub", [names[3], f"rest{stage}"], names[4:]),
            helper.make_node("Mul", [names[4], "steps"], [f"rest{stage + 1}"]),
        ]
    nodes += [
        helper.make_node("Reshape", ["image", "axes"], ["row"]),
        helper.make_node("MatMul", ["row", "pixels"], ["seen"]),
        helper.make_node("MatMul", [f"off{stages - 1}", "rounding"], ["noise"]),
        helper.make_node("Add", ["seen", "noise"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 1, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("N", 32))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path := folder / "rounds.onnx")
    return path


GREY = Preprocessing(8, 8, None, mean=(0.5,), std=(0.5,), channel_order="grey")


def test_rounding_that_the_file_itself_does_not_repeat_is_no_reason_to_refuse_it(tmp_path: Path) -> None:
    """Its own logits move further for a picture that nobody tells from the first."""
    file = read_onnx(file_that_rounds(tmp_path, twice=True), activation="identity")
    (note,) = [note for note in convert_file(file, GREY, "identity", known=True).notes if "float32" in note]
    assert "whose own move by" in note


def test_a_difference_that_the_file_repeats_is_refused(tmp_path: Path) -> None:
    file = read_onnx(file_that_rounds(tmp_path, twice=False), activation="identity")
    with pytest.raises(ExportError, match=r"accepted is 1e-01, or the \d\.\de-\d\d that the file's own logits move by"):
        convert_file(file, GREY, "identity", known=True)
