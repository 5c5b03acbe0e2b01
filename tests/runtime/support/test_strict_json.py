"""JSON is parsed strictly, and the same whether other threads run meanwhile or not."""

import json
import sys
import types

import pytest

from ortcam.support.strict_json import parse_json

GOOD = [
    "1",
    ' "text" ',
    "[]",
    "{}",
    '{"a": [1, -2.5e3, "x\\u00e9\\n", true, false, null, {"b": []}]}',
    '[[[[[[1, 2], [3]]], {"a": {"b": {"c": {"d": [[1]]}}}}]]]',
    " [ 1 , [ ] , { } ] ",
]
BAD = [
    "",
    " ",
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,]",
    "[1 2]",
    "{",
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,}',
    "{a:1}",
    '{"a" 1}',
    "[1]]",
    "[NaN]",
    "[-Infinity]",
    "[1e999]",
    '{"a": 1, "a": 2}',
    '[[[[[[{"a": 1, "a": 2}]]]]]]',
    '["\n"]',
    "nul",
    "[01]",
    "\ud800",
]


@pytest.mark.parametrize("text", GOOD)
def test_threads_that_share_parse_the_same(text: str) -> None:
    assert parse_json(text, sharing=True) == parse_json(text) == json.loads(text)
    assert parse_json(text.encode(), sharing=True) == json.loads(text)


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("text", [*BAD, *(text[:cut] for text in GOOD[4:6] for cut in range(1, len(text)))])
def test_threads_that_share_refuse_the_same(text: str) -> None:
    with pytest.raises(ValueError) as alone:  # noqa: PT011 - the same message is what counts
        parse_json(text)
    with pytest.raises(ValueError) as sharing:  # noqa: PT011
        parse_json(text, sharing=True)
    assert str(sharing.value) == str(alone.value)


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("text", ["[" * 101 + "]" * 101, "[" * 100_000, '{"a":' * 100_000])
def test_what_is_nested_too_deeply_is_refused(text: str, sharing: bool) -> None:
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(text, sharing=sharing)
    assert parse_json("[" * 100 + "]" * 100, sharing=sharing)


@pytest.mark.parametrize(("sharing", "least", "most"), [(True, 200, 210), (False, 0, 0)])
def test_python_is_in_between_where_threads_share(sharing: bool, least: int, most: int) -> None:
    """Threads take turns between steps of Python: a step per row, whose pixels are parsed as one."""
    text = json.dumps({"instances": [{"data": [[[1, 2, 3]] * 50] * 200}]})
    steps = []

    def note(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_scan":
            steps.append(event)

    sys.setprofile(note)
    try:
        parse_json(text, sharing=sharing)
    finally:
        sys.setprofile(None)
    assert least <= len(steps) <= most
