"""Runs an action again and again in children of a warmed process, and sends each a signal at another file event.

    python -m tests.hostile.killing FOLDER SIGNAL EVENTS SCENARIO...

EVENTS is "all", or how many of the last moves, with what comes behind them, the beginning, the middle and the end. It
prints a JSON object a line for each run: scenario, event, exit code, the state of the result, what is left of the run,
and what is left after the next one.

    python -m tests.hostile.killing FOLDER SIGNAL rivals SCENARIO...

Two runs at once write the old and the new result, some times over, while a third process looks at it.
"""

import importlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
from tests.hostile.killing.events import hear, heard_by, sync
from tests.hostile.killing.scenarios import SCENARIOS, WARM, Scenario, prepare

import ortcam_export.exporting
import ortcam_export.fused.placement
from ortcam.support.unfinished import clear

_ROUNDS = 4  # of two runs at once


def in_child(work: Callable[[], object]) -> int:
    """The wait status of a child that works and exits with the code that the work returns."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code = int(work() or 0)  # type: ignore[call-overload]
        except BaseException as error:  # noqa: BLE001 - a child never returns
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def leftovers(folder: Path) -> list[str]:
    """What is begun and not finished, in the folder of the result, below it, and in the one for temporary files."""
    places = itertools.chain((folder / "out").rglob("*"), (folder / "tmp").iterdir())
    return sorted(str(path.relative_to(folder)) for path in places if path.name.startswith(".ortcam-"))


def chosen(names: Sequence[str], wanted: str) -> list[int]:
    """Numbers of events, from 1; the one behind the last is the end of the run."""
    end = len(names) + 1
    if wanted == "all":
        return [*range(1, end + 1)]
    moves = [number for number, name in enumerate(names, 1) if name.startswith("os.rename")][-int(wanted) :]
    return sorted({1, end // 2, end - 1, end, *moves, *(number + 1 for number in moves)})


def sweep(name: str, base: Path, wanted: str, number: signal.Signals) -> Iterator[dict[str, Any]]:
    """Interrupt a scenario at one event after the other; what came of each run."""
    scenario = SCENARIOS[name]
    saved = base.with_name("saved")
    _restore(base, base.with_name("fresh"))
    assert in_child(lambda: scenario.before(base)) == 0, f"{name}: the old result"
    _restore(saved, base)
    names = _events_of(name, base)
    for at in chosen(names, wanted):
        _restore(base, saved)
        began = time.monotonic()
        status = in_child(lambda at=at: _act_until(scenario, base, at, number))
        result: dict[str, Any] = {
            "scenario": name,
            "at": at,
            "event": names[at - 1] if at <= len(names) else "the end",
            "code": os.waitstatus_to_exitcode(status),
            "seconds": round(time.monotonic() - began, 2),
            "state": _checked(scenario, base),
            "left": leftovers(base),
        }
        if at % 7 == 1 if wanted == "all" else at == len(names):
            # A run that was killed when its result was there already may be refused, since there is no --force.
            accepted = (0, 2) if result["state"] == "new" else (0,)
            result["next"] = os.waitstatus_to_exitcode(in_child(lambda: scenario.act(base))) in accepted
        else:  # what the next run begins with
            for folder in (base / "out", base / "tmp", *(path for path in (base / "out").rglob("*") if path.is_dir())):
                clear(folder)
        result |= {"left_by_next": leftovers(base), "state_after_next": _checked(scenario, base)}
        result["there"] = sorted(path.name for path in (base / "out").iterdir())
        yield result


def _restore(folder: Path, copy_of: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy_of, folder, symlinks=True)


def _events_of(name: str, base: Path) -> list[str]:
    """The events of a run that nothing interrupts."""
    log = base.with_name("events")

    def counted() -> int:
        names: list[str] = []
        with heard_by(names.append):
            code = SCENARIOS[name].act(base)
        log.write_text("\n".join(names))
        return code

    assert in_child(counted) == 0, f"{name}: the new result"
    return log.read_text().split("\n")


def _act_until(scenario: Scenario, base: Path, at: int, number: signal.Signals) -> int:
    """Act, and send this process a signal at an event; the end of the run is the last one."""
    left = at

    def told(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)

    with heard_by(told):
        code = scenario.act(base)
    if left > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return code


def _checked(scenario: Scenario, folder: Path) -> str:
    try:
        return scenario.state(folder)
    except Exception as error:  # noqa: BLE001 - what is wrong is the result
        return f"{type(error).__name__}: {error}"


def rivals(name: str, base: Path) -> dict[str, Any]:
    """What a reader sees while two runs replace each other's result, their exit codes, and what is there at the end."""
    scenario = SCENARIOS[name]
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(base.with_name("fresh"), base, symlinks=True)
    assert in_child(lambda: scenario.before(base)) == 0, f"{name}: the old result"
    begun = []
    for act in (scenario.act, scenario.rival or scenario.act):
        if not (child := os.fork()):
            os._exit(max(act(base) for _ in range(_ROUNDS)))
        begun.append(child)
    seen: dict[str, int] = {}
    codes = []
    while begun:
        state = _checked(scenario, base)
        seen[state] = seen.get(state, 0) + 1
        for child in [*begun]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                begun.remove(child)
                codes.append(os.waitstatus_to_exitcode(status))
    return {"scenario": name, "codes": codes, "seen": seen, "state": _checked(scenario, base), "left": leftovers(base)}


def main() -> None:
    """Run scenarios and print what came of them."""
    folder, number, wanted, names = Path(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3], sys.argv[4:]
    base = folder / "fresh"
    (base / "tmp").mkdir(parents=True)
    tempfile.tempdir = str(base / "tmp")
    assert in_child(lambda: prepare(base)) == 0, "preparing"
    tempfile.tempdir = str(folder / "work" / "tmp")
    os.environ["ORTCAM_CACHE"] = "off"
    for name, modules in WARM.items():
        if name in names:
            for module in modules:
                importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have it ignored
    sys.addaudithook(hear)
    os.fsync = sync
    if wanted != "rivals":
        ortcam_export.fused.placement.GRACE = 0.0
    for name in names:
        results = (
            [rivals(name, folder / "work")] if wanted == "rivals" else sweep(name, folder / "work", wanted, number)
        )
        for result in results:
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
