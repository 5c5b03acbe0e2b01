"""Masks of maps that are nearly flat."""

import numpy as np

from ortcam.methods import resolve_method
from ortcam.scoring.masks import prepare_masks


def test_maps_that_differ_by_a_rounding_give_masks_that_are_numbers() -> None:
    """Bilinear upsampling from 5 to 7 need not reach the one value that differs."""
    generator = np.random.default_rng(0)
    maps = np.broadcast_to(generator.uniform(0.1, 10, (200, 1, 1)).astype(np.float32), (200, 5, 5)).copy()
    places = generator.integers(0, 5, (200, 2))
    maps[np.arange(200), places[:, 0], places[:, 1]] = np.nextafter(maps[:, 0, 0], np.float32(0))
    masks = prepare_masks(maps, resolve_method("scorecam", {}).plan, height=7, width=7)
    assert 0 < len(masks.order) < 200
    assert np.isfinite(masks.maps).all()
