"""The term `direction` of a scorer: z / |z| of any z that float32 holds."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.scorer import direction_of


def directions(values: np.ndarray) -> np.ndarray:
    """What the graph gives for float32 [N,D]."""
    z = ir.Value(name="z", shape=ir.Shape(("N", values.shape[1])), type=ir.TensorType(ir.DataType.FLOAT))
    build = Builder({"z"})
    found = direction_of(build, z)
    found.dtype = ir.DataType.FLOAT
    graph = ir.Graph([z], [found], nodes=build.take_nodes(), initializers=build.initializers, opset_imports={"": 18})
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString()
    (made,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"z": values})
    return np.asarray(made)


def test_the_squares_of_many_values_add_up_to_no_infinity() -> None:
    for value in (2.0**59, 2.0**127):
        found = directions(np.full((1, 8192), value, np.float32))
        # 8192 is 2^13: a root of it that float32 rounds, and a sum that it does not.
        np.testing.assert_allclose(found, 2**-6.5, rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("exponent", [-12, 0, 10, 17, 19, 25, 37])
def test_a_direction_has_length_1_at_any_size_of_float32(exponent: int) -> None:
    values = (np.random.default_rng(0).normal(size=(3, 50)) * 10.0**exponent).astype(np.float32)
    exact = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    # A sum of 50 squares, a root and a division in float32.
    np.testing.assert_allclose(directions(values), exact, rtol=0, atol=60 * np.finfo(np.float32).eps)


def test_a_direction_of_ordinary_values_has_the_bits_of_the_plain_division() -> None:
    values = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32) * np.float32(30)
    scaled = directions(values * np.float32(2**-3))  # a power of two changes no bit of a direction
    np.testing.assert_array_equal(scaled, directions(values))
    np.testing.assert_array_equal(directions(np.zeros((1, 3), np.float32)), np.zeros((1, 3)))
