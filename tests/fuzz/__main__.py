"""`make fuzz`: what was found before is tried again, then every target is fuzzed for its share of the time.

    python -m tests.fuzz --seconds 120 [--folder .fuzz] [TARGET...]

Ends with 1 where there is a finding: an exception that is no OrtcamError, a crash, too much time or too much memory.
The input that did it lies in FOLDER/crashes/TARGET.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.fuzz import bundles
from tests.fuzz.targets import NAMES
from tests.fuzz.worker import CORPUS, CRASHES

__all__ = ["main", "replay"]

_REPOSITORY: Final = Path(__file__).parents[2]
_STARTING: Final = 600  # seconds that a process may take to begin and to end
_MOST: Final = 10  # findings of one target in one run


def main(arguments: list[str] | None = None) -> int:
    """Replay and fuzz; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what strangers give to ortcam.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; all where none is named")
    parser.add_argument("--seconds", type=int, default=120, help="of all targets together, default 120")
    parser.add_argument("--folder", type=Path, default=_REPOSITORY / ".fuzz", help="for inputs, default .fuzz")
    options = parser.parse_args(arguments)
    options.folder = options.folder.resolve()
    targets = options.targets or list(NAMES)
    if unknown := [name for name in targets if name not in NAMES]:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if importlib.util.find_spec("atheris") is None:
        print(
            "make fuzz needs atheris, whose wheels are for CPython 3.11 to 3.13 on Linux and x86-64: "
            "run it on such a machine; the tests in tests/fuzz run anywhere",
            file=sys.stderr,
        )
        return 2
    _make_bundle(options.folder / "bundle")
    failing = sum(replay(name, options.folder) for name in targets)
    share = max(options.seconds // len(targets), 1)
    found = sum(_fuzz(name, options.folder, share) for name in targets)
    print(f"{failing} earlier inputs still fail, {found} new findings")
    return 1 if failing or found else 0


def _make_bundle(folder: Path) -> None:
    """Make the bundle that is fuzzed once for all processes."""
    made = bundles.files()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    os.environ[bundles.FOLDER] = str(folder)


def replay(name: str, folder: Path) -> int:
    """Try a target on what was found before, each in a process of its own; returns how many inputs still fail."""
    failing = 0
    for path in sorted((folder / CRASHES / name).glob("*-*")):
        done = _python("tests.fuzz.worker", name, str(path), timeout=_STARTING)
        if done.returncode:
            failing += 1
            print(f"{name}: {path} still fails: {_reason(done.returncode, done.stdout)}", flush=True)
    return failing


def _fuzz(name: str, folder: Path, seconds: int) -> int:
    """Fuzz a target; after a finding go on in a new process; returns how many there were."""
    end, findings, runs, last = time.monotonic() + seconds, 0, 0, ""
    crashes, log = folder / CRASHES / name, folder / f"{name}.log"
    while findings < _MOST and (left := round(end - time.monotonic())) > 0:
        before = set(crashes.glob("*"))
        done = _python("tests.fuzz.worker", name, str(folder), str(left), timeout=left + _STARTING)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout)
        executed = re.findall(r"number_of_executed_units:\s*(\d+)", done.stdout)
        runs += int(executed[-1]) if executed else 0
        states = re.findall(r"#\d+\s+\w+\s+(cov: .*?) lim:", done.stdout)
        last = states[-1] if states else last
        if not done.returncode:
            break
        findings += 1
        made = sorted(set(crashes.glob("*")) - before) or [log]
        print(f"{name}: {_reason(done.returncode, done.stdout)}: {made[0]}", flush=True)
        end += 0 if executed else -seconds  # what does not even begin is not begun again
    inputs = len(list((folder / CORPUS / name).glob("*")))
    print(f"{name}: {runs} inputs tried, {last or 'no coverage'}, {inputs} kept, {findings} findings", flush=True)
    return findings


def _python(module: str, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(
            command,
            cwd=_REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, said + f"\nTimeoutError: no end after {timeout:.0f} s\n")


def _reason(code: int, said: str) -> str:
    """The line that names what went wrong."""
    wrong = re.findall(r"^(?:[\w.]+(?:Error|Exception|Exit|Interrupt)\b.*|.*ERROR: .*)$", said, re.MULTILINE)
    own = [line for line in wrong if "libFuzzer: fuzz target exited" not in line and "Python exception" not in line]
    return (own or wrong or [f"the process ended with {code}"])[0][:300]


if __name__ == "__main__":
    sys.exit(main())
