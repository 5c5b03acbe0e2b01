"""Warps: copies are what numpy makes of the image by other ways, and are drawn as the options say."""

import math

import numpy as np
import pytest

from ortcam.explainer.augmentation.taps import grid
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.methods import Augmentation

SEVERAL = Augmentation(10, scale=0.5, flip=True)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)


def warp(height: int, width: int, matrix: object, shift: tuple[float, float] = (0, 0)) -> Warp:
    return Warp(height, width, np.array(matrix, float), np.array(shift, float))


def test_the_first_copy_is_the_image_itself() -> None:
    first = draw_warp(SEVERAL, 0, 8, 8)
    assert first.is_identity
    np.testing.assert_allclose(first.copy(image(8, 8)), image(8, 8), rtol=1e-5, atol=1e-6)
    assert not any(draw_warp(SEVERAL, number, 8, 8).is_identity for number in range(1, 10))


def test_a_quarter_turn_a_mirror_and_a_shift_by_pixels_move_pixels() -> None:
    square, atol = image(8, 8), 1e-5  # values of 4 at most, weights off by 8 eps
    turned = warp(8, 8, [[0, 1], [-1, 0]]).copy(square)  # what was right is up
    np.testing.assert_allclose(turned, np.rot90(square, axes=(2, 3)), rtol=0, atol=atol)
    mirrored = warp(8, 6, [[-1, 0], [0, 1]]).copy(image(8, 6))
    np.testing.assert_allclose(mirrored, image(8, 6)[..., ::-1], rtol=0, atol=atol)
    shifted = warp(8, 6, np.eye(2), (2, -3)).copy(image(8, 6))
    expected = np.zeros_like(shifted)
    expected[..., :5, 2:] = image(8, 6)[..., 3:, :4]
    np.testing.assert_allclose(shifted, expected, rtol=0, atol=atol)


def test_twice_as_large_shows_the_middle() -> None:
    smooth = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 3, 16, 32))
    larger = warp(16, 32, 2 * np.eye(2)).copy(smooth)
    np.testing.assert_allclose(larger[0, 0, 5], 7.75 + np.arange(32) / 2, rtol=1e-5)


@pytest.mark.parametrize("number", range(1, 6))
def test_there_and_back_is_where_it_was(number: int) -> None:
    drawn, points = draw_warp(SEVERAL, number, 40, 30), grid(40, 30)
    back = drawn.to_image(drawn.to_copy(points))
    np.testing.assert_allclose([back.x, back.y], [points.x, points.y], rtol=0, atol=1e-12)


def test_copies_stay_in_the_ranges_and_fill_them() -> None:
    asked = Augmentation(400, rotation=0.5, shift=0.1, scale=0.25, flip=True)
    drawn = [draw_warp(asked, number, 100, 200) for number in range(1, 400)]
    determinants = np.array([np.linalg.det(item.matrix) for item in drawn])
    factors = np.sqrt(np.abs(determinants))
    assert 0.8 <= factors.min() < 0.82
    assert 1.22 < factors.max() <= 1.25
    assert abs((determinants < 0).mean() - 0.5) < 4 * math.sqrt(0.25 / 399)
    angles = np.array([math.atan2(item.matrix[1, 0], item.matrix[0, 0]) for item in drawn if item.matrix[0, 0] > 0])
    assert 0.48 < np.abs(angles).max() <= 0.5
    assert abs(angles.mean()) < 4 * 0.5 / math.sqrt(3 * len(angles))
    across, down = np.abs([item.shift for item in drawn]).max(axis=0)
    assert 19 < across <= 20
    assert 9.5 < down <= 10


def test_a_copy_depends_on_seed_and_number_alone() -> None:
    few, many = (Augmentation(count, seed=7) for count in (3, 50))
    other = Augmentation(3, seed=8)
    for number in (1, 2):
        np.testing.assert_array_equal(draw_warp(few, number, 9, 9).matrix, draw_warp(many, number, 9, 9).matrix)
        assert (draw_warp(few, number, 9, 9).shift != draw_warp(other, number, 9, 9).shift).all()


def test_no_range_no_move() -> None:
    still = draw_warp(Augmentation(5, rotation=0, shift=0), 3, 9, 9)
    assert still.is_identity
