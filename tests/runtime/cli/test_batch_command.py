"""`ortcam batch`: what it prints, its exit codes, and what it refuses, with an engine in this process."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.common.batches import draw_images, in_process, table_of

from ortcam.batch.items import Item
from ortcam.batch.job import Job
from ortcam.batch.output.parts import Output
from ortcam.batch.progress import Tally
from ortcam.cli import main


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortcam.batch.local.driver.run_local", in_process)


@pytest.fixture
def command(tiny_bundle: Path, tmp_path: Path) -> list[str]:
    draw_images(tmp_path / "in", 3)
    options = "-m scorecam --batch-size 4 --threads 1"
    return ["batch", str(tiny_bundle), str(tmp_path / "in"), "-o", str(tmp_path / "out"), *options.split()]


def test_a_line_says_what_was_done(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "x.jpg").write_text("no image")
    assert main([*command, "--top-k", "2"]) == 0
    out, err = capfd.readouterr()
    (line,) = out.splitlines()
    assert line.startswith("4 images in ")
    assert line.endswith(f"1 failed (--retry-failed tries them again): {tmp_path / 'out'}")
    (failure,) = err.splitlines()
    assert failure.startswith("ortcam: x.jpg: ")
    assert len(table_of(tmp_path / "out")) == 7
    assert main([*command, "--top-k", "2", "--resume"]) == 0
    assert "4 finished before" in capfd.readouterr().out


def test_json_says_the_same(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json", "--limit", "2"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.pop("seconds") > 0
    wanted = {"images": 2, "rows": 2, "failures": 0, "skipped": 0, "succeeded": True, "gallery": None}
    assert found == wanted | {"output": str(tmp_path / "out")}


def test_quiet_prints_failures_alone(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "x.jpg").write_text("no image")
    assert main([*command, "--quiet", "-m", "auto"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["x.jpg"]


def test_where_all_fail_the_code_says_so_and_not_all_of_them_are_printed(
    tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"")
    command = ["batch", str(tiny_bundle), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", "scorecam"]
    assert main(command) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "ortcam: further failures are not printed; OUTPUT has them in its column `error`"


def test_classes_are_named_as_in_explain(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "-t", "dog,0", "-t", "white, striped"]) == 0
    assert table_of(tmp_path / "out")["target"].to_pylist() == [1, 0, 5] * 3


def test_an_interrupt_says_how_to_go_on(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
        def some() -> Iterator[Item]:
            yield next(items)
            signal.raise_signal(signal.SIGTERM)
            yield from items

        in_process(job, some(), output, tally)

    monkeypatch.setattr("ortcam.batch.local.driver.run_local", interrupted)
    assert main(command) == 143
    assert capfd.readouterr().err.splitlines() == [
        f"ortcam: what is finished is in {tmp_path / 'out'}; --resume (resume=True) goes on with it",
        "ortcam: terminated",
    ]
    assert len(table_of(tmp_path / "out")) == 1


REFUSED: dict[str, tuple[list[str], str]] = {
    "several methods": (["-m", "cam,scorecam"], "--method cam,scorecam: accepted is one method"),
    "classes twice": (["--top-k", "2", "-t", "dog"], "--top-k 2 with -t dog: give one or the other"),
    "a label": (["-t", "unicorn"], "target 'unicorn': no class of the model has this label"),
    "a limit": (["-m", "cam", "--budget", "12%"], "budget with cam: goes with methods that mask the image"),
    "an option": (["--option", "colour=3"], "colour"),
    "a storage option": (["--storage-option", "x"], "--storage-option 'x': accepted is KEY=VALUE"),
    "a provider": (["--provider", "abacus"], "abacus"),
    "a precision": (["--precision", "int4"], "int4"),
    "an output in memory": (["-o", "memory://maps"], "memory://maps: is gone when the command ends"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_writes_nothing(
    command: list[str], tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given, said = REFUSED[what]
    assert main([*command, *given]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


PLACES: dict[str, tuple[dict[str, str], str]] = {
    "no input": ({"in": "gone"}, "gone: does not exist"),
    "an empty input": ({"in": "empty"}, "empty: no images in it"),
    "no model": ({"model": "gone.ortcam"}, "gone.ortcam"),
    "an output that is something else": ({"out": "in"}, "is no output of `ortcam batch`"),
    "an output that is a file": ({"out": "in/0000.png"}, "0000.png"),
}


@pytest.mark.parametrize("what", PLACES)
def test_places_that_are_wrong_are_named(
    tiny_bundle: Path, tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    draw_images(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    changed, said = PLACES[what]
    places: dict[str, Any] = {"model": tiny_bundle, "in": "in", "out": "out"} | changed
    model, given, output = (str(tmp_path / places[name]) for name in ("model", "in", "out"))
    assert main(["batch", model, given, "-o", output, "--quiet"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before
