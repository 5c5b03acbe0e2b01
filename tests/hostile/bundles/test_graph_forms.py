"""Graphs that are not what the manifest says."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.hostile.bundles.graphs import CLASSES, PICTURE, constant, head, put, refusal

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.errors import NotFiniteError, OrtcamError
from ortcam.parity import verify, verify_gradient

UNSAID = {"shape": None}
OUTPUTS = {
    "one side": head([helper.make_node("ReduceMean", ["features", "axes"], ["logits"], keepdims=0)], **UNSAID),
    "four sides": head([helper.make_node("Identity", ["features"], ["logits"])], **UNSAID),
    "no side": head([helper.make_node("ReduceMean", ["features"], ["logits"], keepdims=0)], **UNSAID),
    "fewer classes": head(
        [helper.make_node("Slice", ["x", "zero", "one", "one"], ["logits"])], [constant("zero", [0])], **UNSAID
    ),
    "no class": head(
        [helper.make_node("Slice", ["x", "zero", "zero", "one"], ["logits"])], [constant("zero", [0])], **UNSAID
    ),
    "another batch": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=0)], **UNSAID),
    "more classes": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)], **UNSAID),
    "integers": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.INT64)], dtype=TensorProto.INT64),
    "texts": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.STRING)], dtype=TensorProto.STRING),
    "doubles": head([helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.DOUBLE)], dtype=TensorProto.DOUBLE),
    "said otherwise": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)]),
    "a declaration of two sides more": head(shape=["N", CLASSES, 1, 1]),
    "labels of another model": head([helper.make_node("Concat", ["x", "x"], ["logits"], axis=1)], shape=["N", 14]),
}


def uses(bundle: Path) -> Iterator[Callable[[], object]]:
    """What can be done with a bundle, each beginning by loading it."""
    yield lambda: ortcam.load(bundle).predict(PICTURE)
    yield lambda: ortcam.load(bundle).explain(PICTURE, budget=2, batch_size=2, method="scorecam++")
    yield lambda: ortcam.load(bundle).explain(PICTURE, budget=2, batch_size=2, method="scorecam", baseline="zeros")
    yield lambda: ortcam.load(bundle).explain(PICTURE, method="recipro-cam")
    yield lambda: ortcam.load(bundle).explain(PICTURE, method="cam")
    yield lambda: ortcam.load(bundle).logits(2, lambda rows: np.zeros((2, 3, 224, 224), np.float32)[rows])
    yield lambda: verify(read_bundle(bundle))


@pytest.mark.slow
@pytest.mark.parametrize("what", OUTPUTS)
def test_logits_of_another_form_are_refused(bundle: Path, what: str) -> None:
    put(bundle, OUTPUTS[what])
    for use in uses(bundle):
        refusal(use)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["probabilities", "logits", "partial_maps"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.INT64])
def test_scores_of_another_form_are_refused(bundle: Path, output: str, dtype: int) -> None:
    """Whatever a scorer declares, masked logits are [B,K] and partial maps [K,H,W]."""
    model = onnx.load(bundle / "scorer-tanh.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name == output else name for name in node.output]
        node.input[:] = [f"{name}_before" if name == output else name for name in node.input]
    last = helper.make_node("Cast", ["short"], [output], to=dtype)
    model.graph.node.extend([helper.make_node("Flatten", [f"{output}_before"], ["short"], axis=0), last])
    for value in model.graph.output:
        if value.name == output:
            value.type.tensor_type.elem_type = dtype
            value.type.tensor_type.ClearField("shape")
    put(bundle, model, "scorer-tanh.onnx")
    for options in ({}, {"weighting": "logit-softmax"}):
        asked = {"method": "scorecam++", "budget": 2, "batch_size": 2, **options}
        refusal(lambda asked=asked: ortcam.load(bundle).explain(PICTURE, **asked))
    if output != "partial_maps":
        refusal(lambda: verify(read_bundle(bundle)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [None, ["N", 1024, 7, 7], ["N", 1024, 8, 7], ["N", 1024, 49], ["N", 7, 7, 1024]])
def test_features_of_another_form_are_refused(bundle: Path, shape: list[object] | None) -> None:
    model = onnx.load(bundle / "features.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "features" else name for name in node.output]
        node.input[:] = ["before" if name == "features" else name for name in node.input]
    model.graph.node.append(helper.make_node("Transpose", ["before"], ["features"], perm=[0, 2, 3, 1]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
    put(bundle, model, "features.onnx")
    for use in uses(bundle):
        with pytest.raises(OrtcamError):  # of ONNX Runtime, where the head takes no such features
            use()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Transpose", {"perm": [0, 2, 3, 1]}),
        ("Cast", {"to": TensorProto.DOUBLE}),
        ("ReduceMax", {"keepdims": 0}),
        ("Flatten", {"axis": 1}),
    ],
)
def test_gradients_of_another_form_are_refused(bundle: Path, operator: str, attributes: dict[str, object]) -> None:
    """The graph says nothing of its output's shape, or the shape that the manifest has."""
    model = onnx.load(bundle / "gradient.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "gradient" else name for name in node.output]
        node.input[:] = ["before" if name == "gradient" else name for name in node.input]
    model.graph.node.append(helper.make_node(operator, ["before"], ["gradient"], **attributes))
    dtype = TensorProto.DOUBLE if operator == "Cast" else TensorProto.FLOAT
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("gradient", dtype, None))
    put(bundle, model, "gradient.onnx")
    refusal(lambda: verify_gradient(read_bundle(bundle)))
    refusal(lambda: ortcam.load(bundle).explain(PICTURE, method="grad-cam"))


def test_a_gradient_that_is_not_finite_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "gradient.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "gradient" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.inf, np.float32), "infinite"))
    model.graph.node.append(helper.make_node("Mul", ["before", "infinite"], ["gradient"]))
    put(bundle, model, "gradient.onnx")
    for use in (
        lambda: verify_gradient(read_bundle(bundle)),
        lambda: ortcam.load(bundle).explain(PICTURE, method="grad-cam"),
    ):
        with pytest.raises(NotFiniteError, match="infinite or not"):
            use()


def test_weights_that_no_graph_uses_are_not_read(bundle: Path) -> None:
    """A file with a hole of 1 TB: whatever its hash, it is refused by its size and what the graphs name of it."""
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    size = 2**40
    try:
        os.truncate(bundle / "weights.bin", size)
    except OSError:
        size = 2**32
        os.truncate(bundle / "weights.bin", size)
    manifest["files"]["weights.bin"] = {"size": size, "sha256": "0" * 64}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    for read in (ortcam.load, read_bundle):
        assert "of which the graphs use" in refusal(lambda read=read: read(bundle))
