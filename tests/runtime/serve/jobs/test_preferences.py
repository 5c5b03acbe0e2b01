"""What the headers `Prefer` and `Accept` ask for, in all the ways that clients write them."""

import pytest
from starlette.requests import Request

from ortcam.serve.jobs.asking import Preferences, wants_stream


def _request(name: str, *values: str) -> Request:
    return Request({"type": "http", "headers": [(name.encode(), value.encode()) for value in values]})


@pytest.mark.parametrize(
    ("values", "asynchronous", "wait"),
    [
        ([], False, 0),
        (["respond-async"], True, 0),
        (["Respond-Async , wait=5"], True, 5),
        (['wait="5"', "respond-async; foo=bar"], True, 5),
        (["wait=2, wait=7"], False, 2),  # the first counts
        (["wait=999999999"], False, 60),
        (["wait=9999999999"], False, 0),
        (["wait=-1"], False, 0),
        (["wait=1.5"], False, 0),
        (["wait=\u0663"], False, 0),
        (["wait"], False, 0),
        (["respond-asynchronously"], False, 0),
        ([";;,,=;"], False, 0),
    ],
)
def test_a_preference_is_read_or_left_out(values: list[str], asynchronous: bool, wait: float) -> None:
    assert Preferences.of(_request("prefer", *values)) == Preferences(asynchronous, wait)


@pytest.mark.parametrize(
    ("accept", "stream"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        ("text/event-stream-of-another-kind", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_a_stream_is_for_those_who_name_it(accept: str, stream: bool) -> None:
    assert wants_stream(_request("accept", accept)) is stream
