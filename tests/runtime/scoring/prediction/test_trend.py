"""Frames that follow others: what the frame before gave makes predictions better, and never the estimate dishonest."""

import numpy as np
import pytest

from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.prediction.trend import Before

CHANNELS, SIZE = 200, 7


def masks_of(seed: int) -> np.ndarray:
    """Blobs of random place and size: float32 [200,7,7] in [0,1]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = generator.uniform(0, SIZE - 1, (2, CHANNELS, 1, 1))
    spread = generator.uniform(0.8, 2.5, (CHANNELS, 1, 1))
    blobs: np.ndarray = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * spread**2)).astype(np.float32)
    return blobs


def rough_y(seed: int, classes: int = 1) -> np.ndarray:
    """The fourth root of weights that no mask tells: float64 [200,K] in [0.1,1]."""
    return np.random.default_rng(seed).uniform(0.1, 1, (CHANNELS, classes))


def next_y(y: np.ndarray, seed: int, change: float = 0.02) -> np.ndarray:
    """The same in a frame that differs a little, on another scale."""
    return np.clip(0.8 * y + np.random.default_rng(seed).normal(0, change, y.shape), 0.01, None)


def known(y: np.ndarray) -> Before:
    return Before(y, np.zeros_like(y))


def finished(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    raw = np.maximum(np.tensordot(weights, masks, axes=1), 0)
    return (raw - raw.min()) / (raw.max() - raw.min())


@pytest.mark.parametrize("signed", [False, True])
def test_weights_follow_those_of_the_frame_before_on_any_scale(signed: bool) -> None:
    model, y = MaskModel(masks_of(0)), rough_y(1, classes=2)
    weights = next_y(y, 2) if signed else 1e-6 * next_y(y, 2) ** 4
    scored = np.arange(0, CHANNELS, 10)
    others = np.setdiff1d(np.arange(CHANNELS), scored)
    errors = [
        ((model.condition(scored, weights[scored], signed=signed, before=before).weights - weights)[others] ** 2).mean()
        for before in (None, known(y))
    ]
    assert errors[1] < 0.05 * errors[0]


def test_a_frame_before_that_tells_nothing_costs_little() -> None:
    masks = masks_of(3)
    shown = masks[:, 2:5, 1:4].mean(axis=(1, 2))[:, None]  # weights that the masks tell
    weights, scored = shown**2, np.arange(0, CHANNELS, 8)
    others = np.setdiff1d(np.arange(CHANNELS), scored)
    cold, misled = (
        ((MaskModel(masks).condition(scored, weights[scored], before=before).weights - weights)[others] ** 2).mean()
        for before in (None, known(rough_y(4)))
    )
    assert misled < 2 * cold + 0.01 * weights.var()


def test_the_estimate_of_a_frame_that_follows_covers_the_true_error_in_nine_of_ten() -> None:
    covered, estimates = [], []
    for seed in range(20):
        masks, y = masks_of(seed), rough_y(100 + seed)
        unknown = np.where(np.arange(CHANNELS) % 3 == 0, 0.0, 4.0)[:, None]  # those not scored lately drifted further
        drift = np.random.default_rng(300 + seed).normal(0, 0.02, y.shape) * np.sqrt(1 + unknown)
        weights = np.clip(0.8 * y + drift, 0.01, None) ** 4
        scored = np.arange(0, CHANNELS, 10)
        model = MaskModel(masks)
        prediction = model.condition(scored, weights[scored], before=Before(y, unknown))
        (estimate,) = model.map_error(prediction, masks, np.zeros(1))
        true = np.abs(finished(prediction.weights[:, 0], masks) - finished(weights[:, 0], masks)).max()
        covered.append(true <= estimate)
        estimates.append(estimate)
    assert np.mean(covered) >= 0.9
    assert np.median(estimates) < 0.5  # it says something


def test_channels_that_were_not_scored_lately_are_less_certain() -> None:
    y = rough_y(5)
    unknown = np.where(np.arange(CHANNELS) % 2 == 0, 0.0, 9.0)[:, None]
    drift = np.random.default_rng(6).normal(0, 0.02, y.shape) * np.sqrt(1 + unknown)
    weights, scored = np.clip(y + drift, 0.01, None) ** 4, np.arange(0, CHANNELS, 5)
    prediction = MaskModel(masks_of(7)).condition(scored, weights[scored], before=Before(y, unknown))
    left = prediction.unknown()[:, 0]
    others = np.setdiff1d(np.arange(CHANNELS), scored)
    fresh, old = others[others % 2 == 0], others[others % 2 == 1]
    assert np.median(left[old]) > 2 * np.median(left[fresh])
    np.testing.assert_array_equal(left[scored], 0)


@pytest.mark.parametrize("what", ["equal y", "equal weights", "one scored", "all scored"])
def test_what_tells_nothing_gives_finite_predictions(what: str) -> None:
    y = np.full((CHANNELS, 1), 0.5) if what == "equal y" else rough_y(8)
    weights = np.full((CHANNELS, 1), 0.25) if what == "equal weights" else next_y(y, 9) ** 4
    scored = np.arange({"one scored": 1, "all scored": CHANNELS}.get(what, 20))
    model = MaskModel(masks_of(10))
    prediction = model.condition(scored, weights[scored], before=known(y))
    for values in (prediction.weights, prediction.deviation, prediction.y, prediction.unknown()):
        assert np.isfinite(values).all()
    assert np.isfinite(model.map_error(prediction, masks_of(10), np.zeros(1))).all()
    np.testing.assert_array_equal(prediction.weights[scored], weights[scored])
