"""Letters of pictures: none is cut off, what is too wide is shortened, and what the fonts lack is told apart."""

import cv2
import numpy as np
import pytest

from ortcam.results.lettering import ascent, can_draw, draw, fitted, line_height, width

LONG = "gypsy quay, a label that no column has room for " * 4


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("weight", ["regular", "bold"])
@pytest.mark.parametrize("size", [11.0, 17.3, 40.0])
@pytest.mark.parametrize("text", ["jgpqy|_@(Q)", "WWWWWW", "ÅÉǴj", "猫 東京 고양이", "Żółć Ελλάδα Привет"])
def test_a_text_stays_in_its_line(text: str, size: float, weight: str) -> None:
    wide = width(text, size, weight)
    canvas = np.full((line_height(size), int(wide) + 12, 3), 255, np.uint8)
    end = draw(canvas, text, left=6, baseline=ascent(size), size=size, weight=weight)
    assert end == pytest.approx(6 + wide)
    assert canvas.min() < 100
    for edge in (canvas[0], canvas[-1], canvas[:, :3], canvas[:, -3:]):
        assert (edge == 255).all()


def test_edges_are_smooth_and_ink_has_its_colour() -> None:
    canvas = np.full((60, 60, 3), 255, np.uint8)
    draw(canvas, "O", left=5, baseline=50, size=50, ink=(200, 0, 0), weight="bold")
    assert ((canvas == (200, 0, 0)).all(axis=2)).any()
    assert len(np.unique(canvas[..., 1])) > 10


def test_letters_have_their_holes() -> None:
    canvas = np.full((110, 90, 3), 255, np.uint8)
    draw(canvas, "O", left=5, baseline=95, size=100)
    middle = canvas[58, 5 + int(width("O", 100) / 2)]
    assert (middle == 255).all()


def test_strokes_that_cross_leave_no_hole() -> None:
    canvas = np.full((330, 260, 3), 255, np.uint8)
    draw(canvas, "&", left=10, baseline=270, size=300)
    parts = cv2.connectedComponents((canvas[..., 0] > 127).astype(np.uint8), connectivity=4)[0] - 1
    assert parts == 3  # around it, and its two eyes


@pytest.mark.parametrize("room", [0, 3, 20, 100, 333])
def test_a_text_is_shortened_to_its_room(room: int) -> None:
    short = fitted(LONG, room, 14)
    assert width(short, 14) <= room
    assert short.endswith("…") or short == ""
    assert fitted("cat", 100, 14) == "cat"


def test_what_the_fonts_lack_is_drawn_as_boxes() -> None:
    assert can_draw("Übergröße 猫 고양이")
    assert not can_draw("قطة")
    assert width("قطة", 10) > 0


def test_text_beside_the_picture_is_cut_off_and_not_refused() -> None:
    canvas = np.full((10, 10, 3), 255, np.uint8)
    for left, baseline in ((-500, 5), (500, 5), (0, -500), (0, 500)):
        draw(canvas, "cat", left=left, baseline=baseline, size=12)
    assert (canvas == 255).all()
    draw(canvas, "\ta\nb\x00\u202e", left=-2, baseline=9, size=12)
    assert (canvas < 255).any()


@pytest.mark.parametrize("left", [-500.0, -20.0, 95.0, 1e6])
def test_letters_over_the_edge_change_no_others(left: float) -> None:
    canvas = np.full((40, 100, 3), 255, np.uint8)
    draw(canvas, "edge", left=left, baseline=30, size=30)
    wide = np.full((40, 100 + 2000, 3), 255, np.uint8)
    draw(wide, "edge", left=min(left, 500) + 1000, baseline=30, size=30)
    np.testing.assert_array_equal(canvas, wide[:, 1000:1100])
