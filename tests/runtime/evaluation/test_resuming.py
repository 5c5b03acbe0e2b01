"""The journal: a run goes on where it was, nothing is lost or made twice, and nobody else's files are touched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.evaluation.conftest import COUNT

from ortcam.errors import OutputError
from ortcam.evaluation import evaluate
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.run import Evaluation

BASELINES = ("random-weights", "mean-activation", "centred-gaussian")


@pytest.mark.slow
def test_a_run_goes_on_where_it_was(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    arguments = {"methods": ["scorecam"], "metrics": ["confidence", "complexity"]}
    whole = evaluate(tiny_bundle, images, tmp_path / "whole", **arguments)

    class StoppedError(Exception):
        pass

    def stop(made: int, total: int) -> None:
        if made == 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(tiny_bundle, images, tmp_path / "out", progress=stop, **arguments)
    journal = tmp_path / "out" / "journal.jsonl"
    begun = journal.read_bytes()
    journal.write_bytes(begun + b'{"image": "3.png", "sco')  # a kill in the middle of a line
    made: list[int] = []
    resumed = evaluate(
        tiny_bundle, images, tmp_path / "out", resume=True, progress=lambda n, _: made.append(n), **arguments
    )
    assert made[0] == 6
    assert made[-1] == COUNT * 4
    assert journal.read_bytes().startswith(begun)
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert len({(line["image"], line["variant"]) for line in lines}) == len(lines) == COUNT * 4
    for name, by_metric in whole.results.values.items():
        for metric, values in by_metric.items():
            np.testing.assert_array_equal(values, resumed.results.values[name][metric])


@pytest.mark.long
def test_a_run_that_is_killed_loses_nothing(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "ortcam",
        "evaluate",
        str(tiny_bundle),
        str(images),
        "-m",
        "scorecam",
        "-o",
        str(out),
    ]
    process = subprocess.Popen([*command, "--quiet"])
    journal = out / "journal.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    kept = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert len(kept) >= 4
    subprocess.run([*command, "--quiet", "--resume"], check=True)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert lines[: len(kept)] == kept
    pairs = [(entry["image"], entry["variant"]) for entry in map(json.loads, lines[1:])]
    assert len(set(pairs)) == len(pairs) == COUNT * 4


@pytest.mark.slow
def test_more_images_can_be_added_later(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    arguments = {"methods": ["scorecam"], "metrics": ["complexity"]}
    few = evaluate(tiny_bundle, images, tmp_path / "out", limit=2, **arguments)
    more = evaluate(tiny_bundle, images, tmp_path / "out", limit=4, resume=True, **arguments)
    assert set(few.results.images) < set(more.results.images)
    again = evaluate(tiny_bundle, images, tmp_path / "out", limit=2, resume=True, **arguments)
    assert set(again.results.images) == set(few.results.images)


def test_what_is_no_journal_is_left_as_it_is(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    journal = tmp_path / "out" / "journal.jsonl"
    journal.parent.mkdir()
    for content in (b"", b'{"my": "data"}', b'{"my": "data"}\n{"more": 1}'):
        journal.write_bytes(content)
        with pytest.raises(OutputError, match="is no journal"):
            evaluate(tiny_bundle, images, tmp_path / "out", methods=["scorecam"], resume=True)
        assert journal.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="only these systems have such locks")
def test_two_runs_do_not_write_to_the_same_place(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    arguments = {"methods": ["eigen-cam"], "metrics": ["complexity"]}
    evaluation = Evaluation(tiny_bundle, images, tmp_path / "out", **arguments)
    other = Evaluation(tiny_bundle, images, tmp_path / "out", resume=True, **arguments)
    with (
        Journal(tmp_path / "out", evaluation.settings, resume=False),
        pytest.raises(OutputError, match="another `ortcam evaluate`"),
    ):
        other.run()
    evaluate(tiny_bundle, images, tmp_path / "out", resume=True, **arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_clear_error(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    evaluation = Evaluation(tiny_bundle, images, tmp_path / "out", methods=["eigen-cam"])
    with Journal(tmp_path / "out", evaluation.settings, resume=False) as journal:
        (opened,) = [file for file in Path("/proc/self/fd").iterdir() if file.resolve() == journal.path.resolve()]
        os.dup2(os.open("/dev/full", os.O_WRONLY), int(opened.name))
        with pytest.raises(OutputError, match="cannot be written"):
            journal.add(Failure("a", None, "x"))


@pytest.mark.slow
def test_another_evaluation_is_not_gone_on_with(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    arguments = {"methods": ["scorecam"], "metrics": ["complexity"]}
    evaluate(tiny_bundle, images, tmp_path / "out", **arguments)
    before = (tmp_path / "out" / "journal.jsonl").read_bytes()
    with pytest.raises(OutputError, match="--resume goes on with it"):
        evaluate(tiny_bundle, images, tmp_path / "out", **arguments)
    with pytest.raises(OutputError, match=r"begun with other settings: .*seed 0, now 1"):
        evaluate(tiny_bundle, images, tmp_path / "out", resume=True, seed=1, **arguments)
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == before
