"""Colours, blends and figures."""

import cv2
import numpy as np
import pytest

from ortcam.errors import ImageError, OptionError
from ortcam.rendering import COLORMAPS, _line, figure, heatmap, overlay


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)


def test_jet_runs_from_blue_to_red_in_rgb():
    colours = heatmap(np.array([[0, 0.5, 1]], np.float32))
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
    with pytest.raises(OptionError, match=r"'hot'.*jet, turbo, viridis"):
        heatmap(ramp(2, 2), "hot")


def test_alpha_is_the_weight_of_the_heatmap():
    image, saliency = noise(20, 30), ramp(20, 30)
    np.testing.assert_array_equal(overlay(image, saliency, alpha=0), image)
    np.testing.assert_array_equal(overlay(image, saliency, alpha=1), heatmap(saliency))
    expected = 0.7 * image + 0.3 * heatmap(saliency, "turbo")
    result = overlay(image, saliency, alpha=0.3, colormap="turbo")
    np.testing.assert_allclose(result.astype(float), expected, atol=0.51)


def test_pixels_that_are_not_covered_stay_as_in_the_photograph():
    image, saliency = noise(20, 30), ramp(20, 30)
    covered = np.zeros((20, 30), bool)
    covered[5:9, 3:20] = True
    result = overlay(image, saliency, covered=covered)
    np.testing.assert_array_equal(result[~covered], image[~covered])
    np.testing.assert_array_equal(result[covered], overlay(image, saliency)[covered])


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


LONG = "A caption that is much longer than any panel is wide, gypsy quay " * 4


@pytest.mark.parametrize("panel_height", [32, 100, 300])
@pytest.mark.parametrize("caption", ["Input", LONG, f"{LONG}\n{LONG}", "猫 é …", ""])
@pytest.mark.parametrize("size", [(1, 1), (375, 500), (500, 20), (20, 2000)])
def test_nothing_of_a_figure_reaches_into_its_margin(size, caption, panel_height):
    white = np.full((*size, 3), 255, np.uint8)
    result = figure([(caption, white), ("next", white)], title=LONG, panel_height=panel_height)
    assert result.dtype == np.uint8
    assert result.shape[0] >= panel_height
    margin = np.ones(result.shape[:2], bool)
    margin[17:-17, 17:-17] = False
    assert (result[margin] == 255).all()


@pytest.mark.parametrize("font", [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX])
@pytest.mark.parametrize("scale", [0.45, 0.55, 0.75])
@pytest.mark.parametrize("text", ["jgpqy|_@(Q)", "WWWWWW", "ÅÉj猫", "SS-CAM 0.931", "/\\f", LONG])
def test_text_is_not_cut_off(text, scale, font):
    line = _line(text, 400, scale, font, (0, 0, 0))
    assert line.shape[1] <= 400
    assert line.min() < 128
    for edge in (line[0], line[-1], line[:, -1]):
        assert (edge > 200).all()


def test_a_caption_that_is_too_long_ends_in_dots_before_the_next_panel():
    white = np.full((100, 100, 3), 255, np.uint8)
    result = figure([(LONG, white), ("", white)], panel_height=150)
    caption = result[18:40]
    ink = np.flatnonzero((caption < 128).any(axis=(0, 2)))
    first_panel = 18 + 152
    assert ink.max() < first_panel
    # The dots sit on the line: their columns have ink in the lower half only.
    last = caption[:, ink.max()]
    assert (last[: len(last) // 2] > 128).all()


def test_panels_keep_their_colours_and_proportions():
    red = np.zeros((50, 100, 3), np.uint8)
    red[..., 0] = 200
    result = figure([("red", red)], panel_height=120)
    found = (result == (200, 0, 0)).all(axis=2)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (len(rows), len(columns)) == (120, 240)
    assert found.sum() == 120 * 240


@pytest.mark.parametrize(("panels", "columns", "rows"), [(5, None, 1), (6, None, 2), (5, 2, 3), (1, 4, 1)])
def test_panels_are_set_in_rows(panels, columns, rows):
    black = np.zeros((40, 40, 3), np.uint8)
    result = figure([("", black)] * panels, columns=columns, panel_height=200)
    inside = (result == 0).all(axis=2).any(axis=1)
    assert np.count_nonzero(np.diff(inside.astype(int)) == 1) == rows


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"panels": []}, "at least one panel"),
        ({"panels": [("a", noise(4, 4))], "columns": 0}, "columns=0"),
        ({"panels": [("a", noise(4, 4))], "panel_height": 8}, "panel_height=8"),
    ],
)
def test_a_figure_that_cannot_be_set_is_refused(arguments, named):
    with pytest.raises(OptionError, match=named):
        figure(**arguments)


def test_a_panel_that_is_no_rgb_picture_is_named():
    with pytest.raises(ImageError, match=r"'map'.*float32"):
        figure([("map", ramp(4, 4))])
