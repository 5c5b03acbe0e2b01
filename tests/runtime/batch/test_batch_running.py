"""A batch from beginning to end, with an engine in this process: rows, resuming, retrying, and what is refused."""

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.common.batches import draw_images, in_process, table_of

import ortcam
from ortcam.batch.explaining import OVERLAY_SIDE, RowMaker
from ortcam.batch.id_set import IdSet
from ortcam.batch.items import Item
from ortcam.batch.job import Job
from ortcam.batch.output.parts import Output
from ortcam.batch.progress import Snapshot, Tally
from ortcam.batch.running import BatchReport
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.sources.images import ImageFiles
from ortcam.errors import OptionError, OrtcamError, OutputError, TargetError
from ortcam.images.encoding import encode_jpeg
from ortcam.images.rendering import Rendering, shrunk
from ortcam.results.low_resolution import low_resolution


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Any:
    def run(**options: Any) -> BatchReport:
        given = {"method": "scorecam", "batch_size": 4} | options
        return ortcam.batch.run(tiny_bundle, tmp_path / "in", tmp_path / "out", **given)

    return run


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Five images, of which the second is none."""
    paths = draw_images(tmp_path / "in", 5)
    paths[1].write_text("no image")
    return paths


def parts(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "grad-cam"])
def test_rows_are_what_explain_gives_bit_for_bit(
    run: Any, images: list[Path], tiny_bundle: Path, tmp_path: Path, method: str
) -> None:
    report = run(method=method, top_k=2, batch_size="auto", maps="full", overlays="jpeg", threads=1)
    assert (report.images, report.rows, report.failures, report.succeeded) == (5, 9, 1, True)
    rows = table_of(tmp_path / "out").to_pylist()
    size = json.loads((tmp_path / "out" / "_batch.json").read_text())["fingerprint"]["batch_size"]
    with ortcam.load(tiny_bundle, threads=1) as explainer:
        for path in images:
            found = [row for row in rows if row["id"] == path.name]
            if path is images[1]:
                (row,) = found
                assert "is not an image: it is text that begins with 'no image'" in row["error"]
                assert np.isnan(row.pop("map")).all()
                assert np.isnan(row.pop("full_map")).all()
                assert {name for name, value in row.items() if value is not None} == {"id", "path", "error"}
                continue
            wanted = explainer.explain(path, method=method, top_k=2, batch_size=size)
            low = low_resolution(wanted).astype(np.float16)
            assert [row["target"] for row in found] == list(wanted.targets)
            assert [row["label"] for row in found] == list(wanted.labels)
            for place, row in enumerate(found):
                np.testing.assert_array_equal(np.float32(row["probability"]), wanted.probabilities[place])
                np.testing.assert_array_equal(np.array(row["map"], np.float16), low[place].ravel())
                full = np.array(row["full_map"], np.float16)
                np.testing.assert_array_equal(full, wanted.maps[place].astype(np.float16).ravel())
                assert row["passes"] == wanted.stats.passes
                error = wanted.stats.estimated_error
                assert row["estimated_error"] == (None if error is None else np.float32(error[place]))
                drawn = wanted.drawn_on(shrunk(wanted.image, OVERLAY_SIDE), place, Rendering())
                assert row["overlay"] == {"bytes": encode_jpeg(drawn), "path": f"{path.name}-{row['target']}.jpg"}
                assert row["error"] is None


def test_what_is_finished_is_not_computed_again_and_input_may_grow(
    run: Any, images: list[Path], tmp_path: Path
) -> None:
    first = run(limit=2)
    assert (first.images, first.skipped) == (2, 0)
    before = parts(tmp_path)
    draw_images(tmp_path / "in", 1, first=9)
    second = run(resume=True)
    assert (second.images, second.skipped, second.failures) == (4, 2, 0)
    assert before.items() <= parts(tmp_path).items()
    third = run(resume=True)
    assert (third.images, third.skipped, third.succeeded) == (0, 6, True)
    assert table_of(tmp_path / "out")["id"].to_pylist() == [f"{number:04}.png" for number in (0, 1, 2, 3, 4, 9)]


def test_resuming_what_is_not_there_begins(run: Any, images: list[Path]) -> None:
    assert run(resume=True).images == 5


def test_failed_images_are_tried_again_in_the_parts_that_have_them(
    run: Any, images: list[Path], tmp_path: Path
) -> None:
    run()
    names = set(parts(tmp_path))
    report = run(retry_failed=True)
    assert (report.images, report.failures, report.skipped) == (1, 1, 4)
    draw_images(tmp_path / "in", 1, first=1)
    draw_images(tmp_path / "in", 1, first=9)
    report = run(retry_failed=True)
    assert (report.images, report.failures, report.skipped) == (2, 0, 4)
    assert names < set(parts(tmp_path))
    table = table_of(tmp_path / "out")
    assert table["id"].to_pylist() == [f"{number:04}.png" for number in (0, 1, 2, 3, 4, 9)]
    assert table["error"].null_count == 6


def test_an_output_that_exists_is_refused_without_resume(run: Any, images: list[Path], tmp_path: Path) -> None:
    run()
    before = parts(tmp_path)
    with pytest.raises(OutputError, match="exists; --resume"):
        run()
    assert parts(tmp_path) == before


OTHERS = {
    "method": ({"method": "grad-cam"}, 'method was "scorecam", now "grad-cam"'),
    "limits": ({"budget": 3}, "limits.budget was none, now 3"),
    "classes": ({"top_k": 2}, "top_k was 1, now 2"),
    "target": ({"target": "dog"}, r"target was none, now \[1\]"),
    "batch size": ({"batch_size": 8}, "batch_size was 4, now 8"),
    "pixels": ({"max_pixels": 9999}, "max_pixels was"),
    "maps": ({"maps": "full"}, 'maps was "low", now "full"'),
    "overlays": ({"overlays": "jpeg"}, 'overlays was "none", now'),
    "strict": ({"strict": True}, "strict was false, now true"),
    "white": ({"white": 4095}, "white was none, now 4095"),
}


@pytest.mark.sample(every=6)
@pytest.mark.whole
@pytest.mark.parametrize("what", OTHERS)
def test_other_settings_are_refused_by_name(run: Any, tmp_path: Path, what: str) -> None:
    draw_images(tmp_path / "in", 1)
    run()
    before = parts(tmp_path)
    given, said = OTHERS[what]
    with pytest.raises(OutputError, match=said):
        run(resume=True, **given)
    assert parts(tmp_path) == before


def test_what_differs_and_is_not_refused_is_told(run: Any, images: list[Path], tmp_path: Path) -> None:
    told: list[str] = []
    run(limit=2, tell=told.append)
    run(limit=2, tell=told.append, resume=True)
    assert told == []
    place = tmp_path / "out" / "_batch.json"
    record = json.loads(place.read_text())
    place.write_text(json.dumps(record | {"onnxruntime": "1.0", "input": {"input": "elsewhere"}}))
    run(limit=2, tell=told.append, resume=True)
    assert [line.split(",")[0] for line in told] == ["INPUT was elsewhere", "onnxruntime was 1.0"]
    assert str(tmp_path / "in") in told[0]


def test_an_output_of_another_format_is_refused(run: Any, images: list[Path], tmp_path: Path) -> None:
    run(limit=1)
    (tmp_path / "out" / "_batch.json").write_text('{"format": 99, "fingerprint": {}}')
    with pytest.raises(OutputError, match="has rows of format 99, and this ortcam writes format 1"):
        run(resume=True, batch_size="auto")


def test_another_bundle_is_refused(run: Any, tmp_path: Path, branch_bundle: Path) -> None:
    draw_images(tmp_path / "in", 1)
    run()
    with pytest.raises(OutputError, match="bundle was"):
        ortcam.batch.run(branch_bundle, tmp_path / "in", tmp_path / "out", method="scorecam", batch_size=4, resume=True)


def test_a_batch_size_is_found_once(run: Any, images: list[Path], tmp_path: Path) -> None:
    run(batch_size="auto", limit=1)
    record = json.loads((tmp_path / "out" / "_batch.json").read_text())
    assert isinstance(record["fingerprint"]["batch_size"], int)
    size = record["fingerprint"]["batch_size"]
    run(batch_size=size, resume=True, limit=2)
    assert run(batch_size="auto", resume=True).images == 3


def test_where_no_image_can_be_read_there_are_errors_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"")
    report = run(batch_size="auto")
    assert (report.images, report.failures, report.succeeded) == (2, 2, False)
    assert not run(resume=True, batch_size="auto").succeeded


def test_a_batch_size_is_found_without_an_image_of_the_batch(
    run: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[Any] = []
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", lambda job, *_: engines.append(job))
    monkeypatch.setattr(Fetcher, "fetch", lambda *_: pytest.fail("an image of the batch may hang, or be hostile"))
    run(batch_size="auto")
    run(batch_size="auto", max_pixels=9)
    assert [isinstance(job.settings.batch_size, int) for job in engines] == [True, True]


def test_work_on_a_long_image_gives_signs_of_life(
    run: Any, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(job: Job, items: Iterator[Item], *_: Any) -> None:
        passes: list[None] = []
        maker = RowMaker(job.settings, threads=1, goes_on=lambda: passes.append(None))
        (row,) = maker.rows(next(items), maker.read(images[0].read_bytes()))
        maker.close()
        assert row.passes is not None
        assert len(passes) >= row.passes / 4 > 1

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", engine)
    run()


REFUSED = {
    "engine": ({"engine": "spark"}, OptionError, "engine='spark': accepted is local or ray"),
    "maps": ({"maps": "high"}, OptionError, "maps='high'"),
    "overlays": ({"overlays": "png"}, OptionError, "overlays='png'"),
    "limit": ({"limit": 0}, OptionError, "limit=0"),
    "processes": ({"processes": 0}, OptionError, "processes=0"),
    "threads": ({"threads": 10**6}, OptionError, "threads=1000000"),
    "method": ({"method": "scorecan"}, OptionError, "scorecan"),
    "label": ({"target": "unicorn"}, TargetError, "unicorn"),
    "classes": ({"top_k": 7}, TargetError, "top_k=7"),
    "precision": ({"precision": "int4"}, OptionError, "int4"),
    "budget": ({"method": "grad-cam", "budget": 3}, OptionError, "budget with grad-cam"),
    "option": ({"colour": 3}, OptionError, "colour"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_with_everything_is_said_before_anything_is_written(run: Any, tmp_path: Path, what: str) -> None:
    draw_images(tmp_path / "in", 1)
    given, kind, said = REFUSED[what]
    with pytest.raises(kind, match=said):
        run(**given)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_changes_meanwhile_ends_the_run(
    run: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(job: Job, *others: Any) -> None:
        in_process(
            dataclasses.replace(job, settings=dataclasses.replace(job.settings, bundle_sha256="0" * 64)), *others
        )

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", other)
    with pytest.raises(OrtcamError, match="has changed since the batch began") as raised:
        run()
    assert not hasattr(raised.value, "__notes__")
    assert parts(tmp_path) == {}
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)
    assert run(limit=2, top_k=2).images == 2, "as if it had never begun, so with other settings, too"
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", other)
    with pytest.raises(OrtcamError, match="has changed since the batch began") as raised:
        run(resume=True, top_k=2)
    assert raised.value.__notes__ == [
        f"what is finished is in {tmp_path / 'out'}; --resume (resume=True) goes on with it"
    ]


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_writes_what_is_finished_and_resume_goes_on(
    run: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
        def some() -> Iterator[Item]:
            for number, item in enumerate(items):
                if number == 3:
                    signal.raise_signal(signal.SIGINT)
                yield item

        in_process(job, some(), output, tally)

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert table_of(tmp_path / "out")["id"].to_pylist() == ["0000.png", "0001.png", "0002.png"]
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)
    assert run(resume=True).images == 2
    assert len(table_of(tmp_path / "out")) == 5


def test_progress_counts_and_failures_are_told(run: Any, images: list[Path]) -> None:
    seen: list[Any] = []
    failures: list[tuple[str, str]] = []
    run(progress=seen.append, on_failure=lambda *failure: failures.append(failure))
    assert [name for name, _ in failures] == ["0001.png"]
    assert seen[-1].images == 5
    assert [item.images for item in seen] == sorted(item.images for item in seen)


def test_with_a_limit_input_is_not_listed_to_its_end_for_the_time_left(
    run: Any, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    totals: list[int | None] = []
    known = threading.Event()

    def progress(now: Snapshot) -> None:
        totals.append(now.total)
        if now.total is not None:
            known.set()

    def engine(job: Job, items: Iterator[Item], *_: Any) -> None:
        assert known.wait(60), "a guard"

    monkeypatch.setattr(ImageFiles, "counted", lambda _: 99)
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", engine)
    run(limit=9, progress=progress)
    assert totals[-1] == 5


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("place", ["ids", "items"])
def test_an_interrupt_while_it_is_looked_up_what_is_left_starts_no_engine(
    run: Any, images: list[Path], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run(limit=2)
    engines: list[object] = []
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", lambda *given: engines.append(given))
    interrupted = IdSet.__init__ if place == "ids" else IdSet.holds

    def interrupt(self: IdSet, given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return interrupted(self, given)

    monkeypatch.setattr(IdSet, interrupted.__name__, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(resume=True)
    assert engines == []


def test_an_output_in_memory_is_gone_on_with(tiny_bundle: Path, images: list[Path], tmp_path: Path) -> None:
    output = f"memory://{tmp_path.name}/out"
    settings: dict[str, Any] = {"method": "scorecam", "batch_size": 4}
    ortcam.batch.run(tiny_bundle, tmp_path / "in", output, limit=2, **settings)
    with pytest.raises(OutputError, match="exists; --resume"):
        ortcam.batch.run(tiny_bundle, tmp_path / "in", output, **settings)
    draw_images(tmp_path / "in", 1, first=1)
    report = ortcam.batch.run(tiny_bundle, tmp_path / "in", output, retry_failed=True, **settings)
    assert (report.images, report.skipped, report.failures) == (4, 1, 0)
    assert sorted(ortcam.batch.open(output).table()["id"].to_pylist()) == [path.name for path in images]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_named(run: Any, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="out: cannot write: Permission denied"):
        run()
