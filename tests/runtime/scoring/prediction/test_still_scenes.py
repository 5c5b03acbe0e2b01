"""Still scenes: what enters one is found by however few passes, and channels have their turn while nothing happens."""

import numpy as np
import pytest
from tests.runtime.scoring.prediction.frames import explained

from ortcam.scoring.limits import Limits
from ortcam.scoring.prediction.memory import Memory

CHANNELS, SIZE, RESPOND = 160, 7, 20
STILL, FOUND_WITHIN = 4, 3  # frames


def scenes(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features and weights without a thing and with it, to which 20 of 160 channels respond that were dim before."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = generator.uniform(0, SIZE - 1, (2, CHANNELS, 1, 1))
    spread = generator.uniform(0.8, 2.5, (CHANNELS, 1, 1))
    empty = np.exp(-((y - centre[1]) ** 2 + (x - centre[0]) ** 2) / (2 * spread**2))
    thing = np.exp(-((y - 5) ** 2 + (x - 5) ** 2) / 2)
    responding = generator.choice(CHANNELS, RESPOND, replace=False)
    empty[responding] *= 0.2
    entered = empty.copy()
    entered[responding] += 1.5 * thing * generator.uniform(0.7, 1.3, (RESPOND, 1, 1))
    there = empty[:, 4:, 4:].mean(axis=(1, 2))
    roots = generator.uniform(0.1, 0.7, CHANNELS) * (1 - 0.8 * there / there.max())
    roots[responding] = generator.uniform(0.1, 0.3, RESPOND)
    then = roots.copy()
    then[responding] = generator.uniform(0.8, 1, RESPOND)
    return (empty.astype(np.float32), roots[None] ** 4), (entered.astype(np.float32), then[None] ** 4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_enters_a_still_scene_is_found_within_three_frames_of_few_passes(seed: int) -> None:
    empty, entered = scenes(seed)
    limits, memory = Limits(budget=16), Memory()
    for _ in range(STILL):
        explained(*empty, limits, memory)
    alone = explained(*entered, limits, None)[1]
    for _ in range(FOUND_WITHIN):
        scores, error = explained(*entered, limits, memory)
    assert scores.passes == 16
    assert error < 0.3 * alone
    assert error < 0.2


@pytest.mark.slow
def test_every_channel_has_its_turn_in_a_still_scene() -> None:
    (features, _), _ = scenes(0)
    weights = np.random.default_rng(1).uniform(0.3, 0.8, (1, CHANNELS)) ** 4  # that no mask tells
    limits, memory, scored = Limits(budget=16), Memory(), np.zeros(CHANNELS, bool)
    for _ in range(2 * CHANNELS // 16):
        scores, error = explained(features, weights, limits, memory)
        scored |= scores.scored
    assert scored.mean() > 0.6
    assert error < 0.1
