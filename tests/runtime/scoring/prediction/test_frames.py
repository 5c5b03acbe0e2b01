"""Frames scored one after the other with a memory: smaller errors for the same passes, and what a deadline leaves."""

import time
from typing import Any

import numpy as np
import pytest

from ortcam.engine.batching import BatchSizer
from ortcam.methods import resolve_method
from ortcam.scoring.budget import rounds_of, score
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.maps import finish, raw_maps
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.prediction.memory import Memory
from ortcam.scoring.scores import Scores

CHANNELS, SIZE, SIDE, FRAMES = 160, 7, 28, 5
ROUND = 64  # of 160 channels: in three frames all were scored
PLAN = resolve_method("scorecam", {}).plan
assert PLAN is not None


class Scorer:
    """A scorer that knows every weight, [K,C]."""

    fixed_shape = on_gpu = False
    providers = ()

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights.astype(np.float32)
        self._channels = np.zeros(0, np.int64)

    def put(self, name: str, value: np.ndarray) -> None:
        if name == "channels":
            self._channels = value

    def run(self) -> tuple[np.ndarray, ...]:
        probabilities = self._weights[:, self._channels].T
        return probabilities, np.zeros_like(probabilities)


def features_of(frame: int) -> np.ndarray:
    """Blobs that move by a tenth of a cell per frame: float32 [160,7,7]."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = generator.uniform(0, SIZE - 1, (2, CHANNELS, 1, 1))
    spread = generator.uniform(0.8, 2.5, (CHANNELS, 1, 1))
    blobs = np.exp(-((y - centre[0]) ** 2 + (x - centre[1] - 0.1 * frame) ** 2) / (2 * spread**2))
    result: np.ndarray = blobs.astype(np.float32)
    return result


def weights_of(frame: int) -> np.ndarray:
    """Weights that no mask tells, and that change by a little per frame: float64 [1,160] in (0,1]."""
    y = np.random.default_rng(1).uniform(0.1, 0.9, CHANNELS)
    for number in range(1, frame + 1):
        y = y + np.random.default_rng(100 + number).normal(0, 0.01, CHANNELS)
    return np.clip(y, 0.01, 1)[None] ** 4


def explained(frame: int, limits: Limits, memory: Memory | None, target: int = 0) -> tuple[Scores, float]:
    """The scores of a frame, and the largest error of its map."""
    masks = prepare_masks(features_of(frame), PLAN, height=SIDE, width=SIDE)
    scorer: Any = Scorer(weights_of(frame))
    scoring = Scoring(
        scorer,
        image=np.zeros((1, 3, SIDE, SIDE), np.float32),
        masks=masks,
        plan=PLAN,
        targets=np.array([target]),
        baseline=np.zeros(1, np.float32),
        sizer=BatchSizer((8,), fixed_shape=False),
    )
    *_, scores = score(scoring, limits, started=time.perf_counter(), memory=memory)
    raw = np.tensordot(weights_of(frame), masks.features.astype(np.float64), axes=1)
    maps = [finish(values, SIDE, SIDE)[0] for values in (raw_maps(masks, PLAN, scores), raw)]
    return scores, float(np.abs(maps[0] - maps[1]).max())


def test_a_warm_start_has_smaller_errors_for_the_same_passes_and_says_so() -> None:
    limits, memory = Limits(budget=ROUND), Memory()
    cold = [explained(frame, limits, None) for frame in range(FRAMES)]
    warm = [explained(frame, limits, memory) for frame in range(FRAMES)]
    assert warm[0][1] == cold[0][1]
    assert {scores.passes for scores, _ in warm} == {ROUND}
    assert max(error for _, error in warm[3:]) < 0.5 * min(error for _, error in cold)
    for scores, error in warm:
        assert scores.error is not None
        assert error <= scores.error[0]


def test_a_tolerance_takes_fewer_passes_warm() -> None:
    limits, memory = Limits(tolerance=0.1), Memory()
    cold = [explained(frame, limits, None)[0].passes for frame in range(FRAMES)]
    warm = [explained(frame, limits, memory) for frame in range(FRAMES)]
    assert sum(scores.passes for scores, _ in warm[1:]) < 0.7 * sum(cold[1:])
    assert all(error <= 0.1 for _, error in warm)


def test_where_there_is_no_time_to_predict_the_frame_before_stands_in() -> None:
    memory = Memory()
    for frame in range(3):
        explained(frame, Limits(budget=ROUND), memory)
    hurried = Limits(deadline=0.001)
    scores, error = explained(3, hurried, memory)
    assert scores.simplified[0] == "weights that were not scored: those of the frame before, not predicted"
    assert scores.error is not None
    assert scores.error[0] == 1
    alone, error_alone = explained(3, hurried, None)
    assert alone.simplified[0] == "weights that were not scored: the mean of those scored, not predicted"
    assert error < error_alone
    limits = Limits(budget=ROUND)  # what was known before is still known
    assert explained(4, limits, memory)[1] < 0.5 * explained(4, limits, None)[1]


def test_a_frame_with_all_passes_is_remembered_exactly() -> None:
    memory = Memory()
    explained(0, Limits(deadline=1e6), memory)
    assert not memory.empty
    assert explained(1, Limits(budget=24), memory)[1] < 0.5 * explained(1, Limits(budget=24), None)[1]


def test_a_class_that_is_not_remembered_starts_cold() -> None:
    memory, limits = Memory(), Limits(budget=48)
    explained(0, limits, memory)
    np.testing.assert_array_equal(explained(1, limits, memory, 1)[0].weights, explained(1, limits, None)[0].weights)


@pytest.mark.parametrize("limits", [Limits(budget=200), Limits(tolerance=0.05), Limits(deadline=10)])
def test_rounds_pay_for_the_same_warm_and_cold(limits: Limits) -> None:
    cold, warm = rounds_of(limits, 1000), rounds_of(limits, 1000, warm=True)
    assert sum(cold) == sum(warm)
    assert warm[0] == cold[0] / 2
