"""Processes that decode may be killed at any moment, and images may be bombs: the server answers every request."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from tests.common.images import encoded, photograph
from tests.hostile.images import BOMBS
from tests.runtime.serve.faults.right_answers import Right, right
from tests.runtime.serve.faults.server import Server, eventually, serving

from ortcam.bundle.shipped import bundle_path

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]

PHOTOGRAPH = encoded(photograph(), "JPEG", quality=90)
QUICK = {"method": "grad-cam"}
LARGEST_BODY = 40_000_000  # bytes; more than twice the server's limit, beyond which it may hang up


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), bundle_path(), "--decoders", 2) as found:
        yield found


@pytest.fixture(scope="module")
def answers() -> Iterator[Right]:
    with right(bundle_path(), PHOTOGRAPH) as found:
        yield found


def test_requests_survive_decoders_that_are_killed_in_mid_request(server: Server, answers: Right) -> None:
    """Stopped first, so that they are killed while they are asked."""
    before = server.decoders()
    assert len(before) == 2
    replaced = server.metric("ortcam_decoders_replaced_total", reason="died")
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask, answers.path(**QUICK), PHOTOGRAPH) for _ in range(4)]
        eventually(lambda: server.metric("ortcam_requests_running", kind="explain") == 4, server)
        assert not any(one.done() for one in asked)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        for one in asked:
            answers.check(one.result(), **QUICK)
    assert not set(before) & set(server.decoders())
    assert server.metric("ortcam_decoders_replaced_total", reason="died") == replaced + 2
    answers.check_server(server)


def test_every_request_is_answered_while_decoders_are_killed_again_and_again(server: Server, answers: Right) -> None:
    """As soon as an image has been read, so that some are read however long a process takes to start."""
    done = threading.Event()

    def made() -> float:
        return server.metric("ortcam_explanations_total", method="grad-cam")

    def kill() -> int:
        killed, last = 0, made()
        while not done.wait(0.05):
            if (now := made()) == last:
                continue
            last = now
            for pid in server.decoders():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed

    with ThreadPoolExecutor(5) as pool:
        killing = pool.submit(kill)
        asked = [pool.submit(server.ask, answers.path(**QUICK), PHOTOGRAPH) for _ in range(100)]
        found = [one.result() for one in asked]
        done.set()
        assert killing.result() > 0
    for answer in found:
        if answer.status == 200:
            answers.check(answer, **QUICK)
        else:
            assert answer.status == 503
            assert "try again" in answer.error
            assert int(answer.headers["retry-after"]) >= 1
    assert any(answer.status == 200 for answer in found)
    answers.check_server(server)


def test_health_and_models_are_answered_while_no_image_can_be_decoded(server: Server, answers: Right) -> None:
    stopped = server.decoders()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.ask, answers.path(**QUICK), PHOTOGRAPH) for _ in range(2)]
        eventually(lambda: server.metric("ortcam_requests_running", kind="explain") == 2, server)
        for path in ("/v2/health/live", "/v2/health/ready", "/v1/models", "/v1/models/shapes", "/metrics"):
            assert server.ask(path).status == 200
        assert not any(one.done() for one in asked)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for one in asked:
            answers.check(one.result(), **QUICK)


@pytest.mark.parametrize("form", sorted({bomb.name.partition("-")[0] for bomb in BOMBS}))
def test_a_bomb_is_one_refused_request(form: str, server: Server, answers: Right) -> None:
    for bomb in (bomb for bomb in BOMBS if bomb.name.startswith(f"{form}-") and not bomb.tail):
        content = bomb.make()
        if len(content) > LARGEST_BODY:
            continue
        answer = server.ask(answers.path(**QUICK), content, Content_Type="application/octet-stream")
        assert answer.status in {200, 400, 413, 415, 422}, (bomb.name, answer.body)
        if answer.status != 200:
            assert "max-pixels" not in answer.error, bomb.name  # what a client cannot change
        assert server.alive()
    answers.check_server(server)


def test_decoders_end_with_a_server_that_is_killed(tmp_path) -> None:
    with serving(tmp_path, bundle_path()) as server:
        (pid,) = server.decoders()
        decoder = psutil.Process(pid)
        server.process.kill()
        server.process.wait()
        decoder.wait(60)
        assert not decoder.is_running()
