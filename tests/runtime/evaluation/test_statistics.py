"""Intervals hold the mean as often as they say, and a method is better only where its interval says so."""

import numpy as np
import pytest
from scipy import stats

from ortcam.evaluation.metrics import METRICS, adcc
from ortcam.evaluation.statistics import adcc_intervals, differences, intervals

DROP = next(metric for metric in METRICS if metric.name == "average-drop")
GAIN = next(metric for metric in METRICS if metric.name == "average-gain")


@pytest.mark.slow
def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(0)
    samples = {str(index): generator.exponential(10, 60) for index in range(200)}
    held = [item.low <= 10 <= item.high for item in intervals(samples, seed=1).values()]
    assert 0.88 < np.mean(held) < 0.99


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_images_have_no_interval_and_make_nothing_better(count: int) -> None:
    values = np.arange(count, dtype=np.float64)
    (found,) = intervals({"a": values}, seed=0).values()
    assert (found.mean, found.low, found.high, found.n) == (values.mean(), None, None, count)
    assert differences({"a": values, "b": values + 9}, GAIN, seed=0)[0].better is None


def test_a_lower_drop_is_better_and_a_higher_gain() -> None:
    generator = np.random.default_rng(0)
    base = generator.uniform(0, 50, 80)
    values = {"low": base, "high": base + generator.normal(5, 2, 80)}
    (drop,) = differences(values, DROP, seed=0)
    (gain,) = differences(values, GAIN, seed=0)
    assert (drop.better, gain.better) == ("low", "high")
    assert drop.interval.high < 0
    assert drop.p < 1e-6
    assert drop.effect < -0.9


def test_the_same_values_differ_by_nothing() -> None:
    values = np.random.default_rng(0).uniform(size=30)
    (found,) = differences({"a": values, "b": values.copy()}, GAIN, seed=0)
    assert (found.interval.mean, found.p, found.effect, found.better) == (0, 1, 0, None)


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 50])
def test_noise_seldom_makes_a_method_better(count: int) -> None:
    # One time in twenty is nominal; a percentile bootstrap of ten images is too narrow, 8.5 % by 3000 runs.
    generator = np.random.default_rng(5)
    found = [
        differences({"a": generator.normal(size=count), "b": generator.normal(size=count)}, GAIN, seed=0)[0].better
        for _ in range(400)
    ]
    assert np.mean([better is not None for better in found]) <= 0.12


def test_p_is_scipys_and_adjusted_over_the_pairs() -> None:
    generator = np.random.default_rng(2)
    values = {name: generator.normal(shift, 1, 40) for name, shift in (("a", 0), ("b", 0.3), ("c", 1))}
    found = differences(values, GAIN, seed=0)
    assert [(item.first, item.second) for item in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    plain = [stats.wilcoxon(values[item.first], values[item.second]).pvalue for item in found]
    np.testing.assert_allclose([item.p for item in found], plain)
    np.testing.assert_allclose([item.p_adjusted for item in found], stats.false_discovery_control(plain))


def test_the_effect_is_the_share_of_ranks_for_less_that_against() -> None:
    # Differences 1, 2, -3: ranks 1 and 2 for the first, 3 against it.
    values = {"a": np.array([1.0, 2.0, 0.0]), "b": np.array([0.0, 0.0, 3.0])}
    assert differences(values, GAIN, seed=0)[0].effect == pytest.approx(0)
    values["b"] = np.array([0.0, 0.0, -3.0])
    assert differences(values, GAIN, seed=0)[0].effect == pytest.approx(1)


def test_adcc_is_that_of_the_means() -> None:
    generator = np.random.default_rng(0)
    parts = generator.uniform(10, 90, (3, 50))
    (found,) = adcc_intervals({"a": parts}, seed=0).values()
    assert found.mean == pytest.approx(adcc(*parts.mean(axis=1)))
    assert found.low < found.mean < found.high


def test_an_interval_without_the_test_makes_nothing_better() -> None:
    # Five large differences of one sign among many of the other: the mean says one thing, the ranks another.
    values = np.full(40, -1.0)
    values[:5] = 40.0
    values += np.random.default_rng(0).normal(0, 0.1, 40)
    (found,) = differences({"a": values, "b": np.zeros(40)}, GAIN, seed=0)
    assert found.interval.low > 0
    assert found.p_adjusted < 0.05
    assert found.effect < 0
    assert (found.better, found.worse, found.disagrees) == (None, None, True)


@pytest.mark.slow
def test_what_the_adjustment_takes_back_is_not_better() -> None:
    generator = np.random.default_rng(1)
    values = {"a": generator.normal(0, 1, 30)}
    values["b"] = values["a"] + generator.normal(0.42, 1, 30)
    (alone,) = differences(values, GAIN, seed=0)
    assert alone.better == "b"
    many = values | {f"c{index}": values["a"] + generator.normal(0, 1, 30) for index in range(8)}
    among = differences(many, GAIN, seed=0)[0]
    assert among.interval.low == alone.interval.low
    assert among.p_adjusted > 0.05 > among.p
    assert (among.better, among.disagrees) == (None, True)


def test_p_of_few_differences_with_ties_is_exact() -> None:
    # Five images of twelve on which one method gains and none on which the other does: 2 of 2^5 signs are as extreme.
    values = np.repeat([100.0, 0.0], [5, 7])
    (found,) = differences({"a": values, "b": np.zeros(12)}, GAIN, seed=0)
    assert found.p == pytest.approx(2 / 2**5)
    assert found.interval.low > 0
    assert found.better is None
