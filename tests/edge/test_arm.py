"""How `make edge-arm` goes on where it was stopped, and which wheels it takes; nothing is emulated."""

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.edge import __main__ as edge
from tests.edge import wheels
from tests.edge.arm import Result

VERSIONS = {"Python": "3.13", "numpy": "2.2", "ONNX Runtime": "1.21", "OpenCV": "4.10", "tqdm": "4.67"}
MEASURED = (
    Result("armhf", "fused", 1e-7, 122, "2026-11-27 12:00"),
    Result("armhf", "explain", 5e-7, 274, "2026-11-27 12:30"),
)


class Emulator:
    """Stands in for what runs under qemu-user; the first run fails at its second map."""

    def __init__(self) -> None:
        self.fails, self.versions, self.made = True, VERSIONS, list[str]()

    def check(self, environment: str, _python: Any, _folder: Path, _here: Any, without: list[str]) -> Iterator[Result]:
        for result in MEASURED:
            if result.what not in without:
                if self.fails and result is MEASURED[1]:
                    raise RuntimeError("stopped")
                self.made.append(result.what)
                yield result


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    stand_in = Emulator()
    monkeypatch.setattr("tests.edge.debian.missing_tools", lambda _: None)
    monkeypatch.setattr(edge, "maps_here", lambda _folder, again: {})
    monkeypatch.setattr(edge, "prepare", lambda _name, _folder: (["python3"], stand_in.versions))
    monkeypatch.setattr(edge, "check", stand_in.check)
    return stand_in


def test_a_stopped_run_goes_on_where_it_was(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["armhf", "--folder", str(tmp_path), "-o", str(tmp_path / "arm.md")]
    assert edge.main(arguments) == 1
    assert "armhf: stopped" in capsys.readouterr().err
    first = "| armhf | fused | 1.0e-07 | 122 | 2026-11-27 12:00 |"
    assert first in (tmp_path / "arm.md").read_text()
    emulator.fails = False
    assert edge.main(arguments) == 0
    assert emulator.made == ["fused", "explain"]
    report = (tmp_path / "arm.md").read_text()
    assert f"{first}\n| armhf | explain | 5.0e-07 | 274 | 2026-11-27 12:30 |" in report
    assert "| armhf | 3.13 | 2.2 | 1.21 | 4.10 | 4.67 |" in report


@pytest.mark.parametrize("why", ["asked", "other versions"])
def test_what_must_be_measured_again_is(emulator: Emulator, tmp_path: Path, why: str) -> None:
    emulator.fails = False
    arguments = ["armhf", "--folder", str(tmp_path), "-o", str(tmp_path / "arm.md")]
    edge.main(arguments)
    if why == "other versions":
        emulator.versions = {**VERSIONS, "numpy": "2.3"}
    edge.main([*arguments, *(["--again"] if why == "asked" else [])])
    assert emulator.made == ["fused", "explain"] * 2


def test_wheels_are_fetched_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        asked.append(command)
        part = Path(command[command.index("--target") + 1])
        found = part / "numpy-2.4.6.dist-info"
        found.mkdir(parents=True)
        (found / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n")
        return CompletedProcess(command, returncode=len(asked) == 1, stdout="", stderr="error: no wheel of numpy\n")

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(RuntimeError, match="error: no wheel of numpy"):
        wheels.unpack(["numpy"], "3.13", tmp_path)
    assert not (tmp_path / "wheels").exists()
    for _ in range(2):
        assert wheels.unpack(["numpy"], "3.13", tmp_path) == tmp_path / "wheels"
    assert len(asked) == 2
    assert asked[1][0] == sys.executable
    assert asked[1][asked[1].index("--python-version") + 1] == "3.13"
    assert wheels.versions(tmp_path) == {"numpy": "2.4.6"}


def test_a_program_sees_one_core_of_arm(tmp_path: Path) -> None:
    wheels.describe_processor(tmp_path)
    assert "CPU implementer\t: 0x41\n" in (tmp_path / "proc/cpuinfo").read_text()
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0\n"
