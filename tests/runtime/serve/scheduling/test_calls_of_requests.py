"""`Call`: deadlines count from the arrival, and a stop is heard by who runs and by who waits."""

import math
import time

import pytest

from ortcam.request import ExplainRequest
from ortcam.serve.scheduling.calls import Abandoned, Call, Why


def test_a_deadline_counts_from_the_arrival() -> None:
    call = Call(arrived=time.monotonic() - 1)
    call.expect(5000)
    assert 0 < call.seconds_left() <= 4
    request = call.within(ExplainRequest.of(method="scorecam", budget=0.5))
    assert 0 < (request.limits.deadline or 0) <= 4000
    assert request.limits.budget == 0.5
    assert not call.stopping()


def test_of_a_deadline_that_has_passed_the_least_is_left() -> None:
    call = Call(arrived=time.monotonic() - 1)
    call.expect(10)
    assert call.seconds_left() < 0
    assert call.within(ExplainRequest.of(method="scorecam")).limits.deadline == 1


def test_a_method_without_masks_gets_no_deadline() -> None:
    call = Call()
    call.expect(100)
    request = ExplainRequest.of(method="eigen-cam")
    assert call.within(request) is request
    call.expect(None)
    assert math.isinf(call.seconds_left())


def test_the_servers_own_limit_stops_it_but_is_no_deadline() -> None:
    call = Call(arrived=time.monotonic() - 61, seconds=60)
    request = ExplainRequest.of(method="scorecam")
    assert call.within(request) is request
    assert call.stopping()
    assert (call.why, call.abandoned) == ("time", False)
    call.progress(1, 10)  # the best map is still wanted


@pytest.mark.parametrize("why", ["gone", "cancelled"])
def test_an_abandoned_call_ends_at_the_next_run(why: Why) -> None:
    call = Call()
    call.progress(3, 10)
    call.stop(why)
    with pytest.raises(Abandoned) as raised:
        call.progress(4, 10)
    assert (raised.value.why, call.passes) == (why, 4)


def test_passes_of_several_images_add_up() -> None:
    call = Call()
    for made in (4, 8, 10, 2, 6):
        call.progress(made, 10)
    assert call.passes == 16


def test_who_listens_is_told_once_of_each_stop() -> None:
    call = Call()
    heard: list[Why] = []
    with call.on_stop(heard.append):
        call.stop("drain")
        call.stop("time")  # it ends early already
        call.stop("gone")
        call.stop("cancelled")  # nobody waits already
    call.stop("drain")
    assert heard == ["drain", "gone"]
    assert call.why == "gone"
    late: list[Why] = []
    with call.on_stop(late.append):
        assert late == ["gone"]
