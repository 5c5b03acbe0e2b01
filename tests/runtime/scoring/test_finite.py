"""Infinite values and what is not a number are an error with a name, never part of a probability, a map or a file."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.common.engines import Call, Outputs, recorded
from tests.conftest import reseal

import ortcam
from ortcam.bundle import read_bundle
from ortcam.cli import main
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.sanity.shuffling import Similarity
from ortcam.methods import HeadInputs, HeadScores, fitting_methods, register, resolve_method, unregister
from ortcam.methods.head_only import eigen_cam
from ortcam.parity import verify
from ortcam.scoring.maps import finish
from ortcam.support.strict_json import encode_json, parse_json

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

METHODS = [method.name for method in ortcam.METHODS]
BAD = [math.inf, -math.inf, math.nan]


def spoil(bundle: Path, file: str, value: float, *, smallest: bool = True) -> Path:
    """Put a value into a bias (or a weight, the largest) of a graph, and seal the bundle."""
    model = onnx.load(bundle / file)
    floats = [item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT and item.dims]
    tensor = (min if smallest else max)(floats, key=lambda item: math.prod(item.dims))
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    (bundle / file).write_bytes(model.SerializeToString())
    reseal(bundle)
    return bundle


@pytest.mark.parametrize(
    ("file", "value"),
    [("features.onnx", math.inf), ("features.onnx", math.nan), *(("head.onnx", value) for value in BAD)],
)
def test_features_and_logits_have_to_be_finite(bundle_copy: Path, photograph: Path, file: str, value: float) -> None:
    explainer = ortcam.load(spoil(bundle_copy, file, value))
    kept = explainer.read(photograph)
    uses: list[Callable[[], object]] = [
        lambda: explainer.predict(kept),
        lambda: explainer.features(kept),
        lambda: explainer.logits(1, lambda _: kept.model_input),
        *(
            lambda method=method: explainer.explain(kept, method=method, batch_size=4)
            for method in fitting_methods(explainer.bundle.manifest)
        ),
    ]
    for use in uses:
        with pytest.raises(ortcam.NotFiniteError, match=r"infinite or not numbers: .*float32 holds more"):
            use()


def test_weights_that_overflow_are_found(bundle_copy: Path, photograph: Path) -> None:
    explainer = ortcam.load(spoil(bundle_copy, "head.onnx", 3e38, smallest=False))
    with pytest.raises(ortcam.NotFiniteError, match="features and logits of the image"):
        explainer.explain(photograph, method="eigen-cam")


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("output", [0, 1], ids=["probabilities", "logits"])
@pytest.mark.parametrize("weighting", ["probability", "logit-softmax"])
def test_scores_have_to_be_finite(
    tiny_bundle: Path, photograph: Path, value: float, output: int, weighting: str
) -> None:
    def answer(call: Call, run: Callable[[], Outputs]) -> Outputs:
        outputs = run()
        if call.bound:
            outputs[output].flat[0] = value
        return outputs

    explainer, _ = recorded(tiny_bundle, answer)
    with pytest.raises(ortcam.NotFiniteError, match=r"the score of a masked image.*float32 scorers hold more"):
        explainer.explain(photograph, method="scorecam", weighting=weighting, batch_size=4)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("method", ["recipro-cam", "ablation-cam"])
def test_logits_of_altered_features_have_to_be_finite(
    tiny_bundle: Path, photograph: Path, method: str, value: float
) -> None:
    def answer(call: Call, run: Callable[[], Outputs]) -> Outputs:
        outputs = tuple(item.copy() for item in run())
        if call.bound:
            outputs[0][-1, -1] = value
        return outputs

    explainer, _ = recorded(tiny_bundle, answer)
    for score in ("probability", "logit"):
        with pytest.raises(ortcam.NotFiniteError, match="logits of altered features"):
            explainer.explain(photograph, method=method, score=score)


@pytest.mark.parametrize("value", BAD)
def test_a_finished_map_has_to_be_finite(value: float) -> None:
    raw = np.ones((2, 4, 4))
    raw[1, 2, 3] = value
    with pytest.raises(ortcam.NotFiniteError, match="1 of 32 values of the map"):
        finish(raw, 8, 8)


def test_what_float32_does_not_hold_is_no_map(tiny_bundle: Path, photograph: Path) -> None:
    """Raw maps are computed in float64 and kept in float32."""

    def louder(inputs: HeadInputs, _: Mapping[str, Any]) -> HeadScores:
        scores = eigen_cam(inputs.maps, classes=len(inputs.targets), center=False)
        return dataclasses.replace(scores, raw=scores.raw * 1e39)

    quiet = resolve_method("eigen-cam", {}).method
    register(dataclasses.replace(quiet, name="loud-cam", aliases=(), options=(), compute=louder))
    try:
        with pytest.raises(ortcam.NotFiniteError, match="values of map and weights"):
            ortcam.load(tiny_bundle).explain(photograph, method="loud-cam")
    finally:
        unregister("loud-cam")


@pytest.mark.slow
@pytest.mark.parametrize("value", BAD)
def test_verifying_says_it_plainly(bundle_copy: Path, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(bundle_copy, "head.onnx", value)
    with pytest.raises(ortcam.NotFiniteError, match="features and logits of the probe are infinite or not numbers"):
        verify(read_bundle(bundle_copy))
    assert main(["inspect", str(bundle_copy), "--verify"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "infinite or not numbers" in line


def test_verifying_says_which_scorer_is_not_finite(bundle_copy: Path) -> None:
    spoil(bundle_copy, "scorer-mish.onnx", math.inf)
    with pytest.raises(ortcam.NotFiniteError, match=r"masked images of the probe \(scorer-mish\.onnx\)"):
        verify(read_bundle(bundle_copy))


def test_a_probe_that_is_not_finite_is_named(bundle_copy: Path) -> None:
    logits = np.load(bundle_copy / "probe-logits.npy")
    logits[0, 0] = np.inf
    np.save(bundle_copy / "probe-logits.npy", logits)
    reseal(bundle_copy)
    with pytest.raises(ortcam.NotFiniteError, match="1 of 12 logits of the original model for the probe"):
        verify(read_bundle(bundle_copy))


@pytest.mark.parametrize("value", BAD)
def test_no_file_holds_what_json_does_not_have(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, value: float
) -> None:
    explanation = ortcam.load(tiny_bundle).explain(photograph, budget=2, batch_size=2)
    spoiled = dataclasses.replace(explanation, stats=dataclasses.replace(explanation.stats, seconds=value))
    with pytest.raises(ortcam.NotFiniteError, match="JSON"):
        spoiled.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = read_bundle(tiny_bundle).manifest
    with pytest.raises(ortcam.NotFiniteError, match="JSON"):
        dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, logits=value)).to_json()


def test_json_is_written_and_read_with_finite_numbers_alone() -> None:
    value = {"name": "Bär", "numbers": [1, -2.5e300, None, True]}
    assert parse_json(encode_json(value)) == value == json.loads(encode_json(value, indent=None, ascii_only=True))
    for text in ("NaN", "[Infinity]", '{"a": -Infinity}', "1e400", "-1e400", "[" * 100_000, "{", b"\xff"):
        with pytest.raises(ValueError, match=r"finite|nested|line 1|decode"):
            parse_json(text)


@pytest.mark.parametrize("value", BAD)
def test_a_journal_takes_finite_numbers_alone(tmp_path: Path, value: float) -> None:
    with Journal(tmp_path, {"seed": 0}, resume=False) as journal:
        journal.add(Similarity("a.png", "scorecam", 0.5, 0.25))
        before = journal.path.read_bytes()
        with pytest.raises(ortcam.NotFiniteError, match="JSON"):
            journal.add(Similarity("b.png", "scorecam", 0.5, value))
        assert journal.path.read_bytes() == before
