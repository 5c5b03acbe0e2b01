"""Batch sizes: the search finds the fastest size by timing runs, remembers it, and halves what does not fit."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.engine import Model, OnnxEngine, SessionOptions, resolve_providers
from ortcam.engine.batching import Batch, BatchSizer, pad_rows, recall, remember, run_batches
from ortcam.errors import OutOfMemoryError

CANDIDATES = (2, 4, 8, 16, 32)


def search(sizes: BatchSizer, seconds: dict[int, float], runs: int = 30) -> list[int]:
    """Let a search time runs whose seconds an image are given; returns the sizes that it ran."""
    ran = []
    for _ in range(runs):
        size, padded = sizes.next(1000)
        assert size == padded
        sizes.record(size, seconds[size] * size)
        ran.append(size)
    return ran


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({2: 1.0, 4: 0.8, 8: 0.7, 16: 0.9, 32: 1.0}, 8),
        ({2: 1.0, 4: 0.9, 8: 0.8, 16: 0.7, 32: 0.6}, 32),
        ({2: 1.0, 4: 1.1, 8: 0.1, 16: 0.1, 32: 0.1}, 2),  # one that is worse ends the search
        ({2: 1.0, 4: 0.99, 8: 0.5, 16: 0.5, 32: 0.5}, 2),  # not worth the memory
    ],
)
def test_the_search_ends_at_the_fastest_size(seconds: dict[int, float], best: int) -> None:
    found: list[int] = []
    sizes = BatchSizer(CANDIDATES, fixed_shape=False, found=found.append)
    ran = search(sizes, seconds)
    assert sizes.settled
    assert sizes.size == best
    assert found == [best]
    assert set(ran[15:]) == {best}


def test_on_a_gpu_the_first_run_of_a_size_is_not_timed() -> None:
    sizes = BatchSizer((16, 32), fixed_shape=True)
    sizes.record(16, 100.0)
    for _ in range(3):
        sizes.record(16, 1.6)
    for seconds in (100.0, 6.4, 6.4, 6.4):
        sizes.record(32, seconds)
    assert sizes.size == 16


def test_the_last_run_is_padded_only_where_shapes_are_fixed() -> None:
    assert BatchSizer([8], fixed_shape=True).next(3) == (3, 8)
    assert BatchSizer([8], fixed_shape=False).next(3) == (3, 3)


def test_a_size_larger_than_what_is_left_is_not_tried() -> None:
    sizes = BatchSizer(CANDIDATES, fixed_shape=False)
    search(sizes, dict.fromkeys(CANDIDATES, 1.0), runs=2)
    assert sizes.next(3) == (2, 2)


def test_what_does_not_fit_is_halved_down_to_one() -> None:
    sizes = BatchSizer([8], fixed_shape=True)
    for expected in (4, 2, 1):
        sizes.halve(2 * expected)
        assert sizes.next(100) == (expected, expected)
    with pytest.raises(ortcam.OrtcamError, match="single masked image"):
        sizes.halve(1)
    with pytest.raises(OutOfMemoryError, match="not even 8 masked images, the bundle's batch, fit into memory"):
        BatchSizer([8], fixed_shape=True, least=8).halve(8)  # the graph takes no other size


def test_a_search_of_several_threads_ends_once_at_the_fastest_size() -> None:
    seconds = {2: 1.0, 4: 0.8, 8: 0.7, 16: 0.9, 32: 1.0}
    for _ in range(20):
        found: list[int] = []
        sizer = BatchSizer(CANDIDATES, fixed_shape=False, found=found.append)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _, sizer=sizer: search(sizer, seconds, runs=20), range(8)))
        assert (sizer.size, sizer.settled, found) == (8, True, [8])


def test_threads_that_lack_memory_at_once_halve_what_they_ran() -> None:
    """Half of what does not fit: not an eighth, because three threads have tried it."""
    sizer = BatchSizer(CANDIDATES, fixed_shape=False)
    sizer.record(2, 2.0)
    for _ in range(3):
        sizer.halve(16)
    assert sizer.settled
    assert sizer.next(100) == (2, 2)  # the best that was found
    fixed = BatchSizer([16], fixed_shape=False)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: fixed.halve(16), range(4)))
    assert fixed.next(100) == (8, 8)


def test_batches_are_padded_and_halved_and_only_the_runs_that_succeed_count() -> None:
    prepared: list[Batch] = []

    def prepare(batch: Batch) -> np.ndarray:
        prepared.append(batch)
        return pad_rows(np.arange(10)[batch.rows], batch.padded)

    def run(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 4:
            raise OutOfMemoryError("too many")
        return 2 * rows

    sizer = BatchSizer([8], fixed_shape=True)
    results = list(run_batches(10, sizer, prepare, run))
    assert [done.result.tolist() for done in results] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 18, 18]]
    assert [(item.start, item.size, item.padded) for item in prepared] == [(0, 8, 8), (0, 4, 4), (4, 4, 4), (8, 2, 4)]
    assert sizer.size == 4
    assert [done.batch.size for done in run_batches(10, sizer, prepare, run, most_rows=lambda: 3)] == [3, 3, 3, 1]
    assert list(run_batches(0, sizer, prepare, run)) == []
    with pytest.raises(OutOfMemoryError, match="single masked image"):
        list(run_batches(1, BatchSizer([1], fixed_shape=False), lambda _: np.zeros(9), run))


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "new" / "sizes.json"))
    assert recall("a") is None
    remember("a", 8)
    remember("b", 16)
    assert (recall("a"), recall("b"), recall("c")) == (8, 16, None)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": "many"}', '{"a": -4}', '{"a": 100000}', "\0"])
def test_a_broken_memory_is_as_good_as_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(content)
    monkeypatch.setenv("ORTCAM_CACHE", str(path))
    assert recall("a") is None
    remember("a", 4)
    assert recall("a") == 4


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "file" / "sizes.json"))
    remember("a", 4)
    assert recall("a") is None


def test_an_explainer_asks_the_memory_and_tells_it(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    searching = ortcam.load(tiny_bundle, providers=["cpu"])
    for _ in range(12):
        found = searching.explain(photograph, method="iscam").stats.batch_size
    assert (tmp_path / "sizes.json").exists()
    assert ortcam.load(tiny_bundle, providers=["cpu"]).explain(photograph, method="iscam").stats.batch_size == found


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "content",
    [DEEP, '{"a":' * 50_000, '{"a": 4.0}', '{"a": true}', '{"a": NaN}', '{"a": "4"}', '{"a": 4}' + " " * 2**21, "\xff"],
    ids=["brackets", "objects", "float", "bool", "nan", "text", "long", "latin"],
)
def test_an_odd_memory_is_as_good_as_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sizes.json"
    path.write_bytes(content.encode("latin-1"))
    monkeypatch.setenv("ORTCAM_CACHE", str(path))
    assert recall("a") is None
    remember("a", 8)
    assert recall("a") == 8


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


def full_device(path: Path) -> None:
    path.symlink_to("/dev/full")


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("make", [fifo, socket_file, full_device, endless_device, Path.mkdir, circle])
def test_what_is_no_file_is_left_alone(
    make: Callable[[Path], object],
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "sizes.json"
    monkeypatch.chdir(tmp_path)
    make(path)
    before = path.lstat()
    monkeypatch.setenv("ORTCAM_CACHE", str(path))
    assert recall("a") is None
    remember("a", 4)
    for _ in range(8):  # enough for a search to end
        assert ortcam.load(tiny_bundle).explain(photograph, method="iscam").maps.any()
    now = path.lstat()
    assert (now.st_ino, now.st_mode) == (before.st_ino, before.st_mode)
    assert [item.name for item in tmp_path.iterdir()] == ["sizes.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    remember("a", 4)
    monkeypatch.setattr("ortcam.engine.batching.write_whole", full)
    remember("b", 8)
    assert (recall("a"), recall("b")) == (4, None)


def test_a_link_to_the_memory_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "sizes.json").symlink_to("shared/sizes.json")
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    remember("a", 4)
    assert (tmp_path / "sizes.json").is_symlink()
    assert json.loads((tmp_path / "shared" / "sizes.json").read_text()) == {"a": 4}


def test_only_the_newest_entries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sizes.json"
    monkeypatch.setenv("ORTCAM_CACHE", str(path))
    path.write_text(json.dumps({f"old {i}": 2 for i in range(5000)}))
    remember("old 4990", 8)
    remember("new", 16)
    kept = json.loads(path.read_text())
    assert len(kept) == 256
    assert [*kept][-2:] == ["old 4990", "new"]
    assert kept["old 4990"] == 8


@pytest.mark.long
def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    script = """
import sys
from ortcam.engine.batching import remember
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    remember(f"{sys.argv[1]} {i}", 4)
"""
    environment = os.environ | {"ORTCAM_CACHE": str(tmp_path / "sizes.json")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        process.communicate("go\n")
        assert process.returncode == 0
    assert len(json.loads((tmp_path / "sizes.json").read_text())) == 60
    assert [item.name for item in tmp_path.iterdir()] == ["sizes.json"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda patch: patch.setattr("platform.node", lambda: "another-host"), True),
        (lambda patch: patch.setattr("ortcam.engine.session.processor_name", lambda: "another processor"), False),
        (lambda patch: patch.setattr("ortcam.engine.session.usable_cores", lambda: 7), False),
        (lambda patch: patch.setattr("ortcam.engine.session.runtime_version", lambda: "9.9"), False),
    ],
    ids=["host", "processor", "cores", "version"],
)
def test_the_memory_is_of_the_machine_and_not_of_its_name(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    found: bool,
) -> None:
    """A container has another name whenever it starts."""
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    searching = ortcam.load(tiny_bundle, providers=["cpu"])
    while not (tmp_path / "sizes.json").exists():
        searching.explain(photograph, method="iscam")
    change(monkeypatch)
    bundle = ortcam.read_bundle(tiny_bundle)
    later = Model(bundle, OnnxEngine(bundle, SessionOptions(resolve_providers(["cpu"]))))
    assert later.sizer("linear", later.scorer("linear"), "auto").settled is found
