"""Colours, blends, and what is done to the part of a photograph that the model did not see."""

import numpy as np
import pytest

from ortcam.errors import ImageError, OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import (
    BEGIN,
    COLORMAPS,
    FULL,
    Rendering,
    dimmed,
    draw_map,
    heatmap,
    opacity,
    overlay,
    smoothed,
)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)


def test_jet_runs_from_blue_to_red_in_rgb():
    colours = heatmap(np.array([[0, 0.5, 1]], np.float32), "jet")
    assert colours.dtype == np.uint8
    assert colours[0].argmax(axis=1).tolist() == [2, 1, 0]


def test_viridis_is_matplotlibs():
    ends = heatmap(np.array([[0, 1]], np.float32), "viridis")
    np.testing.assert_allclose(ends[0].astype(int), [[68, 1, 84], [253, 231, 37]], atol=1)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_a_colormap_is_drawn_and_clips_what_is_outside(colormap):
    np.testing.assert_array_equal(
        heatmap(np.array([[-3, 7]], np.float32), colormap), heatmap(np.array([[0, 1]], np.float32), colormap)
    )
    assert len(np.unique(heatmap(ramp(16, 16), colormap).reshape(-1, 3), axis=0)) > 200


def test_an_unknown_colormap_is_answered_with_the_known_ones():
    with pytest.raises(OptionError, match=r"'hot'.*turbo, viridis, jet"):
        heatmap(ramp(2, 2), "hot")


def test_the_flat_blend_gives_the_heatmap_one_weight():
    image, saliency = noise(20, 30), ramp(20, 30)
    np.testing.assert_array_equal(overlay(image, saliency, blend="flat", alpha=0), image)
    np.testing.assert_array_equal(overlay(image, saliency, blend="flat", alpha=1), heatmap(saliency))
    expected = 0.7 * image + 0.3 * heatmap(saliency, "jet")
    result = overlay(image, saliency, alpha=0.3, colormap="jet", blend="flat")
    np.testing.assert_allclose(result.astype(float), expected, atol=0.51)


def test_a_photograph_is_untouched_where_the_map_is_low_and_most_covered_where_it_is_high():
    image, saliency = noise(40, 50), ramp(40, 50)
    result = overlay(image, saliency)
    np.testing.assert_array_equal(result[saliency <= BEGIN], image[saliency <= BEGIN])
    full = saliency >= FULL
    expected = 0.35 * image + 0.65 * heatmap(saliency)
    np.testing.assert_allclose(result[full].astype(float), expected[full], atol=1)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_opacity_never_falls_as_the_map_rises(alpha):
    rise = opacity(np.linspace(-1, 2, 3001, dtype=np.float32), alpha)
    assert (np.diff(rise) >= 0).all()
    assert (rise[0], rise[-1]) == (0, np.float32(alpha))


def test_what_is_not_covered_is_dimmed_or_left_alone():
    image, saliency = noise(20, 30), ramp(20, 30)
    covered = np.zeros((20, 30), bool)
    covered[5:9, 3:20] = True
    for blend, outside in (("rising", dimmed(image)), ("flat", image)):
        result = overlay(image, saliency, blend=blend, covered=covered)
        np.testing.assert_array_equal(result[~covered], outside[~covered])
        np.testing.assert_array_equal(result[covered], overlay(image, saliency, blend=blend)[covered])
    assert dimmed(image).mean() < 0.7 * image.mean()


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (90, 90), (3, 400)])
@pytest.mark.parametrize("grey", [0, 255])
def test_the_crop_is_framed_where_the_photograph_goes_on(size, grey):
    geometry = Preprocessing(32, 32, 36, (0.5,) * 3, (0.5,) * 3).geometry(*size)
    image = np.full((*size, 3), grey, np.uint8)
    nothing = np.zeros((32, 32), np.float32)
    result = draw_map(image, nothing, geometry, cells=(4, 4), rendering=Rendering())
    top, left, bottom, right = geometry.seen()
    np.testing.assert_array_equal(result[top:bottom, left:right], image[top:bottom, left:right])
    for y, x in ((top - 1, (left + right) // 2), ((top + bottom) // 2, left - 1)):
        assert min(y, x) < 0 or (result[y, x] == 255).all()
    former = draw_map(image, nothing, geometry, cells=(4, 4), rendering=Rendering("jet", "flat", 0.0))
    np.testing.assert_array_equal(former, image)


def test_a_map_is_smoothed_without_moving_and_keeps_its_range():
    coarse = np.zeros((7, 7), np.float32)
    coarse[2, 4] = 1
    saliency = np.kron(coarse, np.ones((32, 32), np.float32))
    soft = smoothed(saliency, (32, 32))
    assert soft.max() == 1
    assert soft.min() == 0
    assert np.abs(np.diff(soft, axis=0)).max() < 0.1 < np.abs(np.diff(saliency, axis=0)).max()
    rows, columns = (np.average(np.arange(224), weights=soft.sum(axis=axis)) for axis in (1, 0))
    assert abs(rows - (2.5 * 32 - 0.5)) < 0.5
    assert abs(columns - (4.5 * 32 - 0.5)) < 0.5
    np.testing.assert_array_equal(smoothed(np.zeros((9, 9), np.float32), (3, 3)), np.zeros((9, 9), np.float32))


@pytest.mark.parametrize("given", [{"blend": "rise"}, {"colormap": "hot"}, {"alpha": 2}, {"alpha": float("nan")}])
def test_a_rendering_that_is_not_accepted_is_refused(given):
    with pytest.raises(OptionError, match="accepted is"):
        Rendering(**given)


def test_an_overlay_leaves_its_inputs_alone():
    image, saliency = noise(20, 30), ramp(20, 30)
    copies = image.copy(), saliency.copy()
    overlay(image, saliency, covered=saliency > 0.5)
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(saliency, copies[1])


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_the_unit_interval_is_refused(alpha):
    with pytest.raises(OptionError, match="alpha="):
        overlay(noise(2, 2), ramp(2, 2), alpha=alpha)


def test_a_map_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ImageError, match=r"map is \[3, 2\], but the image is \[2, 2\]"):
        overlay(noise(2, 2), ramp(3, 2))
    with pytest.raises(ImageError, match="covered"):
        overlay(noise(2, 2), ramp(2, 2), covered=np.ones((3, 2), bool))
    with pytest.raises(ImageError, match=r"\[1, 2, 2\]"):
        heatmap(ramp(2, 2)[None])
