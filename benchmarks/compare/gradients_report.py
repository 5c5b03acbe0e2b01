"""Timings of gradient methods as Markdown: targets, one table per question."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.common.figures import median, megabytes, table, with_quartiles
from benchmarks.common.machine import run_in_words

OURS: Final = "ortcam"
FORWARD: Final = "onnxruntime-forward"
LIBRARIES: Final = {
    OURS: "ortcam",
    "torch-cam": "torch-cam",
    "torch-cam-best": "torch-cam, best settings",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "pytorch-grad-cam-best": "pytorch-grad-cam, best settings",
}
# Pooling and one linear layer behind the maps: the gradient does not depend on the image.
AFFINE: Final = ("mobilenet_v2", "resnet18", "resnet50")
AIMS: Final = {True: 1.35, False: 2.0}
TIMES_FASTER: Final = 3.0
BACKWARD: Final = 2.5

REPORT: Final = """\
# One Grad-CAM map: ortcam, torch-cam, pytorch-grad-cam

From the path of a photograph to its heatmap, for one class, with the same weights, layer and threads. Numbers are
medians over the turns, in brackets the quartiles; a turn is the median of {runs} explanations. "Best settings" are
channels last and no gradients of the weights.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research; those marked \
random have none there

## Targets

{targets}

## By model

Bare pass: the classifier in ONNX Runtime on one image that is preprocessed, timed in the same interleaving; "by bare
pass" is the latency divided by it, turn by turn, and the median of these ratios. So is ×, what a library takes by what
ortcam takes. Processor time is that of all threads together; what else the machine does changes it little. Cold start:
a fresh process from its start to its first heatmap. Peak memory: the most that was resident until then.

{details}

## Ten classes

One pass, and one run of the gradient graph for all ten.

{classes}

## The gradient graph and the head

Processor time of one run of each on one thread, in turn in one process, features in. The gradient graph runs the parts
of the head that the derivative needs, and then back. Where the head is affine, its gradient is a constant of the graph.

{graphs}

## Do they compute the same?

Pearson correlation of a library's map with ortcam's. torch-cam's map has the layer's size, and so has ortcam's here;
pytorch-grad-cam upsamples with aligned corners, which ortcam does not.

{agreements}
"""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The raw numbers of one model; a list has a value per turn, or per cold start.

    Attributes:
        layer: module path of the maps.
        random: whether the weights are random.
        seconds: of an explanation, by library.
        ten_seconds: of ortcam's explanations for ten classes.
        forward_seconds: of bare passes of one image in ONNX Runtime.
        cpu_seconds: processor time of an explanation, all threads together, by library, and of a bare pass.
        cold_start_seconds: from the start of a process to its first heatmap, by library.
        peak_bytes: resident memory at most, by library.
        graphs: by layer: seconds of the "head" and of the "gradient" graph.
        agreement: Pearson correlation of a peer's map with ortcam's.
    """

    layer: str
    random: bool
    seconds: dict[str, list[float]]
    ten_seconds: list[float]
    forward_seconds: list[float]
    cpu_seconds: dict[str, list[float]]
    cold_start_seconds: dict[str, list[float]]
    peak_bytes: dict[str, list[int]]
    graphs: dict[str, dict[str, list[float]]]
    agreement: dict[str, float]

    def by_pass(self, library: str, *, processor: bool = False) -> float:
        """The time of an explanation by that of a bare pass: the median of the turns' ratios."""
        bare = self.cpu_seconds[FORWARD] if processor else self.forward_seconds
        return _ratio(self._turns(library, processor=processor), bare)

    def times(self, library: str, *, processor: bool = False) -> float:
        """The time of a library by ortcam's: the median of the turns' ratios."""
        return _ratio(self._turns(library, processor=processor), self._turns(OURS, processor=processor))

    def _turns(self, library: str, *, processor: bool) -> list[float]:
        return (self.cpu_seconds if processor else self.seconds)[library]


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return median([above / below for above, below in zip(one, other, strict=True)])


def report(timings: Mapping[str, Timing], settings: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    words = (
        f"photograph {settings['photograph']}, {settings['threads']} threads, float32, CPU, {settings['rounds']} turns "
        f"of {settings['runs']} explanations, interleaved, {settings['cold_starts']} cold starts, one process a library"
    )
    return REPORT.format(
        runs=settings["runs"],
        run=run_in_words(run, words),
        targets=table(["what", "target", "measured", "by processor time"], _targets(timings)),
        details=table(
            [
                "model",
                "library",
                "latency, ms",
                "×",
                "by bare pass",
                "processor, ms",
                "peak memory, MB",
                "cold start, s",
            ],
            _details(timings),
        ),
        classes=table(
            ["model", "one class, ms", "ten classes, ms", "×"],
            (
                [
                    _title(model, found),
                    _milliseconds(found.seconds[OURS]),
                    _milliseconds(found.ten_seconds),
                    f"{median(found.ten_seconds) / median(found.seconds[OURS]):.2f}",
                ]
                for model, found in timings.items()
            ),
        ),
        graphs=table(["model", "layer", "head, ms", "gradient graph, ms", "×"], _graphs(timings)),
        agreements=table(
            ["model", *(title for library, title in LIBRARIES.items() if library != OURS)],
            (
                [model, *(f"{found.agreement[library]:.6f}" for library in LIBRARIES if library != OURS)]
                for model, found in timings.items()
            ),
        ),
    )


def _targets(timings: Mapping[str, Timing]) -> Iterable[list[str]]:
    """What is aimed at, beside the geometric mean or the worst model, by latency and by processor time."""
    for library, title in LIBRARIES.items():
        if library != OURS:
            means = [
                f"{statistics.geometric_mean(found.times(library, processor=way) for found in timings.values()):.2f}"
                for way in (False, True)
            ]
            aim = "-" if library.endswith("-best") else f"at least {TIMES_FASTER:g}"
            yield [f"latency, {title} by ortcam, geometric mean", aim, *means]
    for is_affine, most in AIMS.items():
        of_kind = {name: found for name, found in timings.items() if (name in AFFINE) == is_affine}
        if of_kind:
            kind = "affine heads" if is_affine else "other heads"
            worst = [
                _worst({name: found.by_pass(OURS, processor=way) for name, found in of_kind.items()})
                for way in (False, True)
            ]
            yield [f"explanation by bare pass, {kind}, the worst model", f"at most {most:g}", *worst]
    ratios = {f"{name} {layer}": _graph_ratio(graphs) for name, layer, graphs in _all_graphs(timings)}
    yield ["gradient graph by head, the worst model", f"at most {BACKWARD:g}", "", _worst(ratios)]


def _worst(ratios: Mapping[str, float]) -> str:
    name = max(ratios, key=ratios.__getitem__)
    return f"{ratios[name]:.2f} ({name})"


def _details(timings: Mapping[str, Timing]) -> Iterable[list[str]]:
    for model, found in timings.items():
        cpu = {name: f"{1e3 * median(values):.1f}" for name, values in found.cpu_seconds.items()}
        yield [_title(model, found), "bare pass", _milliseconds(found.forward_seconds), "", "1", cpu[FORWARD], "", ""]
        for library, title in LIBRARIES.items():
            yield [
                "",
                title,
                _milliseconds(found.seconds[library]),
                f"{found.times(library):.2f}",
                f"{found.by_pass(library):.2f}",
                cpu[library],
                megabytes(found.peak_bytes[library]),
                with_quartiles(found.cold_start_seconds[library]),
            ]


def _graphs(timings: Mapping[str, Timing]) -> Iterable[list[str]]:
    for model, layer, graphs in _all_graphs(timings):
        yield [
            model,
            layer,
            *(_milliseconds(graphs[name], 3) for name in ("head", "gradient")),
            f"{_graph_ratio(graphs):.2f}",
        ]


def _all_graphs(timings: Mapping[str, Timing]) -> Iterable[tuple[str, str, Mapping[str, list[float]]]]:
    for model, found in timings.items():
        for layer, graphs in found.graphs.items():
            yield model, layer, graphs


def _graph_ratio(graphs: Mapping[str, list[float]]) -> float:
    """The gradient graph's time by the head's: the median of the turns' ratios."""
    return _ratio(graphs["gradient"], graphs["head"])


def _title(model: str, found: Timing) -> str:
    return f"{model} (random)" if found.random else model


def _milliseconds(values: Iterable[float], digits: int = 1) -> str:
    return with_quartiles([1e3 * value for value in values], digits)
