"""Shuffled weights: the same numbers in other places, from the logits down, and the bundle itself untouched."""

import json
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.bundle import read_bundle
from ortcam.errors import NotFiniteError, OrtcamError
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.run import evaluate
from ortcam.evaluation.sanity import comparing
from ortcam.evaluation.sanity.shuffling import DEPTHS, check_weights, shuffled_bundle, similarity
from ortcam.images.encoding import write_png


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3))
    return np.kron(small, np.ones((32, 32, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Path:
    return Path(__file__).parents[3] / "models" / "shapes.ortcam"


def values(path: Path, bundle: Path) -> list[np.ndarray]:
    return [
        np.fromfile(path / item.file, item.dtype, item.size, offset=item.offset)
        for item in check_weights(read_bundle(bundle))
    ]


@pytest.mark.slow
def test_weights_are_shuffled_from_the_logits_down(shipped: Path, tmp_path: Path) -> None:
    before = values(shipped, shipped)
    hashes = {path.name: path.read_bytes() for path in shipped.iterdir()}
    for depth in (0.0, 0.5, 1.0):
        after = values(shuffled_bundle(read_bundle(shipped), tmp_path / str(depth), depth, seed=0), shipped)
        changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
        count = max(1, round(depth * len(before)))
        assert changed == [False] * (len(before) - count) + [True] * count
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(np.sort(old), np.sort(new))
    assert {path.name: path.read_bytes() for path in shipped.iterdir()} == hashes


@pytest.mark.long
def test_the_scorers_lose_their_weights_too(shipped: Path, tmp_path: Path) -> None:
    shuffled = ortcam.load(shuffled_bundle(read_bundle(shipped), tmp_path, 1.0, seed=0), providers=["cpu"])
    whole = ortcam.load(shipped, providers=["cpu"])
    photograph = whole.read(picture(0))
    assert not np.allclose(whole.predict(photograph), shuffled.predict(photograph), atol=1e-3)
    explanation = shuffled.explain(photograph, method="scorecam", target=0)
    # The weight of a channel is still the probability that the model, as it now is, gives the masked image.
    channel = int(np.argmax(explanation.weights[0]))
    low, high = (np.array(value) for value in _range(shuffled, photograph, channel))
    mask = (_upsampled(shuffled, photograph, channel) - low) / (high - low)
    logits = shuffled.logits(1, lambda _: photograph.model_input * mask.astype(np.float32))[0].astype(np.float64)
    expected = np.exp(logits - logits.max())[0] / np.exp(logits - logits.max()).sum()
    assert explanation.weights[0, channel] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_gradient_loses_its_weights_too(shipped: Path, tmp_path: Path) -> None:
    """Its head is linear: grad-cam is cam, which asks the head itself for its weights."""
    whole = ortcam.load(shipped, providers=["cpu"])
    shuffled = ortcam.load(shuffled_bundle(read_bundle(shipped), tmp_path, 0.0, seed=0), providers=["cpu"])
    photograph = whole.read(picture(0))
    own, other = (e.explain(photograph, method="grad-cam", target=[0, 1]) for e in (whole, shuffled))
    expected = shuffled.explain(photograph, method="cam", target=[0, 1])
    np.testing.assert_allclose(other.maps, expected.maps, rtol=0, atol=1e-5)
    assert np.abs(other.maps - own.maps).max() > 0.1


def _upsampled(explainer: ortcam.Explainer, photograph: ortcam.Photograph, channel: int) -> np.ndarray:
    from ortcam.scoring.upsampling import upsample

    return upsample(explainer.features(photograph)[channel : channel + 1], *photograph.model_input.shape[2:])[0]


def _range(explainer: ortcam.Explainer, photograph: ortcam.Photograph, channel: int) -> tuple[float, float]:
    up = _upsampled(explainer, photograph, channel)
    return float(up.min()), float(up.max())


def test_similarity_is_a_rank_correlation() -> None:
    saliency = np.array([[0.1, 0.9], [0.3, 0.5]], np.float32)
    assert similarity(saliency, saliency**3) == pytest.approx(1)
    assert similarity(saliency, -saliency) == pytest.approx(-1)
    assert similarity(saliency, np.zeros_like(saliency)) == 0


@pytest.mark.long
def test_the_check_is_part_of_a_run_and_goes_on_where_it_was(shipped: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        write_png(images / f"{seed}.png", picture(seed))
    arguments = {"methods": ["eigen-cam", "cam"], "metrics": ["complexity"], "randomize": 2}

    class StoppedError(Exception):
        pass

    def stop(made: int, total: int) -> None:
        if made == 22:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(shipped, images, tmp_path / "out", progress=stop, **arguments)
    made: list[tuple[int, int]] = []
    evaluate(shipped, images, tmp_path / "out", resume=True, progress=lambda *n: made.append(n), **arguments)
    total = 3 * 5 + 2 * 5 * len(DEPTHS)
    assert made[-1] == (total, total)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["randomized"]
    assert set(found) == {"eigen-cam", "cam", "random-weights", "mean-activation", "centred-gaussian"}
    for name, depths in found.items():
        assert [item["depth"] for item in depths] == list(DEPTHS)
        assert {item["n"] for item in depths} == {2}
        if name == "centred-gaussian":
            assert all(item["mean"] == pytest.approx(1) for item in depths)
    # The last weight is behind the features: what looks at these alone does not see that it is gone; CAM does.
    assert found["eigen-cam"][0]["mean"] == pytest.approx(1)
    assert found["cam"][0]["mean"] < 0.9
    assert found["eigen-cam"][-1]["mean"] < 0.9


@pytest.mark.long
def test_the_check_goes_on_where_a_map_of_shuffled_weights_fails(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        write_png(tmp_path / f"{seed}.png", picture(seed))
    sound = comparing.explain

    def fail(shuffled: object, photograph: object, target: int, entry: Entry, name: str, size: object) -> object:
        if entry.name == "eigen-cam" and name == "0.png":
            raise NotFiniteError("not a number")
        return sound(shuffled, photograph, target, entry, name, size)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "explain", fail)
    report = evaluate(shipped, tmp_path, tmp_path / "out", methods=["eigen-cam"], metrics=["complexity"], randomize=2)
    assert len(report.failures) == len(DEPTHS)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["randomized"]
    assert {item["n"] for item in found["eigen-cam"]} == {1}
    assert {item["n"] for item in found["mean-activation"]} == {2}


def test_a_check_on_no_image_is_refused(shipped: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(0))
    with pytest.raises(OrtcamError, match="randomize=0"):
        evaluate(shipped, tmp_path, tmp_path / "out", methods=["cam"], randomize=0)
