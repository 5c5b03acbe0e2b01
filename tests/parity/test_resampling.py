"""Upsampling of maps against PyTorch's interpolation."""

import numpy as np
import pytest
import torch

from ortcam.scoring.upsampling import upsample
from tests.common.tolerances import EPS


@pytest.mark.parametrize(
    ("h", "w", "height", "width"),
    [
        (7, 7, 224, 224),
        (13, 13, 224, 224),
        (14, 14, 224, 224),
        (1, 5, 31, 40),
        (2, 3, 17, 96),
        (9, 9, 9, 9),
        (10, 8, 299, 320),
    ],
)
def test_it_is_what_torch_interpolates_without_aligned_corners(h: int, w: int, height: int, width: int) -> None:
    maps = np.random.default_rng(0).normal(size=(4, h, w))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], (height, width), mode="bilinear", align_corners=False
    )[0].numpy()
    # The sums are made in float64; the weights of the samples, of which two and two are not zero, are float32.
    atol = 2 * EPS * np.abs(maps).max()
    np.testing.assert_allclose(upsample(maps, height, width), expected, rtol=0, atol=atol)
