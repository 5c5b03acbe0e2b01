"""`ortcam.batch.run` in a process of its own, with the clock of its progress. Run by `benchmarks.batch.throughput`.

The argument is a JSON object: the arguments of `run`. With `pretended`, the seconds of an image, the processes that
score are those of benchmarks.batch.pretender, which compute nothing. The answer, a line of JSON, says how many images
were done when, by the clock and by what this process had on the cores.
"""

import json
import os
import sys
import time
from typing import Any

from benchmarks.batch import pretender

from ortcam import batch
from ortcam.batch.job import RayOptions
from ortcam.batch.local import process
from ortcam.batch.progress import Snapshot


def main() -> None:
    """Run the batch and print when its images were done."""
    arguments = json.loads(sys.argv[1])
    if "ray" in arguments:
        arguments["ray"] = RayOptions(**arguments["ray"])
    pretended = arguments.pop("pretended", None)
    if pretended is not None:
        process.WORKER = pretender.__name__
        os.environ[pretender.SECONDS] = str(pretended)
    print(json.dumps(run(arguments)))


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the batch.

    Returns:
        `counts`, `clocks` and `processor`: images done, when, and seconds on the cores by then; `report`.
    """
    counts, clocks, processor = [0], [time.monotonic()], [time.process_time()]

    def note(snapshot: Snapshot) -> None:
        if snapshot.images > counts[-1]:
            counts.append(snapshot.images)
            clocks.append(time.monotonic())
            processor.append(time.process_time())

    report = batch.run(**arguments, progress=note)
    return {"counts": counts, "clocks": clocks, "processor": processor, "report": report.record()}


if __name__ == "__main__":
    main()
