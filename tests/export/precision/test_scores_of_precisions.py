"""Scores in float16 and int8: what the masked methods weigh by is the score of the scorer's own logits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT

import ortcam
from ortcam.bundle import Bundle
from ortcam_export import export

pytestmark = pytest.mark.long

# What each text is of the logits [N,6]: linear, of probabilities, of the entropy.
SCORES = ("cat - 0.5*dog", "probability:cat - probability:dog", "entropy")
# Correlation with the weights in float32, as the other tests of precisions have it.
LEAST = {"float16": 0.999, "int8": 0.9}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "tiny.ortcam"
    return export(TinyNet().eval(), path, precision="fp16,int8", **TINY_INPUT)


@pytest.fixture(scope="module")
def explainers(tiny: Bundle) -> Iterator[dict[str, ortcam.Explainer]]:
    """One per precision."""
    with contextlib.ExitStack() as stack:
        yield {
            precision: stack.enter_context(ortcam.load(tiny.path, precision=precision, threads=1))
            for precision in ("float32", *LEAST)
        }


@pytest.mark.parametrize("precision", LEAST)
def test_weights_of_scores_are_those_of_float32(
    precision: str, explainers: dict[str, ortcam.Explainer], photograph: Path
) -> None:
    for score in SCORES:
        for method in ("scorecam", "scorecam++"):
            exact, coarse = (
                explainers[name].explain(photograph, method=method, score=score) for name in ("float32", precision)
            )
            assert np.corrcoef(exact.weights[0], coarse.weights[0])[0, 1] > LEAST[precision], (method, score)
            assert np.abs(exact.weights - coarse.weights).max() > 0  # of another precision, indeed
            assert exact.probabilities[0] == coarse.probabilities[0]  # the score of the image itself is never coarse


@pytest.mark.parametrize("precision", LEAST)
def test_a_difference_of_classes_is_the_difference_of_their_weights(
    precision: str, explainers: dict[str, ortcam.Explainer], photograph: Path
) -> None:
    """In the coarse scorer, too: the score is computed in float32 behind it."""
    both, cat, dog = (
        np.float64(
            explainers[precision]
            .explain(photograph, method="scorecam", score=score, baseline="none", batch_size=4)
            .weights[0]
        )
        for score in ("cat - 0.5*dog", "cat", "dog")
    )
    largest = max(np.abs(cat).max(), np.abs(dog).max())
    # A product and a sum of float32, and the roundings of what goes into them.
    np.testing.assert_allclose(both, cat - 0.5 * dog, rtol=0, atol=8 * 2**-24 * largest)
    assert np.ptp(both) > 0.01 * largest
