"""docs/deploy/ray_serve.py under Ray Serve: the same routes, and the library's answers."""

import base64
import contextlib
import http.client
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.common.tolerances import maps_apart
from tests.conftest import REPOSITORY
from tests.foreign.conftest import CLIENTS
from tests.runtime.serve.faults.server import PATIENCE, Client

from ortcam import Explainer
from ortcam.bundle.shipped import demo_image

pytestmark = pytest.mark.long


def free_port() -> int:
    """Ray takes no 0."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def port(foreign: Path, tmp_path: Path) -> Iterator[int]:
    """Where Ray Serve listens."""
    chosen = free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # sockets have short names
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": short,
            "RAY_USAGE_STATS_ENABLED": "0",
            # On a machine that is busy, Ray gives up after half a minute.
            "RAY_gcs_server_request_timeout_seconds": str(int(PATIENCE)),
            "RAY_raylet_start_wait_time_s": str(int(PATIENCE)),
        }
        log = tmp_path / "ray.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [str(foreign), str(CLIENTS / "ray_host.py"), str(REPOSITORY / "docs" / "deploy"), str(chosen)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        try:
            assert process.stdout is not None
            # A host that never serves is ended, and the last line is read.
            guard = threading.Timer(2 * PATIENCE, process.kill)
            guard.start()
            lines = iter(process.stdout.readline, "")
            begun = any("serving" in line for line in lines)
            guard.cancel()
            assert begun, log.read_text()[-2000:]
            yield chosen
        finally:
            try:
                process.communicate("", PATIENCE)
            finally:
                process.kill()
                process.wait()


def test_ray_serve_gives_what_the_library_gives(port: int, explainer: Explainer) -> None:
    expected = explainer.explain(demo_image(), method="scorecam", budget=0.1, batch_size=8)
    with contextlib.closing(Client(port)) as client:
        assert client.ask("/v2/health/ready").json() == {"ready": True}, "Ray waits for the models"
        assert client.ask("/v1/models").json() == {"models": ["shapes"]}
        path = "/v1/models/shapes:explain?method=scorecam&budget=0.1&batch_size=8&map=full"
        answer = client.ask(path, demo_image().read_bytes(), Content_Type="image/png")
        assert answer.status == http.client.OK, answer.body
        (target,) = answer.json()["explanations"][0]["targets"]
        assert target["index"] == expected.targets[0]
        found = np.frombuffer(base64.b64decode(target["map"]["b64"]), "<f4").reshape(target["map"]["shape"])
        tolerance = maps_apart(explainer.classify(demo_image())[0], expected.stats.channels)
        np.testing.assert_allclose(found, expected.maps[0], rtol=0, atol=tolerance)
        refused = client.ask("/v1/models/shapes:explain?method=guess", demo_image().read_bytes())
        assert refused.status == http.client.UNPROCESSABLE_ENTITY
        assert "guess" in refused.error
        job = client.ask("/v1/models/shapes:explain", demo_image().read_bytes(), Prefer="respond-async")
        assert job.status == http.client.ACCEPTED
        done = client.ask(job.headers["location"], Prefer=f"wait={PATIENCE:.0f}").json()
        assert done["state"] == "done", done
