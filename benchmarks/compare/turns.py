"""One model in all libraries: a process each, cold starts, and turns that are interleaved."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import say
from benchmarks.common.machine import describe_run
from benchmarks.common.processes import Worker
from benchmarks.common.subjects import DEFAULT_SAMPLES, SUBJECTS, Photograph
from benchmarks.compare.measurement import (
    AUTO,
    FORWARD,
    FORWARD_BATCH_SIZES,
    GATED,
    OURS,
    SEMANTICS,
    Measurement,
    Settings,
)

CLASSES: Final = 10
FORWARD_IMAGES: Final = 128


def measure(model: str, settings: Settings, item: Photograph) -> Measurement:
    """Prepare a model for all libraries and take every number of it."""
    subject = SUBJECTS[model]
    repeats = settings.repeats_large if subject.large else settings.repeats
    cold_starts = 1 if subject.large else settings.cold_starts
    with tempfile.TemporaryDirectory(prefix="ortcam-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        task = {
            "model": model,
            "layer": subject.layer,
            "method": settings.method,
            "folder": folder,
            "photograph": item.path.resolve(),
            "target": item.target,
            "batch-size": settings.batch_size,
            "threads": settings.threads,
        }
        say(f"{model}: exporting")
        Worker("prepare", task, folder).close()
        cold: dict[str, list[float]] = {}
        peaks: dict[str, list[int]] = {}
        workers: dict[str, Worker] = {}
        libraries = tuple(name for name in settings.libraries if not (subject.large and name == GATED))
        for library in (FORWARD, *libraries):
            starts_cold = settings.method == "scorecam" and library != FORWARD and not library.endswith("-best")
            for start in range(cold_starts if starts_cold else 1):
                if start > 0:
                    workers[library].close()
                worker = stack.enter_context(Worker(library, task, folder))
                say(f"{model}: start {start + 1}, {library} {worker.seconds_to_first:.2f} s")
                if starts_cold:
                    cold.setdefault(library, []).append(worker.seconds_to_first)
                    peaks.setdefault(library, []).append(worker.first["peak_bytes"])
                workers[library] = worker
        if AUTO in workers and not subject.large:
            workers[AUTO].ask()  # one explanation of few channels may not find the batch size
        timed = _timed_runs(model, settings, workers, folder, repeats)
        peaks = {library: peaks.get(library, [timed[library][-1]["peak_bytes"]]) for library in libraries}
        ours = timed[OURS]
        best = next((answers[-1] for library, answers in timed.items() if library.endswith("-best")), {})
        return Measurement(
            layer=subject.layer,
            random=subject.random,
            channels=ours[0]["channels"],
            passes=ours[0]["passes"],
            seconds={library: [answer["seconds"] for answer in timed[library]] for library in libraries},
            stages=[answer["stages"] for answer in ours],
            batch_sizes={library: timed[library][-1]["batch_size"] for library in libraries},
            ten_seconds=[answer["seconds"] for answer in timed["ten"]],
            forward_seconds={
                str(size): [answer["seconds_an_image"][str(size)] for answer in timed[FORWARD]]
                for size in FORWARD_BATCH_SIZES
            },
            torch_forward_seconds=best.get("seconds_an_image", {}),
            cold_start_seconds=cold,
            peak_bytes=peaks,
            agreement=dict(_agreements(workers, settings, folder)),
            date=describe_run("", ())["date"],
        )


def _timed_runs(
    model: str, settings: Settings, workers: Mapping[str, Worker], folder: Path, repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """The answers of all libraries, run after run; "ten" are ortcam's for ten classes, which follow those for one."""
    samples = {"samples": DEFAULT_SAMPLES[settings.method]} if settings.method in DEFAULT_SAMPLES else {}
    requests: dict[str, dict[str, Any]] = {
        library: {**samples, "save": str(folder / f"{library}.npz")} for library in workers
    }
    requests[FORWARD] = {"batch_sizes": FORWARD_BATCH_SIZES, "images": FORWARD_IMAGES}
    targets = list(dict.fromkeys((settings.target, *range(CLASSES))))[:CLASSES]
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in (*workers, "ten")}
    for repeat in range(repeats):
        for library, worker in workers.items():
            answers[library].append(worker.ask(**requests[library]))
            say(f"{model}: run {repeat + 1}/{repeats}, {library} {answers[library][-1]['seconds']:.2f} s")
            if library == OURS and settings.method == "scorecam":
                answers["ten"].append(worker.ask(targets=targets))
    return answers


def _agreements(workers: Mapping[str, Worker], settings: Settings, folder: Path) -> Iterator[tuple[str, float]]:
    """Pearson correlation of a peer's last map with ortcam's map in the peer's semantics, at the size of the peer's."""
    for peer, options in SEMANTICS.items():
        if peer not in workers or settings.method == "sscam":
            continue
        file = folder / "agreement.npz"
        samples = {"samples": DEFAULT_SAMPLES[settings.method]} if settings.method in DEFAULT_SAMPLES else {}
        workers[OURS].ask(options=options, save=str(file), **samples)
        theirs = np.load(folder / f"{peer}.npz")["map"]
        arrays = np.load(file)
        mine = arrays["map"] if arrays["map"].shape == theirs.shape else np.maximum(arrays["raw_map"], 0)
        yield peer, float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1])
