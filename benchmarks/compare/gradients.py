"""Grad-CAM by ortcam, torch-cam and pytorch-grad-cam, and what the gradient costs: from the path to the heatmap.

Every library runs in a process of its own (worker.py) that waits between its turns, and the turns are interleaved; in
each it explains the photograph a few times, and the median counts. The peers run as their README shows them, and at
their best settings: channels last, and no gradients of the weights. Bare passes of the classifier in ONNX Runtime, one
image each, take turns with them. In a process more, the bundle's head and its gradient graph run in turn. Results go to
benchmarks/results/compare-gradients.md and .json, anew after every model; `--keep` leaves those of an earlier run in
them. Run as `python -m benchmarks.compare.gradients`; needs $ORTCAM_TEST_DATA.
"""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_keep, add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure
from benchmarks.common.machine import describe_run
from benchmarks.common.processes import Worker
from benchmarks.common.results import earlier_models, write_results, write_text
from benchmarks.common.subjects import SUBJECTS, Photograph, missing_data, photograph
from benchmarks.common.worker import GRADIENT
from benchmarks.compare.gradients_report import FORWARD, LIBRARIES, OURS, Timing, report

PHOTOGRAPH: Final = "val_0012.jpg"
CLASSES: Final = 10
HEAD: Final = "head-and-gradient"
# Where torch-cam's map is ortcam's, but for rounding.
SAME: Final = 0.9999
# Layers further from the logits than the subject's own, whose head and gradient are timed too.
DEEPER: Final = {"resnet18": "layer3"}


def measure(model: str, options: argparse.Namespace, item: Photograph) -> Timing:
    """Prepare a model for all libraries and take every number of it."""
    subject = SUBJECTS[model]
    with tempfile.TemporaryDirectory(prefix="ortcam-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        task = _task(model, subject.layer, folder, item, options)
        say(f"{model}: exporting")
        Worker("prepare", task, folder).close()
        cold: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        peaks: dict[str, list[int]] = {library: [] for library in LIBRARIES}
        workers = {FORWARD: stack.enter_context(Worker(FORWARD, task, folder))}
        for library in LIBRARIES:
            for start in range(options.cold_starts):
                if start:
                    workers[library].close()
                workers[library] = stack.enter_context(Worker(library, task, folder))
                cold[library].append(workers[library].seconds_to_first)
                peaks[library].append(workers[library].first["peak_bytes"])
            say(f"{model}: {library} is ready, {cold[library][-1]:.2f} s")
        seconds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        cpu: dict[str, list[float]] = {library: [] for library in (FORWARD, *LIBRARIES)}
        forward, ten = [], []
        targets = list(dict.fromkeys((item.target, *range(CLASSES))))[:CLASSES]
        for _ in range(options.rounds):
            answer = workers[FORWARD].ask(batch_sizes=[1], images=options.runs)
            forward.append(answer["seconds_an_image"]["1"])
            cpu[FORWARD].append(answer["cpu_seconds"] / (options.runs + 1))  # it warms up with a pass
            for library in LIBRARIES:
                answer = workers[library].ask(runs=options.runs, save=str(folder / f"{library}.npz"))
                seconds[library].append(answer["seconds"])
                cpu[library].append(answer["cpu_seconds"])
            ten.append(workers[OURS].ask(runs=options.runs, targets=targets)["seconds"])
        maps = {library: dict(np.load(folder / f"{library}.npz")) for library in LIBRARIES}
        graphs = {subject.layer: _graphs(task, folder, options)}
    if model in DEEPER:
        graphs[DEEPER[model]] = _deeper(model, DEEPER[model], options, item)
    return Timing(
        layer=subject.layer,
        random=subject.random,
        seconds=seconds,
        ten_seconds=ten,
        forward_seconds=forward,
        cpu_seconds=cpu,
        cold_start_seconds=cold,
        peak_bytes=peaks,
        graphs=graphs,
        agreement={library: _agreement(maps[OURS], maps[library]["map"]) for library in LIBRARIES if library != OURS},
    )


def _task(model: str, layer: str, folder: Path, item: Photograph, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": model,
        "layer": layer,
        "method": GRADIENT,
        "folder": folder,
        "photograph": item.path.resolve(),
        "target": item.target,
        "batch-size": 1,
        "threads": options.threads,
    }


def _graphs(task: Mapping[str, Any], folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of the head and of the gradient graph, in a process of its own."""
    with contextlib.closing(Worker(HEAD, task, folder)) as worker:
        answers = [worker.ask(pairs=options.runs)["graphs"] for _ in range(options.rounds)]
    return {name: [answer[name] for answer in answers] for name in answers[0]}


def _deeper(model: str, layer: str, options: argparse.Namespace, item: Photograph) -> dict[str, list[float]]:
    """The same for another layer of the model."""
    with tempfile.TemporaryDirectory(prefix="ortcam-bench-") as name:
        folder = Path(name)
        task = _task(model, layer, folder, item, options)
        SUBJECTS[model].export(folder, layer=layer)
        return _graphs(task, folder, options)


def _agreement(ours: Mapping[str, Any], theirs: Any) -> float:
    """Pearson correlation of a peer's map with ortcam's at the size of the peer's."""
    mine = ours["map"] if ours["map"].shape == theirs.shape else np.maximum(ours["raw_map"], 0)
    return float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1])


def figures(timings: Mapping[str, Timing]) -> Iterable[Figure]:
    """What is compared between commits."""
    for model, timing in timings.items():
        for library, values in timing.seconds.items():
            yield Figure(f"{model} / {library} / latency", "s", tuple(values))
            yield Figure(f"{model} / {library} / cold start", "s", tuple(timing.cold_start_seconds[library]))
            yield Figure(f"{model} / {library} / peak memory", "B", tuple(timing.peak_bytes[library]))
        yield Figure(f"{model} / {OURS} / ten classes", "s", tuple(timing.ten_seconds))
        yield Figure(f"{model} / bare pass", "s", tuple(timing.forward_seconds))
        for library, values in timing.cpu_seconds.items():
            yield Figure(f"{model} / {library} / processor time", "s", tuple(values))
        for layer, graphs in timing.graphs.items():
            ratios = tuple(np.divide(graphs["gradient"], graphs["head"]).tolist())
            yield Figure(f"{model} / {layer} / gradient graph by head", "x", ratios)


def main(arguments: Sequence[str]) -> int:
    """Measure, write both files, print the Markdown.

    Returns:
        Exit code: 1 where torch-cam and ortcam do not compute the same, 2 where the data are not there.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--rounds", type=whole_number, default=15, help="turns per library (default %(default)s)")
    parser.add_argument("--runs", type=whole_number, default=5, help="explanations per turn (default %(default)s)")
    parser.add_argument("--cold-starts", type=whole_number, default=3, help="fresh processes (default %(default)s)")
    add_output(parser, "compare-gradients")
    add_keep(parser)
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data():
        say(missing)
        return 2
    item = photograph(PHOTOGRAPH)
    settings = {
        "photograph": PHOTOGRAPH,
        **{name: getattr(options, name) for name in ("rounds", "runs", "cold_starts", "threads")},
    }
    run = describe_run("benchmarks.compare.gradients", arguments)
    timings: dict[str, Timing] = {}
    if options.keep:
        kept = earlier_models(options.output, run, settings)
        timings = {model: Timing(**found) for model, found in kept.items()}
    for model in options.models:
        timings[model] = measure(model, options, item)
        timings = {name: timings[name] for name in SUBJECTS if name in timings}
        raw = {"settings": settings, "models": {name: dataclasses.asdict(found) for name, found in timings.items()}}
        write_results(options.output, run=run, raw=raw, figures=figures(timings))
        text = report(timings, settings, run)
        write_text(options.output.with_suffix(".md"), text)
    print(text)
    if different := [name for name, found in timings.items() if found.agreement["torch-cam"] <= SAME]:
        say(f"ortcam and torch-cam do not compute the same map for {', '.join(different)}: see the last table")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
