"""Upsampling by matrices is bilinear interpolation, and the range of its result is known without doing it."""

import numpy as np
import pytest
from tests.common.tolerances import sums_apart

from ortcam.scoring.upsampling import bilinear_matrix, upsample, upsampled_range

SIZES = [
    (7, 7, 224, 224),
    (13, 13, 224, 224),
    (14, 14, 224, 224),
    (1, 5, 31, 40),
    (2, 3, 17, 96),
    (9, 9, 9, 9),
    (10, 8, 299, 320),
]


@pytest.mark.slow
@pytest.mark.parametrize(("h", "w", "height", "width"), SIZES)
def test_the_range_is_that_of_the_whole_upsampled_map(h: int, w: int, height: int, width: int) -> None:
    maps = np.random.default_rng(1).normal(size=(130, h, w)).astype(np.float32)
    whole = upsample(maps, height, width)
    low, high = upsampled_range(maps, height, width)
    atol = sums_apart(4, np.abs(maps))  # of two and two samples
    np.testing.assert_allclose(low, whole.min(axis=(1, 2)), rtol=0, atol=atol)
    np.testing.assert_allclose(high, whole.max(axis=(1, 2)), rtol=0, atol=atol)


def test_constants_are_preserved() -> None:
    np.testing.assert_allclose(bilinear_matrix(13, 224).sum(axis=1), 1, rtol=0, atol=sums_apart(2, 1))
