"""Frames scored one after the other with a memory: smaller errors for the same passes, and what a deadline leaves."""

import numpy as np
import pytest
from tests.runtime.scoring.prediction.frames import PLAN, SIDE
from tests.runtime.scoring.prediction.frames import explained as explained_frame

from ortcam.scoring.budget import rounds_of
from ortcam.scoring.gaussian_process import MaskModel, prediction_work
from ortcam.scoring.limits import Limits
from ortcam.scoring.masks import gated_masks, prepare_masks
from ortcam.scoring.pace import Pace, Work
from ortcam.scoring.prediction.memory import Memory
from ortcam.scoring.scores import Scores

CHANNELS, SIZE, FRAMES = 160, 7, 5
ROUND = 64  # of 160 channels: in three frames all were scored


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
    return explained_frame(features_of(frame), weights_of(frame), limits, memory, target)


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


@pytest.mark.parametrize("recalls", [True, False])
def test_the_pace_of_predictions_counts_recalled_channels_only_where_they_count(
    recalls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, memory = Limits(budget=ROUND), Memory()
    explained(0, limits, memory)
    done: list[float] = []

    def took(_: Pace, work: Work, units: float, __: float) -> None:
        if work == "predict":
            done.append(units)

    monkeypatch.setattr(Pace, "took", took)
    told = features_of(1)[:, 2:5, 1:4].mean(axis=(1, 2))[None].astype(float)  # by the masks, and by no frame before
    explained_frame(features_of(1), weights_of(1) if recalls else told, limits, memory)
    alone = {prediction_work(scored, CHANNELS) for scored in range(CHANNELS)}
    assert done
    assert all((units in alone) is not recalls for units in done)


@pytest.mark.parametrize("limits", [Limits(deadline=1e6), Limits(budget=CHANNELS)], ids=["deadline", "budget"])
def test_a_frame_with_all_passes_is_remembered_exactly(limits: Limits) -> None:
    memory = Memory()
    explained(0, limits, memory)
    assert not memory.empty
    assert explained(1, Limits(budget=24), memory)[1] < 0.5 * explained(1, Limits(budget=24), None)[1]


def test_a_class_that_is_not_remembered_starts_cold() -> None:
    memory, limits = Memory(), Limits(budget=48)
    explained(0, limits, memory)
    np.testing.assert_array_equal(explained(1, limits, memory, 1)[0].weights, explained(1, limits, None)[0].weights)


def test_a_cut_to_a_frame_with_all_passes_makes_all_classes_forgotten() -> None:
    memory, limits = Memory(), Limits(budget=CHANNELS)
    explained(0, limits, memory, 1)
    explained(0, limits, memory, 0)
    assert memory.before([1], *_seen(features_of(0))) is not None
    others = features_of(0)[::-1].copy()
    explained_frame(others, weights_of(0), limits, memory, 0)
    assert memory.before([1], *_seen(others)) is None
    assert memory.before([0], *_seen(others)) is not None


@pytest.mark.parametrize("limits", [Limits(budget=200), Limits(tolerance=0.05), Limits(deadline=10)])
def test_rounds_pay_for_the_same_warm_and_cold(limits: Limits) -> None:
    cold, warm = rounds_of(limits, 1000), rounds_of(limits, 1000, warm=True)
    assert sum(cold) == sum(warm)
    assert warm[0] == cold[0] / 2


def test_half_of_a_small_budget_is_left_for_what_the_first_round_tells() -> None:
    assert rounds_of(Limits(budget=16), 1000, warm=True)[0] == 8
    assert rounds_of(Limits(budget=16), 1000) == [16]


def test_a_frame_whose_channels_are_all_flat_makes_what_is_known_older() -> None:
    memory, limits = Memory(), Limits(budget=CHANNELS)
    explained(0, limits, memory)
    flat = np.zeros((CHANNELS, SIZE, SIZE), np.float32)
    explained_frame(flat, weights_of(0), limits, memory)
    found = memory.before([0], *_seen(features_of(0)))
    assert found is not None
    assert set(found.age) == {2}


def _seen(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The active channels of a frame, the features of their masks, and how far these are apart."""
    masks = prepare_masks(features, PLAN, height=SIDE, width=SIDE)
    model = MaskModel(gated_masks(masks, PLAN)[masks.order])
    return masks.order, model.features, model.unit
