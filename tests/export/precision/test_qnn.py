"""Precision qnn: 16-bit activations, symmetric 8-bit weights, and a bundle of fixed shapes that QNN takes whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.common.images import photograph
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT

import ortcam
from ortcam.bundle import Bundle
from ortcam_export import export, inspect_provider
from ortcam_export.graphs.batch_axis import inference
from ortcam_export.graphs.batch_axis.fixing import fix_shapes, open_dimensions
from ortcam_export.precision.quantize import collect_ranges, to_int8, to_qnn

# Each weight with the axis of its scales; None: one scale.
AXES = {"conv": 0, "gemm": 1, "matmul": None}
SHAPES = {"conv": (6, 3, 3, 3), "gemm": (6, 8), "matmul": (8, 5)}


def network(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A convolution, a Gemm and a MatMul, image [N,3,8,8] -> logits [N,5]."""
    nodes = [
        helper.make_node("Conv", ["image", "conv"], ["maps"], pads=[1] * 4),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "gemm"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "matmul"], ["logits"]),
    ]
    shapes = {"image": ("N", 3, 8, 8), "logits": ("N", 5)}
    image, logits = (helper.make_tensor_value_info(*item) for item in zip(shapes, (1, 1), shapes.values(), strict=True))
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def test_weights_are_symmetric_8_bit_integers_and_activations_of_16_bits(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    image = generator.standard_normal((1, 3, 8, 8)).astype(np.float32)
    model = ir.from_proto(network(weights))
    made = ir.to_proto(to_qnn(model, tmp_path, collect_ranges(model, tmp_path, [image], quantile=1)))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    rounded = {}
    for name, axis in AXES.items():
        stored, scale = tensors[f"{name}_quantized"], tensors[f"{name}_scale"]
        assert stored.dtype == np.int8
        assert not tensors[f"{name}_zero_point"].any()
        assert scale.shape == (() if axis is None else (SHAPES[name][axis],))
        wide = scale if axis is None else np.expand_dims(scale, [a for a in range(stored.ndim) if a != axis])
        rounded[name] = (stored * wide).astype(np.float32)
    activations = [tensors[f"{name}_zero_point"] for name in ("image", "positive", "pooled", "hidden", "logits")]
    assert {value.dtype for value in activations} == {np.dtype(np.uint16)}
    assert {node.domain for node in made.graph.node if node.op_type == "QuantizeLinear"} == {"com.microsoft"}
    assert made.graph.node[0].op_type == "QuantizeLinear"
    # Beside the weights only five tensors are rounded, each to 2^-17 of its range, and sums of few terms enlarge that.
    expected = run(network(rounded), image)
    np.testing.assert_allclose(run(made, image), expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert TensorProto.DataType.Name(made.graph.output[0].type.tensor_type.elem_type) == "FLOAT"


@pytest.mark.parametrize("opset", [20, 21])  # before 21 the types of QNN are in ONNX Runtime's operators alone
@pytest.mark.parametrize("convert", [to_int8, to_qnn])
def test_fixed_shapes_leave_integers_what_they_are(
    convert: Callable[..., ir.Model], opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    image = generator.standard_normal((1, 3, 8, 8)).astype(np.float32)
    proto = network(weights)
    proto.opset_import[0].version = opset
    model = ir.from_proto(proto)
    made = convert(model, tmp_path, collect_ranges(model, tmp_path, [image], quantile=1))
    before = [node.op_type for node in made.graph]
    monkeypatch.setattr(inference, "quiet_session", pytest.fail)  # a session per node takes minutes
    fix_shapes(made, {"N": 4})
    assert [node.op_type for node in made.graph] == before
    assert open_dimensions(made) == []
    assert run(ir.to_proto(made), image.repeat(4, axis=0)).shape == (4, 5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "tiny.ortcam"
    return export(TinyNet().eval(), path, precision="qnn", static_batch=4, **TINY_INPUT)


@pytest.mark.long
def test_qnn_takes_scorers_of_fixed_shapes_whole(bundle: Bundle) -> None:
    path = bundle.scorer("linear", "qnn")
    assert open_dimensions(ir.load(path)) == []
    found = next(graph for graph in inspect_provider(bundle, "qnn").graphs if graph.graph == path.name)
    assert (found.taken, found.partitions, found.refused) == (found.nodes, 1, {})


@pytest.mark.long
@pytest.mark.parametrize("options", [{"target": 0}, {"score": "entropy"}, {"target": 0, "budget": 7}])
def test_maps_are_near_those_of_float32(bundle: Bundle, options: dict) -> None:
    exact, coarse = (
        ortcam.load(bundle.path, precision=precision).explain(photograph(), method="scorecam", **options)
        for precision in ("float32", "qnn")
    )
    assert (coarse.stats.precision, coarse.stats.batch_size) == ("qnn", 4)
    assert np.corrcoef(exact.maps.ravel(), coarse.maps.ravel())[0, 1] > 0.9  # as other tests of integers have it
    assert np.abs(exact.weights - coarse.weights).max() > 0  # of another precision, indeed
