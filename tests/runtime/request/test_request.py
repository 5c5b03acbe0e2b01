"""`ExplainRequest`: what a caller asks for is checked once, and says what a manifest will say."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam
from ortcam.errors import OptionError, TargetError
from ortcam.request import LIMITS, ExplainRequest
from ortcam.scoring import Limits


def test_a_request_is_complete_and_cannot_be_changed() -> None:
    request = ExplainRequest.of(method="ISCAM", num_samples="3", target=np.array([2, 0]), budget=np.float32(0.5))
    assert request.settings.method.name == "iscam"
    assert request.settings.options["num_samples"] == 3
    assert request.target == (2, 0)
    assert request.limits == Limits(budget=0.5)
    assert type(request.limits.budget) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.top_k = 2  # type: ignore[misc]


def test_a_request_gives_the_map_that_its_arguments_give(tiny_bundle: Path, picture: np.ndarray) -> None:
    given: dict[str, Any] = {"method": "scorecam", "target": ["dog", 0], "budget": 4, "batch_size": 2}
    explainer = ortcam.load(tiny_bundle)
    passes: list[int] = []
    e = explainer.explain_request(ExplainRequest.of(**given), picture, progress=lambda made, _: passes.append(made))
    assert passes == [2, 4]
    np.testing.assert_array_equal(e.maps, explainer.explain(picture, **given).maps)


def test_a_bundle_is_asked_for_its_classes_and_its_head(tiny_bundle: Path, branch_bundle: Path) -> None:
    whole, branch = (ortcam.read_bundle(path).manifest for path in (tiny_bundle, branch_bundle))
    ExplainRequest.of(method="recipro-cam", target="dog").check(whole)
    with pytest.raises(OptionError, match=r"recipro-cam: needs the head of the classifier.*eigen-cam"):
        ExplainRequest.of(method="recipro-cam").check(branch)
    with pytest.raises(TargetError, match="no class of the model has this label"):
        ExplainRequest.of(target="a horse").check(whole)
    with pytest.raises(TargetError, match="top_k=7: accepted is a whole number from 1 to 6"):
        ExplainRequest.of(top_k=7).check(whole)


def test_the_classes_are_each_there_once_with_their_places(tiny_bundle: Path) -> None:
    logits, labels = np.array([0, 3, 1, 2, 5, 4], np.float32), ortcam.read_bundle(tiny_bundle).manifest.labels
    targets, asked = ExplainRequest.of(target=[2, "dog", 2]).classes(logits, labels)
    assert (targets.tolist(), asked.tolist()) == ([2, 1], [0, 1, 0])
    targets, asked = ExplainRequest.of(top_k=3).classes(logits, labels)
    assert (targets.tolist(), asked.tolist()) == ([4, 5, 1], [0, 1, 2])


def test_the_record_is_what_a_manifest_has(tiny_bundle: Path, picture: np.ndarray) -> None:
    explainer = ortcam.load(tiny_bundle)
    for given in ({"method": "scorecam", "budget": 4}, {"method": "cam"}):
        record, summary = ExplainRequest.of(**given).record(), explainer.explain(picture, **given).summary()
        assert {key: summary[key] for key in record} == record
        assert explainer.check(**given).items() >= record.items()


def test_explain_shows_the_arguments_of_a_request() -> None:
    shown = inspect.signature(ortcam.Explainer.explain).parameters
    asked = inspect.signature(ExplainRequest.of).parameters
    assert list(shown) == ["self", "image", "preprocessed", *list(asked)[:-1], "progress", "options"]
    for name, parameter in asked.items():
        assert shown[name] == parameter
    assert set(LIMITS) <= set(asked)
