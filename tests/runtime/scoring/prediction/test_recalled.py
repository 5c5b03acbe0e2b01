"""Recalled weights: what earlier frames scored makes predictions better, and never the estimate dishonest."""

import numpy as np
import pytest

from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.prediction.recalled import FEWEST, WORST, Before, recall

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
    moved: np.ndarray = np.clip(0.8 * y + np.random.default_rng(seed).normal(0, change, y.shape), 0.01, None)
    return moved


def known(y: np.ndarray, age: np.ndarray | None = None) -> Before:
    """Every channel was scored, in the frame before unless ages are given."""
    age = np.ones(len(y)) if age is None else age
    return Before(y, age, np.full(y.shape, 1e-3), np.full(y.shape[1], 1e-3))


def finished(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    raw = np.maximum(np.tensordot(weights, masks, axes=1), 0)
    scaled: np.ndarray = (raw - raw.min()) / (raw.max() - raw.min())
    return scaled


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


def test_a_frame_before_that_says_less_than_the_masks_is_not_recalled() -> None:
    masks = masks_of(3)
    shown = masks[:, 2:5, 1:4].mean(axis=(1, 2))[:, None]  # weights that the masks tell
    weights, scored = shown**2, np.arange(0, CHANNELS, 8)
    cold, misled = (
        MaskModel(masks).condition(scored, weights[scored], before=before) for before in (None, known(rough_y(4)))
    )
    np.testing.assert_array_equal(misled.weights, cold.weights)
    assert misled.posterior.safety > cold.posterior.safety  # the channels are those of a frame that follows


@pytest.mark.parametrize("recalls", [True, False])
def test_whether_earlier_frames_count_is_found_out_once(recalls: bool) -> None:
    model, y = MaskModel(masks_of(3)), rough_y(4)
    weights, scored = (next_y(y, 5) if recalls else rough_y(6)) ** 4, np.arange(0, CHANNELS, 8)
    found = model.condition(scored, weights[scored], before=known(y))
    assert found.posterior.recalls is recalls
    others = rough_y(6 if recalls else 4) ** 4  # which would be found the other way
    again = model.condition(scored, others[scored], before=known(y), recalls=found.posterior.recalls)
    assert (again.posterior.recalled is not None) is recalls


@pytest.mark.parametrize(("share", "recalled"), [(0.9, True), (1.1, False)])
def test_what_channels_were_counts_up_to_twice_the_error_of_what_the_others_say(share: float, recalled: bool) -> None:
    z, scored = rough_y(14, classes=2), np.arange(0, CHANNELS, 5)
    y = next_y(z, 15, change=0.1)
    before = known(z, np.where(np.arange(CHANNELS) % 2 == 0, 1, np.inf))
    found = recall(before, scored, y[scored])
    assert found is not None
    again = scored % 2 == 0
    own = np.sqrt((found.missed[again] ** 2).mean(axis=0))
    left_out = np.where(again[:, None], own / np.sqrt(share * WORST), 1e9)  # of the others nothing is asked
    assert found.helps(np.arange(len(scored)), left_out) is recalled


@pytest.mark.slow
def test_the_estimate_of_a_frame_that_follows_covers_the_true_error_in_nine_of_ten() -> None:
    covered, estimates = [], []
    age = np.where(np.arange(CHANNELS) % 3 == 0, 1.0, 5.0)  # those not scored lately drifted further
    for seed in range(20):
        masks, y = masks_of(seed), rough_y(100 + seed)
        drift = np.random.default_rng(300 + seed).normal(0, 0.02, y.shape) * np.sqrt(age)[:, None]
        weights = np.clip(0.8 * y + drift, 0.01, None) ** 4
        scored = np.arange(0, CHANNELS, 10)
        model = MaskModel(masks)
        prediction = model.condition(scored, weights[scored], before=known(y, age))
        (estimate,) = model.map_error(prediction, masks, np.zeros(1))
        true = np.abs(finished(prediction.weights[:, 0], masks) - finished(weights[:, 0], masks)).max()
        covered.append(true <= estimate)
        estimates.append(estimate)
    assert np.mean(covered) >= 0.9
    assert np.median(estimates) < 0.5  # it says something


def test_channels_that_were_not_scored_lately_are_less_certain() -> None:
    y, age = rough_y(5), np.where(np.arange(CHANNELS) % 2 == 0, 1.0, 9.0)
    age[CHANNELS - 20 :] = np.inf
    drift = np.random.default_rng(6).normal(0, 0.02, y.shape) * np.sqrt(np.minimum(age, 9))[:, None]
    weights, scored = np.clip(y + drift, 0.01, None) ** 4, np.arange(0, CHANNELS, 5)
    before = known(y, age)
    after = MaskModel(masks_of(7)).condition(scored, weights[scored], before=before).known(before)
    others = np.setdiff1d(np.arange(CHANNELS), scored)
    fresh, old, never = (after.open[others[age[others] == value]] for value in (1, 9, np.inf))
    assert np.median(never) > 2 * np.median(old) > 4 * np.median(fresh)
    np.testing.assert_array_equal(after.open[scored], 0)
    np.testing.assert_array_equal(after.age[scored], 0)
    np.testing.assert_array_equal(after.age[others], age[others])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("slope", "change"), [(0.7, 0.0), (1.0, 0.05)])
def test_scale_and_change_come_from_the_channels_that_were_scored_again(
    slope: float, change: float, signed: bool
) -> None:
    z, age = (
        np.random.default_rng(0).uniform(0, 1, (400, 2)),
        np.random.default_rng(1).integers(1, 9, 400).astype(float),
    )
    steps = np.random.default_rng(2).normal(0, 1, z.shape) * np.sqrt(age)[:, None]
    level = 0.1 if signed else 0.0
    y, scored = level + slope * z + change * steps, np.arange(0, 400, 2)
    found = recall(known(z, age), scored, y[scored], signed=signed)
    assert found is not None
    np.testing.assert_array_equal(found.channels, np.arange(1, 400, 2))
    # Of 200 residuals the mean square is right to 4 * sqrt(2 / 200); the ratio of deviations counts the change, too.
    np.testing.assert_allclose(found.change, max(change**2, 1e-5), rtol=0.5)
    np.testing.assert_allclose(found.y, level + slope * z[1::2], atol=0.15 if change else 1e-9)
    np.testing.assert_allclose(found.noise / age[1::2], found.noise[0] / age[1])


def test_weights_without_a_sign_are_scaled_alike_whatever_channels_were_scored_again() -> None:
    z = np.linspace(0.05, 1, CHANNELS)[:, None]
    scored = np.arange(CHANNELS - 20, CHANNELS)  # the largest, whose spread now is anything
    y = np.random.default_rng(14).uniform(0.3, 0.9, z.shape)
    found = recall(known(z), scored, y[scored])
    assert found is not None
    ratio = y[scored].sum() / z[scored].sum()
    np.testing.assert_allclose(found.y, ratio * z[: CHANNELS - 20])


def test_few_channels_that_were_scored_again_tell_nothing() -> None:
    y, age = rough_y(11), np.full(CHANNELS, np.inf)
    age[: FEWEST - 1] = 1
    scored = np.arange(20)
    assert recall(known(y, age), scored, y[scored]) is None
    model, weights = MaskModel(masks_of(12)), rough_y(13) ** 4
    cold, warm = (model.condition(scored, weights[scored], before=before) for before in (None, known(y, age)))
    np.testing.assert_array_equal(warm.weights, cold.weights)


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("what", ["equal y", "equal weights", "one scored", "all scored"])
def test_what_tells_nothing_gives_finite_predictions(what: str) -> None:
    y = np.full((CHANNELS, 1), 0.5) if what == "equal y" else rough_y(8)
    weights = np.full((CHANNELS, 1), 0.25) if what == "equal weights" else next_y(y, 9) ** 4
    scored = np.arange({"one scored": 1, "all scored": CHANNELS}.get(what, 20))
    model = MaskModel(masks_of(10))
    before = known(y)
    prediction = model.condition(scored, weights[scored], before=before)
    for values in (prediction.weights, prediction.deviation, prediction.y, prediction.known(before).open):
        assert np.isfinite(values).all()
    assert np.isfinite(model.map_error(prediction, masks_of(10), np.zeros(1))).all()
    np.testing.assert_array_equal(prediction.weights[scored], weights[scored])


@pytest.mark.parametrize("share", [0.75, 0.9, 1.0])
def test_where_most_masks_are_equal_nothing_is_predicted_out_of_rounding(share: float) -> None:
    """Equal but for rounding, as channels are that differ by a factor: so the median distance is a rounding error."""
    masks, y = masks_of(20), rough_y(21)
    equal, factors = round(share * CHANNELS), np.random.default_rng(23).uniform(0.5, 2, (CHANNELS, 1, 1))
    masks[:equal] = masks[0] * factors[:equal].astype(np.float32)
    masks /= np.ptp(masks, axis=(1, 2), keepdims=True)
    first, second = y**4, next_y(y, 22) ** 4
    scored = np.arange(0, CHANNELS, 4)
    model, before = MaskModel(masks), None
    for weights, places in ((first, scored), (second, scored + 1)):
        with np.errstate(all="raise", under="ignore"):
            prediction = model.condition(places, weights[places], before=before)
        assert (prediction.weights >= 0).all()
        assert prediction.weights.max() <= 2 * weights.max()  # 2e7 times as much where rounding was the unit
        before = prediction.known(before)
        before.age[:] += 1
