"""The run of an evaluation: images, methods, metrics, the journal, and the files written at the end."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam._version import __version__
from ortcam.bundle import Bundle, file_sha256
from ortcam.engine.batching import BatchSize
from ortcam.engine.providers import Provider
from ortcam.engine.runtime import runtime_version
from ortcam.errors import OptionError, OrtcamError, OutputError
from ortcam.evaluation import metrics as definitions
from ortcam.evaluation.dataset import Example, read_dataset
from ortcam.evaluation.entries import Variant, baselines, parse_variants
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.measuring import Clean, Measuring, explain
from ortcam.evaluation.metrics import METRICS
from ortcam.evaluation.protocols import Protocol, resolve_protocol
from ortcam.evaluation.report.page import write_report
from ortcam.evaluation.report.terminal import in_words
from ortcam.evaluation.report.verdict import MEANING, Verdict, reach_verdict
from ortcam.evaluation.results import Results, Summary, as_json, collect, summarise, write_tables
from ortcam.evaluation.sanity import DEPTHS, Similarity, check_weights, shuffled_bundle, similarity
from ortcam.evaluation.statistics import intervals
from ortcam.explainer import Explainer, load
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.models.opening import read_model
from ortcam.request import ExplainRequest
from ortcam.support.files import write_whole
from ortcam.support.ranges import LIMIT, RANDOMIZE, SEED, STEP
from ortcam.support.suggestions import did_you_mean
from ortcam.support.terminal import as_text
from ortcam.support.unfinished import temporary_folder

__all__ = ["Evaluation", "Report", "evaluate"]

# Called with the maps measured and the maps in all, after each map.
Progress = Callable[[int, int], None]

DEFAULT_METHODS: Final = ("scorecam", "scorecam++")
DEFAULT_OUTPUT: Final = "evaluation"

# Metrics that are measured too: ADCC needs the means of its parts, and the pointing games mean nothing without chance.
_NEEDED: Final = {
    "adcc": ("coherency", "complexity", "average-drop"),
    "energy-pointing": ("box-area",),
    "pointing": ("box-area",),
}
_SHUFFLED_BATCH_SIZE: Final = 8  # no search, because its result would be kept for a bundle that is thrown away
_NOT_OF_LOGITS: Final = {"average-gain", "adcc"}  # both need a confidence in [0,1]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        results: every number.
        summary: means, intervals and differences.
        verdict: the findings in sentences.
        failures: images that were skipped, or methods on them.
        folder: where the files are.
    """

    results: Results
    summary: Summary
    verdict: Verdict
    failures: list[Failure]
    folder: Path

    def in_words(self, width: int = 80) -> str:
        """The verdict, then a table of means, for a terminal.

        Args:
            width: of the terminal, in columns.
        """
        return in_words(self.results, self.summary, self.verdict, str(self.folder / "report.html"), width)


class Evaluation:
    """An evaluation that has been checked as far as possible without reading an image, and has not begun.

    Attributes:
        protocol: the conventions.
        variants: methods, and the baselines behind them.
        metrics: names of what is measured.
        examples: the images.
        folder: where the results go.
        settings: what the results depend on, as JSON.
        notes: sentences about what was left out.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Bundle | Explainer,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        output: str | os.PathLike[str] = DEFAULT_OUTPUT,
        *,
        methods: Sequence[str] = DEFAULT_METHODS,
        metrics: Sequence[str] | None = None,
        protocol: str = "soft-map",
        annotations: str | os.PathLike[str] | None = None,
        limit: int | None = None,
        seed: int = 0,
        step: int | None = None,
        batch_size: BatchSize = "auto",
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        precision: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        white: int | None = None,
        strict: bool = False,
        randomize: int | None = None,
        resume: bool = False,
    ) -> None:
        """Find everything and check it.

        Args:
            model: what `ortcam.load` takes, or an explainer whose bundle is meant.
            images: a folder, a folder with one folder per class, a CSV, an image or several; see `read_dataset`.
            output: folder for the results.
            methods: each METHOD[:KEY=VALUE...], such as "iscam:budget=0.25". A key is an option of the method, a limit
                or `precision`.
            metrics: names or groups; None takes those of the protocol.
            protocol: name of the conventions.
            annotations: what the images of a folder show; see `read_dataset`.
            limit: how many images to take; chance decides which.
            seed: of the choice of images, the random weights and the resampling.
            step: pixels that a step of insertion and deletion changes; None: a hundredth of them.
            batch_size: masked or altered images per run.
            providers: as `ortcam.load` takes them.
            threads: the same.
            precision: of the masked passes where the method does not say.
            max_pixels: images with more pixels are skipped.
            white: the sample that is white in PNG, TIFF and PNM images of 16 bits, as `ortcam.load` takes it.
            strict: skip damaged images, even if they can be read in part.
            randomize: images for the randomised-weights check; None leaves it out.
            resume: go on with what is in the output folder.

        Raises:
            OrtcamError: what is wrong, before anything is written.
        """
        self.protocol = resolve_protocol(protocol)
        self.variants = [*parse_variants(methods), *baselines(seed)]
        self.metrics = _resolve_metrics(metrics, self.protocol)
        for range_, value in ((LIMIT, limit), (STEP, step), (RANDOMIZE, randomize), (SEED, seed)):
            if value is not None or range_ is SEED:
                range_.check(value)
        limit, step, randomize = (None if value is None else int(value) for value in (limit, step, randomize))
        seed = int(seed)
        ExplainRequest.of(batch_size=batch_size)
        precisions = dict.fromkeys([None, *(variant.precision for variant in self.variants)])
        self._load = functools.partial(
            load, providers=providers, threads=threads, max_pixels=max_pixels, white=white, strict=strict
        )
        read = _bundle(model)  # once: the same one in every precision
        self._explainers: dict[str | None, Explainer] = {
            name: self._load(read, precision=name or precision) for name in precisions
        }
        explainer = self._explainers[None]
        self.notes: list[str] = []
        self.examples = read_dataset(
            images, explainer.class_index, annotations=annotations, limit=limit, seed=seed, tell=self.notes.append
        )
        preprocessing = explainer.bundle.manifest.preprocessing
        pixels = preprocessing.height * preprocessing.width
        if step is not None and step > pixels:
            raise OptionError(f"step={step}: accepted is a number of pixels up to {pixels}, those of the model's input")
        for variant in self.variants:
            if (
                variant.method is not None and not variant.method.masks_image
            ):  # which heads it works with is found out by asking them
                blank = np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)
                explainer.explain(blank, **variant.arguments)
        counts = definitions.shares(pixels, step)
        self._share = counts / counts[-1]
        self._measuring = Measuring(self._explainers, self.protocol, self.metrics, step=step, batch_size=batch_size)
        self._seed = seed
        self._resume = resume
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._white = white
        drawn = sorted(self.examples, key=lambda example: zlib.crc32(f"{seed}/{example.name}".encode()))
        self._checked = drawn[: randomize or 0]
        if self._checked:
            own = explainer.bundle.manifest.precision
            if any(explainer.bundle.check_precision(name or precision) != own for name in precisions):
                raise OptionError(f"randomize: goes with {own}, the bundle's own precision, whose weights are shuffled")
            check_weights(explainer.bundle)
        self.folder = Path(output)
        self.settings: dict[str, Any] = {
            "bundle": explainer.bundle.sha256,
            "images": _file_record(images),
            "annotations": None if annotations is None else _file_record(annotations),
            "methods": [variant.name for variant in self.variants],
            "metrics": list(self.metrics),
            "protocol": self.protocol.name,
            "precision": precision,
            "providers": list(explainer.providers),
            "seed": seed,
            "step": step,
            "ortcam": __version__,
        }
        if white is not None:
            self.settings["white"] = int(white)
        if strict:
            self.settings["strict"] = True

    @property
    def count(self) -> int:
        """How many maps are to be measured: images times methods and baselines, plus those of shuffled weights."""
        return len(self.examples) * len(self.variants) + len(self._checked) * len(self.variants) * len(DEPTHS)

    def run(self, *, progress: Progress | None = None, on_failure: Callable[[Failure], None] | None = None) -> Report:
        """Measure what is not measured yet, and write the results.

        Args:
            progress: called with the maps measured and the maps in all: at the start, then after each map.
            on_failure: called when an image, or a method on it, is skipped.

        Raises:
            OutputError: the results cannot be written, or would overwrite others.
            OrtcamError: no image could be measured.
        """
        with Journal(self.folder, self.settings, resume=self._resume) as journal:
            self._measure(journal, progress, on_failure)
            if self._checked:
                self._conclude(journal)  # what is measured so far, whatever becomes of the check
                self._check_randomized(journal, progress, on_failure)
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
        """Read and classify images; the next ones are decoded meanwhile."""
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

    def _check_randomized(
        self, journal: Journal, progress: Progress | None, on_failure: Callable[[Failure], None] | None
    ) -> None:
        """Compare the maps of models with shuffled weights with those of the model."""
        done = {(item.image, item.variant, item.depth) for item in journal.similarities()}
        measured = set(journal.measured())
        pairs = [
            (example, [variant for variant in self.variants if (example.name, variant.name) in measured])
            for example in self._checked
        ]
        made = len(self.examples) * len(self.variants)
        explainer = self._explainers[None]
        batch_size = _SHUFFLED_BATCH_SIZE if self._batch_size == "auto" else self._batch_size
        for depth in DEPTHS:
            missing = {
                example: left
                for example, variants in pairs
                if (left := [item for item in variants if (example.name, item.name, depth) not in done])
            }
            made += len(self._checked) * len(self.variants) - sum(map(len, missing.values()))
            if not missing:
                continue
            try:
                with temporary_folder() as folder:
                    shuffled = self._load(shuffled_bundle(explainer.bundle, folder, depth, seed=self._seed))
                    for example, variants in missing.items():
                        for found in self._compare(shuffled, depth, example, variants, batch_size):
                            journal.add(found)
                            if isinstance(found, Failure) and on_failure is not None:
                                on_failure(found)
                            made += 1
                            if progress is not None:
                                progress(made, self.count)
            except OSError as error:
                where = error.filename or "the folder for temporary files"
                raise OutputError(f"{where}: shuffled weights cannot be written: {error.strerror or error}") from error

    def _compare(
        self, shuffled: Explainer, depth: float, example: Example, variants: Sequence[Variant], batch_size: BatchSize
    ) -> Iterator[Similarity | Failure]:
        """Compare the maps of one image by the model and by the one with shuffled weights."""
        clean: Clean | None = None
        for variant in variants:
            try:
                clean = clean or self._measuring.clean(example, self._explainers[None].read(example.path))
                own = self._measuring.explain(clean, clean.photograph, variant).saliency
                other = explain(shuffled, clean.photograph, clean.target, variant, example.name, batch_size).saliency
                yield Similarity(example.name, variant.name, depth, similarity(own, other))
            except OrtcamError as error:
                yield Failure(example.name, f"{variant.name}, {depth:.0%} of the weights shuffled", str(error))

    def _conclude(self, journal: Journal) -> Report:
        asked = {example.name for example in self.examples}
        failures = [failure for failure in journal.failures() if failure.image in asked]
        results = collect(journal, asked, self.variants, self.metrics, self._share)
        if not results.images:
            raise OrtcamError(
                f"{self.folder}: not a single image could be measured; the first error: {failures[0].error}"
            )
        summary = summarise(results, self.protocol, seed=self._seed)
        verdict = reach_verdict(results, summary, failures)
        explainer = self._explainers[None]
        more = {
            "verdict": dataclasses.asdict(verdict) | {"meaning": MEANING},
            "settings": self.settings,
            "protocol": dataclasses.asdict(self.protocol),
            "model": dataclasses.asdict(explainer.bundle.manifest.model),
            "providers": list(explainer.providers),
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
            "notes": self.notes,
            "failures": [dataclasses.asdict(failure) for failure in failures],
            "randomized": self._randomized(journal.similarities()),
        }
        try:
            write_tables(results, self.folder)
            write_whole(self.folder / "summary.json", as_json(results, summary, more), durable=True)
            write_report(
                self.folder / "report.html",
                results,
                summary,
                verdict,
                journal,
                self.examples,
                explainer.bundle.manifest.preprocessing,
                more,
                max_pixels=self._max_pixels,
                white=self._white,
                labels=explainer.labels,
            )
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror or error}") from error
        return Report(results, summary, verdict, failures, self.folder)

    def _randomized(self, similarities: Sequence[Similarity]) -> dict[str, list[dict[str, Any]]]:
        """Compute mean similarities with their intervals, by variant and depth; empty without the check."""
        asked = {example.name for example in self._checked}
        columns: dict[str, dict[float, list[float]]] = {}
        for item in similarities:
            if item.image in asked:
                columns.setdefault(item.variant, {}).setdefault(item.depth, []).append(item.spearman)
        return {
            variant: [
                {"depth": depth, **dataclasses.asdict(intervals({variant: np.array(column)}, seed=self._seed)[variant])}
                for depth, column in sorted(by_depth.items())
            ]
            for variant, by_depth in columns.items()
        }


def evaluate(
    model: str | os.PathLike[str] | Bundle | Explainer,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] = DEFAULT_OUTPUT,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    progress: Progress | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    **settings: Any,
) -> Report:
    """Measure how faithful explanations are, and write a report.

    Args:
        model: what `ortcam.load` takes, or an explainer.
        images: a folder, a folder with one folder per class, a CSV, an image or several; see `read_dataset`.
        output: folder for the results.
        methods: each METHOD[:KEY=VALUE...].
        progress: called with the maps measured and the maps in all.
        on_failure: called when an image, or a method on it, is skipped.
        settings: the other arguments of `Evaluation`.

    Raises:
        OrtcamError: bad input, or results that cannot be written.

    ```python
    from ortcam.evaluation import evaluate

    report = evaluate("shapes", "photos/", methods=["scorecam++", "cam"])
    print(report.in_words())  # and open evaluation/report.html
    ```
    """
    evaluation = Evaluation(model, images, output, methods=methods, **settings)
    return evaluation.run(progress=progress, on_failure=on_failure)


def _bundle(model: str | os.PathLike[str] | Bundle | Explainer) -> Bundle:
    if isinstance(model, Explainer):
        return model.bundle
    return read_model(model, doing="evaluate")


def _file_record(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> dict[str, Any] | list[str]:
    """Where it is and, of a file, what is in it; of several, where they are."""
    if not isinstance(source, (str, os.PathLike)):
        return [as_text(str(Path(item).resolve())) for item in source]
    found = Path(source).resolve()
    return {"path": str(found), "sha256": file_sha256(found) if found.is_file() else None}


def _resolve_metrics(names: Sequence[str] | None, protocol: Protocol) -> tuple[str, ...]:
    """Names of metrics in the order of `METRICS`."""
    if names is None:
        return tuple(metric.name for metric in METRICS if metric.name in protocol.metrics)
    known = {metric.name for metric in METRICS} | {metric.group for metric in METRICS}
    for name in names:
        if name not in known:
            groups = ", ".join(dict.fromkeys(metric.group for metric in METRICS))
            accepted = ", ".join(metric.name for metric in METRICS)
            raise OptionError(
                f"metric {name!r}: accepted is {accepted}, or a group: {groups}{did_you_mean(name, sorted(known))}"
            )
    wanted = tuple(metric.name for metric in definitions.chosen(names))
    needed = [part for name in wanted for part in _NEEDED.get(name, ())]
    wanted = tuple(metric.name for metric in definitions.chosen([*names, *needed]))
    if not wanted:
        raise OptionError("no metric to measure")
    if protocol.confidence == "logit" and (odd := _NOT_OF_LOGITS & set(wanted)):
        raise OptionError(
            f"{', '.join(sorted(odd))} with protocol {protocol.name}: needs probabilities, but it takes logits"
        )
    return wanted
