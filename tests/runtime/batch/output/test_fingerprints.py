"""Fingerprints: which differences are found, and how they are told."""

from typing import Any

import pytest

from ortcam.batch.output.fingerprints import differences
from ortcam.errors import NotFiniteError

OLD: dict[str, Any] = {
    "method": "scorecam",
    "options": {"weighting": "probability"},
    "limits": {"budget": 0.5},
    "top_k": 1,
}


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ({}, []),
        ({"options": {"weighting": "logit"}}, ['options.weighting was "probability", now "logit"']),
        (
            {"method": "cam", "options": {}, "limits": None},
            ['method was "scorecam", now "cam"', "limits.budget was 0.5, now none"],
        ),
        (
            {"limits": {"budget": 64, "deadline": 5.0}},
            ["limits.budget was 0.5, now 64", "limits.deadline was none, now 5.0"],
        ),
        ({"map_shape": (7, 7)}, ["map_shape was none, now [7, 7]"]),
        ({"note": "x" * 100}, [f'note was none, now "{"x" * 76}...']),
    ],
)
def test_each_difference_is_told(new: dict[str, Any], told: list[str]) -> None:
    assert differences(OLD, {**OLD, **new}) == told


def test_a_tuple_is_the_list_that_json_has() -> None:
    assert differences({"target": ["dog", 3]}, {"target": ("dog", 3)}) == []


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(NotFiniteError):
        differences(OLD, {"budget": float("inf")})
