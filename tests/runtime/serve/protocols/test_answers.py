"""What is answered for an image: small by default, exact on request, and nothing of the machine in it."""

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.conftest import REPOSITORY

from ortcam.explainer import Explainer, load
from ortcam.images.reading import read_image
from ortcam.results.explanation import Explanation
from ortcam.results.low_resolution import low_resolution
from ortcam.serve.protocols.answers import (
    OVERLAY_SIDE,
    explanation_record,
    overlay_image,
    prediction_record,
)
from ortcam.serve.protocols.asked import Asked
from ortcam.serve.settings import RequestLimits

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> Iterator[Explainer]:
    with load(tiny_bundle) as opened:
        yield opened


def asked(explainer: Explainer, **parameters: object) -> Asked:
    return Asked.of(parameters, RequestLimits(), explainer.bundle.manifest)


def explained(explainer: Explainer, asked: Asked) -> Explanation:
    return explainer.explain_request(asked.request, PHOTOGRAPH)


def test_the_small_answer_is_what_the_library_says(explainer: Explainer) -> None:
    wanted = asked(explainer, top_k=2)
    found = explained(explainer, wanted)
    record = json.loads(json.dumps(explanation_record(found, wanted), allow_nan=False))
    assert record["method"] == found.method
    assert record["chosen"] == found.chosen
    assert [target["index"] for target in record["targets"]] == list(found.targets)
    assert [target["label"] for target in record["targets"]] == list(found.labels)
    assert [target["probability"] for target in record["targets"]] == found.probabilities.tolist()
    assert [target["estimated_error"] for target in record["targets"]] == [None, None]
    for target, saliency in zip(record["targets"], low_resolution(found), strict=True):
        assert target["map"]["shape"] == [8, 12]
        # Half a unit of the fourth decimal, and the rounding of float32.
        np.testing.assert_allclose(target["map"]["data"], saliency, rtol=0, atol=0.5e-4 + 1e-7)
        assert "overlay" not in target
    assert record["map_size"] == [32, 48]
    assert record["photograph"] == {"size": [60, 90], "seen": list(found.preprocessing.geometry(60, 90).seen())}
    assert str(explainer.bundle.path.parent) not in json.dumps(record)


def test_estimated_errors_are_answered(explainer: Explainer) -> None:
    wanted = asked(explainer, method="scorecam", budget=9, top_k=2)
    found = explained(explainer, wanted)
    errors = [target["estimated_error"] for target in explanation_record(found, wanted)["targets"]]
    assert found.stats.estimated_error is not None
    assert errors == list(found.stats.estimated_error)


def test_the_full_map_is_exact(explainer: Explainer) -> None:
    wanted = asked(explainer, map="full", target=["dog", "dog"])
    found = explained(explainer, wanted)
    for target, saliency in zip(explanation_record(found, wanted)["targets"], found.maps, strict=True):
        content = np.frombuffer(base64.b64decode(target["map"]["b64"]), "<f4")
        assert target["map"]["datatype"] == "FP32"
        np.testing.assert_array_equal(content.reshape(target["map"]["shape"]), saliency)


def test_no_map_is_sent_that_nobody_asked_for(explainer: Explainer) -> None:
    wanted = asked(explainer, map="none")
    assert "map" not in explanation_record(explained(explainer, wanted), wanted)["targets"][0]


@pytest.mark.parametrize(("kind", "media_type"), [("png", "image/png"), ("jpeg", "image/jpeg")])
def test_an_overlay_is_that_of_the_library(kind: str, media_type: str, explainer: Explainer) -> None:
    wanted = asked(explainer, overlay=kind, top_k=2)
    found = explained(explainer, wanted)
    target = explanation_record(found, wanted)["targets"][1]
    content = base64.b64decode(target["overlay"]["b64"])
    assert target["overlay"]["media_type"] == media_type
    assert (content, media_type) == overlay_image(found, wanted.overlay, 1)  # type: ignore[arg-type]
    assert read_image(content).shape == PHOTOGRAPH.shape
    if kind == "png":
        np.testing.assert_array_equal(read_image(content), found.overlay(1))


def test_an_overlay_is_no_longer_than_a_screen(explainer: Explainer) -> None:
    large = explainer.explain(np.zeros((40, 3 * OVERLAY_SIDE, 3), np.uint8))
    content, _ = overlay_image(large, "jpeg")
    assert read_image(content).shape[1] == OVERLAY_SIDE


@pytest.mark.parametrize("method", ["scorecam", "grad-cam", "recipro-cam"])
def test_a_small_map_is_the_sum_before_it_is_upsampled(method: str, explainer: Explainer) -> None:
    found = explainer.explain(PHOTOGRAPH, method=method)
    small = low_resolution(found)[0]
    raw = found.raw_maps[0].astype(np.float64)
    positive = np.maximum(raw, 0)
    low = max(raw.min(), 0)
    np.testing.assert_allclose(small, (positive - low) / (positive.max() - low), rtol=0, atol=1e-6)


@pytest.mark.parametrize("parameters", [{"method": "scorecam++"}, {"method": "grad-cam", "augment": 2}])
def test_a_map_that_is_summed_at_image_size_is_averaged_over_cells(
    parameters: dict[str, object], explainer: Explainer
) -> None:
    found = explainer.explain(PHOTOGRAPH, **parameters)  # type: ignore[call-overload]
    averages = found.maps.reshape(1, 8, 4, 12, 4).mean((2, 4), dtype=np.float64)
    np.testing.assert_allclose(low_resolution(found), averages, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "sent"), [(7, 7, (7, 7)), (14, 14, (14, 14)), (56, 40, (28, 20))])
def test_an_answer_takes_less_than_10_kilobytes(
    height: int, width: int, sent: tuple[int, int], explainer: Explainer
) -> None:
    """Layers of ResNet, of ViT and SqueezeNet, and one that nobody needs at its full size; a label as long as any."""
    wanted = asked(explainer)
    found = explained(explainer, wanted)
    raw = np.random.default_rng(1).random((1, height, width), np.float32)
    cut = found.provenance["cut"] | {"height": height, "width": width}
    found = dataclasses.replace(found, raw_maps=raw, labels=("x" * 200,), provenance=found.provenance | {"cut": cut})
    record = explanation_record(found, wanted)
    assert record["targets"][0]["map"]["shape"] == list(sent)
    assert len(json.dumps(record, separators=(",", ":"))) < 10_000
    if sent != (height, width):
        averaged = cv2.resize(low_resolution(found)[0], sent[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(record["targets"][0]["map"]["data"], averaged, rtol=0, atol=0.5e-4 + 1e-7)


def test_a_prediction_names_the_most_probable_classes() -> None:
    logits, labels = np.array([0.0, 2.0, 1.0], np.float32), ["a", "b", "c"]
    probabilities = np.array([0.1, 0.6, 0.3], np.float32)
    record = prediction_record(logits, probabilities, labels, top_k=2)
    assert [(item["index"], item["label"]) for item in record["classes"]] == [(1, "b"), (2, "c")]
    assert record["classes"][0]["probability"] == float(probabilities[1])
    assert "probabilities" not in record
    everything = prediction_record(logits, probabilities, labels, top_k=9, complete=True)
    assert everything["probabilities"] == probabilities.tolist()
    assert len(everything["classes"]) == 3


def test_the_reference_names_every_field_of_an_answer(explainer: Explainer) -> None:
    page = (REPOSITORY / "docs" / "reference" / "kserve-v1.md").read_text("utf-8")
    for parameters in ({"overlay": "png"}, {"map": "full"}):
        wanted = asked(explainer, **parameters)
        record = explanation_record(explained(explainer, wanted), wanted)
        target = record["targets"][0]
        names = {*record, *record["stats"], *record["photograph"], *target, *target["map"], *target.get("overlay", {})}
        assert [name for name in names if f"`{name}`" not in page] == []
