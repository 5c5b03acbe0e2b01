"""The memory of a stream: what it gives back for the next frame, how it ages, and when it forgets."""

import numpy as np
import pytest

from ortcam.scoring.prediction.memory import CUT, Memory, moved_by
from ortcam.scoring.prediction.recalled import Before

CHANNELS, VALUES = 12, 5
ALL = np.arange(CHANNELS)


def features_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (CHANNELS, VALUES)).astype(np.float32)


def unit_of(features: np.ndarray) -> float:
    apart = ((features[:, None] - features) ** 2).sum(axis=-1)
    return float(np.median(apart[np.triu_indices(len(features), 1)]))


CHANGE = 0.01


def known(y: np.ndarray) -> Before:
    """Scored in this frame."""
    return Before(y, np.zeros(len(y)), np.zeros_like(y), np.full(y.shape[1], CHANGE))


def remembering(classes: tuple[int, ...] = (3,), order: np.ndarray = ALL) -> tuple[Memory, np.ndarray, np.ndarray]:
    """A memory of one frame, with its features and y."""
    features, memory = features_of(0), Memory()
    y = np.random.default_rng(1).uniform(0, 1, (len(order), len(classes)))
    memory.keep(classes, CHANNELS, order, features[order], known(y))
    return memory, features, y


def test_a_new_memory_says_nothing() -> None:
    features = features_of(0)
    assert Memory().empty
    assert Memory().before((3,), ALL, features, unit_of(features)) is None


def test_what_was_kept_comes_back_by_channel_in_the_order_of_the_next_frame() -> None:
    order = np.array([4, 1, 0, 9, 7, 2, 3, 11, 10, 8, 5])
    memory, features, y = remembering((3, 5), order)
    again = order[::-1]
    found = memory.before((5, 3), again, features[again], unit_of(features))
    assert found is not None
    np.testing.assert_array_equal(found.y, y[::-1, ::-1])
    np.testing.assert_array_equal(found.age, 1)
    np.testing.assert_allclose(found.open, CHANGE)


def test_a_channel_that_was_flat_was_never_scored() -> None:
    memory, features, y = remembering(order=ALL[:-1])
    found = memory.before((3,), ALL, features, unit_of(features))
    assert found is not None
    assert found.y[-1] == pytest.approx(y.mean())
    assert found.age[-1] == np.inf
    assert found.age[0] == 1


def test_what_moved_more_than_most_is_known_less() -> None:
    memory, features, y = remembering()
    unit = unit_of(features)
    step = np.full((CHANNELS, 1), np.sqrt(0.01 * unit / VALUES), np.float32)  # all by 0.01, but two
    step[2], step[5] = 2 * step[2], 40 * step[5]
    found = memory.before((3,), ALL, features + step, unit)
    assert found is not None
    np.testing.assert_array_equal(found.y, y)
    assert found.age[2] == pytest.approx(4, rel=1e-3)
    assert found.age[5] == pytest.approx(100, rel=1e-3)  # as a mask that has nothing in common with what it was
    np.testing.assert_allclose(np.delete(found.age, [2, 5]), 1, atol=1e-3)
    np.testing.assert_allclose(found.open[:, 0], CHANGE * found.age)


def test_a_cut_is_forgotten_and_a_slow_change_is_not() -> None:
    memory, features, _ = remembering()
    near = features + np.float32(0.05) * features_of(2)
    far = features_of(3)
    unit = unit_of(features)
    assert moved_by(near, features, unit) < CUT < moved_by(far, features, unit_of(far))
    assert memory.before((3,), ALL, near, unit) is not None
    assert memory.before((3,), ALL, far, unit_of(far)) is None
    assert memory.empty
    assert memory.before((3,), ALL, near, unit) is None


def test_another_model_has_nothing_in_common() -> None:
    assert moved_by(np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32), 1.0) == np.inf
    assert moved_by(np.zeros((3, 4), np.float32), np.full((3, 4), np.nan, np.float32), 1.0) == np.inf


def test_a_class_that_was_not_explained_is_not_remembered_and_ages_where_it_was() -> None:
    memory, features, y = remembering((3,))
    unit = unit_of(features)
    assert memory.before((4,), ALL, features, unit) is None
    assert memory.before((3, 4), ALL, features, unit) is None
    for _ in range(2):
        memory.keep((4,), CHANNELS, ALL, features, known(y))
    found = memory.before((3, 4), ALL, features, unit)
    assert found is not None
    assert set(found.age) == {3}  # the older of the two
    np.testing.assert_allclose(found.open[0], [3 * CHANGE, CHANGE])
    for _ in range(20):
        memory.keep((4,), CHANNELS, ALL, features, known(y))
    assert memory.before((3,), ALL, features, unit) is None


def test_frames_of_which_nothing_is_kept_make_all_older() -> None:
    memory, features, _ = remembering()
    memory.skip()
    memory.skip()
    found = memory.before((3,), ALL, features, unit_of(features))
    assert found is not None
    assert set(found.age) == {3}


def test_few_remembered_channels_are_too_few() -> None:
    memory, features, _ = remembering(order=ALL[:3])
    assert memory.before((3,), ALL, features, unit_of(features)) is None
