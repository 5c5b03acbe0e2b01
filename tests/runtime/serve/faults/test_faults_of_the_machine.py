"""Full disks, closed pipes, broken bundles, and the end of the server: no accepted request goes without an answer."""

import contextlib
import json
import os
import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.common.images import encoded, photograph
from tests.conftest import reseal
from tests.runtime.serve.faults.right_answers import Right, right
from tests.runtime.serve.faults.server import Server, eventually, serving

from ortcam.bundle import MANIFEST_NAME
from ortcam.bundle.shipped import bundle_path

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]

PHOTOGRAPH = encoded(photograph(), "JPEG", quality=90)
full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is always full here")


@full_disk
def test_a_full_disk_for_the_log_costs_lines_and_no_request(tmp_path: Path, tiny_bundle: Path) -> None:
    with right(tiny_bundle, PHOTOGRAPH) as answers:
        with serving(tmp_path, tiny_bundle, "--log-file", "/dev/full") as server:
            _go_on(server, answers)
        with Path("/dev/full").open("w") as full, serving(tmp_path, tiny_bundle, errors=full) as server:
            _go_on(server, answers)


def test_a_closed_pipe_for_the_log_costs_lines_and_no_request(tmp_path: Path, tiny_bundle: Path) -> None:
    reads, writes = os.pipe()
    with right(tiny_bundle, PHOTOGRAPH) as answers, serving(tmp_path, tiny_bundle, errors=writes) as server:
        os.close(writes)
        os.close(reads)
        _go_on(server, answers)


def test_a_pipe_for_the_log_that_nobody_reads_holds_up_no_request(tmp_path: Path, tiny_bundle: Path) -> None:
    """It takes 64 KB; the lines of 1,000 requests are more."""
    reads, writes = os.pipe()
    try:
        with right(tiny_bundle, PHOTOGRAPH) as answers, serving(tmp_path, tiny_bundle, errors=writes) as server:
            with contextlib.closing(server.client()) as client:
                for _ in range(1000):
                    assert client.ask("/v1/models").status == 200
            _go_on(server, answers)
    finally:
        os.close(writes)
        os.close(reads)


def _go_on(server: Server, answers: Right) -> None:
    """Answer and refuse, load again, and end as it should."""
    answers.check_server(server)
    assert server.ask(answers.path(), b"no image").status in {415, 422}
    server.process.send_signal(signal.SIGHUP)
    answers.check_server(server)
    server.process.terminate()
    assert server.process.wait(60) == 0


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of Linux")
def test_a_server_without_files_to_open_goes_on_with_whom_it_has(tmp_path: Path, tiny_bundle: Path) -> None:
    """Connections that ask for nothing make room for others; a decoder that is killed meanwhile is replaced."""
    with right(tiny_bundle, PHOTOGRAPH) as answers, serving(tmp_path, tiny_bundle) as server:
        process = psutil.Process(server.process.pid)
        with contextlib.closing(server.client()) as client:
            assert client.ask("/v2/health/ready").status == 200
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 20, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
            with contextlib.ExitStack() as stack:
                crowd = [stack.enter_context(contextlib.closing(server.raw(b""))) for _ in range(100)]
                assert crowd[0].recv(1) == b""  # closed by the server, which has no files for so many
                answers.check(client.ask(answers.path(method="grad-cam"), PHOTOGRAPH), method="grad-cam")
                os.kill(server.decoders()[0], signal.SIGKILL)
                answer = client.ask(answers.path(method="grad-cam"), PHOTOGRAPH)
                assert answer.status in {200, 503}, answer.body
                assert client.ask("/v2/health/live").status == 200
        eventually(lambda: _answers(server), server)
        answers.check_server(server)
        assert all(line.startswith("{") for line in server.log.read_text("utf-8").splitlines())


def _answers(server: Server) -> bool:
    try:
        return server.ask("/v2/health/ready").status == 200
    except ConnectionError:
        return False


BREAKINGS = {
    "weights of other bytes": lambda bundle: _change(bundle, bundle / "weights.bin"),
    "a graph of other bytes": lambda bundle: _change(bundle, bundle / "head.onnx"),
    "a manifest that is no JSON": lambda bundle: (bundle / MANIFEST_NAME).write_text("{"),
    "a manifest that is empty": lambda bundle: (bundle / MANIFEST_NAME).write_text(""),
    "no folder": shutil.rmtree,
    "a file in its place": lambda bundle: (shutil.rmtree(bundle), bundle.write_text("no bundle")),
}


@pytest.mark.parametrize("breaking", BREAKINGS)
def test_a_broken_bundle_leaves_the_old_one_and_a_whole_one_takes_its_place(
    breaking: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny.ortcam")
    with right(tiny_bundle, PHOTOGRAPH) as answers, serving(tmp_path, bundle) as server:
        BREAKINGS[breaking](bundle)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.metric("ortcam_model_reloads_total", outcome="failed") == 1, server)
        answers.check_server(server)
        assert str(tmp_path) not in server.ask("/v2/models/tiny").body.decode()

        _replace(bundle, tiny_bundle)
        with right(bundle, PHOTOGRAPH) as others:
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: server.metric("ortcam_model_reloads_total", outcome="done") == 1, server)
            others.check_server(server)
            assert others.targets(method="grad-cam")[0]["label"].startswith("new ")


def test_a_bundle_that_is_watched_is_replaced_under_load_and_a_broken_one_is_not(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """Every answer is right by the old bundle or by the new one."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny.ortcam")
    with right(tiny_bundle, PHOTOGRAPH) as old, serving(tmp_path, bundle, "--watch") as server:
        _change(bundle, bundle / "weights.bin")
        eventually(lambda: server.metric("ortcam_model_reloads_total", outcome="failed") >= 1, server)
        old.check_server(server)
        with ThreadPoolExecutor(4) as pool:
            wanted = {"method": "grad-cam"}
            asked = [pool.submit(server.ask, old.path(**wanted), PHOTOGRAPH) for _ in range(300)]
            _replace(bundle, tiny_bundle)
            found = [one.result() for one in asked]
        with right(bundle, PHOTOGRAPH) as new:
            for answer in found:
                assert answer.status == 200, answer.body
                assert answer.json()["explanations"][0]["targets"] in (old.targets(**wanted), new.targets(**wanted))
            eventually(lambda: server.metric("ortcam_model_reloads_total", outcome="done") == 1, server)
            new.check_server(server)


def _change(bundle: Path, file: Path) -> None:
    """Break a file of a bundle whose manifest is a new one, as a copy that went wrong does."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with (bundle / MANIFEST_NAME).open("a") as manifest:
        manifest.write("\n")


def _replace(bundle: Path, original: Path) -> None:
    """Put a bundle with other labels into the place of one, as an export does: made elsewhere, then renamed."""
    made = shutil.copytree(original, bundle.with_name("made.ortcam"))
    manifest = json.loads((made / MANIFEST_NAME).read_text("utf-8"))
    manifest["labels"] = [f"new {number} {label}" for number, label in enumerate(manifest["labels"])]
    (made / MANIFEST_NAME).write_text(json.dumps(manifest))
    reseal(made)
    if bundle.is_dir():
        bundle.rename(bundle.with_name("old.ortcam"))
    else:
        bundle.unlink(missing_ok=True)
    made.rename(bundle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_every_request_that_was_accepted_is_answered_when_the_server_ends(number: int, tmp_path: Path) -> None:
    """Right, or refused with a word on when to try again; and the exact explanation that runs gives its best map."""
    with right(bundle_path(), PHOTOGRAPH) as answers, ThreadPoolExecutor(9) as pool:
        with serving(tmp_path, bundle_path(), "--drain-seconds", 8) as server:
            path = answers.path(method="scorecam", augment=8)
            running = pool.submit(server.ask, path, PHOTOGRAPH)
            eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 1, server)
            waiting = [pool.submit(server.ask, path, PHOTOGRAPH) for _ in range(3)]
            eventually(lambda: server.metric("ortcam_queue_waiting", lane="masked") == 3, server)
            quick = [pool.submit(_ask_until_the_end, server, answers) for _ in range(5)]
            eventually(lambda: server.metric("ortcam_explanations_total", method="grad-cam") >= 5, server)
            server.process.send_signal(number)
            assert server.process.wait(120) == 0
        told = [one.result() for one in (running, *waiting)]
        assert told[0].status == 200, told[0].body
        for answer in told[1:]:
            assert answer.status in {200, 503}, answer.body
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.error
        statuses = sum((one.result() for one in quick), Counter(answer.status for answer in told))
        logged = Counter(line["status"] for line in server.lines() if line.get("path", "").endswith(":explain"))
        assert statuses == logged  # what the server took, clients heard of
        assert statuses[200] >= 6


def _ask_until_the_end(server: Server, answers: Right) -> Counter[int]:
    """Ask over new connections until none is taken; how often each status was answered."""
    wanted, statuses = {"method": "grad-cam"}, Counter[int]()
    while True:
        with contextlib.closing(server.client()) as client:
            try:
                answer = client.ask(answers.path(**wanted), PHOTOGRAPH)
            except ConnectionError:  # refused, or taken by the system and never by the server
                return statuses
        statuses[answer.status] += 1
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            answers.check(answer, **wanted)
