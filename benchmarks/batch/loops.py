"""Bare scoring loops side by side, one process per group of cores, and what the machine achieves with them."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.machine import physical_cores
from benchmarks.common.results import ROOT

__all__ = ["Grouping", "Loops", "Round", "environment", "groupings", "loops"]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the cores are shared: so many processes with so many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


def groupings(cores: int | None = None) -> list[Grouping]:
    """All ways to give every core to one process, the widest process first."""
    cores = cores or physical_cores()
    return [Grouping(count, cores // count) for count in range(1, cores + 1) if cores % count == 0]


@dataclasses.dataclass(frozen=True)
class Round:
    """What loops did with one task.

    Attributes:
        seconds: from the first start to the last end.
        ends: of each explanation, seconds after the first start, in order.
        stats: per explanation, of all processes in turn.
    """

    seconds: float
    ends: list[float]
    stats: list[dict[str, Any]]

    @classmethod
    def of(cls, answers: Sequence[dict[str, Any]]) -> "Round":
        """Of the answers of all processes."""
        first = min(answer["started"] for answer in answers)
        ends = sorted(end - first for answer in answers for end in answer["ends"])
        return cls(ends[-1], ends, [item for answer in answers for item in answer["stats"]])


class Loops:
    """Processes of benchmarks.batch.loop."""

    def __init__(self, processes: Sequence["subprocess.Popen[str]"]) -> None:
        self._processes = processes

    def run(self, files: Sequence[Path], *, decoded: bool = False, **options: Any) -> Round:
        """Explain files, shared out in turn, in all processes at once."""
        count = len(self._processes)
        for number, process in enumerate(self._processes):
            task = {"files": [str(file) for file in files[number::count]], "options": options, "decoded": decoded}
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        answers = [_answer(process) for process in self._processes]
        return Round.of([answer for answer in answers if answer["ends"]])


@contextlib.contextmanager
def loops(bundle: Path, grouping: Grouping, folder: Path) -> Iterator[Loops]:
    """Processes that have loaded the bundle; they end with the block.

    Args:
        bundle: that all open.
        grouping: how many processes, of how many threads.
        folder: for what ortcam remembers of this machine.
    """
    command = [sys.executable, "-m", "benchmarks.batch.loop"]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(grouping.processes):
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(folder)
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps({"bundle": str(bundle), "threads": grouping.threads}) + "\n")
            process.stdin.flush()
        for process in processes:
            _answer(process)
        yield Loops(processes)


def environment(folder: Path) -> dict[str, str]:
    """What is remembered of this machine is found anew for every benchmark."""
    return {**os.environ, "TQDM_DISABLE": "1", "ORTCAM_CACHE": str(folder / "ortcam-cache.json")}


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process of the bare loop ended; what it said is above")
    answer: dict[str, Any] = json.loads(line)
    return answer
