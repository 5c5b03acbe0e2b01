"""How many images per second one driver can hand out and write, with processes that only pretend to score."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.batch.loops import environment
from benchmarks.batch.throughput import rate, seconds_per_image
from benchmarks.common.arguments import say
from benchmarks.common.results import ROOT

from ortcam.bundle.shipped import bundle_path

__all__ = ["measure_driver"]

_OFFERED: Final = 320.0  # images per second, of many processes together


def measure_driver(folder: Path, most: int, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Run batches whose processes pretend to score.

    Args:
        folder: for INPUT and OUTPUT.
        most: images for two processes that take no time; the others get a tenth of them.
        counts: of processes that take some time, so that all of them together could explain 320 images per second.

    Returns:
        Per situation: `processes`, `offered` (images per second that they can take; None: no bound), `images`, `rate`
        (images per second), and `seconds_per_image` that the driver had on the cores.
    """
    found = []
    for processes, seconds, images in [(2, 0.0, most), *((count, count / _OFFERED, most // 10) for count in counts)]:
        say(f"{processes} processes that pretend")
        source, output = folder / "images.parquet", folder / "output"
        pq.write_table(pa.table({"path": [f"archive/IMG_{number:09d}.jpg" for number in range(images)]}), source)
        shutil.rmtree(output, ignore_errors=True)
        task = {
            "model": str(bundle_path()),
            "input": str(source),
            "output": str(output),
            "method": "grad-cam",
            "batch_size": 1,
            "processes": processes,
            "threads": 1,
            "pretended": seconds,
        }
        command = [sys.executable, "-m", "benchmarks.batch.engine", json.dumps(task)]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(folder), check=False
        )
        if done.returncode:
            raise SystemExit(f"the batch ended with {done.returncode}; what it said is above")
        answer = json.loads(done.stdout.splitlines()[-1])
        found.append(
            {
                "processes": processes,
                "offered": processes / seconds if seconds else None,
                "images": answer["report"]["images"],
                "rate": rate(answer["counts"], answer["clocks"]),
                "seconds_per_image": seconds_per_image(answer),
            }
        )
    return found
