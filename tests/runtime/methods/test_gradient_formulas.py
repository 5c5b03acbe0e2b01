"""The formulas of the gradient methods by hand, and the identities that hold between them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.common.tolerances import sums_apart

from ortcam.methods.gradient_formulas import (
    SmoothGradCamPlusPlus,
    Weighed,
    finer_seeds,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)

# Two channels of 2 x 2 positions, and the gradients of one class.
MAPS = np.array([[[1, 0], [2, 0]], [[0, 3], [0, 1]]], np.float32)
GRADIENTS = np.array([[[[1, -1], [2, 0]], [[-2, 0], [4, 2]]]], np.float32)

CLASSES, CHANNELS, HEIGHT, WIDTH = 3, 7, 4, 5
FORMULAS = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "hires-cam": hires_cam,
}


def random_arrays(*, signed: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    gradients = generator.standard_normal((CLASSES, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    return (maps if signed else np.maximum(maps, 0)), gradients


def test_grad_cam_weighs_by_the_mean_of_the_gradient() -> None:
    raw, weights = grad_cam(MAPS, GRADIENTS)
    np.testing.assert_array_equal(weights, [[0.5, 1]])
    np.testing.assert_array_equal(raw, [0.5 * MAPS[0] + MAPS[1]])


def test_grad_cam_plus_plus_weighs_positions_of_positive_gradient() -> None:
    """By hand, position by position: g / (2 + sum(A) g) where g > 0."""
    raw, weights = grad_cam_plus_plus(MAPS, GRADIENTS)
    first = 1 / (2 + 3 * 1) + 2 / (2 + 3 * 2)
    second = 4 / (2 + 4 * 4) + 2 / (2 + 4 * 2)
    np.testing.assert_allclose(weights, [[first, second]], rtol=1e-15)
    maps = MAPS.astype(np.float64)
    np.testing.assert_allclose(raw, [first * maps[0] + second * maps[1]], rtol=1e-15)


def test_grad_cam_plus_plus_passes_over_a_denominator_that_vanishes() -> None:
    """With sum(A) = -4 and g = 1/2 the denominator is 0; the other positions keep their share."""
    maps = np.array([[[-4, 0]]], np.float32)
    gradients = np.array([[[[0.5, 0.25]]]], np.float32)
    with np.errstate(all="raise"):
        _, weights = grad_cam_plus_plus(maps, gradients)
    np.testing.assert_allclose(weights, [[0.25 / (2 - 4 * 0.25)]])


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_nothing_and_no_gradient_give_an_empty_map_without_a_warning(formula) -> None:
    maps, gradients = random_arrays()
    with np.errstate(all="raise"):
        for raw, weights in (formula(0 * maps, gradients), formula(maps, 0 * gradients)):
            assert not raw.any()
            assert np.isfinite(weights).all()


def test_xgrad_cam_weighs_by_the_features() -> None:
    _, weights = xgrad_cam(MAPS, GRADIENTS)
    np.testing.assert_allclose(weights, [[(1 * 1 + 2 * 2) / 3, (4 * 0 + 2 * 1) / 4]])
    _, weights = xgrad_cam(MAPS, GRADIENTS, epsilon=1)
    np.testing.assert_allclose(weights, [[(1 * 1 + 2 * 2) / 4, (4 * 0 + 2 * 1) / 5]])


def test_layer_cam_and_hires_cam_weigh_each_position() -> None:
    raw, weights = layer_cam(MAPS, GRADIENTS)
    np.testing.assert_array_equal(raw, [[[1, 0], [4, 2]]])
    assert weights.shape == (1, 2)
    assert not weights.any()
    raw, weights = hires_cam(MAPS, GRADIENTS - 4)
    np.testing.assert_array_equal(raw, [[[-3, -12], [-4, -2]]])
    assert not weights.any()


@pytest.mark.parametrize("signed", [False, True])
def test_xgrad_cam_and_hires_cam_conserve_the_gradient_times_the_features(signed: bool) -> None:
    """The axiom that XGrad-CAM was made for: the sum of the map is sum(g A), and so it is of HiResCAM's."""
    maps, gradients = random_arrays(signed=signed)
    total = (gradients.astype(np.float64) * maps).sum(axis=(1, 2, 3))
    for formula in (xgrad_cam, hires_cam):
        np.testing.assert_allclose(formula(maps, gradients)[0].sum(axis=(1, 2)), total, rtol=1e-10)


def test_a_gradient_that_is_the_same_everywhere_is_that_of_a_linear_head() -> None:
    """Then all but LayerCAM weigh channels, and Grad-CAM++ has a closed form."""
    maps, gradients = random_arrays()
    weights = gradients[:, :, 0, 0].astype(np.float64)
    flat = np.broadcast_to(gradients[:, :, :1, :1], gradients.shape).copy()
    cam = np.tensordot(weights, maps.astype(np.float64), axes=1)
    magnitude = np.tensordot(np.abs(weights), maps.astype(np.float64), axes=1)
    for formula in (grad_cam, xgrad_cam, hires_cam):
        np.testing.assert_allclose(formula(maps, flat)[0], cam, rtol=0, atol=sums_apart(CHANNELS, magnitude))
    positive = np.maximum(weights, 0)
    _, found = grad_cam_plus_plus(maps, flat)
    sums = maps.sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(found, HEIGHT * WIDTH * positive / (2 + weights * sums), rtol=1e-12)
    raw, _ = layer_cam(maps, flat)
    expected = np.tensordot(positive, maps.astype(np.float64), axes=1)
    np.testing.assert_allclose(raw, expected, rtol=0, atol=sums_apart(CHANNELS, magnitude))


@pytest.mark.parametrize("formula", [grad_cam, xgrad_cam, layer_cam, hires_cam])
@pytest.mark.parametrize("factor", [2.0**-70, 2.0**40])
def test_the_scale_of_the_logits_does_not_count(formula, factor: float) -> None:
    maps, gradients = random_arrays()
    scaled, _ = formula(maps, np.float32(factor) * gradients)
    np.testing.assert_allclose(scaled, factor * formula(maps, gradients)[0], rtol=1e-12)


def test_grad_cam_plus_plus_of_the_smallest_gradients_is_half_of_the_positive_ones() -> None:
    """There sum(A) g is nothing beside 2. g^2 and g^3 must not underflow before the division."""
    maps, gradients = random_arrays()
    small = np.float32(2.0**-90) * gradients
    _, weights = grad_cam_plus_plus(maps, small)
    expected = np.maximum(small, 0).sum(axis=(2, 3), dtype=np.float64) / 2
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_hires_cam_of_products_that_cancel_is_nothing() -> None:
    """As behind a LayerNorm alone: at each token the gradient is at right angles to the features."""
    maps, gradients = random_arrays(signed=True)
    exact = gradients.astype(np.float64)
    exact -= (exact * maps).sum(axis=1, keepdims=True) / (maps**2).sum(axis=0) * maps
    across = exact.astype(np.float32)
    assert (across.astype(np.float64) * maps).sum(axis=1).any(), "rounding is left"
    assert not hires_cam(maps, across)[0].any()
    raw, _ = hires_cam(maps, np.concatenate([across[:1], gradients[:1]]))
    assert [bool(one.any()) for one in raw] == [False, True]


def smoothed(maps: NDArray[np.float32], images: list[NDArray[np.float32]], *, epsilon: float = 0) -> Weighed:
    method = SmoothGradCamPlusPlus()
    for gradients in images:
        method.add(gradients)
    return method.weighed(maps, epsilon=epsilon)


def test_smooth_grad_cam_plus_plus_takes_the_means_of_the_powers() -> None:
    maps, gradients = random_arrays()
    other = gradients[::-1].copy()
    once, _ = grad_cam_plus_plus(maps, gradients, epsilon=0.1)
    thrice, _ = smoothed(maps, [gradients] * 3, epsilon=0.1)
    np.testing.assert_allclose(thrice, once, rtol=1e-12)
    _, weights = smoothed(maps, [gradients, other])
    a, b = gradients.astype(np.float64), other.astype(np.float64)
    first, second, third = ((a**power + b**power) / 2 for power in (1, 2, 3))
    sums = maps.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    expected = (second / (2 * second + sums * third) * np.maximum(first, 0)).sum(axis=(2, 3))
    np.testing.assert_allclose(weights, expected, rtol=1e-10)


# Finer-CAM ------------------------------------------------------------------------------------------------------------

LOGITS = np.array([5, 1, 4, 2, 9], np.float32)


def seeds(target: int, strength: float = 0.6, references: int = 3, weighting: str = "mean") -> NDArray[np.float32]:
    targets = np.array([target])
    return finer_seeds(LOGITS, targets, strength=strength, references=references, weighting=weighting)[0]  # type: ignore[arg-type]


def test_finer_cam_subtracts_the_classes_of_the_closest_logits() -> None:
    np.testing.assert_allclose(seeds(0, references=1), [1, 0, -0.6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(seeds(0), [1, 0, -0.2, -0.2, 0] - np.array([0, 0.2, 0, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(seeds(4, strength=1, references=2), [-0.5, 0, -0.5, 0, 1])


def test_finer_cam_without_anything_to_compare_is_grad_cam() -> None:
    np.testing.assert_array_equal(seeds(3, strength=0), [0, 0, 0, 1, 0])
    alone = finer_seeds(np.ones(1, np.float32), np.array([0]), strength=1, references=3, weighting="probability")
    np.testing.assert_array_equal(alone, [[1]])


def test_finer_cam_takes_all_others_where_there_are_fewer() -> None:
    np.testing.assert_array_equal(seeds(0, strength=1, references=100), [1, -0.25, -0.25, -0.25, -0.25])


@pytest.mark.parametrize("target", range(5))
def test_finer_cam_by_probability_is_the_derivative_of_its_score(target: int) -> None:
    """By central differences in float64, with the classes that are compared held fast."""
    strength, similar = 0.8, np.argsort(np.abs(LOGITS - LOGITS[target]), kind="stable")[1:4]

    def score(logits: NDArray[np.float64]) -> float:
        p = np.exp(logits - logits.max())
        return float(p[similar] @ (logits[target] - strength * logits[similar]) / p[similar].sum())

    step = 1e-6 * np.eye(5)
    expected = [(score(LOGITS + step[i]) - score(LOGITS - step[i])) / 2e-6 for i in range(5)]
    np.testing.assert_allclose(seeds(target, strength, 3, "probability"), expected, rtol=0, atol=1e-6)
