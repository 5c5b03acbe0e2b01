"""Mean and maximum: maps come back to their place on the image, and what a copy does not show is left out."""

import numpy as np
import pytest

from ortcam.explainer.augmentation.combining import Maximum, Mean
from ortcam.explainer.augmentation.taps import Taps, grid
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.methods import Augmentation
from ortcam.scoring import upsample

HEIGHT, WIDTH = 48, 64
ASKED = Augmentation(12, scale=0.2, flip=True)
WARPS = [draw_warp(ASKED, number, HEIGHT, WIDTH) for number in range(ASKED.copies)]


def seen(warp: Warp, plane: np.ndarray) -> np.ndarray:
    """A map that moves with the image: what it is in a copy, at feature resolution."""
    points = warp.to_image(grid(12, 16))
    values = Taps.of(points, HEIGHT, WIDTH).sample(plane[None])
    values[:, ~points.inside] = 0
    return values.reshape(1, 12, 16)


@pytest.mark.parametrize("kind", [Mean, Maximum])
def test_a_map_of_ones_stays_one_up_to_the_edges(kind: type) -> None:
    combiner = kind()
    for warp in WARPS:
        combiner.add(np.ones((2, 6, 8)), warp)
    np.testing.assert_allclose(combiner.combined(), np.ones((2, HEIGHT, WIDTH)), rtol=0, atol=1e-12)


def test_of_the_image_alone_it_is_the_map_after_relu() -> None:
    raw = np.random.default_rng(0).standard_normal((3, 6, 8))
    expected = np.maximum(upsample(raw, HEIGHT, WIDTH), 0)
    for kind in (Mean, Maximum):
        combiner = kind()
        combiner.add(raw, WARPS[0])
        np.testing.assert_allclose(combiner.combined(), expected, rtol=0, atol=4e-7 * np.abs(raw).max())


def test_a_peak_comes_back_to_its_place() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    peak = np.exp(-((y - 20) ** 2 + (x - 28) ** 2) / 72.0)
    combiner = Mean()
    for warp in WARPS:
        combiner.add(seen(warp, peak), warp)
    found = combiner.combined()[0]
    assert np.hypot(*np.subtract(np.unravel_index(found.argmax(), found.shape), (20, 28))) <= 2
    assert np.corrcoef(found.ravel(), peak.ravel())[0, 1] > 0.97


def test_the_mean_is_of_the_copies_that_show_a_pixel() -> None:
    away = Warp(HEIGHT, WIDTH, np.eye(2), np.array([WIDTH / 2, 0.0]))  # shows the left half, at the right
    combiner = Mean()
    combiner.add(np.full((1, 1, 1), 2.0), WARPS[0])
    combiner.add(np.full((1, 1, 1), 4.0), away)
    combined = combiner.combined()[0]
    assert (combined[:, : WIDTH // 2] == 3).all()
    assert (combined[:, WIDTH // 2 :] == 2).all()
    largest = Maximum()
    largest.add(np.full((1, 1, 1), 2.0), WARPS[0])
    largest.add(np.full((1, 1, 1), 4.0), away)
    assert (largest.combined()[0, :, : WIDTH // 2] == 4).all()
    assert (largest.combined()[0, :, WIDTH // 2 :] == 2).all()
