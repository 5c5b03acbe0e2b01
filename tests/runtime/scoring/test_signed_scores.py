"""Scores of either sign: what the Gaussian process predicts of them, and how their sampling errors are told."""

import numpy as np
import pytest

from ortcam.methods import Plan
from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.tally import Tally

CHANNELS, SCORED = 60, 30


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    """Bumps of one width at random places: float32 [60,7,7]."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:7, :7]
    places = generator.uniform(0, 6, (CHANNELS, 2, 1, 1))
    return np.exp(-((rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2) / 4).astype(np.float32)


def smooth(masks: np.ndarray) -> np.ndarray:
    """A smooth function of the masks, of either sign: float64 [60,1]."""
    return (masks * np.linspace(-1, 1, 7)[:, None]).sum(axis=(1, 2), dtype=np.float64)[:, None]


def test_what_is_predicted_does_not_depend_on_zero_and_unit(masks: np.ndarray) -> None:
    model, weights, scored = MaskModel(masks), smooth(masks), np.arange(SCORED)
    plain = model.condition(scored, weights[scored], signed=True)
    moved = model.condition(scored, 40 - 3 * weights[scored], signed=True)
    assert np.allclose(moved.weights, 40 - 3 * plain.weights, rtol=0, atol=1e-4)  # float32 products, times 3
    assert np.allclose(moved.deviation, 3 * plain.deviation, rtol=1e-3)
    offset = np.array([0.5])
    errors = model.map_error(plain, masks, offset), model.map_error(moved, masks, 40 - 3 * offset)
    assert np.isfinite(errors).all()


def test_the_prediction_knows_more_than_the_mean(masks: np.ndarray) -> None:
    weights, scored = smooth(masks), np.arange(SCORED)
    found = MaskModel(masks).condition(scored, weights[scored], signed=True)
    missed = np.abs(found.weights - weights)[SCORED:]
    assert missed.mean() < 0.3 * np.abs(weights[SCORED:] - weights[:SCORED].mean()).mean()
    assert (missed <= 4 * found.deviation[SCORED:] + 1e-3).mean() > 0.9


def test_a_score_that_never_changes_is_predicted_and_its_map_unknown(masks: np.ndarray) -> None:
    model, scored = MaskModel(masks), np.arange(SCORED)
    for constant in (0.0, -35.2):
        found = model.condition(scored, np.full((SCORED, 1), constant), signed=True)
        assert found.weights == pytest.approx(np.full((CHANNELS, 1), constant))
        assert not found.deviation.any()
        assert model.map_error(found, masks, np.zeros(1)).tolist() == [1]


def test_sampling_errors_are_relative_to_the_weight_without_its_offset() -> None:
    plan = Plan(normalize="after-upsampling", coefficients=(1.0, 1.0, 1.0, 1.0))
    channels = np.tile(np.arange(2), 3)
    values = np.array([[-7.0], [-9.0], [-7.2], [-9.1], [-7.1], [-9.3]])
    tallies = [Tally(2, (1, 1, 1), plan, np.array([offset])) for offset in (-10.0, 0.0)]
    for shift, tally in zip((0.0, 10.0), tallies, strict=True):
        tally.add(channels, values + shift, np.ones(6))
    first, second = (tally.relative_error(np.arange(2)) for tally in tallies)
    assert first == pytest.approx(second, rel=1e-9)
    assert (first > 0).all()
    one = Tally(2, (1, 1, 1), plan, np.array([-10.0]))
    one.add(np.arange(2), values[:2], np.ones(2))
    assert one.relative_error(np.array([0])).item() == pytest.approx(1)  # after one sample nothing is known
