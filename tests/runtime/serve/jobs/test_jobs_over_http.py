"""Jobs of a real server, over HTTP: what clients see when they wait, cancel, go away, or come in crowds."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.common.images import encoded, photograph
from tests.runtime.serve.faults.server import PATIENCE, Server, eventually, serving

from ortcam.bundle.shipped import bundle_path
from ortcam.serve.openapi.examples import EXAMPLES

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="signals and curl of POSIX")]

PHOTOGRAPH = encoded(photograph(), "JPEG", quality=90)
EXPLAIN = "/v1/models/shapes:explain"
QUICK, MASKED = f"{EXPLAIN}?method=recipro-cam", f"{EXPLAIN}?method=scorecam&budget=0.1"
LONG = f"{EXPLAIN}?method=scorecam&augment=32"  # minutes, if nobody stopped it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--limit", "queue=4", "--limit", "passes=1000000", "--limit", "seconds=86400")
    with serving(tmp_path_factory.mktemp("server"), bundle_path(), *limits) as found:
        yield found


def _submit(server: Server, path: str) -> str:
    answer = server.ask(path, PHOTOGRAPH, Prefer="respond-async", Content_Type="image/jpeg")
    assert answer.status == 202, answer.body
    return answer.headers["location"]


def _wait(server: Server, address: str) -> dict[str, Any]:
    while True:
        record: dict[str, Any] = server.ask(address, Prefer="wait=60").json()
        if record["state"] not in ("waiting", "running"):
            return record


def test_a_cancelled_job_frees_its_lane(server: Server) -> None:
    stopped = server.metric("ortcam_explanations_stopped_total", reason="cancelled")
    address = _submit(server, LONG)
    eventually(lambda: server.ask(address).json()["state"] == "running", server)
    answer = server.ask(address, method="DELETE")
    assert (answer.status, answer.json()["state"]) == (200, "cancelled")
    eventually(lambda: server.metric("ortcam_queue_running", lane="masked") == 0, server)
    assert server.metric("ortcam_explanations_stopped_total", reason="cancelled") == stopped + 1
    result = server.ask(f"{address}/result")
    assert (result.status, result.error) == (410, "the job was cancelled")
    assert server.ask(address, method="DELETE").status == 204
    assert server.ask(address).status == 404


def test_more_jobs_than_the_queue_has_places_are_all_done(server: Server) -> None:
    addresses = [_submit(server, MASKED) for _ in range(20)]
    results = [_wait(server, address) for address in addresses]
    assert [record["state"] for record in results] == ["done"] * 20
    maps = {json.dumps(record["result"]["explanations"][0]["targets"]) for record in results}
    assert len(maps) == 1
    eventually(lambda: server.metric("ortcam_jobs", state="done") == 20, server)
    assert server.metric("ortcam_jobs", state="running") == 0


def test_a_job_gives_the_answer_of_a_request_of_the_same_maps(server: Server) -> None:
    later = _wait(server, _submit(server, QUICK))["result"]
    now = server.ask(QUICK, PHOTOGRAPH, Content_Type="image/jpeg").json()
    assert later["explanations"][0]["targets"] == now["explanations"][0]["targets"]


def test_a_stream_shows_maps_with_a_falling_error_and_then_the_answer(server: Server) -> None:
    address = _submit(server, f"{EXPLAIN}?method=scorecam")
    text = server.ask(address, Accept="text/event-stream").body.decode()
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in text.strip().split("\n\n")]
    events = [event for event in events if "" not in event]  # comments, on a slow machine
    assert [event["event"] for event in events[:: len(events) - 1]] == ["state", "result"]
    previews = [json.loads(event["data"]) for event in events if event["event"] == "map"]
    scored = [preview["stats"]["scored_channels"] for preview in previews]
    assert scored == sorted(scored)
    assert len(previews) > 1
    last = json.loads(events[-1]["data"])["explanations"][0]
    assert last["targets"][0]["estimated_error"] == 0
    assert last["stats"]["scored_channels"] >= scored[-1]


def test_a_job_outlives_the_connection_that_asked_for_it(server: Server) -> None:
    client = server.client()
    answer = client.ask(MASKED, PHOTOGRAPH, Prefer="respond-async", Content_Type="image/jpeg")
    client.close()
    assert _wait(server, answer.headers["location"])["state"] == "done"


def test_the_server_waits_for_jobs_and_for_those_who_fetch_them(tmp_path: Path) -> None:
    with serving(tmp_path, bundle_path(), "--drain-seconds", "60") as server:
        address = _submit(server, f"{EXPLAIN}?method=scorecam")
        client = server.client()
        assert client.ask(address).status == 200
        server.process.send_signal(signal.SIGTERM)
        while (answer := client.ask(f"{address}/result", Prefer="wait=60")).status == 202:
            pass
        assert answer.status == 200
        assert answer.json()["explanations"][0]["targets"][0]["estimated_error"] == 0
        client.close()
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("operation", "name"), [(one, name) for one in EXAMPLES for name in EXAMPLES[one]])
def test_an_example_of_the_documentation_works(operation: str, name: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(PHOTOGRAPH)
    command = EXAMPLES[operation][name]
    if "ID" in command:
        address = _submit(server, QUICK)
        _wait(server, address)
        command = command.replace("ID", address.removeprefix("/jobs/"))
    command = command.replace("SERVER", f"http://127.0.0.1:{server.port}").replace("NAME", "shapes")
    command = command.replace("curl ", "curl -sS -w '%{stderr}%{http_code}' ")
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=True)
    assert done.stderr.decode() in ("200", "202" if operation == "explain" else "204")
    if "image/png" in command:
        assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")
    elif operation == "explain":
        assert b'"targets":' in done.stdout or b'"url":' in done.stdout
