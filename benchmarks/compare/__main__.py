"""One explanation by ortcam, torch-cam and pytorch-grad-cam: same weights, photograph, layer and threads.

Every library runs in a process of its own (worker.py) that waits between its turns, and the turns are interleaved, so
that what disturbs the machine disturbs all. A run goes from the path of the photograph to the heatmap. The peers are
measured as their README shows them and at their best settings (worker.py says what these are). Results go to
benchmarks/results/compare.md and .json, anew after every model; `--keep` leaves the models of an earlier run in them.
Run as `python -m benchmarks.compare`; `--method sscam` and `--method iscam` compare with torch-cam alone.
"""

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.measuring import (
    Figure,
    add_keep,
    add_output,
    add_threads,
    describe_run,
    earlier_models,
    median,
    megabytes,
    run_in_words,
    say,
    table,
    whole_number,
    with_quartiles,
    write_results,
    write_text,
)
from benchmarks.common.processes import Worker
from benchmarks.common.subjects import SUBJECTS, Photograph, missing_data, photograph
from benchmarks.common.worker import CANDIDATES

PHOTOGRAPH: Final = "val_0012.jpg"

OURS: Final = "ortcam"
AUTO: Final = "ortcam-auto"
GATED: Final = "ortcam-scorecam++"
FORWARD: Final = "onnxruntime-forward"
TITLES: Final = {
    OURS: "ortcam",
    AUTO: "ortcam, automatic batch",
    GATED: "ortcam, ScoreCAM++",
    "torch-cam": "torch-cam",
    "torch-cam-best": "torch-cam, best settings",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "pytorch-grad-cam-best": "pytorch-grad-cam, best settings",
}
METHODS: Final = {
    "scorecam": ("Score-CAM", tuple(TITLES)),
    "sscam": ("SS-CAM", (OURS, AUTO, "torch-cam", "torch-cam-best")),
    "iscam": ("IS-CAM", (OURS, AUTO, "torch-cam", "torch-cam-best")),
}
SAMPLED_MODELS: Final = ("squeezenet1_1", "resnet18")
DEFAULT_SAMPLES: Final = {"sscam": 35, "iscam": 10}

COLD_STARTS: Final = 3
CLASSES: Final = 10
FORWARD_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
FORWARD_IMAGES: Final = 128

# torch-cam normalises maps before it upsamples them and weighs by a softmax of logits; with the same choices ortcam has
# to give the same map. pytorch-grad-cam upsamples with aligned corners, which ortcam does not: its map is only close.
SEMANTICS: Final = {
    "torch-cam": {"weighting": "logit-softmax", "normalize": "before-upsampling"},
    "pytorch-grad-cam": {"weighting": "logit-softmax", "normalize": "after-upsampling"},
}
SAME: Final = 0.999

REPORT: Final = """\
# One {title} explanation: ortcam, torch-cam, pytorch-grad-cam

From the path of a photograph to its heatmap, with the same weights, layer and threads. Numbers are medians, in brackets
the quartiles. ortcam and the peers as their README shows them run in batches of {settings.batch_size}; "best settings"
are channels last, inference mode, and the batch size with the fastest forward passes of {candidates}. SS-CAM and IS-CAM
warm up with one sample, Score-CAM with a whole run, best settings with forward passes.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research; those marked \
random have none there

## Targets

{targets}

## By model

× is the median divided by that of ortcam in batches of {settings.batch_size}. Latency: the model is loaded and has run
once. Peak memory: the most that was resident in a fresh process up to its first heatmap (best settings, SS-CAM and
IS-CAM: in the process that was timed, at its end). Cold start: a fresh process from its start to its first heatmap,
imports and loading included, with all files in the page cache.

{details}

## What an explanation adds to its forward passes

Bare passes: nothing but the classifier in ONNX Runtime on copies of the photograph, timed in the same interleaving at
the batch sizes {forwards}; the best of their medians, times the passes that the live channels take. Channels that are
the same everywhere take no pass. Stages are ortcam's own, medians in milliseconds.

{overheads}

Bare passes at their best batch size, ONNX Runtime against PyTorch in channels last and inference mode, milliseconds an
image: {bare}.
{classes}
## Do they compute the same?

Pearson correlation of a library's map with ortcam's when that makes the same choices. torch-cam's are options of
ortcam, so more than {same} is required (SS-CAM draws other noise and is not compared); pytorch-grad-cam upsamples with
aligned corners, which ortcam does not offer.

{agreements}
"""
TEN_CLASSES: Final = """
## Ten classes from the same passes

{rows}
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for all libraries.

    Attributes:
        method: of METHODS.
        libraries: that are measured.
        photograph: file under images/.
        target: class index that is explained.
        label: its name.
        repeats: timed runs a library.
        repeats_large: the same for models whose explanations take a peer minutes.
        cold_starts: fresh processes a library; one for large models.
        batch_size: masked images a forward pass.
        threads: inside an operator.
    """

    method: str
    libraries: tuple[str, ...]
    photograph: str
    target: int
    label: str
    repeats: int
    repeats_large: int
    cold_starts: int
    batch_size: int
    threads: int

    def __str__(self) -> str:
        return (
            f"photograph {self.photograph} (class {self.target}, {self.label}), {self.threads} threads, float32, CPU, "
            f"{self.repeats} timed runs ({self.repeats_large} of large models), interleaved, after one to warm up, "
            f"{self.cold_starts} cold starts (large models 1), one process a library, progress bars off"
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The raw numbers of one model; lists in the order of the runs, a dict has one list a library.

    Attributes:
        layer: module path of the maps.
        random: whether the weights are random.
        channels: C, the channels that the peers score.
        passes: what ortcam makes: it leaves out channels that are the same everywhere.
        seconds: of every run.
        stages: of ortcam's runs, a dict of seconds a stage each.
        batch_sizes: that a library ran with.
        ten_seconds: of ortcam's runs for ten classes.
        forward_seconds: an image, of bare passes in ONNX Runtime, by batch size.
        torch_forward_seconds: an image, in PyTorch at best settings, by batch size; one value each.
        cold_start_seconds: from the start of a process to its first heatmap.
        peak_bytes: resident memory at most.
        agreement: Pearson correlation of a peer's map with ortcam's when that makes the peer's choices.
        date: when it was measured.
    """

    layer: str
    random: bool
    channels: int
    passes: int
    seconds: dict[str, list[float]]
    stages: list[dict[str, float]]
    batch_sizes: dict[str, int]
    ten_seconds: list[float]
    forward_seconds: dict[str, list[float]]
    torch_forward_seconds: dict[str, float]
    cold_start_seconds: dict[str, list[float]]
    peak_bytes: dict[str, list[int]]
    agreement: dict[str, float]
    date: str = ""

    @property
    def bare_seconds(self) -> float:
        """What the bare passes of an explanation take at the best batch size."""
        return self.passes * min(median(values) for values in self.forward_seconds.values())

    def overhead(self, library: str) -> float:
        """The time of an explanation by its bare passes."""
        return median(self.seconds[library]) / self.bare_seconds


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


def report(measurements: Mapping[str, Measurement], settings: Settings, run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    peers = [peer for peer in SEMANTICS if peer in settings.libraries]
    return REPORT.format(
        title=METHODS[settings.method][0],
        run=run_in_words(run, str(settings)),
        settings=settings,
        candidates=", ".join(map(str, CANDIDATES)),
        forwards=", ".join(map(str, FORWARD_BATCH_SIZES)),
        same=SAME,
        targets=table(["what", "target", "measured"], _targets(measurements, settings)),
        details=table(
            ["model", "library", "batch", "latency, s", "×", "peak memory, MB", "×", "cold start, s", "×"],
            _details(measurements, settings),
        ),
        overheads=table(
            [
                "model",
                "library",
                "passes",
                "best batch",
                "bare passes, s",
                "explanation, s",
                "by bare passes",
                "stages",
            ],
            _overheads(measurements, settings),
        ),
        bare="; ".join(_bare_passes(measurements)),
        classes=_ten_classes(measurements) if settings.method == "scorecam" else "",
        agreements=table(
            ["model", *peers],
            [
                [model, *(f"{result.agreement[peer]:.6f}" if peer in result.agreement else "-" for peer in peers)]
                for model, result in measurements.items()
            ],
        ),
    )


def _title(model: str, result: Measurement) -> str:
    return f"{model} (random)" if result.random else model


def _targets(measurements: Mapping[str, Measurement], settings: Settings) -> Iterable[list[str]]:
    """Geometric means over the models, beside what is aimed at."""

    def mean(field: str, library: str, base: str) -> str:
        ratios = [
            median(getattr(result, field)[library]) / median(getattr(result, field)[base])
            for result in measurements.values()
            if library in getattr(result, field)
        ]
        return f"{statistics.geometric_mean(ratios):.2f}" if ratios else "-"

    aims = {"torch-cam": "at least 2.6", "pytorch-grad-cam": "at least 2.6"} if settings.method == "scorecam" else {}
    for library in settings.libraries:
        if library.startswith("ortcam"):
            continue
        for base in (name for name in (OURS, AUTO) if name in settings.libraries):
            what = f"latency, {TITLES[library]} by {TITLES[base]}, geometric mean"
            yield [what, aims.get(library, "-"), mean("seconds", library, base)]
    ours = [name for name in (OURS, AUTO) if name in settings.libraries]
    peers = [peer for peer in SEMANTICS if peer in settings.libraries and settings.method == "scorecam"]
    for base, library in itertools.product(ours, peers):
        words = f"{TITLES[base]}, by {TITLES[library]}"
        yield [f"peak memory, {words}", "at most 0.35", mean("peak_bytes", base, library)]
        yield [f"cold start, {words}", "at most 0.2", mean("cold_start_seconds", base, library)]
    for library in (name for name in (OURS, AUTO) if name in settings.libraries):
        worst = max(result.overhead(library) for result in measurements.values())
        yield [f"explanation by bare passes, {TITLES[library]}, the worst model", "at most 1.03", f"{worst:.3f}"]
    if settings.method == "scorecam":
        worst = max(median(result.ten_seconds) / median(result.seconds[OURS]) for result in measurements.values())
        yield ["ten classes by one, the worst model", "at most 1.02", f"{worst:.3f}"]


def _details(measurements: Mapping[str, Measurement], settings: Settings) -> Iterable[list[str]]:
    for (model, result), library in itertools.product(measurements.items(), settings.libraries):
        if library not in result.seconds:
            continue
        cells = [_title(model, result), TITLES[library], str(result.batch_sizes[library])]
        shown: tuple[tuple[Mapping[str, Sequence[float]], Any], ...] = (
            (result.seconds, with_quartiles),
            (result.peak_bytes, megabytes),
            (result.cold_start_seconds, with_quartiles),
        )
        for series, show in shown:
            if library in series:
                cells += [show(series[library]), f"{median(series[library]) / median(series[OURS]):.2f}"]
            else:
                cells += ["-", "-"]
        yield cells


def _overheads(measurements: Mapping[str, Measurement], settings: Settings) -> Iterable[list[str]]:
    for model, result in measurements.items():
        best = min(result.forward_seconds, key=lambda size: median(result.forward_seconds[size]))
        stages = ", ".join(
            f"{stage} {1e3 * median([run[stage] for run in result.stages]):.1f}" for stage in result.stages[0]
        )
        for library in (name for name in (OURS, AUTO) if name in settings.libraries):
            yield [
                _title(model, result),
                f"{TITLES[library]} ({result.batch_sizes[library]})",
                str(result.passes),
                best,
                f"{result.bare_seconds:.3f}",
                with_quartiles(result.seconds[library], 3),
                f"{result.overhead(library):.3f}",
                stages if library == OURS else "",
            ]


def _bare_passes(measurements: Mapping[str, Measurement]) -> Iterable[str]:
    for model, result in measurements.items():
        ours = 1e3 * min(median(values) for values in result.forward_seconds.values())
        if result.torch_forward_seconds:  # measured by the peers at their best settings
            theirs = 1e3 * min(result.torch_forward_seconds.values())
            yield f"{model} {ours:.2f} and {theirs:.2f} ({theirs / ours:.2f} ×)"
        else:
            yield f"{model} {ours:.2f}"


def _ten_classes(measurements: Mapping[str, Measurement]) -> str:
    rows = [
        [
            _title(model, result),
            with_quartiles(result.seconds[OURS], 3),
            with_quartiles(result.ten_seconds, 3),
            f"{median(result.ten_seconds) / median(result.seconds[OURS]):.3f}",
        ]
        for model, result in measurements.items()
    ]
    return TEN_CLASSES.format(rows=table(["model", "one class, s", "ten classes, s", "×"], rows))


def _figures(measurements: Mapping[str, Measurement]) -> Iterable[Figure]:
    for model, result in measurements.items():
        for library in result.seconds:
            name = f"{model} / {library}"
            yield Figure(f"{name} / latency", "s", tuple(result.seconds[library]))
            yield Figure(f"{name} / peak memory", "B", tuple(result.peak_bytes[library]))
            if library in result.cold_start_seconds:
                yield Figure(f"{name} / cold start", "s", tuple(result.cold_start_seconds[library]))
        for size, seconds in result.forward_seconds.items():
            yield Figure(f"{model} / bare passes in batches of {size} / an image", "s", tuple(seconds))
        if result.ten_seconds:
            yield Figure(f"{model} / {OURS} / ten classes", "s", tuple(result.ten_seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="scorecam")
    parser.add_argument(
        "--models", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"of {', '.join(SUBJECTS)} (default: all; "
        f"{' and '.join(SAMPLED_MODELS)} for SS-CAM and IS-CAM)",
    )  # fmt: skip
    parser.add_argument(
        "--libraries", nargs="+", choices=TITLES, metavar="NAME", help=f"of {', '.join(TITLES)} (default: all)"
    )
    parser.add_argument("--repeats", type=whole_number, default=5, help="timed runs a library (default %(default)s)")
    parser.add_argument(
        "--repeats-large", type=whole_number, default=1, help="the same for large models (default %(default)s)"
    )
    parser.add_argument(
        "--cold-starts", type=whole_number, default=COLD_STARTS, help="fresh processes (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=whole_number, default=32, help="images a pass (default %(default)s)")
    add_keep(parser)
    add_threads(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Measure, write both files, print the Markdown.

    Returns:
        Exit code: 1 where torch-cam and ortcam do not compute the same, 2 where the data are not there.
    """
    method = argparse.ArgumentParser(add_help=False)
    method.add_argument("--method", default="scorecam")
    parser = _parser()
    name = method.parse_known_args(arguments)[0].method
    add_output(parser, "compare" if name == "scorecam" else f"compare-{name}")
    options = parser.parse_args(arguments)
    models = options.models or (tuple(SUBJECTS) if options.method == "scorecam" else SAMPLED_MODELS)
    if missing := missing_data():
        say(missing)
        return 2
    item = photograph(PHOTOGRAPH)
    of_method = METHODS[options.method][1]
    settings = Settings(
        method=options.method,
        libraries=tuple(name for name in of_method if name in {OURS, *(options.libraries or of_method)}),
        photograph=PHOTOGRAPH,
        target=item.target,
        label=item.label,
        repeats=options.repeats,
        repeats_large=options.repeats_large,
        cold_starts=options.cold_starts,
        batch_size=options.batch_size,
        threads=options.threads,
    )
    run = describe_run("benchmarks.compare", arguments)
    measurements: dict[str, Measurement] = {}
    if options.keep:
        kept = earlier_models(options.output.with_suffix(".json"), run, dataclasses.asdict(settings))
        measurements = {model: Measurement(**result) for model, result in kept.items()}
    for model in models:
        measurements[model] = measure(model, settings, item)
        measurements = {name: measurements[name] for name in SUBJECTS if name in measurements}
        raw = {
            "settings": dataclasses.asdict(settings),
            "models": {name: dataclasses.asdict(result) for name, result in measurements.items()},
        }
        write_results(options.output, run=run, raw=raw, figures=_figures(measurements))
        text = report(measurements, settings, run)
        write_text(options.output.with_suffix(".md"), text)
    print(text)
    if different := [name for name, result in measurements.items() if result.agreement.get("torch-cam", 1) <= SAME]:
        say(f"ortcam and torch-cam do not compute the same map for {', '.join(different)}: see the last table")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("stopped; the models that were measured are written")
        sys.exit(130)
