"""KServe's SDK explains and predicts, and gets what `Explainer.explain` gives."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.common.tolerances import logits_apart, maps_apart
from tests.foreign.conftest import run_client
from tests.runtime.serve.faults.server import Server

from ortcam import Explainer
from ortcam.bundle.shipped import demo_image

pytestmark = pytest.mark.long

OPTIONS: list[dict[str, Any]] = [
    {"method": "grad-cam", "top_k": 2},
    {"method": "scorecam", "target": "umbrella", "budget": 0.1, "batch_size": 8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["method"])
def test_the_sdk_of_kserve_gets_what_the_library_gives(
    options: dict[str, Any], server: Server, foreign: Path, explainer: Explainer
) -> None:
    parameters = json.dumps({**options, "map": "full"})
    answer = json.loads(run_client(foreign, "kserve_sdk.py", server.port, demo_image(), parameters))
    expected = explainer.explain(demo_image(), **options)
    (explanation,) = answer["explained"]["explanations"]
    assert explanation["method"] == options["method"]
    assert [item["index"] for item in explanation["targets"]] == list(expected.targets)
    logits, probabilities = explainer.classify(demo_image())
    tolerance = maps_apart(logits, expected.stats.channels)
    for item, saliency in zip(explanation["targets"], expected.maps, strict=True):
        found = np.frombuffer(base64.b64decode(item["map"]["b64"]), "<f4").reshape(item["map"]["shape"])
        np.testing.assert_allclose(found, saliency, rtol=0, atol=tolerance)
    apart = logits_apart(logits) / 2
    first, *_ = answer["predicted"]["predictions"][0]["classes"]
    assert first["index"] == probabilities.argmax()
    assert first["probability"] == pytest.approx(probabilities.max(), abs=apart)
    np.testing.assert_allclose(np.ravel(answer["probabilities"]), probabilities, rtol=0, atol=apart)
    assert answer["ready"] == [True] * 3
    assert answer["live"]
    assert "method" in answer["refused"]
    assert "guess" in answer["refused"], "the client shows the server's sentence"
    assert "422" in answer["refused"]
