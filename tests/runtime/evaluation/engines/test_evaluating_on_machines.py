"""An evaluation on Ray while machines and the driver die: the journal has every map once, and nothing works on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tests.common.ray_here import ENVIRONMENT
from tests.runtime.evaluation.conftest import COUNT

from ortcam.batch.job import RayOptions
from ortcam.evaluation import evaluate

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="only these systems have such signals")]
ARGUMENTS = {"methods": ["scorecam", "sscam:num_samples=30"], "metrics": ["confidence"], "batch_size": 4}
MAPS = COUNT * 5  # two methods and three baselines
AGENTS = ("ray::Dashboard", "ray::RuntimeEnv")  # of Ray; they end by themselves, but a minute later
OBJECTS = 100 << 20  # bytes of a machine's object store


def pairs_of(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()[1:]
    return [(line["image"], line["variant"]) for line in map(json.loads, lines)]


def table_of(folder: Path) -> object:
    return pq.read_table(folder / "results.parquet").drop_columns(["seconds"])


def test_a_machine_goes_and_another_one_comes(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first machine has no core to spare, as the head of a cluster often has none."""
    from ray.cluster_utils import Cluster

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    evaluate(tiny_bundle, images, tmp_path / "local", **ARGUMENTS)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": OBJECTS})
    try:
        first = cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
        changed: list[int] = []

        def change(made: int, total: int) -> None:
            if made and not changed:
                changed.append(made)
                cluster.remove_node(first, allow_graceful=False)
                cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)

        options = RayOptions(address=cluster.address)
        report = evaluate(
            tiny_bundle, images, tmp_path / "out", engine="ray", ray=options, progress=change, **ARGUMENTS
        )
    finally:
        cluster.shutdown()
    assert changed[0] < MAPS
    assert report.failures == []
    assert len(set(pairs_of(tmp_path / "out"))) == len(pairs_of(tmp_path / "out")) == MAPS
    assert table_of(tmp_path / "out").equals(table_of(tmp_path / "local"))


def test_a_driver_that_is_killed_leaves_nothing_that_works(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ortcam", "evaluate", str(tiny_bundle), str(images), "-o", str(out), "--quiet"]
    command += ["-m", "scorecam,sscam:num_samples=30", "--metrics", "confidence", "--batch-size", "4"]
    journal = out / "journal.jsonl"
    with subprocess.Popen([*command, "--engine", "ray"]) as driver:
        try:
            while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
                assert driver.poll() is None
                time.sleep(0.01)  # or it takes a core from what it waits for
            others = {process: process.name() for process in psutil.Process(driver.pid).children(recursive=True)}
            os.kill(driver.pid, signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL  # it was still at work
        finally:
            driver.kill()
    working = [process for process, name in others.items() if not name.startswith(AGENTS)]
    assert any(name.startswith("ray::work") for name in others.values())
    _, alive = psutil.wait_procs(working, timeout=240)
    assert alive == []
    kept = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    subprocess.run([*command, "--resume"], check=True)
    assert journal.read_bytes().splitlines(keepends=True)[: len(kept)] == kept
    assert len(set(pairs_of(out))) == len(pairs_of(out)) == MAPS
