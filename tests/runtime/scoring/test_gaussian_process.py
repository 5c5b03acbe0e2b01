"""Completion: smooth weights are predicted, scored ones left alone, and the error estimate covers the error."""

import numpy as np
import pytest

from ortcam.scoring.gaussian_process import MaskModel

SIZE = 7


def smooth_masks(count: int, seed: int) -> np.ndarray:
    """Blobs of random place, size and strength: float32 [count,7,7] in [0,1]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = generator.uniform(0, SIZE - 1, (2, count, 1, 1))
    spread = generator.uniform(0.8, 2.5, (count, 1, 1))
    blobs = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * spread**2))
    return blobs.astype(np.float32)


def weights_of(masks: np.ndarray, seed: int, classes: int = 1) -> np.ndarray:
    """Weights as a model gives them: larger the more of an object at a random place a mask shows; float64 [C,K]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    place = generator.uniform(1, SIZE - 2, (2, classes, 1, 1))
    objects = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 4)
    shown = np.einsum("chw,khw->ck", masks, objects) / objects.sum(axis=(1, 2))
    logits = 10 * shown - 5 + generator.normal(0, 0.2, shown.shape)
    return 1 / (1 + np.exp(-logits))


def finished(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    raw = np.maximum(np.tensordot(weights, masks, axes=1), 0)
    return (raw - raw.min()) / (raw.max() - raw.min())


def test_the_process_knows_more_than_the_mean() -> None:
    masks = smooth_masks(300, 0)
    weights = weights_of(masks, 1)
    scored = np.arange(0, 300, 8)
    prediction = MaskModel(masks).condition(scored, weights[scored])
    others = np.setdiff1d(np.arange(300), scored)
    error = ((prediction.weights[others] - weights[others]) ** 2).mean()
    assert error < 0.2 * weights[others].var()


def test_scored_weights_stay_and_are_certain() -> None:
    masks = smooth_masks(60, 2)
    weights = weights_of(masks, 3, classes=4)
    scored = np.array([5, 0, 17, 40, 41])
    prediction = MaskModel(masks).condition(scored, weights[scored])
    np.testing.assert_array_equal(prediction.weights[scored], weights[scored])
    assert (prediction.deviation[scored] == 0).all()
    others = np.setdiff1d(np.arange(60), scored)
    assert (prediction.deviation[others] > 0).all()
    assert (prediction.weights[others] >= 0).all()


def test_the_order_of_the_channels_does_not_matter() -> None:
    masks = smooth_masks(80, 4)
    weights = weights_of(masks, 5)
    scored = np.arange(20)
    turned = np.random.default_rng(0).permutation(80)
    place = np.argsort(turned)
    prediction = MaskModel(masks).condition(scored, weights[scored])
    again = MaskModel(masks[turned]).condition(place[scored], weights[scored])
    # Length scales are in units of the median distance, which is taken over some of the masks: it differs a little.
    np.testing.assert_allclose(again.weights[place], prediction.weights, atol=0.05)


def test_the_scale_of_the_weights_does_not_matter() -> None:
    masks = smooth_masks(80, 6)
    weights = weights_of(masks, 7)
    scored = np.arange(0, 80, 4)
    large = MaskModel(masks).condition(scored, weights[scored])
    small = MaskModel(masks).condition(scored, 1e-12 * weights[scored])
    np.testing.assert_allclose(1e12 * small.weights, large.weights, rtol=1e-6)
    np.testing.assert_allclose(1e12 * small.deviation, large.deviation, rtol=1e-6)


@pytest.mark.slow
def test_the_estimate_covers_the_true_error_in_nine_of_ten() -> None:
    covered = []
    for seed in range(30):
        masks = smooth_masks(200, seed)
        weights = weights_of(masks, 100 + seed)
        scored = np.arange(0, 200, 10)
        model = MaskModel(masks)
        prediction = model.condition(scored, weights[scored])
        (estimate,) = model.map_error(prediction, masks, np.zeros(1))
        true = np.abs(finished(prediction.weights[:, 0], masks) - finished(weights[:, 0], masks)).max()
        assert 0 < estimate <= 1
        covered.append(true <= estimate)
    assert np.mean(covered) >= 0.9


@pytest.mark.slow
def test_the_estimate_shrinks_with_what_is_scored_and_ends_at_zero() -> None:
    masks = smooth_masks(200, 8)
    weights = weights_of(masks, 9, classes=3)
    model = MaskModel(masks)
    estimates = []
    for step in (20, 4, 1):
        scored = np.arange(0, 200, step)
        estimates.append(model.map_error(model.condition(scored, weights[scored]), masks, np.zeros(3)))
    assert (estimates[1] < estimates[0]).all()
    np.testing.assert_array_equal(estimates[2], 0)


@pytest.mark.parametrize("what", ["equal weights", "equal masks", "one scored", "fine grid", "signed masks"])
def test_what_tells_nothing_gives_finite_predictions(what: str) -> None:
    masks = smooth_masks(40, 10)
    weights = weights_of(masks, 11)
    scored = np.arange(12)
    if what == "equal weights":
        weights = np.full((40, 1), 0.25)
    elif what == "equal masks":
        masks = np.repeat(masks[:1], 40, axis=0)
    elif what == "one scored":
        scored = np.arange(1)
    elif what == "fine grid":
        masks = np.repeat(np.repeat(masks, 5, axis=1), 8, axis=2)
    else:
        masks = masks - 0.5
    model = MaskModel(masks)
    prediction = model.condition(scored, weights[scored])
    assert np.isfinite(prediction.weights).all()
    assert np.isfinite(prediction.deviation).all()
    assert np.isfinite(model.map_error(prediction, masks, np.zeros(1))).all()
    if what == "equal weights":
        np.testing.assert_allclose(prediction.weights, 0.25, rtol=1e-3)
