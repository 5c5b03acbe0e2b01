"""All of `ortcam batch` once: thousands of images, killed again and again, finished by Ray, and equal to `explain`."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset
import pytest
from tests.common.drawings import draw_images
from tests.conftest import REPOSITORY
from tests.runtime.serve.faults.server import PATIENCE

import ortcam
from ortcam.bundle.shipped import bundle_path
from ortcam.results.low_resolution import low_resolution

pytestmark = pytest.mark.long

IMAGES = 3_000
BROKEN = {"000/cut.jpg": b"\xff\xd8\xff\xe0 no image", "empty.png": b""}
# Parts of a second, so that there is something to lose within so few images.
DRIVER = """
import sys
import ortcam.batch.output.parts as parts
parts.LEAST_SECONDS = 0.5
from ortcam.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images in nested folders, photographs where there are any, and files that are no images."""
    folder = tmp_path_factory.mktemp("archive")
    data = REPOSITORY / os.environ.get("ORTCAM_TEST_DATA", "../shared/data")
    photographs = sorted((data / "images").glob("*.jpg"))
    for path in photographs:
        (folder / "photographs").mkdir(exist_ok=True)
        shutil.copy(path, folder / "photographs")
    draw_images(folder, IMAGES - len(photographs) - len(BROKEN))
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    return folder


@contextlib.contextmanager
def started(log: Path, *arguments: object) -> Iterator[psutil.Popen]:
    """A batch in a process of its own, which is not there any more at the end."""
    command = [sys.executable, "-c", DRIVER, "batch", *map(str, arguments)]
    with log.open("w") as file, psutil.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(what: Callable[[], Any], process: psutil.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, f"it ended first: {log.read_text()}"
        assert time.monotonic() < end, "a guard: nothing takes that long"
        time.sleep(0.01)


def parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.parquet")}


def ids(output: Path) -> list[str]:
    return pyarrow.dataset.dataset(output, format="parquet").to_table(columns=["id"])["id"].to_pylist()


def killed(process: psutil.Popen) -> None:
    """End the driver with all that it started, which ends by itself."""
    children = process.children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    _, alive = psutil.wait_procs(children, PATIENCE)
    assert not alive, "workers end with their driver"


def finished(process: psutil.Popen, log: Path) -> None:
    assert process.wait(5 * PATIENCE) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def expected_rows(
    archive: Path, names: Sequence[str], batch_size: int, **arguments: Any
) -> dict[str, list[tuple[Any, ...]]]:
    """What `explain` says of each image: class, label, probability, map."""
    explainer = ortcam.load(bundle_path())
    rows = {}
    for name in names:
        e = explainer.explain((archive / name).read_bytes(), batch_size=batch_size, **arguments)
        maps = low_resolution(e).astype(np.float16)
        rows[name] = list(zip(e.targets, e.labels, e.probabilities, maps, strict=True))
    return rows


def test_three_thousand_images_survive_everything_and_equal_explain(archive: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "maps", tmp_path / "log"
    arguments = [bundle_path(), archive, "-o", output, "--method", "grad-cam", "--top-k", 2]

    with started(log, *arguments) as process:
        wait_for(lambda: parts(output), process, log)
        killed(process)
    after_one_kill = parts(output)
    assert len(ids(output)) < 2 * IMAGES

    with started(log, *arguments, "--resume") as process:
        wait_for(lambda: len(parts(output)) > len(after_one_kill), process, log)
        workers = process.children()
        workers[0].send_signal(signal.SIGKILL)  # the run goes on without it
        seen = len(parts(output))
        wait_for(lambda: len(parts(output)) > seen, process, log)
        killed(process)
    after_two_kills = parts(output)
    assert after_one_kill.items() <= after_two_kills.items(), "a part that is there stays as it is"
    done = set(ids(output))
    assert len(done) < IMAGES, "killed before the end"

    ray = ["--engine", "ray", "--actors", "1:2", "--cpus-per-actor", 1]
    with started(log, *arguments, "--resume", *ray) as process:
        finished(process, log)
    assert after_two_kills.items() <= parts(output).items()
    names = sorted(path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file())
    assert len(names) == IMAGES
    compare(archive, output, names)

    before = parts(output)
    with started(log, *arguments, "--resume") as process:
        finished(process, log)
    assert parts(output) == before, "nothing was left to do"


def compare(archive: Path, output: Path, names: Sequence[str]) -> None:
    """Every image is there once, and its rows are what `explain` says, bit for bit."""
    results = ortcam.batch.open(output)
    table = pyarrow.dataset.dataset(output, format="parquet").to_table()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["id"], []).append(row)
    assert sorted(found) == names
    failures = {name for name, rows in found.items() if rows[0]["error"] is not None}
    assert failures == set(BROKEN)
    assert all(len(found[name]) == 1 and np.isnan(found[name][0]["map"]).all() for name in failures)
    expected = expected_rows(
        archive,
        [name for name in names if name not in failures],
        results.metadata["fingerprint"]["batch_size"],
        method="grad-cam",
        top_k=2,
    )
    for name, rows in expected.items():
        assert len(found[name]) == len(rows), name
        for row, (target, label, probability, saliency) in zip(found[name], rows, strict=True):
            assert (row["target"], row["label"]) == (target, label), name
            assert np.float32(row["probability"]) == np.float32(probability), name
            np.testing.assert_array_equal(np.asarray(row["map"], np.float16), saliency.ravel(), name)
