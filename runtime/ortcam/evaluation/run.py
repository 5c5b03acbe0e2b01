"""The run of an evaluation: images, methods, metrics, the journal, and the files written at the end."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam._version import __version__
from ortcam.bundle import Bundle, file_sha256
from ortcam.engine.batching import BatchSize
from ortcam.engine.providers import Provider
from ortcam.engine.runtime import runtime_version
from ortcam.errors import OrtcamError, OutputError
from ortcam.evaluation.dataset import Example, read_dataset
from ortcam.evaluation.entries import Entry, baselines, parse_entries
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.measuring import Clean, Measuring
from ortcam.evaluation.metrics import share_changed
from ortcam.evaluation.progress import Progress, Tally
from ortcam.evaluation.protocols import resolve_metrics, resolve_protocol
from ortcam.evaluation.randomized import RandomizedCheck, drawn
from ortcam.evaluation.report.gallery import Photographs
from ortcam.evaluation.report.page import write_report
from ortcam.evaluation.report.report import Report
from ortcam.evaluation.report.verdict import MEANING, reach_verdict
from ortcam.evaluation.results import as_json, collect, summarise, write_tables
from ortcam.evaluation.sanity import DEPTHS
from ortcam.explainer import Explainer, load
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import read_ahead
from ortcam.models.opening import read_model
from ortcam.request import check_batch_size
from ortcam.support.files import write_whole
from ortcam.support.ranges import LIMIT, RANDOMIZE, SEED, STEP
from ortcam.support.terminal import as_text

__all__ = ["Evaluation", "Report", "evaluate"]

Model = str | os.PathLike[str] | Bundle | Explainer
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

DEFAULT_METHODS: Final = ("scorecam", "scorecam++")
DEFAULT_OUTPUT: Final = "evaluation"


class Evaluation:
    """An evaluation that has been checked as far as possible without reading an image, and has not begun.

    Attributes:
        protocol: the conventions.
        variants: the entries: methods, and the baselines behind them.
        metrics: names of what is measured.
        examples: the images.
        folder: where the results go.
        settings: what the results depend on, as JSON.
        notes: sentences about what was left out.
    """

    def __init__(
        self,
        model: Model,
        images: Source,
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
        strict_providers: bool = False,
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
            strict_providers: as `ortcam.load` takes it.
            randomize: images for the randomised-weights check; None leaves it out.
            resume: go on with what is in the output folder.

        Raises:
            OrtcamError: what is wrong, before anything is written.
        """
        self.protocol = resolve_protocol(protocol)
        self.variants = [*parse_entries(methods), *baselines(seed)]
        self.metrics = resolve_metrics(metrics, self.protocol)
        limit, step, randomize = (
            None if value is None else int(range_.check(value))
            for range_, value in ((LIMIT, limit), (STEP, step), (RANDOMIZE, randomize))
        )
        seed = int(SEED.check(seed))
        batch_size = check_batch_size(batch_size)
        load_ = functools.partial(
            load,
            providers=providers,
            threads=threads,
            max_pixels=max_pixels,
            white=white,
            strict=strict,
            strict_providers=strict_providers,
        )
        self._explainers = _explainers(model, self.variants, precision, load_)
        explainer = self._explainers[None]
        self.notes: list[str] = []
        self.examples = read_dataset(
            images, explainer.class_index, annotations=annotations, limit=limit, seed=seed, tell=self.notes.append
        )
        preprocessing = explainer.bundle.manifest.preprocessing
        self._share = share_changed(preprocessing.height * preprocessing.width, step)
        self._measuring = Measuring(self._explainers, self.protocol, self.metrics, step=step, batch_size=batch_size)
        checked = drawn(self.examples, randomize or 0, seed=seed)
        self._randomized = RandomizedCheck(checked, explainer, self._measuring, load_, batch_size, seed)
        self._check_bundle(explainer.bundle, precision)
        self._seed, self._resume, self._is_checked = seed, resume, False
        self.folder = Path(output)
        self.settings = self._record(images, annotations, precision, step) | _unusual(white, strict=strict)

    def _check_bundle(self, bundle: Bundle, precision: str | None) -> None:
        """Refuse methods that need a head where there is none, and the check of weights where none can be shuffled."""
        for entry in self.variants:
            if entry.request is not None:
                entry.request.check(bundle.manifest)
        if self._randomized.examples:
            self._randomized.check([name or precision for name in self._explainers])

    def _record(
        self, images: Source, annotations: str | os.PathLike[str] | None, precision: str | None, step: int | None
    ) -> dict[str, Any]:
        """What the results depend on, as JSON."""
        explainer = self._explainers[None]
        return {
            "bundle": explainer.bundle.sha256,
            "images": _file_record(images),
            "annotations": None if annotations is None else _file_record(annotations),
            "methods": [entry.name for entry in self.variants],
            "metrics": list(self.metrics),
            "protocol": self.protocol.name,
            "precision": precision,
            "providers": list(explainer.providers),
            "seed": self._seed,
            "step": step,
            "ortcam": __version__,
        }

    @property
    def count(self) -> int:
        """How many maps are to be measured: images times methods and baselines, plus those of shuffled weights."""
        shuffled = len(self._randomized.examples) * len(DEPTHS)
        return (len(self.examples) + shuffled) * len(self.variants)

    def check(self) -> None:
        """Run the model once for every head-only method: which heads a method works with is found out by asking them.

        Raises:
            OptionError: the head of this model is none that a method can use.
        """
        if self._is_checked:
            return
        explainer = self._explainers[None]
        preprocessing = explainer.bundle.manifest.preprocessing
        for entry in self.variants:
            if entry.request is not None and not entry.request.settings.method.masks_image:
                blank = np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)
                explainer.explain_request(entry.request, blank)
        self._is_checked = True

    def run(self, *, progress: Progress | None = None, on_failure: Callable[[Failure], None] | None = None) -> Report:
        """Check the methods (`check`), measure what is not measured yet, and write the results.

        Args:
            progress: called with the maps measured and the maps in all: at the start, then after each map.
            on_failure: called when an image, or a method on it, is skipped.

        Raises:
            OptionError: as `check`; nothing is written.
            OutputError: the results cannot be written, or would overwrite others.
            OrtcamError: no image could be measured.
        """
        self.check()
        with Journal(self.folder, self.settings, resume=self._resume) as journal:

            def fail(failure: Failure) -> None:
                journal.add(failure)
                if on_failure is not None:
                    on_failure(failure)

            tally = Tally(self.count, progress)
            self._measure(journal, tally, fail)
            if self._randomized.examples:
                self._conclude(journal)  # what is measured so far, whatever becomes of the check
                self._randomized.run(journal, self.variants, tally, fail)
            return self._conclude(journal)

    def _measure(self, journal: Journal, tally: Tally, fail: Callable[[Failure], None]) -> None:
        measured = set(journal.measured())
        missing = [
            (example, entries)
            for example in self.examples
            if (entries := [item for item in self.variants if (example.name, item.name) not in measured])
        ]
        tally.skip(len(self.examples) * len(self.variants) - sum(len(entries) for _, entries in missing))
        tally.advance(0)
        for clean, entries in self._cleaned(missing, tally, fail):
            for entry in entries:
                try:
                    journal.add(self._measuring.measure(clean, entry))
                except OutputError:
                    raise
                except OrtcamError as error:
                    fail(Failure(clean.example.name, entry.name, str(error)))
                tally.advance()

    def _cleaned(
        self, missing: Sequence[tuple[Example, list[Entry]]], tally: Tally, fail: Callable[[Failure], None]
    ) -> Iterator[tuple[Clean, list[Entry]]]:
        """Read and classify images; the next ones are decoded meanwhile."""
        explainer = self._explainers[None]
        with contextlib.closing(read_ahead(missing, lambda pair: explainer.read(pair[0].path))) as ahead:
            for (example, entries), photograph in ahead:
                try:
                    clean = self._measuring.clean(example, photograph())
                except OrtcamError as error:
                    fail(Failure(example.name, None, str(error)))
                    tally.advance(len(entries))
                    continue
                yield clean, entries

    def _conclude(self, journal: Journal) -> Report:
        """Summarise what is measured so far, and write the results."""
        asked = {example.name for example in self.examples}
        failures = [failure for failure in journal.failures() if failure.image in asked]
        results = collect(journal, asked, self.variants, self.metrics, self._share)
        if not results.images:
            raise OrtcamError(
                f"{self.folder}: not a single image could be measured; the first error: {failures[0].error}"
            )
        summary = summarise(results, self.protocol, seed=self._seed)
        report = Report(results, summary, reach_verdict(results, summary, failures), failures, self.folder)
        more = self._context(report, self._randomized.summary(journal.similarities()))
        explainer = self._explainers[None]
        preprocessing = explainer.bundle.manifest.preprocessing
        photographs = Photographs(self.examples, explainer.read, preprocessing, explainer.labels)
        try:
            write_tables(results, self.folder)
            write_whole(self.folder / "summary.json", as_json(results, summary, more), durable=True)
            write_report(self.folder / "report.html", results, summary, report.verdict, journal, photographs, more)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror or error}") from error
        return report

    def _context(self, report: Report, randomized: dict[str, Any]) -> dict[str, Any]:
        """What summary.json has beside results and summary."""
        explainer = self._explainers[None]
        return {
            "verdict": dataclasses.asdict(report.verdict) | {"meaning": MEANING},
            "settings": self.settings,
            "protocol": dataclasses.asdict(self.protocol),
            "model": dataclasses.asdict(explainer.bundle.manifest.model),
            "providers": list(explainer.providers),
            "versions": {"ortcam": __version__, "onnxruntime": runtime_version(), "numpy": np.__version__},
            "notes": self.notes,
            "failures": [dataclasses.asdict(failure) for failure in report.failures],
            "randomized": randomized,
        }


def evaluate(
    model: Model,
    images: Source,
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


def _explainers(
    model: Model, entries: Sequence[Entry], precision: str | None, load_: Callable[..., Explainer]
) -> dict[str | None, Explainer]:
    """The model in every precision that is asked for; under None in the one for entries that say none."""
    bundle = model.bundle if isinstance(model, Explainer) else read_model(model, doing="evaluate")
    precisions = dict.fromkeys([None, *(entry.precision for entry in entries)])
    return {name: load_(bundle, precision=name or precision) for name in precisions}


def _unusual(white: int | None, *, strict: bool) -> dict[str, Any]:
    """Of the settings those that have an entry only where they are set."""
    return ({} if white is None else {"white": int(white)}) | ({"strict": True} if strict else {})


def _file_record(source: Source) -> dict[str, Any] | list[str]:
    """Where it is and, of a file, what is in it; of several, where they are."""
    if not isinstance(source, (str, os.PathLike)):
        return [as_text(str(Path(item).resolve())) for item in source]
    found = Path(source).resolve()
    return {"path": str(found), "sha256": file_sha256(found) if found.is_file() else None}
