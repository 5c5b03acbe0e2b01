"""`--memory-limit` of each command: what does not fit is refused in one sentence, and what fits is as without it."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.common.batches import draw_images, in_process, table_of

import ortcam
from ortcam.batch.local.messages import Broken, Found, Search
from ortcam.batch.local.process import Ended
from ortcam.batch.local.searching import search
from ortcam.batch.probing import find_what_fits
from ortcam.batch.settings import BatchSettings
from ortcam.benchmarking import benchmark
from ortcam.cli.main import main
from ortcam.engine.memory import MemoryLimit
from ortcam.errors import MemoryLimitError, OptionError, OrtcamError
from ortcam.evaluation.run import Evaluation
from ortcam.serve.http.refusals import refusal_of
from ortcam.serve.models.served import memory_limit, open_model
from ortcam.serve.settings import Settings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system says what a process has")
REFUSED = r"memory_limit=1: .*; accepted is \d+ or more"
PLENTY = 1_000_000
MB = 10**6


@pytest.mark.parametrize("command", ["predict", "benchmark", "evaluate"])
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    command: str, tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {"predict": [photograph], "benchmark": ["--image", photograph], "evaluate": [photograph, "-o", tmp_path]}
    given = [command, tiny_bundle, *images[command], "--memory-limit", "1"]
    assert main([str(word) for word in given]) == 2
    assert re.search(REFUSED, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_prediction_below_the_limit_is_that_without(
    tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for more in ([], ["--memory-limit", str(PLENTY)]):
        assert main(["predict", str(tiny_bundle), str(photograph), "--csv", *more]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""


# batch ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tmp_path: Path) -> Callable[..., BatchSettings]:
    """The settings with which a batch starts its processes. Its search happens in this process."""
    found: list[BatchSettings] = []

    def searched(given: BatchSettings, processes: int | None, threads: int | None) -> BatchSettings:
        precision, size = find_what_fits(given, threads=1)
        return BatchSettings(**{**vars(given), "precision": precision, "batch_size": size})

    def run(job: Any, *others: Any) -> None:
        found.append(job.settings)
        in_process(job, *others)

    monkeypatch.setattr("ortcam.batch.running.search", searched)
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", run)
    draw_images(tmp_path / "in", 2)

    def of(**options: Any) -> BatchSettings:
        given = {"method": "scorecam", "memory_limit": PLENTY} | options
        ortcam.batch.run(tiny_bundle, tmp_path / "in", tmp_path / "out", **given)
        return found[-1]

    return of


def test_a_batch_grows_its_batches_once_and_then_runs_all_images_with_one_size(
    settings: Callable[..., BatchSettings], tiny_bundle: Path, tmp_path: Path
) -> None:
    found = settings(batch_size=4, threads=1)
    assert (found.batch_size, found.precision, found.memory_limit) == (4, "float32", PLENTY)
    with ortcam.load(tiny_bundle, threads=1) as explainer:
        for row in table_of(tmp_path / "out").to_pylist():
            whole = explainer.explain(tmp_path / "in" / row["id"], method="scorecam", batch_size=4)
            assert (row["passes"], row["error"]) == (whole.stats.passes, None)
    draw_images(tmp_path / "in", 3)
    again = settings(batch_size=8, memory_limit=PLENTY - 1, resume=True)  # rows do not depend on the limit
    assert (again.batch_size, again.memory_limit) == (4, PLENTY - 1)


def test_an_image_that_passes_the_limit_fails_and_the_next_is_explained(
    settings: Callable[..., BatchSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def check(_: MemoryLimit, doing: str) -> None:
        if doing == "explained an image" and not refused:
            refused.append(doing)
            raise MemoryLimitError("memory_limit=500: too little")

    settings(batch_size=4)  # the search
    draw_images(tmp_path / "in", 4)
    monkeypatch.setattr("ortcam.engine.memory.MemoryLimit.check", check)
    settings(batch_size=4, resume=True)
    errors = [row["error"] for row in table_of(tmp_path / "out").to_pylist()]
    assert errors == [None, None, "memory_limit=500: too little", None]


def test_a_limit_goes_with_the_local_engine(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="memory_limit: goes with the local engine"):
        ortcam.batch.run(tiny_bundle, tmp_path, tmp_path / "out", engine="ray", memory_limit=500)
    with pytest.raises(OptionError, match="memory_limit=500 with engine='ray': accepted is engine='local'"):
        Evaluation(tiny_bundle, tmp_path, engine="ray", memory_limit=500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Broken("MemoryLimitError", "memory_limit=1: too little"), MemoryLimitError),
        (Broken("", "a traceback"), RuntimeError),
        (Ended("SIGKILL", ""), OrtcamError),
    ],
)
def test_what_a_search_says_is_raised(
    message: object, error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Process:
        def __init__(self, asked: Search, heard: Callable[..., None]) -> None:
            assert asked.threads == 2
            heard(self, message)

        def kill(self) -> None: ...
        def wait(self, _: float) -> None: ...

    monkeypatch.setattr("ortcam.batch.local.searching.ScoringProcess", Process)
    given = BatchSettings(tmp_path, "", {}, {}, (1, 1), "auto", memory_limit=1)
    with pytest.raises(error):
        search(given, threads=2)
    message = Found("int8", 16)
    assert (search(given, threads=2).precision, search(given, threads=2).batch_size) == ("int8", 16)


# evaluate and benchmark -----------------------------------------------------------------------------------------------


def test_an_evaluation_below_the_limit_says_in_which_precision_it_is_made(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    def precision(limit: int | None) -> object:
        return Evaluation(tiny_bundle, [photograph], tmp_path / "out", memory_limit=limit).settings["precision"]

    assert (precision(PLENTY), precision(None)) == ("float32", None)


def test_a_benchmark_below_the_limit_measures_no_bare_passes_and_leaves_out_what_passes_it(
    tiny_bundle: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"methods": ["scorecam", "recipro-cam"], "runs": 1, "seconds": 1, "memory_limit": PLENTY}
    found = benchmark(tiny_bundle, photograph, **given)
    assert [(row.method, row.bare_seconds, row.precision) for row in found.rows] == [
        ("scorecam", None, "float32"),
        ("recipro-cam", None, "float32"),
    ]

    def end(*_: Any) -> None:
        raise MemoryLimitError("memory_limit=9: too little")

    monkeypatch.setattr("ortcam.engine.batching.RowMemory.end", end)
    found = benchmark(tiny_bundle, photograph, **given)
    assert [row.method for row in found.rows] == ["recipro-cam"]
    assert found.notes == ("scorecam, float32, batch size auto is left out: memory_limit=9: too little",)
    with pytest.raises(MemoryLimitError, match="memory_limit=9"):
        benchmark(tiny_bundle, photograph, **given | {"methods": ["scorecam"]})


# serve ----------------------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_fit_is_not_opened(tiny_bundle: Path) -> None:
    settings = Settings.of([tiny_bundle], providers=("cpu",), memory_limit=1)
    with pytest.raises(MemoryLimitError, match=REFUSED):
        open_model(settings.bundles[0], settings, memory_limit(settings))


def test_a_server_leaves_room_for_requests_and_for_a_run_by_each_worker(tiny_bundle: Path) -> None:
    limit = memory_limit(Settings.of([tiny_bundle], memory_limit="500"))
    assert limit is not None
    assert (limit.megabytes, limit.runs, limit.reserved) == (500, 1, 64 << 20)
    own = Settings.of([tiny_bundle], memory_limit=500, limits={"waiting_bytes": 1 << 20})
    assert memory_limit(own).reserved == own.limits.waiting_bytes == 1 << 20  # type: ignore[union-attr]
    assert memory_limit(Settings.of([tiny_bundle])) is None
    assert Settings.of([tiny_bundle]).limits.waiting_bytes == 512 << 20
    assert refusal_of(MemoryLimitError("memory_limit=500: /a/path")).status == 503


def test_a_model_below_the_limit_is_served(tiny_bundle: Path, photograph: Path) -> None:
    settings = Settings.of([tiny_bundle], providers=("cpu",), memory_limit=PLENTY)
    model = open_model(settings.bundles[0], settings, memory_limit(settings))
    assert model.ready
    limited = model.explainer.explain(photograph, method="scorecam", batch_size=1)
    with ortcam.load(tiny_bundle, providers=["cpu"], threads=1) as plain:
        assert (limited.maps == plain.explain(photograph, method="scorecam", batch_size=1).maps).all()
    model.close()


# Real processes -------------------------------------------------------------------------------------------------------


def peak(process: int) -> int:
    """Bytes that a process had at most."""
    status = Path(f"/proc/{process}/status").read_text("ascii", "replace")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]


WORKER = """
import pickle, sys
from ortcam.batch.explaining import RowMaker
from ortcam.batch.local import worker
from ortcam.engine.memory import memory_of_process
from ortcam.batch.items import FilePlace, Item
with open(sys.argv[1], "rb") as file:
    settings = pickle.load(file)
maker = RowMaker(settings, threads=1)
rows = [row for path in sys.argv[2:] for row in maker.rows_or_failure(
    Item(path, path, FilePlace(path)), lambda: maker.read(open(path, "rb").read()))]
assert [row.error for row in rows] == [None] * len(rows), rows
print(memory_of_process().peak)
"""


@pytest.mark.long
def test_the_processes_of_a_batch_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[BatchSettings] = []
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", lambda job, *_: found.append(job.settings))
    images = draw_images(tmp_path / "in", 2)

    def settings(limit: int) -> BatchSettings:
        options: dict[str, Any] = {"method": "scorecam", "budget": 48, "completion": "none", "batch_size": 16}
        out = tmp_path / f"{limit}"
        ortcam.batch.run("shapes", tmp_path / "in", out, memory_limit=limit, processes=1, threads=1, **options)
        return found[-1]

    with pytest.raises(MemoryLimitError) as refused:
        settings(20)
    need = int(re.search(r"accepted is (\d+) or more", str(refused.value))[1])  # type: ignore[index]
    sizes = []
    for limit in (need + 2, 2 * need):
        chosen = settings(limit)
        sizes.append(chosen.batch_size)
        file = tmp_path / "settings"
        file.write_bytes(pickle.dumps(chosen))
        command = [sys.executable, "-c", WORKER, str(file), *map(str, images)]
        assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) <= limit * MB
    assert sizes[0] < sizes[1] == 16  # type: ignore[operator]


@pytest.mark.long
def test_a_server_stays_below_the_limit_with_several_workers(photograph: Path) -> None:
    def server(limit: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ortcam", "serve", "shapes", "--port", "0", "--workers", "2", "--no-ui"]
        return subprocess.Popen(
            [*command, "--memory-limit", str(limit), "--limit", "seconds=3600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    with server(20) as refused:
        said = "".join(refused.communicate(timeout=300))
    assert refused.returncode == 2
    need = int(re.search(r"memory_limit=20: .*accepted is (\d+) or more", said)[1])  # type: ignore[index]
    limit = int(1.2 * need)
    with server(limit) as process:
        assert process.stdout is not None
        threading.Thread(target=process.stderr.read, daemon=True).start()  # type: ignore[union-attr]
        address = process.stdout.readline().split()[0].rstrip("/")
        picture = photograph.read_bytes()

        def ready() -> bool:
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{address}/v2/health/ready"):
                return True
            return False

        while process.poll() is None and not ready():
            time.sleep(0.2)

        def ask(_: int) -> int:
            url = f"{address}/v1/models/shapes:explain?method=scorecam&budget=64&completion=none"
            with urllib.request.urlopen(urllib.request.Request(url, picture), timeout=300) as answer:
                return int(answer.status)

        try:
            with ThreadPoolExecutor(4) as threads:
                assert list(threads.map(ask, range(8))) == [200] * 8
            assert peak(process.pid) <= limit * MB
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=300)
