"""The run of an evaluation: images, methods, metrics, a journal, and what is written at the end."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.errors import OptionError, OrtcamError, OutputError
from ortcam.evaluation import metrics as definitions
from ortcam.evaluation.dataset import Example, read_dataset
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.measuring import Clean, Measuring, explained
from ortcam.evaluation.metrics import METRICS
from ortcam.evaluation.protocols import Protocol, resolve_protocol
from ortcam.evaluation.randomization import DEPTHS, Similarity, check_weights, shuffled_bundle, similarity
from ortcam.evaluation.report import write_report
from ortcam.evaluation.results import Results, Summary, as_json, collect, summarise, write_tables
from ortcam.evaluation.statistics import Interval, intervals
from ortcam.evaluation.variants import Variant, baselines, parse_variants
from ortcam.explainer import BatchSize, Explainer, load
from ortcam.files import write_whole
from ortcam.image import DEFAULT_MAX_PIXELS
from ortcam.methods import HeadPlan
from ortcam.session import Provider, runtime_version

__all__ = ["Evaluation", "Report", "evaluate"]

# Called with (measurements made, measurements in all) after each of them.
Progress = Callable[[int, int], None]

_NOT_OF_LOGITS: Final = {"average-gain", "adcc"}  # both need a confidence in [0,1]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        results: every number.
        summary: means, intervals and differences.
        failures: images that were skipped, or methods on them.
        folder: where the files are.
    """

    results: Results
    summary: Summary
    failures: list[Failure]
    folder: Path

    def in_words(self) -> str:
        """The table of means with their intervals, for a terminal."""
        metrics = [
            metric for metric in self.results.metrics if any(metric.name in row for row in self.summary.table.values())
        ]
        arrows = {"higher": "+", "lower": "-", None: " "}
        head = ["", *(f"{metric.title} {arrows[metric.better]}" for metric in metrics)]
        names = [variant.title for variant in self.results.variants]
        columns = [
            [_cell(self.summary.table[variant.name].get(metric.name)) for variant in self.results.variants]
            for metric in metrics
        ]
        rows = [head, *([name, *cells] for name, *cells in zip(names, *columns, strict=True))]
        # Metrics go down and methods across, which fits more terminals.
        turned = list(zip(*rows, strict=True))
        widths = [max(len(row[column]) for row in turned) for column in range(len(turned[0]))]
        lines = [
            "  ".join(
                text.ljust(width) if not column else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in turned
        ]
        count = len(self.results.images)
        skipped = f", {len(self.failures)} failures" if self.failures else ""
        note = f"{count} images{skipped}; percent, mean [95 % interval]; + higher is better, - lower is better"
        return "\n".join([*lines, "", note, str(self.folder / "report.html")])


class Evaluation:
    """An evaluation that is checked as far as it can be without looking at an image, and not begun."""

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        images: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        methods: Sequence[str],
        metrics: Sequence[str] | None = None,
        protocol: str = "soft-map",
        labels: str | os.PathLike[str] | None = None,
        limit: int | None = None,
        seed: int = 0,
        step: int | None = None,
        batch_size: BatchSize = "auto",
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        precision: str | None = None,
        randomize: int | None = None,
        resume: bool = False,
    ) -> None:
        """Find everything and check it.

        Args:
            bundle: written by `ortcam export`.
            images: see `read_dataset`.
            output: folder for the results.
            methods: METHOD[:KEY=VALUE...], where a key is an option, a limit or `precision`.
            metrics: names or groups; None takes those of the protocol.
            protocol: name of the conventions.
            labels: see `read_dataset`.
            limit: how many images.
            seed: of the choice of images, the random weights and the resampling.
            step: pixels that a step of insertion and deletion changes; None: a hundredth of them.
            batch_size: masked or altered images a run.
            providers: as `ortcam.load` takes them.
            threads: the same.
            precision: of the masked passes where the method does not say.
            randomize: images for the randomised-weights check; None leaves it out.
            resume: go on with what is in the output folder.

        Raises:
            OrtcamError: what is wrong, before anything is written.
        """
        self.protocol = resolve_protocol(protocol)
        self.variants = [*parse_variants(methods), *baselines(seed)]
        self.metrics = _resolve_metrics(metrics, self.protocol)
        for name, value in (("limit", limit), ("step", step), ("randomize", randomize)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise OptionError(f"{name}={value!r}: accepted is a whole number from 1")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise OptionError(f"seed={seed!r}: accepted is a whole number from 0")
        precisions = dict.fromkeys([None, *(variant.precision for variant in self.variants)])
        self._explainers: dict[str | None, Explainer] = {
            name: load(bundle, providers=providers, threads=threads, precision=name or precision) for name in precisions
        }
        explainer = self._explainers[None]
        self.examples = read_dataset(images, explainer.class_index, labels=labels, limit=limit, seed=seed)
        preprocessing = explainer.bundle.manifest.preprocessing
        pixels = preprocessing.height * preprocessing.width
        if step is not None and step > pixels:
            raise OptionError(f"step={step}: accepted is a number of pixels up to {pixels}, those of the model's input")
        for variant in self.variants:
            if isinstance(variant.plan, HeadPlan):  # which heads it works with is found out by asking them
                blank = np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)
                explainer.explain(blank, **variant.arguments)
        counts = definitions.shares(pixels, step)
        self._share = counts / counts[-1]
        self._measuring = Measuring(self._explainers, self.protocol, self.metrics, step=step, batch_size=batch_size)
        self._seed = seed
        self._resume = resume
        self._load = functools.partial(load, providers=providers, threads=threads, precision=precision)
        self._checked = self.examples[: randomize or 0]
        if self._checked:
            check_weights(explainer.bundle)
            if precisions.keys() - {None} or precision is not None:
                raise OptionError(
                    "randomize: goes with the bundle's own precision, the weights of others are not shuffled"
                )
        self.folder = Path(output)
        self.settings: dict[str, Any] = {
            "bundle": explainer.bundle.sha256,
            "images": str(Path(images).resolve()),
            "labels": None if labels is None else str(Path(labels).resolve()),
            "methods": [variant.name for variant in self.variants],
            "metrics": list(self.metrics),
            "protocol": self.protocol.name,
            "precision": precision,
            "seed": seed,
            "step": step,
            "ortcam": __version__,
        }

    @property
    def count(self) -> int:
        """Maps to measure in all: images times methods and baselines, and those of shuffled weights."""
        return len(self.examples) * len(self.variants) + len(self._checked) * len(self.variants) * len(DEPTHS)

    def run(self, *, progress: Progress | None = None, on_failure: Callable[[Failure], None] | None = None) -> Report:
        """Measure what is not measured yet, and write the results.

        Args:
            progress: called after every measurement.
            on_failure: called when an image, or a method on it, is skipped.

        Raises:
            OutputError: the results cannot be written, or there are others.
            OrtcamError: not a single image could be measured.
        """
        with Journal(self.folder, self.settings, resume=self._resume) as journal:
            self._measure(journal, progress, on_failure)
            self._check_randomized(journal, progress)
            return self._conclude(journal)

    def _measure(
        self, journal: Journal, progress: Progress | None, on_failure: Callable[[Failure], None] | None
    ) -> None:
        measured = set(journal.measured())
        missing = [
            (example, variants)
            for example in self.examples
            if (variants := [item for item in self.variants if (example.name, item.name) not in measured])
        ]
        made = len(self.examples) * len(self.variants) - sum(len(variants) for _, variants in missing)

        def fail(failure: Failure) -> None:
            journal.add(failure)
            if on_failure is not None:
                on_failure(failure)

        def advance(by: int) -> None:
            nonlocal made
            made += by
            if progress is not None:
                progress(made, self.count)

        advance(0)
        for clean, variants in self._cleaned(missing, fail, advance):
            for variant in variants:
                try:
                    journal.add(self._measuring.measure(clean, variant))
                except OutputError:
                    raise
                except OrtcamError as error:
                    fail(Failure(clean.example.name, variant.name, str(error)))
                advance(1)

    def _cleaned(
        self,
        missing: Sequence[tuple[Example, list[Variant]]],
        fail: Callable[[Failure], None],
        advance: Callable[[int], None],
    ) -> Iterator[tuple[Clean, list[Variant]]]:
        """The images that can be read and classified; the next ones are decoded meanwhile."""
        waiting = iter(missing)

        def skip(_: object, error: OrtcamError) -> None:
            example, variants = next(waiting)
            fail(Failure(example.name, None, str(error)))
            advance(len(variants))

        explainer = self._explainers[None]
        for photograph in explainer.read_many([example.path for example, _ in missing], on_error=skip):
            example, variants = next(waiting)
            try:
                clean = self._measuring.clean(example, photograph)
            except OrtcamError as error:
                fail(Failure(example.name, None, str(error)))
                advance(len(variants))
                continue
            yield clean, variants

    def _check_randomized(self, journal: Journal, progress: Progress | None) -> None:
        """The maps of models whose weights are shuffled beside those of the model."""
        done = {(item.image, item.variant, item.depth) for item in journal.similarities()}
        skipped = {failure.image for failure in journal.failures()}
        examples = [example for example in self._checked if example.name not in skipped]
        made = len(self.examples) * len(self.variants)
        explainer = self._explainers[None]
        maps: dict[tuple[str, str], NDArray[np.float32]] = {}
        for depth in DEPTHS:
            missing = [
                (example, variant)
                for example in examples
                for variant in self.variants
                if (example.name, variant.name, depth) not in done
            ]
            made += len(self._checked) * len(self.variants) - len(missing)
            if not missing:
                continue
            with tempfile.TemporaryDirectory(prefix="ortcam-shuffled-") as folder:
                shuffled = self._load(shuffled_bundle(explainer.bundle, Path(folder), depth, seed=self._seed))
                for example, variant in missing:
                    photograph = explainer.read(example.path)
                    target = int(np.argmax(explainer.predict(photograph)))
                    key = example.name, variant.name
                    if key not in maps:
                        maps[key] = explained(explainer, photograph, target, variant, example.name)
                    other = explained(shuffled, photograph, target, variant, example.name)
                    journal.add(Similarity(*key, depth, similarity(maps[key], other)))
                    made += 1
                    if progress is not None:
                        progress(made, self.count)

    def _conclude(self, journal: Journal) -> Report:
        asked = {example.name for example in self.examples}
        failures = [failure for failure in journal.failures() if failure.image in asked]
        results = collect(journal, asked, self.variants, self.metrics, self._share)
        if not results.images:
            raise OrtcamError(
                f"{self.folder}: not a single image could be measured; the first error: {failures[0].error}"
            )
        summary = summarise(results, self.protocol, seed=self._seed)
        explainer = self._explainers[None]
        more = {
            "settings": self.settings,
            "protocol": dataclasses.asdict(self.protocol),
            "model": dataclasses.asdict(explainer.bundle.manifest.model),
            "providers": list(explainer.providers),
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
            "failures": [dataclasses.asdict(failure) for failure in failures],
            "randomized": _randomized(journal.similarities(), self.variants, seed=self._seed),
        }
        try:
            write_tables(results, self.folder)
            write_whole(self.folder / "summary.json", as_json(results, summary, more))
            write_report(
                self.folder / "report.html",
                results,
                summary,
                journal,
                self.examples,
                explainer.bundle.manifest.preprocessing,
                more,
                max_pixels=DEFAULT_MAX_PIXELS,
                labels=explainer.labels,
            )
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error}") from None
        return Report(results, summary, failures, self.folder)


def evaluate(
    bundle: str | os.PathLike[str],
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    methods: Sequence[str],
    progress: Progress | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    **arguments: Any,
) -> Report:
    """Measure how faithful explanations are; see `Evaluation` for the arguments.

    Raises:
        OrtcamError: bad input, or results that cannot be written.
    """
    evaluation = Evaluation(bundle, images, output, methods=methods, **arguments)
    return evaluation.run(progress=progress, on_failure=on_failure)


def _randomized(
    similarities: Sequence[Similarity], variants: Sequence[Variant], *, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Mean similarity with its interval, by variant and depth; empty without the check."""
    found: dict[str, list[dict[str, Any]]] = {}
    for depth in sorted({item.depth for item in similarities}):
        values = {
            variant.name: np.array(
                [item.spearman for item in similarities if (item.variant, item.depth) == (variant.name, depth)]
            )
            for variant in variants
        }
        for name, column in values.items():
            if column.size:
                interval = intervals({name: column}, seed=seed)[name]
                found.setdefault(name, []).append({"depth": depth, **dataclasses.asdict(interval)})
    return found


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _resolve_metrics(names: Sequence[str] | None, protocol: Protocol) -> tuple[str, ...]:
    """Names of metrics in the order of `METRICS`."""
    if names is None:
        return tuple(metric.name for metric in METRICS if metric.name in protocol.metrics)
    known = {metric.name for metric in METRICS} | {metric.group for metric in METRICS}
    for name in names:
        if name not in known:
            groups = ", ".join(dict.fromkeys(metric.group for metric in METRICS))
            raise OptionError(
                f"metric {name!r}: accepted is {', '.join(metric.name for metric in METRICS)}, or a group: {groups}"
            )
    wanted = tuple(metric.name for metric in definitions.chosen(names))
    if "adcc" in wanted:  # it is made of the means of its parts
        wanted = tuple(metric.name for metric in definitions.chosen([*names, "average-drop"]))
    if not wanted:
        raise OptionError("no metric to measure")
    if protocol.confidence == "logit" and (odd := _NOT_OF_LOGITS & set(wanted)):
        raise OptionError(f"{', '.join(sorted(odd))} with protocol {protocol.name}: of logits there is no such thing")
    return wanted
