"""The picture stays on this device: ONNX Runtime's telemetry is off before it is imported, unless the user said so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "ORT_DISABLE_TELEMETRY"
PREDICT = "import sys, ortcam; ortcam.load(sys.argv[1]).predict(sys.argv[2])"


def run(
    script: str, home: Path | str, *arguments: object, before: tuple[str, ...] = (), **extra: str
) -> subprocess.CompletedProcess[str]:
    left_out = (VARIABLE, "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    return subprocess.run(
        [*before, sys.executable, "-c", script, *map(str, arguments)],
        env=environment | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | extra,
        capture_output=True,
        text=True,
        check=False,
    )


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def writes_by_itself(home: Path) -> bool:
    """Whether this ONNX Runtime leaves something in the home folder when nobody turns it off."""
    run("import onnxruntime", home)
    return bool(files_of(home))


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        PREDICT,
        "import ortcam_export",
        "import ortcam_export.precision.quantize, ortcam_export.graphs.layers",
        "import ortcam.engine.session",
        "from ortcam.cli import main; main(['inspect', sys.argv[1], '--verify'])".replace(
            "from", "import sys; from", 1
        ),
        # Children inherit it, whatever they import.
        "import ortcam, subprocess, sys; subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)",
    ],
)
def test_nothing_is_written_into_the_home_folder(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, script: str
) -> None:
    result = run(script, tmp_path, tiny_bundle, photograph)
    assert (result.returncode, result.stderr) == (0, "")
    assert files_of(tmp_path) == []


def test_a_home_folder_that_cannot_be_written_gets_no_message(tiny_bundle: Path, photograph: Path) -> None:
    result = run(PREDICT, "/proc", tiny_bundle, photograph)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "1", ""])
def test_what_the_user_said_stays(tmp_path: Path, value: str) -> None:
    result = run(f"import os, ortcam; print(repr(os.environ[{VARIABLE!r}]))", tmp_path / "ours", **{VARIABLE: value})
    assert result.stdout.strip() == repr(value)
    (tmp_path / "by itself").mkdir()
    (tmp_path / "asked for").mkdir()
    if writes_by_itself(tmp_path / "by itself"):
        run("import ortcam", tmp_path / "asked for", **{VARIABLE: value})
        assert bool(files_of(tmp_path / "asked for")) == (value != "1")


@pytest.mark.slow
def test_an_onnx_runtime_that_is_there_already_is_told(tmp_path: Path) -> None:
    script = """
import os, onnxruntime
told = []
onnxruntime.disable_telemetry_events = lambda: told.append(True)
import ortcam
print(told)
"""
    assert run(script, tmp_path).stdout.strip() == "[True]"
    assert run(script, tmp_path, **{VARIABLE: "0"}).stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_nothing_is_looked_up_and_nobody_is_called(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-s", "200", "-o", str(trace), "-e", "trace=network,openat,mkdir")
    (tmp_path / "home").mkdir()
    result = run(PREDICT, tmp_path / "home", tiny_bundle, photograph, before=strace)
    if "ptrace" in result.stderr:
        pytest.skip("strace may not trace here")
    assert result.returncode == 0, result.stderr
    lines = trace.read_text(errors="replace").splitlines()
    assert any("features.onnx" in line for line in lines), "the trace saw what the process did"
    network = [
        line for line in lines if any(f" {call}(" in line for call in ("socket", "connect", "sendto", "sendmsg"))
    ]
    assert network == []
    for name in ("resolv.conf", "deviceid", "onnxruntime.db", "events.data"):
        assert not [line for line in lines if name in line]
