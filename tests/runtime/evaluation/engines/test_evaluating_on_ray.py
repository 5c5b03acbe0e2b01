"""An evaluation on Ray: the journal and the numbers of a local one, whatever becomes of processes and machines."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from tests.common.ray_here import DEADLY, ray_here
from tests.runtime.evaluation.conftest import COUNT

from ortcam.batch.job import RayOptions
from ortcam.cli import main
from ortcam.errors import OptionError
from ortcam.evaluation import evaluate
from ortcam.images.encoding import write_png
from ortcam.support.extras import install

ARGUMENTS = {"methods": ["scorecam", "eigen-cam"], "metrics": ["confidence", "complexity", "adcc"], "batch_size": 4}
MAPS = COUNT * 5  # two methods and three baselines


def test_flags_of_ray_go_with_ray(tiny_bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tiny_bundle), str(images), "--actors", "1:2"]) == 2
    assert capsys.readouterr().err == "ortcam: --actors goes with --engine ray\n"
    for text in ("2:1", ":", "1:2:3", "0", "a:b"):
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", str(tiny_bundle), str(images), "--engine", "ray", "--actors", text])
        assert "accepted is MIN:MAX" in capsys.readouterr().err


def test_without_ray_the_command_says_what_it_needs(
    tiny_bundle: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["evaluate", str(tiny_bundle), str(images), "--engine", "ray"]) == 2
    error = capsys.readouterr().err
    assert install("ray") in error
    assert error.count("\n") == 1


def test_an_unknown_engine_is_refused(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="engine='spark': accepted are local, ray"):
        evaluate(tiny_bundle, images, tmp_path / "out", engine="spark", **ARGUMENTS)
    with pytest.raises(OptionError, match="goes with engine='ray'"):
        evaluate(tiny_bundle, images, tmp_path / "out", ray=RayOptions(), **ARGUMENTS)
    with pytest.raises(OptionError, match="threads=2 with engine='ray': CPUs per actor say it there"):
        evaluate(tiny_bundle, images, tmp_path / "out", engine="ray", threads=2, **ARGUMENTS)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_here():
        yield


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]


def same_numbers(found: Path, expected: Path) -> None:
    """Everything but the time it took."""
    tables = [pq.read_table(folder / "results.parquet").drop_columns(["seconds"]) for folder in (found, expected)]
    assert tables[0].equals(tables[1])
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (found, expected)]
    for key in ("settings", "providers", "images", "table", "differences", "randomized", "failures"):
        assert summaries[0][key] == summaries[1][key]


@pytest.mark.long
def test_the_numbers_are_those_of_a_local_evaluation(
    cluster: None, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    (images.with_suffix("") / "4.png").write_text("not a picture")
    evaluate(tiny_bundle, images, tmp_path / "local", randomize=2, **ARGUMENTS)
    made: list[tuple[int, int]] = []
    report = evaluate(
        tiny_bundle,
        images,
        tmp_path / "ray",
        engine="ray",
        randomize=2,
        progress=lambda *now: made.append(now),
        **ARGUMENTS,
    )
    same_numbers(tmp_path / "ray", tmp_path / "local")
    assert [failure.image for failure in report.failures] == ["4.png"]
    assert made == sorted(made)
    assert made[-1][0] == made[-1][1] == MAPS + 2 * 5 * 5


@pytest.mark.long
def test_one_engine_goes_on_where_the_other_was(cluster: None, tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    evaluate(tiny_bundle, images, tmp_path / "whole", **ARGUMENTS)

    class StoppedError(Exception):
        pass

    def run(engine: str, until: int) -> None:
        def stop(made: int, total: int) -> None:
            if made >= until:
                raise StoppedError

        arguments = {**ARGUMENTS, "engine": engine, "resume": True}
        if until > MAPS:
            evaluate(tiny_bundle, images, tmp_path / "out", **arguments)
            return
        with pytest.raises(StoppedError):
            evaluate(tiny_bundle, images, tmp_path / "out", progress=stop, **arguments)

    before = b""
    for engine, until in (("ray", 4), ("local", 12), ("ray", 18), ("local", MAPS + 1)):
        run(engine, until)
        written = (tmp_path / "out" / "journal.jsonl").read_bytes()
        assert written.startswith(before)
        assert len(written) > len(before)
        before = written
    pairs = [(line["image"], line["variant"]) for line in lines_of(tmp_path / "out")]
    assert len(set(pairs)) == len(pairs) == MAPS
    same_numbers(tmp_path / "out", tmp_path / "whole")


@pytest.mark.long
def test_an_image_that_no_process_survives_costs_that_image_alone(
    cluster: None, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    write_png(images.with_suffix("") / "1.png", np.zeros((*DEADLY[::-1], 3), np.uint8))
    report = evaluate(tiny_bundle, images, tmp_path / "out", engine="ray", **ARGUMENTS)
    (failure,) = report.failures
    assert (failure.image, failure.variant) == ("1.png", None)
    assert failure.error == "the process that measured it ended 2 times, last by a crash"
    assert report.results.images == ["0.png", "2.png", "3.png", "4.png"]


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="only these systems have such signals")
def test_a_process_that_is_killed_loses_nothing(cluster: None, tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "methods": ["scorecam", "eigen-cam", "sscam:num_samples=20"]}
    evaluate(tiny_bundle, images, tmp_path / "local", **arguments)
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        """Kill the first process that is at an image after the one that opened the model."""
        journal = tmp_path / "ray" / "journal.jsonl"
        while not over.wait(0.001):
            if not journal.exists():
                continue
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::work"):
                        process.kill()
                        killed.append(process.pid)
                        return
                except psutil.Error:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = evaluate(tiny_bundle, images, tmp_path / "ray", engine="ray", **arguments)
    finally:
        over.set()
        killer.join()
    assert killed
    assert report.failures == []
    same_numbers(tmp_path / "ray", tmp_path / "local")


@pytest.mark.long
def test_what_is_wrong_everywhere_is_one_sentence(
    cluster: None, tiny_bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", str(tiny_bundle), str(images), "-m", "eigen-cam", "-o", str(out), "--engine", "ray"]
    assert main([*arguments, "--provider", "tensorrt"]) == 2
    error = capsys.readouterr().err
    assert "tensorrt" in error.lower()
    assert "Traceback" not in error
    assert not out.exists()
    assert main([*arguments, "--quiet"]) == 0
    assert len(lines_of(out)) == COUNT * 4
