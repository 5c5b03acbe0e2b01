"""Fused files of models of other channels and outputs, and of scores: their maps are those of the runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.common.channels import GREY, drawn_samples, with_channels
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, TINY_BUNDLE, VALUES_BUNDLE
from tests.export.rounding import TINY_MAPS

import ortcam
from ortcam.cli import main
from ortcam.engine.score import ScoreMatrix
from ortcam.errors import OrtcamError
from ortcam_export import fuse
from ortcam_export.fused.explainer_graph.seeds import score_seeds
from ortcam_export.graphs.builder import Builder

QUERY = np.array([1.0, -2.0])


def run(file: Path, **inputs: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    told = dict(session.get_modelmeta().custom_metadata_map)
    return dict(zip(names, session.run(names, inputs), strict=True)), told


def an_image(bundle: Path) -> np.ndarray:
    return drawn_samples(ortcam.load(bundle).bundle.manifest.preprocessing)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "scorecam", "scorecam++", "sscam"])
def test_samples_of_any_size_go_in_as_they_are(tmp_path: Path, method: str) -> None:
    options = {"num_samples": 2} if method == "sscam" else {}
    fused = fuse(BANDS_BUNDLE, tmp_path / "e.onnx", method=method, uint8_input=True, verify=False, **options)
    samples = an_image(BANDS_BUNDLE)
    found, told = run(fused.path, image=samples.astype(np.float32))
    expected = ortcam.load(BANDS_BUNDLE).explain(samples, method=method, **options)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    assert told["ortcam.input"] == "float32 samples [h,w,4]"
    assert fused.inputs == {"image": "float32 [h,w,4]"}


@pytest.mark.slow
def test_a_photograph_goes_into_a_model_of_grey(tmp_path: Path) -> None:
    folder = with_channels(tmp_path / "grey.ortcam", GREY)
    fused = fuse(folder, tmp_path / "e.onnx", method="scorecam++", uint8_input=True)
    image = an_image(folder)
    found, _ = run(fused.path, image=image)
    expected = ortcam.load(folder).explain(image, method="scorecam++")
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    assert fused.difference is not None


SCORES = {
    "grad-cam": ("cat - 0.5*dog", "entropy", "probability:cat - 2*probability:dog", "probability", "output[1]"),
    "scorecam": ("0.5*dog - cat", "entropy", "logit"),
    "scorecam++": ("dog - cat + 2*entropy",),
    "sscam": ("dog - cat",),
    "smooth-grad-cam++": ("entropy", "probability"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "score"),
    [pytest.param(method, score, id=f"{method}-{score}") for method, scores in SCORES.items() for score in scores],
)
def test_a_score_is_baked_into_the_file(tmp_path: Path, method: str, score: str) -> None:
    options = {"num_samples": 2} if method in ("sscam", "smooth-grad-cam++") else {}
    fused = fuse(TINY_BUNDLE, tmp_path / "e.onnx", method=method, score=score, **options)
    explainer = ortcam.load(TINY_BUNDLE)
    image = an_image(TINY_BUNDLE)
    found, told = run(fused.path, image=explainer.preprocess(image))
    expected = explainer.explain(image, method=method, score=score, **options)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    assert tuple(found["targets"]) == expected.targets
    assert told["ortcam.score"] == score
    assert ("score" in found) == (score not in ("logit", "probability"))
    if "score" in found:
        assert expected.targets == (-1,)
        np.testing.assert_allclose(found["score"], expected.probabilities, rtol=1e-5)


@pytest.mark.sample("scorecam")
@pytest.mark.parametrize("method", ["scorecam", "grad-cam"])
def test_a_cosine_is_baked_in_with_its_vector(tmp_path: Path, method: str) -> None:
    score = ortcam.Score("-cosine:query", arrays={"query": QUERY})
    fused = fuse(VALUES_BUNDLE, tmp_path / "e.onnx", method=method, score=score)
    explainer = ortcam.load(VALUES_BUNDLE)
    image = an_image(VALUES_BUNDLE)
    found, _ = run(fused.path, image=explainer.preprocess(image))
    expected = explainer.explain(image, method=method, score=score)
    assert np.ptp(expected.maps[0]) > 0.5
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    logits = found["logits"][0].astype(np.float64)
    cosine = logits @ QUERY / np.linalg.norm(logits) / np.linalg.norm(QUERY)
    np.testing.assert_allclose(found["score"], -cosine, rtol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_derivative_at_a_nearly_certain_class_is_that_of_the_runtime(tmp_path: Path, activation: Any) -> None:
    weights = {"probabilities": np.array([[1.0, 0, -2], [0, 3, 1]]), "entropy": np.array([[0.0], [1e-3]])}
    matrix = ScoreMatrix(weights, activation, 3, 2)
    z = np.array([60.0, -1, 0.5], np.float32)
    build = Builder()
    logits = ir.Value(name="logits", shape=ir.Shape((1, 3)), type=ir.TensorType(ir.DataType.FLOAT))
    seeds = score_seeds(build, logits, matrix)
    graph = ir.Graph(
        [logits], [seeds], nodes=build.take_nodes(), initializers=build.initializers, opset_imports={"": 20}
    )
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "seeds.onnx")
    (found,) = ort.InferenceSession(tmp_path / "seeds.onnx", providers=["CPUExecutionProvider"]).run(
        None, {"logits": z[None]}
    )
    expected = matrix.derivative(z)
    assert 0 < abs(expected[0, 0]) < 1e-20
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # of float32, to which both are rounded


@pytest.mark.long
@pytest.mark.parametrize("method", ["scorecam++", "grad-cam"])
def test_values_are_explained_without_a_score(tmp_path: Path, method: str) -> None:
    fused = fuse(VALUES_BUNDLE, tmp_path / "e.onnx", method=method, runtime_targets=True)
    explainer = ortcam.load(VALUES_BUNDLE)
    image = an_image(VALUES_BUNDLE)
    found, _ = run(fused.path, image=explainer.preprocess(image), classes=np.array([1, 0]))
    expected = explainer.explain(image, method=method, target=[1, 0])
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)


def test_a_tensor_needs_a_score(tmp_path: Path) -> None:
    with pytest.raises(OrtcamError, match="--score 'output"):
        fuse(TENSOR_BUNDLE, tmp_path / "e.onnx", method="grad-cam")
    fused = fuse(TENSOR_BUNDLE, tmp_path / "e.onnx", method="grad-cam", score="output[1, :, :]")
    explainer = ortcam.load(TENSOR_BUNDLE)
    image = an_image(TENSOR_BUNDLE)
    found, told = run(fused.path, image=explainer.preprocess(image))
    expected = explainer.explain(image, method="grad-cam", score="output[1, :, :]")
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    np.testing.assert_allclose(found["score"], found["logits"][0].reshape(2, 4, 6)[1].mean(), rtol=1e-5)
    assert json.loads(told["ortcam.output_shape"]) == [2, 4, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--score", "cat - dog", "--runtime-targets"), "with runtime_targets"),
        (("--score", "cat - dog", "--top-k", "2"), "top_k=2"),
        (("--score", "no class"), "no class"),
    ],
    ids=["at run time", "most probable", "unknown"],
)
def test_a_score_that_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "e.onnx"
    assert main(["fuse", str(TINY_BUNDLE), "-m", "grad-cam", *arguments, "-o", str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not path.exists()


def test_a_repository_of_triton_tells_the_score(tmp_path: Path) -> None:
    fuse(TINY_BUNDLE, triton=tmp_path, name="apart", method="grad-cam", score="cat - dog", verify=False)
    text = (tmp_path / "apart" / "config.pbtxt").read_text("ascii")
    assert 'key: "score" value { string_value: "cat - dog" }' in text
    assert 'name: "score"\n  data_type: TYPE_FP32\n  dims: [ 1 ]' in text
