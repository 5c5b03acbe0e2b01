"""Batches on a cluster whose machines come and go, and a driver that is killed: two nodes and more on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.common.batches import draw_images, in_process, table_of
from tests.common.ray_here import ENVIRONMENT

import ortcam
from ortcam.bundle.shipped import bundle_path

pytestmark = pytest.mark.long

COUNT = 24
GUARD = 600.0  # seconds, for what does not come
# Parts of few images, so that a kill comes between two of them.
COMMAND = "import ortcam.batch.output.parts as p; p.MOST_IMAGES = 4; import sys, ortcam.cli as c; sys.exit(c.main())"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, as Kubernetes has them."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@contextlib.contextmanager
def driver_of(folder: Path, output: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is killed if the test fails."""
    command = ["batch", str(bundle_path()), str(folder), "-o", str(output), "--method", "scorecam++"]
    command += ["--budget", "128", "--batch-size", "4", "--resume", "--engine", "ray", "--ray-address", address]
    with subprocess.Popen([sys.executable, "-c", COMMAND, *command], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_parts(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    guard = threading.Event()
    timer = threading.Timer(GUARD, guard.set)
    timer.start()
    try:
        while len(list(output.glob("*.parquet"))) < count:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert not guard.wait(0.05)
    finally:
        timer.cancel()


def test_drivers_and_nodes_are_killed_and_no_image_is_lost_or_twice(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "images", tmp_path / "out"
    draw_images(folder, COUNT)

    with driver_of(folder, output, cluster.address) as driver:  # waits for a node that has CPUs
        first = cluster.add_node(num_cpus=1)
        wait_for_parts(output, 2, driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    before = {path.name: path.read_bytes() for path in output.glob("*.parquet")}

    with driver_of(folder, output, cluster.address) as driver:
        wait_for_parts(output, len(before) + 1, driver)
        cluster.remove_node(first, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, errors = driver.communicate(timeout=GUARD)
        assert driver.returncode == 0, errors
    assert before.items() <= {path.name: path.read_bytes() for path in output.glob("*.parquet")}.items()

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)
    ortcam.batch.run(bundle_path(), folder, tmp_path / "local", method="scorecam++", budget=128, batch_size=4)
    tables = [table_of(place).drop_columns(["seconds"]) for place in (output, tmp_path / "local")]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == COUNT
