"""Counts and times in words, as their examples show them."""

import doctest

import pytest

from ortcam.support import words


def test_the_examples_are_what_comes_out() -> None:
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.994, "0.99 s"), (9.949, "9.9 s"), (9.95, "10 s"), (59.6, "1 min"), (599, "9 min 59 s"), (3599, "1 h 0 min")],
)
def test_a_duration_keeps_its_unit_until_it_is_rounded_up(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said
