"""The bare scoring loop: one process that explains files one after the other and does nothing else.

Run by `benchmarks.batch.loops`. A line of JSON in, a line of JSON out. The first line names the bundle and the threads.
Each other line is a task: files, options of `Explainer.explain`, and whether files are decoded before the clock runs.
The answer has the clock of each explanation's end, on the clock that all processes of a machine share.
"""

import dataclasses
import json
import sys
import time
from typing import Any

import ortcam


def run(explainer: ortcam.Explainer, files: list[str], options: dict[str, Any], *, decoded: bool) -> dict[str, Any]:
    """Explain files.

    Returns:
        `started` and `ends`, one per file: seconds of the monotonic clock. `stats`, one per file: what
        `Explanation.stats` has, and the method.
    """
    images = [explainer.read(file) if decoded else file for file in files]
    started, ends, stats = time.monotonic(), [], []
    for image in images:
        explanation = explainer.explain(image, **options)
        ends.append(time.monotonic())
        stats.append({**dataclasses.asdict(explanation.stats), "method": explanation.method})
    return {"started": started, "ends": ends, "stats": stats}


def main() -> None:
    """Answer lines until there are no more."""
    task = json.loads(sys.stdin.readline())
    explainer = ortcam.load(task["bundle"], providers=["cpu"], threads=task["threads"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(run(explainer, task["files"], task["options"], decoded=task["decoded"])), flush=True)


if __name__ == "__main__":
    main()
