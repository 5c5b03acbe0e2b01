"""Standard output and error: gone, full, or of few letters; JSON stays JSON."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.cli.running import complaints, explained, numeric_bundle, run

from ortcam.cli import main


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(tiny_bundle: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "ortcam", "inspect", str(tiny_bundle)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert result.stderr == ""


def test_a_full_disk_is_said_once(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write_bytes(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    arguments = ["explain", str(tiny_bundle), *[str(photograph)] * 3, "-m", "eigen-cam,cam", "-o", str(tmp_path)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


@pytest.mark.long
def test_labels_that_the_terminal_lacks_are_escaped(bundle_copy: Path, photograph: Path, tmp_path: Path) -> None:
    labels = ["café", "a\x1b[31m", "x\ny", "\u202egnp", "日本", "\ud800"]
    bundle = numeric_bundle(bundle_copy, labels)
    command = ["explain", bundle, photograph, "-m", "eigen-cam", "--top-k", 6, "-o", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = run(*command, env=environment)
    assert result.returncode == 0, result.stderr
    for text in (r"caf\xe9", r"a\x1b[31m", r"x\ny", r"\u202egnp", r"\u65e5\u672c", r"\ud800"):
        assert f"  {text} " in result.stdout
    result = run(*command, "--json", env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["explanations"][0]["targets"]
    assert {target["label"] for target in found} == {*labels[:5], "\\ud800"}
    assert run("inspect", bundle, env=environment).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_an_output_that_takes_nothing_costs_one_line_and_no_result(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, redirection: str
) -> None:
    def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = shlex.join([sys.executable, "-m", "ortcam", *map(str, arguments)])
        return subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, text=True, check=False)

    explain = ["explain", tiny_bundle, photograph, photograph, "-m", "eigen-cam", "-t", "1", "-o", tmp_path]
    for arguments in (explain, [*explain, "--json"], ["inspect", tiny_bundle], ["--help"]):
        result = shell(*arguments)
        assert result.returncode == 2
        assert len(complaints(result)) == len(result.stderr.splitlines()) == 1
        assert "standard output: cannot be written to" in result.stderr
    assert explained(tmp_path) == ["photo-2/eigen-cam/class-1.npy", "photo/eigen-cam/class-1.npy"]
    assert shell(*explain, "--quiet").returncode == 0


@pytest.mark.slow
def test_a_reader_that_leaves_early_costs_no_result(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ortcam", "explain", str(tiny_bundle), str(photograph), str(photograph)]
    result = subprocess.run(
        [*command, "-m", "eigen-cam", "-t", "1", "-o", str(tmp_path)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(explained(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_json_stays_json_without_a_standard_error(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    arguments = [
        "explain",
        tiny_bundle,
        tmp_path / "missing.png",
        photograph,
        "-m",
        "eigen-cam",
        "-o",
        tmp_path,
        "--json",
    ]
    command = shlex.join([sys.executable, "-m", "ortcam", *map(str, arguments)])
    result = subprocess.run(f"{command} 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    printed = json.loads(result.stdout)
    assert (len(printed["explanations"]), len(printed["errors"])) == (1, 1)
