"""`ortcam serve` as its users run it: flags, errors, signals, and an end that answers what was taken."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.cli.running import complaints, run
from tests.runtime.serve.faults.server import PATIENCE, Answer, Server, eventually, serving

from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli import main

EXACT = "/v1/models/shapes:explain?method=scorecam"
IMAGE = demo_image().read_bytes()


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.ortcam"], "'nowhere.ortcam': there is no such folder"),
        ([], "BUNDLE is missing"),
        (["shapes", "--name", "a", "--name", "b"], "2 names for 1 bundle"),
        (["shapes", "--limit", "pixels"], "--limit 'pixels': accepted is KEY=VALUE"),
        (["shapes", "--limit", "pixels=-1"], "limit pixels=-1: accepted is a whole number from 1"),
        (["shapes", "--token-file", "nowhere"], "token file nowhere: cannot be read"),
        (["shapes", "--config", "nowhere.toml"], "--config nowhere.toml: cannot be read"),
        (["shapes", "--host", "192.0.2.1"], "cannot be listened on"),
        (["shapes", "--log-file", "nowhere/log"], "nowhere/log: the log cannot be written there"),
        (["shapes", "--provider", "none"], "none"),
    ],
)
def test_what_is_wrong_ends_the_command_with_one_sentence(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STORAGE_URI", raising=False)
    assert main(["serve", *arguments, "--port", "0"]) == 2
    complaint = capsys.readouterr().err
    assert told in complaint
    assert len(complaint.splitlines()) == 1


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "shapes", "--port", str(port)]) == 2
    assert f"port {port}: cannot be listened on" in capsys.readouterr().err


def test_the_limits_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--limit", "help"]) == 0
    assert "pixels" in capsys.readouterr().out


WITHOUT = """
import sys
import ortcam, ortcam.cli
loaded = {"fastapi", "starlette", "uvicorn", "prometheus_client", "ortcam.serve"} & set(sys.modules)
assert not loaded, loaded
sys.modules["fastapi"] = None  # an import of it fails
sys.exit(ortcam.cli.main(["serve", "shapes"]))
"""


@pytest.mark.slow
def test_without_the_extra_the_command_says_how_to_install_it_and_the_library_needs_none_of_it() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("ortcam: `ortcam serve` needs fastapi, which is not installed: pip install")
    assert "[serve]" in line


def asking(server: Server, path: str) -> Callable[[], Answer]:
    """Ask in a thread; the function that is returned waits for the answer."""
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(server.ask(path, IMAGE)))
    thread.start()

    def answer() -> Answer:
        thread.join(PATIENCE)
        return found[0]

    return answer


def running(server: Server) -> bool:
    return server.metric("ortcam_queue_running", lane="masked") == 1


def ended(server: Server) -> int:
    return server.process.wait(PATIENCE)


@pytest.mark.long
def test_a_server_tells_its_address_and_ends_with_success(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_bundle) as server:
        assert server.ask("/v1/models").json() == {"models": ["tiny"]}
        server.process.send_signal(signal.SIGINT)
        assert ended(server) == 0
        events = [line["event"] for line in server.lines()]
    assert "listening" in events
    assert "ready" in events
    assert events[-1] == "ended"


@pytest.mark.long
def test_what_a_server_has_taken_is_answered_in_full_before_it_ends(tmp_path: Path) -> None:
    with serving(tmp_path, "shapes", "--drain-seconds", 250, "--limit", "seconds=250") as server:
        first = asking(server, EXACT)
        eventually(lambda: running(server), server)
        second = asking(server, EXACT)  # waits in the queue
        eventually(lambda: server.metric("ortcam_queue_waiting", lane="masked") == 1, server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.ask("/v2/health/ready").status == 503, server)
        late = server.ask(EXACT, IMAGE)
        assert late.status == 503
        assert int(late.headers["retry-after"]) > 0
        answers = [first(), second()]
        assert ended(server) == 0
    for answer in answers:
        assert answer.status == 200
        (explanation,) = answer.json()["explanations"]
        assert explanation["stats"]["simplified"] == []
        assert explanation["stats"]["scored_channels"] == explanation["stats"]["live_channels"]


@pytest.mark.long
def test_at_the_time_limit_the_best_map_is_the_answer(tmp_path: Path) -> None:
    with serving(tmp_path, "shapes", "--drain-seconds", 10) as server:
        answer = asking(server, EXACT + "&augment=8")
        eventually(lambda: running(server), server)
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0
    assert answer().status == 200
    (explanation,) = answer().json()["explanations"]
    assert explanation["stats"]["simplified"]


@pytest.mark.long
def test_a_second_signal_ends_at_once_and_clients_are_told(tmp_path: Path) -> None:
    with serving(tmp_path, "shapes", "--drain-seconds", 250) as server:
        answer = asking(server, EXACT + "&augment=8")
        eventually(lambda: running(server), server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.ask("/v2/health/ready").status == 503, server)
        server.process.send_signal(signal.SIGTERM)
        assert ended(server) == 0
    assert answer().status == 503
    assert answer().json() == {"error": "the server is stopping: try again"}


@pytest.mark.long
def test_a_job_is_kept_until_its_answer_is_fetched(tmp_path: Path) -> None:
    with serving(tmp_path, "shapes", "--drain-seconds", 250) as server:
        job = server.ask(EXACT + "&budget=64", IMAGE, Prefer="respond-async")
        assert job.status == 202
        server.process.send_signal(signal.SIGTERM)
        place = job.headers["location"]
        answers: list[Answer] = []

        def has_ended() -> bool:
            answers.append(server.ask(place, Prefer="wait=10"))
            return answers[-1].json()["state"] not in ("waiting", "running")

        eventually(has_ended, server)  # with the answer in it: the server may be gone at once
        assert answers[-1].json()["state"] == "done"
        assert answers[-1].json()["result"]["explanations"]
        assert ended(server) == 0


@pytest.mark.long
def test_a_job_whose_answer_is_an_image_is_kept_until_that_is_fetched(tmp_path: Path) -> None:
    with serving(tmp_path, "shapes", "--drain-seconds", 250) as server:
        job = server.ask("/v1/models/shapes:explain", IMAGE, Prefer="respond-async", Accept="image/png")
        place = job.headers["location"]
        eventually(lambda: server.ask(place).json()["state"] == "done", server)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.ask("/v2/health/ready").status == 503, server)
        assert server.ask(place).json()["result_url"] == place + "/result"
        assert server.ask(place + "/result").body.startswith(b"\x89PNG")
        assert ended(server) == 0


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_loads_a_changed_bundle_and_opens_the_log_anew(bundle_copy: Path, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    with serving(tmp_path, bundle_copy, "--log-file", log, "--name", "mine") as server:
        before = server.ask("/v2/models/mine").json()["versions"]
        log.rename(tmp_path / "rotated")
        manifest = bundle_copy / "bundle.json"
        manifest.write_text(manifest.read_text("utf-8").replace('"crane"', '"heron"', 1))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.ask("/v2/models/mine").json()["versions"] != before, server)
        after = server.ask("/v2/models/mine").json()["versions"]
        manifest.write_text("{}")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.metric("ortcam_model_reloads_total", outcome="failed") == 1, server)
        assert server.ask("/v2/models/mine").json()["versions"] == after
        assert server.ask("/v2/health/ready").status == 200
    assert '"the new bundle is served"' in log.read_text("utf-8")


@pytest.mark.long
def test_flags_of_kserve_and_the_token_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_URI", f"file://{bundle_path()}")
    monkeypatch.setenv("ORTCAM_TOKEN", "secret")
    flags = ["--model_name", "cat", "--http_port", "0", "--predictor_host", "cat.default", "--host", "127.0.0.1"]
    if Path("/mnt/models").is_dir():
        pytest.skip("this machine has /mnt/models")
    with serving(tmp_path, *flags) as server:
        assert server.ask("/v1/models").status == 401
        assert server.ask("/v1/models", Authorization="Bearer secret").json() == {"models": ["cat"]}


@pytest.mark.long
def test_a_broken_bundle_ends_the_server_with_one_sentence(bundle_copy: Path, tmp_path: Path) -> None:
    (bundle_copy / "bundle.json").write_text("{}")
    result = run("serve", bundle_copy, "--port", 0, "--log-file", tmp_path / "log", timeout=PATIENCE)
    assert result.returncode == 2
    (complaint,) = complaints(result)
    assert "bundle.json" in complaint


@pytest.mark.long
@pytest.mark.parametrize(
    ("head", "status"),
    [(b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"a" * 400_000, b"431"), (b"nothing of HTTP\r\n\r\n", b"400")],
)
def test_heads_that_are_too_large_or_no_http_are_refused(
    head: bytes, status: bytes, tiny_bundle: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, tiny_bundle) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(PATIENCE)
        for place in range(0, len(head), 8192):
            try:
                client.sendall(head[place : place + 8192])
            except OSError:
                break
        answer = _all_of(client)
        assert server.ask("/v2/health/live").status == 200
    assert not answer or answer.split(b" ")[1] == status
    assert server.process.returncode is not None


def _all_of(client: socket.socket) -> bytes:
    """What comes until the other side closes, or resets because of what it did not read."""
    answer = b""
    try:
        while part := client.recv(65536):
            answer += part
    except OSError:
        return answer
    return answer


@pytest.mark.long
def test_a_closed_pipe_for_its_log_harms_no_request(tiny_bundle: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with serving(tmp_path, tiny_bundle, errors=writer) as server:
            answers: list[Any] = [server.ask("/v1/models/tiny:predict", IMAGE).status for _ in range(3)]
    finally:
        os.close(writer)
    assert answers == [200, 200, 200]
