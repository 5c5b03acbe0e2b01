"""SS-CAM's noise: the numbers that its formula gives, Gaussian ones, and others for every sample and seed."""

import math

import numpy as np
import pytest
from scipy import stats
from tests.common.tolerances import EPS

from ortcam.scoring.noise import draw_noise, draw_uniform

COUNT = 40_000
SEEDS = (0, 1, 2, 7, 2**31, 2**32 - 1, 2**32, 2**64 + 1)


def in_whole_numbers(seed, sample, place):
    """One value, by the formula in the module's docstring, in Python's own integers."""

    def mix(x):
        x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
        x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
        return x ^ x >> 16

    key = 0
    words = [seed % 2**32]
    while seed := seed // 2**32:
        words.append(seed % 2**32)
    for word in (*words, sample):
        key = mix((key + 0x9E3779B9 + word) % 2**32)
    u, v = ((mix(mix(2 * place + turn) ^ key) // 2**9 + 0.5) / 2**23 for turn in (0, 1))
    return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sample", [0, 34])
def test_it_is_what_the_formula_says(seed, sample):
    noise = draw_noise(seed, sample, (1, 3, 20, 30))
    assert noise.dtype == np.float32
    flat = noise.ravel()
    # 2 pi v is rounded twice, 2 pi and the product: eps of at most 2 pi. The root, the logarithm and the cosine are off
    # by a few units in the last place, 4 in numpy's vector code, which depends on the processor. |n| is at most 5.8.
    atol = 5.8 * (2 * math.pi + 4) * EPS
    for place in (0, 1, 599, 1799):
        assert flat[place] == pytest.approx(in_whole_numbers(seed, sample, place), abs=atol)


def test_a_smaller_shape_is_the_beginning_of_a_larger_one():
    np.testing.assert_array_equal(draw_noise(3, 1, (5, 4)).ravel(), draw_noise(3, 1, (7, 9)).ravel()[:20])


@pytest.mark.slow
def test_it_is_gaussian():
    values = np.concatenate([draw_noise(0, sample, (COUNT,)) for sample in range(25)]).astype(np.float64)
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(stats.kurtosis(values)) < 4 * math.sqrt(24 / values.size)
    assert np.abs(values).max() < 5.8


@pytest.mark.slow
def test_samples_seeds_and_neighbours_are_independent():
    drawn = [draw_noise(seed, sample, (COUNT,)) for seed in SEEDS for sample in range(5)]
    correlations = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)] * math.sqrt(COUNT)
    assert np.abs(correlations).max() < 5
    assert correlations.std() == pytest.approx(1, abs=0.15)
    for lag in (1, 2, 3, 224):
        for power in (1, 2):
            values = drawn[0].astype(np.float64) ** power
            assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) * math.sqrt(COUNT) < 4


@pytest.mark.slow
def test_uniform_numbers_are_uniform_reproducible_and_not_those_of_the_noise():
    drawn = np.stack([draw_uniform(0, sample, 5) for sample in range(4000)])
    assert drawn.dtype == np.float64
    np.testing.assert_array_equal(drawn[7, :3], draw_uniform(0, 7, 3))
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    apart = 4 / math.sqrt(len(drawn))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < apart
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < apart
    noise = np.stack([draw_noise(0, sample, (5,)) for sample in range(4000)])
    assert np.abs(np.corrcoef(drawn.T, noise.T)[:5, 5:]).max() < apart
    assert (draw_uniform(1, 7, 5) != drawn[7]).all()
