"""Memory of a batch over time: the driver and its scoring processes, while thousands of images pass through them."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from benchmarks.batch.loops import environment
from benchmarks.common.figures import median
from benchmarks.common.results import ROOT

__all__ = ["growth", "in_words", "watch"]

_PAUSE: Final = 0.5  # seconds between two looks


def watch(bundle: Path, images: Path, folder: Path, **arguments: Any) -> dict[str, Any]:
    """Run a batch and look at the memory of its processes.

    Returns:
        `images`: how many were explained. `samples`: seconds, bytes of the driver, bytes of all other processes.

    Raises:
        SystemExit: the batch failed.
    """
    task = {"model": str(bundle), "input": str(images), "output": str(folder / "output"), **arguments}
    command = [sys.executable, "-m", "benchmarks.batch.engine", json.dumps(task)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(folder))
    samples: list[tuple[float, int, int]] = []
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=(psutil.Process(process.pid), samples, ended))
    looking.start()
    try:
        said, _ = process.communicate()
    finally:
        ended.set()
        looking.join()
        process.kill()
    if process.returncode:
        raise SystemExit(f"the batch ended with {process.returncode}; what it said is above")
    report = json.loads(said.splitlines()[-1])["report"]
    return {"images": report["images"], "samples": samples}


def growth(samples: Sequence[Sequence[float]], column: int) -> float:
    """Bytes by which the median of the last quarter of the samples is above that of the second quarter.

    Args:
        samples: as `watch` returns them, of the whole run.
        column: 1: of the driver; 2: of the other processes.
    """
    quarter = len(samples) // 4
    values = [sample[column] for sample in samples]
    return median(values[-quarter:]) - median(values[quarter : 2 * quarter])


def in_words(memory: Mapping[str, Any]) -> str:
    """What was seen, in two sentences."""
    samples = memory["samples"]
    parts = []
    for column, name in ((1, "The driver"), (2, "The scoring processes together")):
        most = max(sample[column] for sample in samples) / 1e6
        parts.append(
            f"{name}: {most:.0f} MB at most; from the second quarter of the time to the last "
            f"{growth(samples, column) / 1e6:+.1f} MB."
        )
    return f"{memory['images']:,} images, {len(samples)} samples of resident memory. " + " ".join(parts)


def _look(process: Any, samples: list[tuple[float, int, int]], ended: threading.Event) -> None:
    """Note the memory of a process and of its descendants until it ends."""
    started = time.monotonic()
    while not ended.wait(_PAUSE):
        try:
            own = process.memory_info().rss
            others = process.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        total = 0
        for other in others:
            try:
                total += other.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples.append((time.monotonic() - started, own, total))
