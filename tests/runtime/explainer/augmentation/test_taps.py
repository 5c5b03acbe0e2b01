"""Bilinear sampling: the values of upsampling at the centres of the pixels, and a transpose that is one."""

import numpy as np
import pytest

from ortcam.explainer.augmentation.taps import Points, Taps, grid
from ortcam.scoring import upsample


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 4), (20, 30)])
def test_at_the_centres_of_the_pixels_it_is_what_upsampling_gives(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).standard_normal((4, *size))
    sampled = Taps.of(grid(20, 30), *size).sample(maps).reshape(4, 20, 30)
    # upsampling has its weights in float32: each is off by half a unit of 1, and four values are added.
    atol = 4 * np.finfo(np.float32).eps * np.abs(maps).max()
    np.testing.assert_allclose(sampled, upsample(maps, 20, 30), rtol=0, atol=atol)


def test_at_the_centres_of_its_own_cells_a_plane_is_itself() -> None:
    maps = np.random.default_rng(1).standard_normal((2, 6, 9)).astype(np.float32)
    np.testing.assert_allclose(Taps.of(grid(6, 9), 6, 9).sample(maps).reshape(maps.shape), maps, rtol=1e-5, atol=1e-5)


def test_spreading_is_the_transpose_of_sampling() -> None:
    generator = np.random.default_rng(2)
    points = Points(generator.uniform(-0.2, 1.2, 50), generator.uniform(-0.2, 1.2, 50))
    taps = Taps.of(points, 5, 8)
    planes, values = generator.standard_normal((3, 5, 8)), generator.standard_normal((3, 50))
    one = (taps.sample(planes) * values).sum(axis=1)
    other = (planes.reshape(3, -1) * taps.spread(values)).sum(axis=1)
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_beyond_an_edge_the_edge_goes_on() -> None:
    planes = np.arange(12.0).reshape(1, 3, 4)
    corners = Points(np.array([-3.0, 9.0]), np.array([-3.0, 9.0]))
    assert Taps.of(corners, 3, 4).sample(planes).tolist() == [[0.0, 11.0]]
    assert corners.inside.tolist() == [False, False]


def test_some_of_the_points_have_their_own_taps() -> None:
    generator = np.random.default_rng(3)
    taps, planes = Taps.of(grid(4, 4), 3, 3), generator.standard_normal((2, 3, 3))
    which = generator.random(16) < 0.5
    np.testing.assert_array_equal(taps.chosen(which).sample(planes), taps.sample(planes)[:, which])
