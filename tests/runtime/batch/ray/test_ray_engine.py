"""Batches on Ray: the rows of the local engine bit for bit, none lost and none twice, whatever dies."""

import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from tests.common.batches import draw_images, in_process, same, table_of
from tests.common.ray_here import DEADLY

import ortcam
from ortcam.batch.items import Item
from ortcam.batch.job import RayOptions
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import BundleError, OptionError
from ortcam.images.encoding import write_png

pytestmark = pytest.mark.long

COUNT = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of which is none."""
    folder = tmp_path_factory.mktemp("images") / "ä b"
    draw_images(folder, COUNT)
    (folder / "broken.jpg").write_text("not a picture")
    return folder


def rows(output: Path) -> pa.Table:
    return table_of(output).drop_columns(["seconds"])


def local(monkeypatch: pytest.MonkeyPatch, folder: Path, output: Path, **arguments: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ortcam.batch.local.driver.run_local", in_process)
        ortcam.batch.run(bundle_path(), folder, output, **arguments)


def test_actors_share_a_gpu_and_a_batch_size_is_searched_beside_it(
    ray_here: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RayOptions(gpus=0.5, actors=(1, 1))
    report = ortcam.batch.run(
        bundle_path(), folder, tmp_path / "ray", engine="ray", ray=options, method="scorecam++", budget=8
    )
    assert (report.images, report.failures) == (COUNT + 1, 1)
    size = ortcam.batch.open(tmp_path / "ray").metadata["fingerprint"]["batch_size"]
    assert isinstance(size, int)
    local(monkeypatch, folder, tmp_path / "local", method="scorecam++", budget=8, batch_size=size)
    assert same(rows(tmp_path / "ray"), rows(tmp_path / "local"))


def test_an_error_in_the_search_of_a_batch_size_comes_back_as_it_is(ray_here: None) -> None:
    from ortcam.batch.ray.batch_size import find_on_cluster
    from ortcam.batch.settings import BatchSettings

    settings = BatchSettings(bundle_path(), "0" * 64, {}, {"method": "cam"}, (7, 7), "auto")
    with pytest.raises(BundleError, match="has changed since the batch began"):
        find_on_cluster(settings, RayOptions(gpus=0.5))


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "scorecam++", "budget": 8, "batch_size": 4, "top_k": 2},
        {"method": "grad-cam", "batch_size": 8, "maps": "full", "overlays": "jpeg", "target": [0, 3]},
    ],
    ids=["masked", "gradient"],
)
def test_rows_are_those_of_the_local_engine(
    arguments: dict[str, Any], ray_here: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local(monkeypatch, folder, tmp_path / "local", **arguments)
    monkeypatch.setattr("ortcam.batch.ray.pipeline.MOST_TASKS", 3)  # 12 masked images in a dataset
    report = ortcam.batch.run(bundle_path(), folder, tmp_path / "ray", engine="ray", **arguments)
    assert (report.images, report.failures) == (COUNT + 1, 1)
    assert same(rows(tmp_path / "ray"), rows(tmp_path / "local"))
    assert ortcam.batch.open(tmp_path / "ray").table().schema.metadata is not None


def test_engines_take_turns_on_one_output(
    ray_here: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"method": "cam", "batch_size": 8}
    local(monkeypatch, folder, tmp_path / "whole", **arguments)
    local(monkeypatch, folder, tmp_path / "turns", limit=10, **arguments)
    report = ortcam.batch.run(bundle_path(), folder, tmp_path / "turns", engine="ray", resume=True, **arguments)
    assert (report.images, report.skipped) == (COUNT + 1 - 10, 10)
    draw_images(folder, 2, first=100)  # INPUT has grown
    write_png(folder / "broken.jpg", np.zeros((40, 60, 3), np.uint8))
    try:
        ortcam.batch.run(bundle_path(), folder, tmp_path / "turns", engine="ray", retry_failed=True, **arguments)
        local(monkeypatch, folder, tmp_path / "grown", **arguments)
    finally:
        for path in (folder / "0100.png", folder / "0101.png"):
            path.unlink()
        (folder / "broken.jpg").write_text("not a picture")
    assert same(rows(tmp_path / "turns"), rows(tmp_path / "grown"))
    assert rows(tmp_path / "grown").num_rows == COUNT + 3


def test_an_image_that_ends_processes_is_a_row_with_an_error(ray_here: None, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_images(folder, 3)
    write_png(folder / "0001.png", np.zeros((DEADLY[1], DEADLY[0], 3), np.uint8))
    report = ortcam.batch.run(bundle_path(), folder, tmp_path / "out", engine="ray", method="cam", batch_size=8)
    assert (report.images, report.failures) == (3, 1)
    assert rows(tmp_path / "out")["error"].to_pylist() == [None, "reading it ended the process twice", None]


def test_nothing_is_lost_or_twice_where_actors_are_killed(
    ray_here: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"method": "scorecam++", "budget": 256, "batch_size": 4}
    killed: set[int] = set()

    def kill(snapshot: Any) -> None:
        """One actor, as soon as the first image is done, and another one later."""
        if snapshot.images and len(killed) < min(2, snapshot.images // 3 + 1):
            for process in psutil.Process().children(recursive=True):
                if "Explain" in " ".join(process.cmdline()) and process.pid not in killed:
                    killed.add(process.pid)
                    os.kill(process.pid, signal.SIGKILL)
                    return

    ortcam.batch.run(bundle_path(), folder, tmp_path / "ray", engine="ray", progress=kill, **arguments)
    assert len(killed) == 2
    local(monkeypatch, folder, tmp_path / "local", **arguments)
    assert same(rows(tmp_path / "ray"), rows(tmp_path / "local"))


def test_a_batch_that_is_stopped_keeps_what_is_finished(
    ray_here: None, interrupts: None, folder: Path, tmp_path: Path
) -> None:
    first = threading.Event()

    def stop(snapshot: Any) -> None:
        if snapshot.images == 2 and not first.is_set():
            first.set()
            signal.raise_signal(signal.SIGINT)

    arguments: dict[str, Any] = {"method": "scorecam++", "budget": 128, "batch_size": 4}
    with pytest.raises(KeyboardInterrupt):
        ortcam.batch.run(bundle_path(), folder, tmp_path / "out", engine="ray", progress=stop, **arguments)
    kept = rows(tmp_path / "out").num_rows
    assert 2 <= kept < COUNT + 1
    report = ortcam.batch.run(bundle_path(), folder, tmp_path / "out", engine="ray", resume=True, **arguments)
    assert (report.skipped, report.images) == (kept, COUNT + 1 - kept)


def test_what_is_wrong_with_all_images_is_one_sentence(
    ray_here: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ortcam.batch.ray.cluster import ShippedBundle

    def elsewhere(cluster: Any, place: Path, sha256: str) -> ShippedBundle:
        return ShippedBundle(tmp_path / "gone.ortcam", sha256, None)

    monkeypatch.setattr("ortcam.batch.ray.cluster.Cluster.ship", elsewhere)
    with pytest.raises(BundleError, match=r"gone\.ortcam") as raised:
        ortcam.batch.run(bundle_path(), folder, tmp_path / "out", engine="ray", method="cam", batch_size=8)
    assert "\n" not in str(raised.value)


def test_images_in_the_memory_of_this_process_are_refused(ray_here: None, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/ray/0.png", b"nothing")
    with pytest.raises(OptionError, match="memory:// exists in this process alone"):
        ortcam.batch.run(bundle_path(), "memory://ray", tmp_path / "out", engine="ray", method="cam", batch_size=8)


def test_images_beside_one_that_ends_processes_are_done(ray_here: None) -> None:
    from ortcam.batch.ray.attempts import attempted, attempts_actor

    class DeadError(Exception):
        pass

    def work() -> list[int]:
        done: list[int] = []
        with attempted(counter, "read", [0, 1, 2, 3]) as may_begin:
            for number in range(4):
                if may_begin(number):
                    if number in (1, 2):
                        raise DeadError
                    done.append(number)
        return done

    counter = attempts_actor()
    for _ in range(5):  # together, then each of the two twice alone
        with pytest.raises(DeadError):
            work()
    assert work() == [0, 3]


def test_an_image_is_tried_alone_and_then_left_alone() -> None:
    from ortcam.batch.ray.attempts import Attempts

    attempts = Attempts()
    assert not attempts.begin("read", [1, 2])
    attempts.end("read", [1, 2])
    assert not attempts.begin("read", [1, 2])  # and the process ends
    assert attempts.begin("read", [2, 3])
    assert [attempts.begin_alone("read", 2) for _ in range(3)] == [True, True, False]
    assert attempts.begin_alone("explain", 2)
    assert attempts.begin_alone("read", 3, before=2)  # 2 has ended, and counts no more
    assert attempts.begin_alone("read", 2)
    attempts.end("read", [2, 3])
    assert attempts.begin("read", [1])
    assert not attempts.begin("read", [2, 3])


def test_more_than_the_machine_has_is_refused(folder: Path, tmp_path: Path) -> None:
    from ortcam.batch.ray.cluster import Cluster
    from ortcam.batch.ray.pipeline import Shares

    class Small(Cluster):
        cpus, gpus = 2, 0.0

    assert Shares.of(RayOptions(), Small(alone=True)) == Shares(
        cpus=1, gpus=0, fewest=2, most=2, readers=2, reader_cpus=0
    )
    assert Shares.of(RayOptions(actors=(1, 64), cpus=2), Small(alone=True)).most == 64
    assert Shares.of(RayOptions(gpus=0.25), Small(alone=False)) == Shares(1, 0.25, 1, None, None, 1)
    assert Shares.of(RayOptions(actors=(2, 64)), Small(alone=False)) == Shares(1, 0, 2, 64, 64, 0)
    for options in (RayOptions(cpus=3), RayOptions(actors=(3, 4)), RayOptions(gpus=0.5)):
        with pytest.raises(OptionError, match="and this machine has"):
            Shares.of(options, Small(alone=True))
    assert RayOptions(gpus=2.0).gpus == 2
    with pytest.raises(OptionError, match=r"gpus_per_actor=1\.5: accepted above 1 are whole numbers"):
        RayOptions(gpus=1.5)


def test_a_cluster_without_a_machine_that_is_large_enough_is_told(ray_here: None) -> None:
    from ortcam.batch.ray.cluster import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cluster(alone=False).warn_if_too_small(2, 0.5)
    with pytest.warns(UserWarning, match=r"no machine of the Ray cluster has 1 CPU\(s\) and 1\.5 GPU\(s\) now"):
        Cluster(alone=False).warn_if_too_small(1, 1.5)
    with pytest.warns(UserWarning, match=r"has 3 CPU\(s\) now; Ray waits for one"):
        Cluster(alone=False).warn_if_too_small(3, 0)


def test_items_of_stopped_batches_are_not_listed_on() -> None:
    from ortcam.batch.items import FilePlace
    from ortcam.batch.ray.pipeline import until_stopped

    stop = threading.Event()
    endless = (Item(str(n), str(n), FilePlace(str(n))) for n in iter(int, 1))
    listed = until_stopped(endless, stop)
    assert next(listed).id == "0"
    stop.set()
    assert list(listed) == []
