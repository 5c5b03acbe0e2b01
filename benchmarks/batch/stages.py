"""One stage of a driver with millions of ids, in a process of its own: its seconds and its peak of memory.

Run by `benchmarks.batch.scale` as `python -m benchmarks.batch.stages STAGE INPUT OUTPUT`. The stages are "input" (read
INPUT from its beginning to its end), "ids" (read the ids of OUTPUT into an `IdSet`), "resume" (the whole batch, as
`ortcam batch --resume` runs it), and "ray" (a new batch on Ray, until its first row; all but one of the paths name no
file, so nothing but Ray itself takes time).
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ortcam import batch
from ortcam.batch.id_set import IdSet
from ortcam.batch.output.parts import Output
from ortcam.batch.progress import Snapshot
from ortcam.batch.sources.opening import open_source
from ortcam.bundle.shipped import bundle_path

__all__ = ["METHOD"]

METHOD = "grad-cam"


def read_input(source: str, _: str) -> int:
    """Count the items of INPUT."""
    return sum(1 for _ in open_source(source).items())


def read_ids(_: str, output: str) -> int:
    """Count the finished ids of OUTPUT."""
    return len(IdSet(Output(output).ids()))


def resume(source: str, output: str) -> int:
    """Go on with OUTPUT; how many images were left."""
    return batch.run(bundle_path(), source, output, resume=True, method=METHOD).images


class _EnoughError(Exception):
    """The first row is there."""


def begin_on_ray(source: str, _: str) -> int:
    """Begin a new batch on Ray, and end it with its first rows; how many there were."""
    seen = 0

    def note(snapshot: Snapshot) -> None:
        nonlocal seen
        seen = snapshot.images
        if seen:
            raise _EnoughError

    with tempfile.TemporaryDirectory() as name, contextlib.suppress(_EnoughError):
        batch.run(
            bundle_path(), source, Path(name) / "output", engine="ray", method=METHOD, batch_size=1, progress=note
        )
    return seen


STAGES: dict[str, Callable[[str, str], int]] = {
    "input": read_input,
    "ids": read_ids,
    "resume": resume,
    "ray": begin_on_ray,
}


def peak() -> int:
    """Bytes that were resident at most; `ru_maxrss` would begin with what the parent had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run a stage and print what it took."""
    stage, source, output = sys.argv[1:]
    before, started, processor = peak(), time.monotonic(), time.process_time()
    count = STAGES[stage](source, output)
    seconds, processor_seconds = time.monotonic() - started, time.process_time() - processor
    figures = {"count": count, "seconds": seconds, "processor_seconds": processor_seconds}
    print(json.dumps({**figures, "peak_bytes": peak(), "base_bytes": before}))


if __name__ == "__main__":
    main()
