"""The parent's side of worker.py: a process for one library that waits between its turns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.common.results import ROOT


class Worker:
    """A process of worker.py; it ends with the block.

    Attributes:
        first: its first answer.
        seconds_to_first: from its start to that answer.
    """

    def __init__(self, library: str, task: Mapping[str, object], folder: Path) -> None:
        self._library = library
        self._log = folder / f"{library}.log"
        arguments = [f"--{key}={value}" for key, value in task.items()]
        with self._log.open("w") as log:
            started = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.common.worker", library, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # What ortcam remembers of this machine is found anew for every benchmark.
                env={**os.environ, "TQDM_DISABLE": "1", "ORTCAM_CACHE": str(folder / "ortcam-cache.json")},
            )
        self.first = self._answer()
        self.seconds_to_first = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """One more run."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except BaseException:
            self.close()
            raise
        if not line:
            self.close()
            raise SystemExit(f"{self._library} failed:\n{self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
