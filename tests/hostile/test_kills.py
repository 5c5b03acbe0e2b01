"""A run that is killed at any file event leaves the old result or the new one, whole; the next run tidies up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ortcam.bundle import read_bundle, reading
from ortcam.errors import BundleError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of systems with fork")

REPOSITORY = Path(__file__).parents[2]

# Scenarios of `tests.hostile.killing`, with what may be there after a kill.
REPLACING = (
    "export --force",
    "fuse",
    "fuse --external",
    "fuse --triton",
    "fuse --triton --external",
    "explain --force",
    "benchmark --plot",
    "batch --retry-failed",
    "tuning",
)
BEGINNING = ("export", "fuse, first", "fuse --external, first", "evaluate", "batch")
FAST = ("export --force", "fuse --external", "fuse --triton", "explain --force", "tuning")


def sweep(folder: Path, signal: str, events: str, *scenarios: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.hostile.killing", str(folder), signal, events, *scenarios]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results: list[dict[str, Any]], code: int) -> None:
    """Nothing but the old or the new result at any time, and nothing left behind by the next run."""
    assert len(results) > 4
    states = [result["state"] for result in results]
    accepted = {"old", "new"} if results[0]["scenario"] not in (*BEGINNING, "demo") else {"none", "old", "new"}
    for result in results:
        assert result["state"] in accepted, result
        assert result["left_by_next"] == [], result
        assert result["state_after_next"] in accepted, result
        assert result.get("next", True), result
        assert result["code"] == (code if result["event"] != "the end" else -9), result
        if code > 0:
            assert result["left"] == [], f"an orderly end leaves nothing: {result}"
    assert states[-1] == "new"
    assert states[0] != "new"
    # Once it is new it stays so.
    assert states == sorted(states, key=["none", "old", "new"].index)


@pytest.fixture(scope="module")
def some_kills(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return sweep(tmp_path_factory.mktemp("kills"), "SIGKILL", "2", *FAST)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", FAST)
def test_a_kill_leaves_the_old_result_or_the_new_one(scenario: str, some_kills: list[dict[str, Any]]) -> None:
    results = [result for result in some_kills if result["scenario"] == scenario]
    check(results, -9)
    if scenario != "tuning":
        assert any(result["left"] for result in results), "what the next run has to find"


@pytest.mark.slow
def test_a_terminated_export_leaves_the_old_result_or_the_new_one_and_nothing_else(tmp_path: Path) -> None:
    check(sweep(tmp_path, "SIGTERM", "1", "export --force"), 143)


def check_rivals(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["codes"] == [0, 0], result
        assert set(result["seen"]) <= {"old", "new"}, result
        assert result["left"] == [], result


@pytest.mark.slow
def test_two_runs_at_once_and_a_reader_meet_nothing_but_old_and_new(tmp_path: Path) -> None:
    check_rivals(sweep(tmp_path, "SIGKILL", "rivals", "export --force", "fuse --external"))


@pytest.fixture(scope="module")
def all_kills(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return sweep(tmp_path_factory.mktemp("kills"), "SIGKILL", "all", *REPLACING, *BEGINNING)


@pytest.mark.long
@pytest.mark.whole
@pytest.mark.parametrize("scenario", [*REPLACING, *BEGINNING])
def test_a_kill_at_any_event_leaves_the_old_result_or_the_new_one(
    scenario: str, all_kills: list[dict[str, Any]]
) -> None:
    check([result for result in all_kills if result["scenario"] == scenario], -9)


@pytest.mark.long
def test_a_killed_demo_leaves_whole_files(tmp_path: Path) -> None:
    check(sweep(tmp_path, "SIGKILL", "1", "demo"), -9)


@pytest.mark.long
@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_at_any_of_many_events_ends_in_order(signal: str, code: int, tmp_path: Path) -> None:
    results = sweep(tmp_path, signal, "2", *REPLACING, *BEGINNING)
    for scenario in (*REPLACING, *BEGINNING):
        check([result for result in results if result["scenario"] == scenario], code)


@pytest.mark.long
def test_two_other_runs_at_once_and_a_reader_meet_nothing_but_old_and_new(tmp_path: Path) -> None:
    check_rivals(sweep(tmp_path, "SIGKILL", "rivals", "fuse --triton", "fuse", "explain --force"))


def test_a_bundle_that_is_replaced_while_it_is_read_is_the_new_one(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(tiny_bundle, tmp_path / "x.ortcam")
    new = shutil.copytree(tiny_bundle, tmp_path / "new.ortcam")
    manifest = json.loads((new / "bundle.json").read_text())
    (new / "probe.npy").unlink()
    del manifest["files"]["probe.npy"], manifest["files"]["probe-logits.npy"]
    (new / "bundle.json").write_text(json.dumps(manifest | {"probe": None}))
    real = reading.parse_manifest

    def parse(text: bytes, folder: Path) -> Any:
        monkeypatch.undo()
        place.rename(tmp_path / "old.ortcam")
        new.rename(place)
        return real(text, folder)

    monkeypatch.setattr(reading, "parse_manifest", parse)
    assert read_bundle(place).manifest.probe is None
    (place / "features.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"features\.onnx"):
        read_bundle(path=place)
