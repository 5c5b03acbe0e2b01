"""`explain(score=...)` from the request to files: what is given, what is flat, what is refused, and older bundles."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import REPOSITORY

import ortcam
from ortcam.errors import OptionError, OutputError
from ortcam.methods import METHODS

OLD = REPOSITORY / "tests" / "data" / "tiny-schema-4.ortcam"


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, threads=1)


def test_the_value_and_the_text_are_given(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    logits, _ = explainer.classify(picture)
    e = explainer.explain(picture, method="scorecam", score=" cat - dog ")
    assert (e.score, e.labels, e.targets) == ("cat - dog", ("cat - dog",), (-1,))
    assert e.probabilities == pytest.approx(logits[0] - logits[1])
    assert not e.are_probabilities
    assert f"'cat - dog' {e.probabilities[0]:.4g}" in repr(e)
    assert e.provenance["score"] == "cat - dog"
    assert explainer.explain(picture, method="scorecam", score="probability:cat").are_probabilities
    assert "score" not in explainer.explain(picture, method="scorecam").provenance


@pytest.mark.slow
def test_classes_are_those_of_bundles_without_scores_bit_for_bit(tiny_bundle: Path, picture: np.ndarray) -> None:
    with ortcam.load(OLD, threads=1) as old, ortcam.load(tiny_bundle, threads=1) as new:
        assert old.bundle.manifest.graphs.score_terms == ()
        for method in METHODS:
            if method.needs_attention:
                continue
            sampled = {"num_samples": 2} if "num_samples" in method.defaults else {}
            for more in ({}, {"weighting": "logit-softmax"}, {"baseline": "zeros"}) if method.plan else ({},):
                first, second = (
                    one.explain(picture, method=method.name, target=[0, 2, 5], batch_size=4, **sampled, **more)
                    for one in (old, new)
                )
                assert np.array_equal(first.maps, second.maps), method.name
                assert np.array_equal(first.weights, second.weights), method.name
                assert first.options == second.options


def test_older_bundles_say_what_works(picture: np.ndarray) -> None:
    with ortcam.load(OLD, threads=1) as old:
        with pytest.raises(OptionError, match=r"score='entropy' with scorecam: .*export the model again.*grad-cam"):
            old.explain(picture, method="scorecam", score="entropy")
        assert old.explain(picture, score="entropy").method == "grad-cam"
        assert old.explain(picture, method="scorecam", score="probability", target=1).targets == (1,)


def test_every_method_with_a_plan_or_takes_scores(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    refused = [method.name for method in METHODS if method.plan is None and not method.takes_scores]
    assert refused == ["finer-cam"]
    with pytest.raises(OptionError, match="finer-cam: it explains classes alone; accepted: scorecam"):
        explainer.explain(picture, method="finer-cam", score="cat - dog")


def test_a_score_without_a_zero_is_compared_with_the_blank_image(
    explainer: ortcam.Explainer, picture: np.ndarray
) -> None:
    def baseline(**arguments: object) -> object:
        return explainer.explain(picture, method="scorecam", **arguments).options["baseline"]

    assert baseline(score="cat") == "zeros"
    assert baseline(score="cat", baseline="none") == "none"
    assert baseline(score="entropy") == "none"
    assert baseline(score="probability:cat + probability:dog") == "none"
    assert baseline(score="-entropy") == "zeros"
    assert baseline(score="logit", target=0) == "zeros"
    assert baseline(score="cat", weighting="logit-softmax") == "none"  # where it cancels out
    assert baseline() == "none"
    plain = explainer.explain(picture, method="scorecam", score="cat", batch_size=4)
    moved = explainer.explain(picture, method="scorecam", score="cat + 5", batch_size=4)
    assert moved.maps == pytest.approx(plain.maps, abs=1e-5)  # rounding of 5 in float32, over weights of about 1


def test_a_score_that_is_the_same_for_all_masks_is_flat(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    score = "1e-30*cat + 35.2"  # the logit changes no bit of it, in float32 or float64
    for method in ("scorecam", "scorecam++", "iscam", "recipro-cam", "ablation-cam"):
        e = explainer.explain(picture, method=method, score=score)
        assert e.flat.tolist() == [True], method
        assert not e.maps.any()
    e = explainer.explain(picture, method="scorecam", score=score, budget=4)
    assert e.flat.tolist() == [True]


def test_budgets_and_tolerances_take_scores_of_either_sign(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    exact = explainer.explain(picture, method="scorecam", score="dog - cat")
    some = explainer.explain(picture, method="scorecam", score="dog - cat", budget=9)
    assert some.stats.scored_channels == 9
    assert np.abs(some.maps - exact.maps).max() <= some.stats.estimated_error[0]
    for preview in explainer.explain_iter(picture, method="scorecam", score="dog - cat"):
        assert preview.labels == ("dog - cat",)
    assert preview.maps == pytest.approx(exact.maps, abs=1e-5)
    assert preview.stats.estimated_error == (0,)


def test_copies_of_the_image_take_scores(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    e = explainer.explain(picture, method="grad-cam", score="dog - cat", augment=3)
    assert e.stats.copies == 3
    assert e.labels == ("dog - cat",)


def test_files_of_a_score(explainer: ortcam.Explainer, picture: np.ndarray, tmp_path: Path) -> None:
    score = ortcam.Score("cosine:query", arrays={"query": np.arange(6.0)})
    e = explainer.explain(picture, method="grad-cam", score=score)
    e.save(tmp_path)
    e.save(tmp_path)  # the same again
    names = {"image.jpg", "manifest.json", "score.npy", "score-heatmap.png", "score-overlay.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert manifest["score"] == "cosine:query"
    assert manifest["score_arrays"].keys() == {"query"}
    assert manifest["are_probabilities"] is False
    assert manifest["targets"][0]["index"] == -1
    other = ortcam.Score("cosine:query", arrays={"query": -np.arange(6.0)})
    with pytest.raises(OutputError, match="holds a score explained with score_arrays"):
        explainer.explain(picture, method="grad-cam", score=other).save(tmp_path)
    with pytest.raises(OutputError, match="holds a score"):
        explainer.explain(picture, method="grad-cam").save(tmp_path)
    assert e.sheet().shape[2] == 3
    assert ortcam.sheet([e, explainer.explain(picture, method="cam", target=0)]).shape[2] == 3
