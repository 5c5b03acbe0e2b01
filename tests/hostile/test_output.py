"""What a command prints: results alone on standard output, whatever libraries print, and nothing a terminal obeys."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ortcam import cli
from ortcam.support.terminal import others_aside

# Libraries that print, in all ways that there are: Python's print, the descriptor, C's buffered stream, a logger.
NOISE = """
import ctypes, logging, os, sys, warnings
import ortcam.benchmarking, ortcam.cli, ortcam.explainer

def noisy(function):
    def wrapper(*arguments, **named):
        print("EP Error \\x1b[31m in Python")
        os.write(1, b"EP Error by the descriptor\\n")
        if os.name == "posix":
            ctypes.CDLL(None).puts(b"EP Error in C")
        logging.getLogger("library").warning("logged \\x1b[32m\\nsecond line")
        warnings.warn("warned \\x1b[33m", stacklevel=2)
        return function(*arguments, **named)
    return wrapper

explainer = ortcam.explainer.Explainer
explainer.explain_request = noisy(explainer.explain_request)
sys.exit(ortcam.cli.main(sys.argv[1:]))
"""
PATIENCE = 120


def noisily(*arguments: object, redirection: str = "") -> subprocess.CompletedProcess[str]:
    command = shlex.join([sys.executable, "-c", NOISE, *map(str, arguments)])
    return subprocess.run(
        f"{command} {redirection}", shell=True, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="descriptors")
def test_nothing_but_json_is_on_standard_output(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    explain = ["explain", tiny_bundle, photograph, "tests/none.png", "-m", "scorecam", "-o", tmp_path, "--json"]
    done = noisily(*explain)
    assert done.returncode == 2
    printed = json.loads(done.stdout)
    assert [len(printed[key]) for key in ("explanations", "errors")] == [1, 1]
    for words in ("in Python", "by the descriptor", "in C", "logged", "warned"):
        assert words in done.stderr
    assert "\x1b" not in done.stderr
    assert r"logged \x1b[32m\nsecond line" in done.stderr


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="descriptors")
def test_nothing_but_json_of_a_benchmark_is_on_standard_output(tiny_bundle: Path) -> None:
    done = noisily("benchmark", tiny_bundle, "--methods", "scorecam", "--runs", 1, "--seconds", 1, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="descriptors")
@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_libraries_print_is_in_no_file_where_a_stream_is_closed(
    redirection: str, tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["explain", tiny_bundle, photograph, "-m", "scorecam", "-o", output, "--quiet"]
    done = noisily(*arguments, redirection=redirection)
    assert done.returncode == 0
    files = [path for path in output.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    assert not [path for path in files if b"EP Error" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_output_is_an_error_and_a_reader_that_has_left_is_none(tiny_bundle: Path) -> None:
    assert noisily("inspect", tiny_bundle, redirection="> /dev/full").returncode == 2
    piped = noisily("inspect", tiny_bundle, redirection="3>&1 | true")
    assert piped.stderr == ""


def test_a_graph_that_cannot_be_opened_is_one_line_and_no_result(
    bundle_copy: Path, photograph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime's own fallback prints on standard output what it tries next."""
    manifest = json.loads((bundle_copy / "bundle.json").read_text())
    name = manifest["graphs"]["features"]
    (bundle_copy / name).write_bytes(b"no graph")
    manifest["files"][name] = {"size": 8, "sha256": hashlib.sha256(b"no graph").hexdigest()}
    (bundle_copy / "bundle.json").write_text(json.dumps(manifest))
    assert cli.main(["explain", str(bundle_copy), str(photograph), "-o", str(tmp_path / "out")]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert all(line.startswith("ortcam: ") for line in printed.err.splitlines())


def test_prints_of_others_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with others_aside() as ours:
        print("a\x1b[31m")
        print("ours", file=ours)
    assert capsys.readouterr() == ("ours\n", "a\\x1b[31m\n")


def test_a_text_of_a_bundle_begins_no_line(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((bundle_copy / "bundle.json").read_text())
    manifest["model"]["name"] = "net\nverified       all is well\x1b[2J"
    (bundle_copy / "bundle.json").write_text(json.dumps(manifest))
    assert cli.main(["inspect", str(bundle_copy)]) == 0
    printed = capsys.readouterr().out
    assert r"net\nverified       all is well\x1b[2J" in printed
    assert not any(line.startswith("verified") for line in printed.splitlines())
