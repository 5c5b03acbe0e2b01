"""Limits on the command line: how much is scored, and one clear error for those that are wrong."""

import json
import math
from pathlib import Path

import pytest

from ortcam.cli import main

# Channels of the tiny bundle that are not flat on the photograph.
LIVE = 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        (["--budget", "4"], 4),
        (["--budget", "40%"], math.ceil(0.4 * LIVE)),
        (["--budget", "0.4"], math.ceil(0.4 * LIVE)),
        (["--budget", "1000"], LIVE),
    ],
)
def test_limits_stop_early_and_the_summary_says_so(
    flags: list[str],
    passes: int,
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["explain", str(tiny_bundle), str(photograph), "-m", "scorecam", "-o", str(tmp_path), *flags]
    assert main([*arguments, "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["explanations"][0]["stats"]
    assert (stats["live_channels"], stats["passes"]) == (LIVE, passes)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert ("channels scored" in printed) == (passes < LIVE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "0"], "budget=0: accepted is a share"),
        (["--budget", "2.5"], "budget=2.5: accepted is a share"),
        (
            ["--budget", "200%"],
            "budget=2.0: accepted is a share of the channels above 0, up to 1 (100%), or a whole number",
        ),
        (["--deadline", "-1"], "deadline=-1.0: accepted is milliseconds above 0"),
        (["--tolerance", "7"], "tolerance=7.0: accepted is a number between 0 and 1"),
        (["--tolerance", "0.1", "--completion", "none"], "tolerance with completion='none'"),
        (["--batch-size", "0"], "batch_size=0: accepted is a whole number from 1 to 65536, or 'auto'"),
        (["-m", "scorecam++", "--sampling-error", "0.1"], "sampling_error with scorecam++"),
        (["--sampling-error", "0.1"], "sampling_error with auto"),
        (["-m", "eigen-cam", "--budget", "3"], "budget with eigen-cam"),
    ],
)
def test_a_wrong_limit_is_one_clear_error(
    flags: list[str], message: str, tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny_bundle), str(photograph), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(("flag", "value"), [("--budget", "some"), ("--budget", "x%"), ("--batch-size", "big")])
def test_a_limit_that_is_no_number_says_what_is_accepted(
    flag: str, value: str, tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(tiny_bundle), str(photograph), flag, value])
    assert stopped.value.code == 2
    assert f"{value!r}: accepted is" in capsys.readouterr().err


def test_a_limit_holds_for_the_methods_that_it_goes_with(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["-m", "scorecam,eigen-cam", "--budget", "3", "-o", str(tmp_path), "--json"]
    assert main(["explain", str(tiny_bundle), str(photograph), *flags]) == 0
    masked, other = json.loads(capsys.readouterr().out)["explanations"]
    assert (masked["stats"]["passes"], other["stats"]["passes"]) == (3, 0)
