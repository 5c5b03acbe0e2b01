"""Refusals: whose fault an error is decides its status, and no path of the machine leaves it."""

import pytest

from ortcam import errors
from ortcam.serve.http.refusals import Refusal, refusal_of

PATH = "/srv/models/resnet18.ortcam/head.onnx"
OF_REQUESTS = {errors.ImageError, errors.NotFiniteError, errors.OptionError, errors.TargetError}
ALL = [kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), errors.OrtcamError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_of_the_library_has_a_status(kind: type[errors.OrtcamError]) -> None:
    refusal = refusal_of(kind(f"{PATH}: is wrong"))
    if kind in OF_REQUESTS:
        assert refusal.status == 422
    else:
        assert refusal.status in (500, 503)
        assert PATH not in refusal.message
    assert (refusal.status == 503) == (refusal.retry_after is not None)


@pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (1.0, "1"), (2.3, "3")])
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    assert Refusal(429, "full", retry_after=seconds).headers == {"Retry-After": header}
    assert Refusal(429, "full").headers == {}
