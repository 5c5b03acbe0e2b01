"""A disk that takes no more is noticed before the next explanation is computed, and what was finished stays.

The disk is one whose files may have so many bytes and no more (RLIMIT_FSIZE), which needs no rights.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hostile.killing.scenarios import LABELS, model

import ortcam
from ortcam.cli import main
from ortcam.errors import OutputError
from ortcam.images.encoding import write_png

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of POSIX")

# Limits the size of files, and says on standard error when something is computed.
LIMITED = """
import resource, sys
import ortcam
from ortcam.cli import main

limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

def said(owner, name):
    real = getattr(owner, name)
    def wrapped(*args, **kwargs):
        print("computed", file=sys.stderr, flush=True)
        return real(*args, **kwargs)
    setattr(owner, name, wrapped)

if sys.argv[2] == "explain":
    said(ortcam.Explainer, "explain_request")
elif sys.argv[2] == "evaluate":
    from ortcam.evaluation.measuring import Measuring
    said(Measuring, "measure")
sys.exit(main(sys.argv[2:]))
"""


def limited(size: int, *arguments: object) -> tuple[int, int, list[str]]:
    """Exit code, how many times something was computed, and the other lines of standard error."""
    command = [sys.executable, "-c", LIMITED, str(size), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    return done.returncode, lines.count("computed"), [line for line in lines if line.startswith("ortcam: ")]


def pictures(folder: Path) -> list[Path]:
    """Three of which the results of the second are large."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for name, side in (("a", 40), ("b", 800), ("c", 40)):
        write_png(folder / f"{name}.png", random.integers(0, 256, (side, side, 3), np.uint8))
        paths.append(folder / f"{name}.png")
    return paths


def begun(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_nothing_is_explained_once_a_result_could_not_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, computed, lines = limited(
        1_000_000, "explain", tiny_bundle, *pictures(tmp_path / "in"), "-m", "cam,eigen-cam", "-o", out, "--quiet"
    )
    assert (code, computed) == (2, 3), lines
    assert lines == [f"ortcam: {out / 'b' / 'cam'}: cannot write the explanation here: File too large"]
    for method in ("cam", "eigen-cam"):
        manifest = json.loads((out / "a" / method / "manifest.json").read_text())
        assert all((out / "a" / method / name).is_file() for name in manifest["files"])
    assert not list((out / "b" / "cam").iterdir())
    assert not (out / "c").exists()
    assert begun(out) == []


@pytest.mark.slow
def test_nothing_is_explained_once_a_sheet_could_not_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, computed, lines = limited(
        50_000, "explain", tiny_bundle, *pictures(tmp_path / "in"), "-m", "cam,eigen-cam", "-o", out, "--quiet"
    )
    assert (code, computed) == (2, 2), lines
    assert lines[0] == f"ortcam: {out / 'a.png'}: cannot be written: File too large"
    assert not (out / "b").exists()
    assert begun(out) == []


def test_what_was_saved_before_the_disk_was_full_is_told(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ortcam.Explanation.save

    def until_full(explanation: ortcam.Explanation, folder: Path, **settings: Any) -> Path:
        if explanation.method == "eigen-cam":
            raise OutputError("full") from OSError(errno.ENOSPC, "No space left on device")
        return save(explanation, folder, **settings)

    monkeypatch.setattr(ortcam.Explanation, "save", until_full)
    out = tmp_path / "out"
    arguments = [tiny_bundle, *pictures(tmp_path / "in"), "-m", "cam,eigen-cam", "--json", "-o", out]
    assert main(["explain", *map(str, arguments)]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert [item["folder"] for item in printed["explanations"]] == [str(out / "a" / "cam")]
    assert [error["error"] for error in printed["errors"]] == ["full"]
    assert printed["index"] == str(out / "index.html")


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_what_the_disk_says_late_is_noticed(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    paths = pictures(tmp_path / "in")
    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "out"
    assert main(["explain", str(tiny_bundle), *map(str, paths), "-m", "cam", "-o", str(out), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ortcam: {out}")
    assert line.endswith(os.strerror(code))
    assert not list(out.rglob("manifest.json"))
    assert begun(tmp_path) == []


@pytest.mark.long
def test_nothing_is_measured_once_the_journal_could_not_be_written_and_a_resumed_run_goes_on(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    pictures(tmp_path / "in")
    out = tmp_path / "out"
    arguments = ["evaluate", tiny_bundle, tmp_path / "in", "-m", "cam", "--metrics", "confidence", "-o", out, "--quiet"]
    code, computed, lines = limited(9_000, *arguments)
    assert code == 2
    assert lines == [f"ortcam: {out / 'journal.jsonl'}: cannot be written: File too large"]
    *whole, half = (out / "journal.jsonl").read_bytes().split(b"\n")
    assert half
    assert len([json.loads(line) for line in whole]) == computed  # the settings, and one less than was computed
    assert main([*map(str, arguments), "--resume"]) == 0
    assert sum("scores" in json.loads(line) for line in (out / "journal.jsonl").open()) > computed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "fuse", "fuse --external", "fuse --triton"])
def test_what_does_not_fit_leaves_the_old_result(tiny_bundle: Path, tmp_path: Path, command: str) -> None:
    model(tmp_path / "x.onnx", 1)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    out = tmp_path / "out"
    out.mkdir()
    given = f"--labels {tmp_path}/labels.txt --channel-order rgb --scale 1 --mean .5 .5 .5 --std .2 .2 .2 --force"
    commands = {
        "export": ["export", tmp_path / "x.onnx", "-o", out / "x", *given.split()],
        "fuse": ["fuse", tiny_bundle, "-o", out / "x.onnx", "--force"],
        "fuse --external": ["fuse", tiny_bundle, "-o", out / "x.onnx", "--external", "--force"],
        "fuse --triton": ["fuse", tiny_bundle, "--triton", out, "--name", "x", "--force"],
    }
    assert main([*map(str, commands[command])]) == 0
    before = contents(out)
    code, _, lines = limited(3_000, *commands[command])
    assert code == 2
    result = out / ("x.onnx" if command in ("fuse", "fuse --external") else "x")
    assert lines[-1] == f"ortcam: {result}: cannot be written: File too large"
    assert contents(out) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_plot_that_does_not_fit_is_an_error_and_leaves_the_old_one(tiny_bundle: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"old")
    arguments = ["benchmark", tiny_bundle, "--methods", "cam", "--runs", 1, "--plot", plot, "--force"]
    code, _, lines = limited(3_000, *arguments)
    assert (code, lines) == (2, [f"ortcam: --plot {plot}: cannot be written: File too large"])
    assert contents(tmp_path) == {plot: b"old"}


def test_a_folder_for_temporary_files_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model(tmp_path / "x.onnx", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert main(["inspect", str(tmp_path / "x.onnx"), "--input-size", "32", "48"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ortcam: {tmp_path / 'gone'}")
    assert line.endswith("cannot be written: No such file or directory")


@pytest.mark.long
def test_a_full_disk_ends_a_batch_between_two_parts_and_resume_goes_on(tiny_bundle: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "in")
    out = tmp_path / "out"
    arguments = ["batch", tiny_bundle, tmp_path / "in", "-o", out, "-m", "cam", "--maps", "full", "--quiet"]
    code, _, lines = limited(4_000, *arguments)
    assert code == 2
    (line,) = lines
    assert line.startswith(f"ortcam: {out}: ")
    assert line.endswith(": File too large")
    assert [path for path in contents(out) if path.name != "_batch.json"] == []
    assert main([*map(str, arguments), "--resume"]) == 0
    (part,) = out.glob("part-*.parquet")
    assert part.stat().st_size > 4_000
