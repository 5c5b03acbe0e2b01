"""The comparison as Markdown: aims, one table per question."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.common.figures import median, megabytes, table, with_quartiles
from benchmarks.common.machine import run_in_words
from benchmarks.common.subjects import METHODS
from benchmarks.common.worker import CANDIDATES
from benchmarks.compare.measurement import (
    AUTO,
    FORWARD_BATCH_SIZES,
    OURS,
    SAME,
    SEMANTICS,
    TITLES,
    Measurement,
    Settings,
)

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


def report(measurements: Mapping[str, Measurement], settings: Settings, run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    peers = [peer for peer in SEMANTICS if peer in settings.libraries]
    return REPORT.format(
        title=METHODS[settings.method],
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
