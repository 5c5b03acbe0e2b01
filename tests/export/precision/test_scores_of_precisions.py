"""Scores in float16 and int8: what the masked methods weigh by is the score of the scorer's own logits."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT

import ortcam
from ortcam.bundle import Bundle
from ortcam_export import export

pytestmark = pytest.mark.slow

# What each text is of the logits [N,6]: linear, of probabilities, of the entropy.
SCORES = ("cat - 0.5*dog", "probability:cat - probability:dog", "entropy")
# Correlation with the map in float32, as the other tests of precisions have it.
LEAST = {"float16": 0.999, "int8": 0.9}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "tiny.ortcam"
    return export(TinyNet().eval(), path, precision="fp16,int8", **TINY_INPUT)


def logit_weights(explainer: ortcam.Explainer, photograph: Path, score: str, precision: str) -> np.ndarray:
    found = explainer.explain(
        photograph, method="scorecam", score=score, precision=precision, baseline="none", batch_size=4
    )
    return np.asarray(found.weights[0], np.float64)


@pytest.mark.parametrize("precision", LEAST)
def test_maps_of_scores_are_those_of_float32(precision: str, tiny: Bundle, photograph: Path) -> None:
    with ortcam.load(tiny.path, threads=1) as explainer:
        for score in SCORES:
            for method in ("scorecam", "scorecam++"):
                maps, values = [], []
                for kind in ("float32", precision):
                    found = explainer.explain(photograph, method=method, score=score, precision=kind)
                    maps.append(found.maps.ravel())
                    values.append(found.probabilities[0])
                assert np.ptp(maps[0]) > 0.5
                assert np.corrcoef(maps)[0, 1] > LEAST[precision], (method, score)
                assert values[0] == values[1]  # the score of the image itself is never coarse


@pytest.mark.parametrize("precision", LEAST)
def test_a_difference_of_classes_is_the_difference_of_their_weights(
    precision: str, tiny: Bundle, photograph: Path
) -> None:
    """In the coarse scorer, too: the score is computed in float32 behind it."""
    with ortcam.load(tiny.path, threads=1) as explainer:
        both = logit_weights(explainer, photograph, "cat - 0.5*dog", precision)
        cat, dog = (logit_weights(explainer, photograph, name, precision) for name in ("cat", "dog"))
    largest = max(np.abs(cat).max(), np.abs(dog).max())
    # One product and one sum of float32, and three roundings of what goes into them.
    np.testing.assert_allclose(both, cat - 0.5 * dog, rtol=0, atol=8 * 2**-24 * largest)
    assert np.ptp(both) > 0.01 * largest


def test_the_scorers_of_a_precision_take_scores(tiny: Bundle) -> None:
    for precision in ("float32", *LEAST):
        names = {
            value.name
            for kind in tiny.manifest.graphs.scorers
            for value in ort.InferenceSession(tiny.scorer(kind, precision)).get_inputs()
        }
        assert {"image"} <= names, precision
