"""The run of an evaluation: images, methods, metrics, the journal, and the files written at the end."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ortcam._version import __version__
from ortcam.bundle import Bundle, file_sha256
from ortcam.engine.batching import BatchSize
from ortcam.engine.providers import Provider
from ortcam.engine.runtime import runtime_version
from ortcam.errors import OptionError, OrtcamError, OutputError
from ortcam.evaluation.dataset import read_dataset
from ortcam.evaluation.engines import local
from ortcam.evaluation.engines.bench import Bench, Recipe
from ortcam.evaluation.engines.jobs import Job, Outcome, maps_of
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.metrics import share_changed
from ortcam.evaluation.progress import Progress, Tally
from ortcam.evaluation.protocols import resolve_metrics, resolve_protocol
from ortcam.evaluation.report.gallery import Photographs
from ortcam.evaluation.report.page import write_report
from ortcam.evaluation.report.report import Report
from ortcam.evaluation.report.verdict import MEANING, reach_verdict
from ortcam.evaluation.results import as_json, collect, summarise, write_tables
from ortcam.evaluation.sanity.randomized import RandomizedCheck, drawn
from ortcam.explainer import Explainer
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.photograph import of_levels
from ortcam.models.opening import read_model
from ortcam.request import Score, check_batch_size
from ortcam.support.files import write_whole
from ortcam.support.ranges import LIMIT, MEMORY_LIMIT, RANDOMIZE, SEED, STEP, shown
from ortcam.support.terminal import as_text

if TYPE_CHECKING:
    from ortcam.batch.job import RayOptions

__all__ = ["Evaluation", "Report", "evaluate"]

Model = str | os.PathLike[str] | Bundle | Explainer
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

DEFAULT_METHODS: Final = ("auto", "scorecam++")
DEFAULT_OUTPUT: Final = "evaluation"
ENGINES: Final = ("local", "ray")

# Does jobs, and yields what comes of them.
Measure = Callable[[Iterable[Job]], Iterator[tuple[Job, Outcome]]]


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
        score: Score | str | None = None,
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
        memory_limit: int | None = None,
        randomize: int | None = None,
        resume: bool = False,
        engine: str = "local",
        ray: "RayOptions | None" = None,
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
            score: that is explained of every image, such as "mug - key"; None: the class that the model gives it.
                `ortcam.Score` has what else it may be. Metrics that need probabilities are left out where it is none.
            annotations: what the images of a folder show; see `read_dataset`.
            limit: how many images to take; chance decides which.
            seed: of the choice of images, the random weights and the resampling.
            step: pixels that a step of insertion and deletion changes; None: a hundredth of them.
            batch_size: masked or altered images per run.
            providers: as `ortcam.load` takes them.
            threads: the same; for the engine "ray" its CPUs per actor say it.
            precision: of the masked passes where the method does not say.
            max_pixels: images with more pixels are skipped.
            white: the sample that is white in PNG, TIFF and PNM images of 16 bits, as `ortcam.load` takes it.
            strict: skip damaged images, even if they can be read in part.
            strict_providers: as `ortcam.load` takes it.
            memory_limit: as `ortcam.load` takes it, of this process; what passes it becomes a failure. Not with Ray.
            randomize: images for the randomised-weights check; None leaves it out.
            resume: go on with what is in the output folder, whichever engine wrote it.
            engine: "local": this process. "ray": tasks of a Ray cluster, one per image; the images and the output
                folder need to be here alone.
            ray: the cluster, and what each task takes of it; None: a Ray of this machine's cores, for this run.

        Raises:
            OrtcamError: what is wrong, before anything is written.
        """
        conventions = resolve_protocol(protocol)
        numbers = ((LIMIT, limit), (STEP, step), (RANDOMIZE, randomize), (MEMORY_LIMIT, memory_limit))
        limit, step, randomize, memory_limit = (
            None if value is None else int(range_.check(value)) for range_, value in numbers
        )
        seed = int(SEED.check(seed))
        reading = {"max_pixels": max_pixels, "white": white, "strict": strict, "strict_providers": strict_providers}
        loading = {**reading, "providers": providers, "threads": threads, "memory_limit": memory_limit}
        wanted = resolve_metrics(metrics, conventions)  # what is wrong with them is said before a model is exported
        size, asked = check_batch_size(batch_size), Score.of(score)
        recipe = Recipe(tuple(methods), conventions, wanted, step, size, precision, seed, loading, asked)
        self._ray = _check_engine(engine, ray, threads, memory_limit)
        bundle = model.bundle if isinstance(model, Explainer) else read_model(model, doing="evaluate")
        self._recipe = recipe.fitting(bundle.manifest, metrics)
        self.protocol, self.metrics = self._recipe.protocol, self._recipe.metrics
        self._bench = Bench(bundle, self._recipe if self._ray is None else _of_driver(self._recipe))
        explainer = self._bench.explainer
        self.variants = self._bench.entries
        self.notes = [f"auto: {line}" for entry in self.variants if (line := entry.chosen)]
        self.notes += filter(None, [self.protocol.note(metrics)])
        preprocessing = bundle.manifest.preprocessing
        told: dict[str, Any] = {"tell": self.notes.append, "arrays": preprocessing.needs_samples}
        self.examples = read_dataset(
            images, explainer.class_index, annotations=annotations, limit=limit, seed=seed, **told
        )
        self._share = share_changed(preprocessing.height * preprocessing.width, step)
        self._randomized = RandomizedCheck(drawn(self.examples, randomize or 0, seed=seed), seed)
        self._randomized.check(bundle, [name or precision for name in self._bench.explainers])
        self._seed, self._resume, self._is_checked = seed, resume, False
        self._limited = memory_limit is not None
        self.folder = Path(output)
        self.settings = self._record(images, annotations, precision, step) | _unusual(white, asked, strict=strict)

    def _record(
        self, images: Source, annotations: str | os.PathLike[str] | None, precision: str | None, step: int | None
    ) -> dict[str, Any]:
        """What the results depend on, as JSON."""
        explainer = self._bench.explainer
        return {
            "bundle": explainer.bundle.sha256,
            "images": _file_record(images),
            "annotations": None if annotations is None else _file_record(annotations),
            "methods": [entry.name for entry in self.variants],
            "metrics": list(self.metrics),
            "protocol": self.protocol.name,
            "precision": explainer.precision if precision is None and self._limited else precision,
            "providers": list(explainer.providers),
            "seed": self._seed,
            "step": step,
            "ortcam": __version__,
        }

    @property
    def count(self) -> int:
        """How many maps are to be measured: images times methods and baselines, plus those of shuffled weights."""
        return len(self.examples) * len(self.variants) + self._randomized.count(self.variants)

    def check(self) -> None:
        """Run the model once for every head-only method: which heads a method works with is found out by asking them.

        Raises:
            OptionError: the head of this model is none that a method can use.
        """
        if self._is_checked:
            return
        explainer = self._bench.explainer
        preprocessing = explainer.bundle.manifest.preprocessing
        for entry in self.variants:
            if entry.request is not None and not entry.request.settings.method.masks_image:
                levels = np.zeros((preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)
                blank = of_levels(levels, preprocessing)
                alone = dataclasses.replace(entry.request.settings, augmentation=None)
                explainer.explain_request(dataclasses.replace(entry.request, settings=alone), blank)
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
        with self._measure() as measure, Journal(self.folder, self.settings, resume=self._resume) as journal:

            def do(jobs: list[Job], count: int) -> None:
                tally.skip(count - sum(len(job.entries) for job in jobs))
                tally.advance(0)
                for job, outcome in measure(jobs):
                    journal.add(outcome)
                    if isinstance(outcome, Failure) and on_failure is not None:
                        on_failure(outcome)
                    tally.advance(maps_of(outcome, job))

            tally = Tally(self.count, progress)
            do(self._missing(journal), len(self.examples) * len(self.variants))
            if self._randomized.examples:
                self._conclude(journal)  # what is measured so far, whatever becomes of the check
                compared = list(self._randomized.missing(journal, self.variants))
                do(compared, self._randomized.count(self.variants))
            return self._conclude(journal)

    @contextlib.contextmanager
    def _measure(self) -> Iterator[Measure]:
        """What does jobs, as long as the block lasts."""
        if self._ray is None:
            yield lambda jobs: local.measure(jobs, self._bench)
            return
        from ortcam.evaluation.engines.on_ray import RayTasks  # noqa: PLC0415 - only this engine needs Ray

        with RayTasks(self._bench.explainer.bundle, self._recipe, self._ray) as tasks:
            self.settings["providers"] = tasks.providers
            yield tasks.measure

    def _missing(self, journal: Journal) -> list[Job]:
        """What is not measured yet."""
        measured = set(journal.measured())
        return [
            Job(example, entries)
            for example in self.examples
            if (entries := tuple(item.name for item in self.variants if (example.name, item.name) not in measured))
        ]

    def _conclude(self, journal: Journal) -> Report:
        """Summarise what is measured so far, and write the results."""
        asked = dict.fromkeys(example.name for example in self.examples)
        failures = [failure for failure in journal.failures() if failure.image in asked]
        of_class = self.protocol.confidence != "value"
        results = collect(journal, asked, self.variants, self.metrics, self._share, are_probabilities=of_class)
        if not results.images:
            raise OrtcamError(
                f"{self.folder}: not a single image could be measured; the first error: {failures[0].error}"
            )
        summary = summarise(results, self.protocol, seed=self._seed)
        report = Report(results, summary, reach_verdict(results, summary, failures), failures, self.folder)
        more = self._context(report, self._randomized.summary(journal.similarities()))
        explainer = self._bench.explainer
        preprocessing = explainer.bundle.manifest.preprocessing
        score = None if self._recipe.score is None else self._recipe.score.text
        photographs = Photographs(self.examples, explainer.read, preprocessing, explainer.labels, score)
        try:
            write_tables(results, self.folder)
            write_whole(self.folder / "summary.json", as_json(results, summary, more), durable=True)
            write_report(self.folder / "report.html", results, summary, report.verdict, journal, photographs, more)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror or error}") from error
        return report

    def _context(self, report: Report, randomized: dict[str, Any]) -> dict[str, Any]:
        """What summary.json has beside results and summary."""
        explainer = self._bench.explainer
        return {
            "verdict": dataclasses.asdict(report.verdict) | {"meaning": MEANING},
            "settings": self.settings,
            "protocol": dataclasses.asdict(self.protocol),
            "model": dataclasses.asdict(explainer.bundle.manifest.model),
            "providers": self.settings["providers"],
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


def _check_engine(
    engine: str, ray: "RayOptions | None", threads: int | None, memory_limit: int | None
) -> "RayOptions | None":
    """The options of Ray, where it is the engine.

    Raises:
        OptionError: no such engine, or options of one that is not asked for.
        OrtcamError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine={shown(engine)}: accepted are {', '.join(ENGINES)}")
    if engine == "local":
        if ray is not None:
            raise OptionError("ray: goes with engine='ray'")
        return None
    if threads is not None:
        raise OptionError(f"threads={shown(threads)} with engine='ray': CPUs per actor say it there")
    if memory_limit is not None:
        raise OptionError(f"memory_limit={shown(memory_limit)} with engine='ray': accepted is engine='local'")
    from ortcam.batch.job import RayOptions  # noqa: PLC0415 - only this engine needs it

    return ray or RayOptions()


def _of_driver(recipe: Recipe) -> Recipe:
    """The recipe for the process that measures nothing: its providers need not be those of the cluster's machines."""
    return dataclasses.replace(recipe, loading={**recipe.loading, "providers": ["cpu"], "strict_providers": False})


def _unusual(white: int | None, score: Score | None, *, strict: bool) -> dict[str, Any]:
    """Of the settings those that have an entry only where they are set."""
    found = ({} if white is None else {"white": int(white)}) | ({"strict": True} if strict else {})
    return found | ({} if score is None else score.record())


def _file_record(source: Source) -> dict[str, Any] | list[str]:
    """Where it is and, of a file, what is in it; of several, where they are."""
    if not isinstance(source, (str, os.PathLike)):
        return [as_text(str(Path(item).resolve())) for item in source]
    found = Path(source).resolve()
    return {"path": str(found), "sha256": file_sha256(found) if found.is_file() else None}
