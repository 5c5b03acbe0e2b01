"""The local engine: the rows of `explain`, whatever dies meanwhile. Each test starts processes that score."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import ortcam
from ortcam.batch.items import FilePlace, Item
from ortcam.batch.job import Job
from ortcam.batch.local import driver, process
from ortcam.batch.local.driver import run_local
from ortcam.batch.output.parts import Output
from ortcam.batch.output.rows import map_shape, schema
from ortcam.batch.progress import Tally
from ortcam.batch.settings import BatchSettings
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.errors import BundleError, OrtcamError, OutputError, ProviderError
from ortcam.request import ExplainRequest
from ortcam.results.low_resolution import low_resolution

pytestmark = [pytest.mark.long, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")]

GUARD = 120.0  # seconds
ARGUMENTS = {"method": "grad-cam", "top_k": 2}
BROKEN = "tests.runtime.batch.local.broken_worker"


@pytest.fixture(scope="module")
def settings():
    bundle = read_bundle(bundle_path())
    request = ExplainRequest.of(**ARGUMENTS).for_bundle(bundle.manifest)
    return BatchSettings(
        bundle.path, bundle.sha256, ARGUMENTS, request.record(), map_shape(bundle.manifest, request), batch_size=4
    )


@pytest.fixture
def batch(settings, tmp_path):
    return Batch(settings, tmp_path)


class Batch:
    """One run of the engine over images in a folder."""

    def __init__(self, settings, folder):
        self.settings = settings
        self.job = Job(settings, schema(settings.fingerprint(), settings.map_shape), processes=2)
        self.output = Output(folder / "out")
        self.output.begin({"fingerprint": settings.fingerprint()}, resume=False)
        self.folder = folder
        self.failures = {}

    def items(self, contents):
        """One item per name; a sample, and what follows it."""
        samples = sample_images()
        for number, (name, more) in enumerate(contents.items()):
            path = samples[number % len(samples)]
            if more is not None:
                path = self.folder / name
                path.write_bytes(samples[0].read_bytes() + more)
            yield Item(name, str(path), FilePlace(str(path)))

    def run(self, contents, progress=None):
        tally = Tally(progress, self.failures.__setitem__)
        run_local(self.job, self.items(contents), self.output, tally)
        return tally.snapshot()

    def rows(self):
        return [row for name in self.output.parts() for row in self.output.read_part(name).to_pylist()]

    def ids(self):
        """Of the images with maps, and of those that failed."""
        found = [(row["id"], row["error"]) for row in self.rows()]
        good = [id_ for id_, error in found if error is None]
        assert len(good) == ARGUMENTS["top_k"] * len(set(good)), "each image has all of its rows once"
        bad = [id_ for id_, error in found if error is not None]
        assert len(bad) == len(set(bad))
        return set(good), set(bad)


def images(count, **others):
    return dict.fromkeys([f"{number:03}" for number in range(count)]) | others


def children(pid=None):
    """The scoring processes of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes()
            if int(fields[1]) == (pid or os.getpid()) and fields[0] != "Z" and b"worker" in words:
                found.append(int(folder.name))
    return found


def waited_for(found):
    end = time.monotonic() + GUARD
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


def test_rows_are_those_of_explain_bit_for_bit(batch):
    (batch.folder / "broken").write_text("no image")
    broken = Item("broken", "broken", FilePlace(str(batch.folder / "broken")))
    tally = Tally()
    run_local(batch.job, iter([*batch.items(images(9)), broken]), batch.output, tally)
    assert tally.snapshot().failures == 1
    explainer = ortcam.load("shapes", threads=3)
    rows = iter(sorted(batch.rows(), key=lambda row: row["id"]))
    for item in batch.items(images(9)):
        explanation = explainer.explain(item.path, batch_size=4, **ARGUMENTS)
        maps = low_resolution(explanation).astype(np.float16)
        for place, target in enumerate(explanation.targets):
            row = next(rows)
            assert (row["id"], row["target"]) == (item.id, target)
            assert row["probability"] == explanation.probabilities[place]
            assert np.array_equal(np.array(row["map"], np.float16).reshape(maps[place].shape), maps[place])
    (row,) = rows
    assert row["id"] == "broken"
    assert "not an image" in row["error"]
    assert not children()


def test_nothing_is_lost_or_twice_when_processes_are_killed(batch):
    killed, tally = [], Tally()

    def items():
        for number, item in enumerate(batch.items(images(150))):
            if number % 40 == 30:
                waited_for(lambda done=number - 20: tally.snapshot().images >= done)  # others are in work
                running = waited_for(children)
                killed.append(running[number // 40 % len(running)])
                os.kill(killed[-1], signal.SIGKILL)
            yield item

    run_local(batch.job, items(), batch.output, tally)
    assert len(set(killed)) == 3
    assert tally.snapshot().images == 150
    assert batch.ids() == (set(images(150)), set())


@pytest.mark.parametrize(("word", "how"), [(b"crash", "SIGSEGV"), (b"exit", "exit code 3")])
def test_an_image_that_ends_its_process_is_a_row_with_an_error(batch, monkeypatch, word, how):
    monkeypatch.setattr(process, "WORKER", BROKEN)
    assert batch.run({"first": None, "bad": word, **images(12)}).failures == 1
    assert batch.ids() == ({"first", *images(12)}, {"bad"})
    assert how in batch.failures["bad"]


@pytest.mark.parametrize("threads", [1, 2])  # decoded by the thread that scores, and ahead
def test_an_image_that_hangs_is_a_row_with_an_error(batch, monkeypatch, threads):
    batch.job = dataclasses.replace(batch.job, threads=threads)
    monkeypatch.setattr(process, "WORKER", BROKEN)
    monkeypatch.setattr(driver, "READ_SECONDS", 5.0)
    batch.run({"first": None, "bad": b"hang", **images(12)})
    assert batch.ids() == ({"first", *images(12)}, {"bad"})
    assert "within 5 s" in batch.failures["bad"]


def test_a_process_that_hangs_is_replaced_and_its_images_are_not_lost(batch, monkeypatch):
    tally, stopped = Tally(), []

    def items():
        for number, item in enumerate(batch.items(images(120))):
            if number == 20:
                waited_for(lambda: tally.snapshot().images >= 5)
                stopped.append(waited_for(children)[0])
                os.kill(stopped[0], signal.SIGSTOP)
            yield item
        usual = driver.HUNG_SECONDS
        monkeypatch.setattr(driver, "HUNG_SECONDS", 2.0)
        waited_for(lambda: stopped[0] not in children())
        monkeypatch.setattr(driver, "HUNG_SECONDS", usual)

    run_local(batch.job, items(), batch.output, tally)
    assert batch.ids() == (set(images(120)), set())
    assert not children()


def test_what_is_wrong_with_all_images_ends_the_batch(batch, monkeypatch):
    monkeypatch.setattr(process, "WORKER", BROKEN)
    with pytest.raises(ProviderError, match="on fire"):
        batch.run({"bad": b"refuse", **images(12)})
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        batch.run({"bad": b"mistake"})
    with pytest.raises(OrtcamError, match="end with each image"):
        batch.run({f"bad{number}": b"exit" for number in range(6)})
    monkeypatch.setattr(process, "WORKER", "no.such.module")
    with pytest.raises(OrtcamError, match=r"do not start \(exit code 1\).*no\.such"):
        batch.run(images(3))
    assert not children()


def test_a_bundle_that_changed_is_refused(batch, settings):
    batch.job = Job(
        BatchSettings(**{**vars(settings), "bundle_sha256": "0" * 64}), batch.job.schema, processes=1, threads=1
    )
    with pytest.raises(BundleError, match="has changed"):
        batch.run(images(3))


def test_a_listing_or_an_output_that_fails_ends_the_batch_and_keeps_what_was_done(batch, monkeypatch):
    done = threading.Event()

    def failing():
        yield from batch.items(images(4))
        assert done.wait(GUARD)
        raise OrtcamError("the listing broke")

    tally = Tally(lambda now: done.set() if now.images == 4 else None)
    with pytest.raises(OrtcamError, match="the listing broke"):
        run_local(batch.job, failing(), batch.output, tally)
    assert batch.ids() == (set(images(4)), set())

    def full(table: pa.Table) -> str:
        raise OutputError("the disk is full")

    monkeypatch.setattr(batch.output, "write_part", full)
    with pytest.raises(OutputError, match="the disk is full"):
        batch.run(images(4))
    assert not children()


def test_a_batch_that_is_stopped_writes_what_is_finished(batch):
    counted = []

    def stop(now):
        counted.append(now.images)
        if now.images >= 5:
            batch.job.stop.set()

    batch.run(images(5000), stop)
    good, bad = batch.ids()
    assert len(good) == counted[-1]
    assert not bad
    assert 5 <= len(good) < 5000
    assert not children()


def test_images_in_the_memory_of_the_driver_are_explained(batch):
    fsspec = pytest.importorskip("fsspec")
    url = "memory://local-engine/a.png"
    with fsspec.open(url, "wb") as file:
        file.write(sample_images()[0].read_bytes())
    run_local(batch.job, iter([Item("a", url, FilePlace(url))]), batch.output, Tally())
    assert batch.ids() == ({"a"}, set())


def test_processes_end_with_a_driver_that_is_killed(tmp_path):
    script = (
        "import ortcam.batch, sys\n"
        "ortcam.batch.run('shapes', sys.argv[1], sys.argv[2], method='scorecam', budget=3, batch_size=1, processes=2,\n"
        "                 progress=lambda now: print(now.images, flush=True) if now.images else None)\n"
    )
    photographs = tmp_path / "in"
    photographs.mkdir()
    for number in range(200):
        (photographs / f"{number}.png").symlink_to(sample_images()[number % len(sample_images())])
    command = [sys.executable, "-c", script, str(photographs), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline()
        workers = children(running.pid)
        assert workers
        running.kill()
    waited_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
