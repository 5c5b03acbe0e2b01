"""The same calls without a server: one process, one call after the other. Run by benchmarks.serving.

A line of JSON in, a line of JSON out. The first line in names the bundles; the others are lists of requests, which it
runs and times. Where the line names a file, it writes the answers there, by the keys of the requests.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving.requests import Request
from numpy.typing import NDArray

import ortcam
from ortcam import Explainer
from ortcam.results.low_resolution import low_resolution


def call(explainer: Explainer, request: Request, content: bytes) -> Any:
    """What a user of the library calls with the bytes of an image."""
    if request.options is None:
        return explainer.predict(content)
    return explainer.explain(content, **request.options)


def expected(explainer: Explainer, request: Request, content: bytes) -> dict[str, NDArray[Any]]:
    """The right answer: the probability of every class, and of an explanation its classes and its small maps."""
    answer = {"probabilities": explainer.predict(content)}
    if request.options is None:
        return answer
    found = call(explainer, request, content)
    return answer | {"classes": np.asarray(found.targets), "map": low_resolution(found)}


def main() -> None:
    """Answer lines until there are no more."""
    bundles = json.loads(sys.stdin.readline())
    explainers = {name: ortcam.load(path) for name, path in bundles.items()}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        requests = [Request(item["model"], item["kind"], Path(item["photograph"])) for item in task["requests"]]
        contents = {item.photograph: item.photograph.read_bytes() for item in requests}
        if file := task.get("file"):
            arrays: dict[str, Any] = {}
            for item in {request.key: request for request in requests}.values():
                answer = expected(explainers[item.model], item, contents[item.photograph])
                arrays |= {f"{item.key}|{name}": value for name, value in answer.items()}
            np.savez(file, **arrays)
            print(json.dumps({"answers": len(arrays)}), flush=True)
            continue
        taken = []
        started = time.perf_counter()
        for item in requests:
            clock = time.perf_counter()
            call(explainers[item.model], item, contents[item.photograph])
            taken.append(time.perf_counter() - clock)
        print(json.dumps({"seconds": time.perf_counter() - started, "each": taken}), flush=True)


if __name__ == "__main__":
    main()
