"""Load on `ortcam serve`, against the same calls one after the other in one process.

Three parts, with one server and one process that makes the calls without one, in turn:

1. 1, 4 and 16 clients send the same mix of predictions, Grad-CAM, budgeted and exact Score-CAM. Every answer is
   compared with that of `Explainer.explain`.
2. Health checks and predictions while an exact explanation runs.
3. Memory of the server over thousands of requests.

Results go to benchmarks/results/serving.md and .json. Run as `python -m benchmarks.serving`; needs $ORTCAM_TEST_DATA.
The exit status is 1 where an answer was wrong or failed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, say, whole_number
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, missing_data, photographs
from benchmarks.serving.beside import beside
from benchmarks.serving.clients import Load, send
from benchmarks.serving.report import figures, text_of
from benchmarks.serving.requests import Request, judged, mixed
from benchmarks.serving.server import Sequential, Server, sequential, serving

SHIPPED: Final = "shapes"
CLIENTS: Final = (1, 4, 16)
# Of the requests that memory is watched over: predictions, maps with gradients, small budgets.
_LIGHT: Final = (("predict", 12), ("grad-cam", 7), ("Score-CAM, 12 %", 1))
_SAMPLES: Final = 30  # of the memory


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 1 where an answer was wrong or failed, 2 where the data are not there."""
    options = _options(arguments)
    classifiers = [name for name in dict.fromkeys([*options.models, options.beside]) if name != SHIPPED]
    if missing := missing_data(classifiers, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.serving", arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = _bundles([*options.models, options.beside], folder)
        with (
            sequential({model: bundles[model] for model in options.models}, folder) as alone,
            serving(bundles, folder, "--workers", str(options.workers)) as server,
        ):
            raw = _measure(server, alone, options, folder)
    raw["settings"] = {"workers": options.workers, "cores": os.cpu_count(), "rounds": options.rounds}
    words = f"`--workers {options.workers}`, {os.cpu_count()} processors, {options.rounds} rounds"
    text = text_of(raw, run_in_words(run, words))
    write_results(options.output, run=run, raw=raw, figures=figures(raw))
    write_text(options.output.with_suffix(".md"), text)
    print(text)
    for line in raw["wrong"][:10] + raw["errors"][:10]:
        say(line)
    return 1 if raw["wrong"] or raw["errors"] else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    accepted = (SHIPPED, *WITH_WEIGHTS)
    parser.add_argument("--models", nargs="+", choices=accepted, default=[SHIPPED, "squeezenet1_1"], metavar="NAME")
    parser.add_argument(
        "--beside", choices=accepted, default="resnet18", metavar="NAME", help="that is explained exactly"
    )
    parser.add_argument("--rounds", type=whole_number, default=5, metavar="N", help="of each number of clients (5)")
    parser.add_argument("--photographs", type=whole_number, default=8, metavar="N", help="default 8")
    parser.add_argument("--requests", type=whole_number, default=3000, metavar="N", help="to watch memory over (3000)")
    parser.add_argument("--samples", type=whole_number, default=300, metavar="N", help="of each latency (300)")
    parser.add_argument("--workers", type=whole_number, default=1, metavar="N", help="of the server (1)")
    add_output(parser, "serving")
    return parser.parse_args(arguments)


def _bundles(models: Sequence[str], folder: Path) -> dict[str, Path]:
    from ortcam.bundle.shipped import bundle_path

    found = {}
    for model in dict.fromkeys(models):
        say(f"{model}: a bundle")
        found[model] = bundle_path() if model == SHIPPED else SUBJECTS[model].export(folder)
    return found


def _measure(server: Server, alone: Sequential, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All three parts, as raw data."""
    pictures = [item.path for item in photographs(options.photographs)]
    requests = mixed(options.models, pictures)
    light = _light(options.models[0], pictures, options.requests)
    checker = _Checker(alone, [*requests, *light], folder)
    say("warming up")
    checker.check(send(server.port, requests, 4))
    alone.run(requests)
    throughput = _throughput(server, alone, requests, options.rounds, checker)
    say(f"beside {options.beside}")
    latencies = beside(server, options.beside, options.models[0], pictures[0], options.samples)
    say(f"memory over {options.requests} requests")
    memory = _memory(server, light, checker)
    return {
        "throughput": throughput,
        "beside": latencies,
        "memory": memory,
        "checked": checker.count,
        "furthest": checker.furthest,
        "wrong": checker.wrong,
        "errors": checker.errors,
        "refused": checker.refused,
    }


def _throughput(
    server: Server, alone: Sequential, requests: Sequence[Request], rounds: int, checker: "_Checker"
) -> dict[str, Any]:
    """Seconds of all requests and of each, per round: without a server ("0"), and by number of clients."""
    found: dict[str, Any] = {str(count): {"seconds": [], "processor": [], "each": {}} for count in (0, *CLIENTS)}
    for number in range(rounds):
        turns = [0, *CLIENTS]
        for count in turns[number % len(turns) :] + turns[: number % len(turns)]:
            say(f"round {number + 1}: {count or 'no'} clients")
            entry = found[str(count)]
            measured = server if count else alone
            before = measured.processor_seconds()
            if count:
                load = send(server.port, requests, count)
                seconds, each = load.seconds, [(answer.request.kind, answer.seconds) for answer in load.answers]
            else:
                answer = alone.run(requests)
                seconds = answer["seconds"]
                each = [(request.kind, taken) for request, taken in zip(requests, answer["each"], strict=True)]
            entry["processor"].append(measured.processor_seconds() - before)
            entry["seconds"].append(seconds)
            if count:
                checker.check(load)
            for kind, taken in each:
                entry["each"].setdefault(kind, []).append(taken)
    for entry in found.values():
        entry["requests"] = len(requests)
    return found


def _light(model: str, pictures: Sequence[Path], count: int) -> list[Request]:
    """Requests that are soon answered, of several kinds."""
    kinds = [kind for kind, often in _LIGHT for _ in range(often)]
    # Steps without a common divisor, so that all kinds meet all photographs.
    return [
        Request(model, kinds[(number * 7) % len(kinds)], pictures[(number // len(kinds)) % len(pictures)])
        for number in range(count)
    ]


def _memory(server: Server, requests: Sequence[Request], checker: "_Checker") -> dict[str, list[float]]:
    """Bytes of the server after so many requests."""
    found: dict[str, list[float]] = {"requests": [0], "bytes": [server.memory()]}
    step = max(1, len(requests) // _SAMPLES)

    def look(answered: int) -> None:
        if answered % step == 0:
            found["requests"].append(answered)
            found["bytes"].append(server.memory())

    checker.check(send(server.port, requests, 4, each=look))
    return found


class _Checker:
    """Compares answers with those of the library.

    Attributes:
        count: of the answers that were compared.
        furthest: the largest difference of any map that was right.
        wrong: what was wrong, in words.
        errors: what failed, in words.
        refused: how many times the queue was full.
    """

    def __init__(self, alone: Sequential, requests: Sequence[Request], folder: Path) -> None:
        file = folder / "expected.npz"
        alone.write_answers(requests, file)
        with np.load(file) as arrays:
            self._expected: dict[str, dict[str, Any]] = {}
            for name in arrays.files:
                key, _, part = name.rpartition("|")
                self._expected.setdefault(key, {})[part] = arrays[name].astype(np.float64)
        self.count = self.refused = 0
        self.furthest = 0.0
        self.wrong: list[str] = []
        self.errors: list[str] = []

    def check(self, load: Load) -> None:
        """Compare all answers of a run."""
        for answer in load.answers:
            self.refused += answer.refused
            if answer.status != 200:
                self.errors.append(f"{answer.request.key}: {answer.status} {answer.body[:200]!r}")
                continue
            self.count += 1
            verdict = judged(answer.request, answer.body, self._expected[answer.request.key])
            self.furthest = max(self.furthest, verdict.furthest)
            if verdict.words:
                self.wrong.append(verdict.words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
