"""Triton's client infers in every form, and gets what `Explainer.explain` and `predict` give."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.common.tolerances import logits_apart, maps_apart
from tests.foreign.conftest import run_client
from tests.runtime.serve.faults.server import Server

from ortcam import Explainer
from ortcam.bundle.shipped import demo_image
from ortcam.scoring.maps import relu_min_max

pytestmark = pytest.mark.long

OPTIONS = {"method": "scorecam", "top_k": 2, "budget": 0.1, "batch_size": 8}


def test_tritons_client_gets_what_the_library_gives(
    server: Server, foreign: Path, explainer: Explainer, tmp_path: Path
) -> None:
    photograph = explainer.read(demo_image())
    expected = explainer.explain(photograph, **OPTIONS)
    given, answers = tmp_path / "given.npz", tmp_path / "answers.npz"
    np.savez(given, pixels=photograph.pixels, preprocessed=photograph.model_input)
    parameters = json.dumps({**OPTIONS, "map": "full"})
    facts = json.loads(run_client(foreign, "triton.py", server.port, demo_image(), given, answers, parameters))
    logits, probabilities = explainer.classify(photograph)
    apart, tolerance = logits_apart(logits), maps_apart(logits, expected.stats.channels)
    low, _ = relu_min_max(expected.raw_maps.astype(np.float64))
    with np.load(answers) as found:
        forms = {name.partition("/")[0] for name in found.files}
        assert forms == {"bytes", "json", "pixels", "pixels-json", "preprocessed", "preprocessed-json"}
        for form in forms:
            got = {output: found[f"{form}/{output}"] for output in ("logits", "probabilities", "targets", "saliency")}
            np.testing.assert_allclose(np.ravel(got["logits"]), logits, rtol=0, atol=apart)
            np.testing.assert_allclose(np.ravel(got["probabilities"]), probabilities, rtol=0, atol=apart / 2)
            assert np.ravel(got["targets"]).tolist() == list(expected.targets)
            shape = expected.maps.shape
            np.testing.assert_allclose(got["saliency"].reshape(shape), expected.maps, rtol=0, atol=tolerance)
            small = found[f"{form}/low_resolution"].reshape(low.shape)
            np.testing.assert_allclose(small, low, rtol=0, atol=tolerance)
            np.testing.assert_allclose(
                np.ravel(found[f"{form}/probability"]), expected.probabilities, rtol=0, atol=apart / 2
            )
    assert facts["live"]
    assert facts["ready"] == [True] * 3
    assert [item["name"] for item in facts["metadata"]] == ["shapes", "shapes-explain"]
    assert {item["name"] for item in facts["metadata"][1]["inputs"]} == {"image", "pixels", "preprocessed"}
    assert facts["server"]["name"] == "ortcam"
    assert "binary_tensor_data" in facts["server"]["extensions"]
    assert facts["ids"] == ["0", "1", "2"]
    assert "guess" in facts["refused"]
    assert "422" in facts["refused"]
