"""`run`: a batch from its arguments to its report: checks, resuming, the engine, and what is said at the end."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import pyarrow as pa

from ortcam._version import __version__
from ortcam.batch.job import Job, RayOptions
from ortcam.batch.local.cores import share_machine
from ortcam.batch.local.searching import search
from ortcam.batch.output.parts import Output
from ortcam.batch.output.results import Results
from ortcam.batch.output.rows import full_shape, map_shape, schema
from ortcam.batch.output.stored import recorded
from ortcam.batch.probing import find_batch_size
from ortcam.batch.progress import OnFailure, Progress, Tally
from ortcam.batch.remaining import RunEngine, do_what_is_left
from ortcam.batch.settings import MAPS, OVERLAYS, BatchSettings, Maps, Overlays
from ortcam.batch.sources.opening import Source, open_source
from ortcam.bundle import Bundle
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.engine.runtime import runtime_version
from ortcam.errors import OptionError, OrtcamError
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels, check_strict, check_white
from ortcam.images.rendering import Rendering
from ortcam.models.opening import read_model
from ortcam.request import ExplainRequest, Score, as_targets, class_index
from ortcam.support.extras import missing
from ortcam.support.ranges import GALLERY, LIMIT, MEMORY_LIMIT, PROCESSES, THREADS, Range, shown

__all__ = ["ENGINES", "BatchReport", "Engine", "run"]

Engine = Literal["local", "ray"]
ENGINES: Final[tuple[Engine, ...]] = ("local", "ray")

_FORMAT: Final = 1  # of rows and records; a change makes an older OUTPUT one that cannot be resumed


@dataclasses.dataclass(frozen=True)
class BatchReport:
    """What a run of a batch did.

    Attributes:
        output: where the parts are.
        images: done in this run, those that failed included.
        rows: written for them.
        failures: images of this run that failed.
        skipped: images that earlier runs had finished.
        seconds: wall time.
        succeeded: whether OUTPUT has an image that did not fail, or nothing was to do.
        gallery: where the page of thumbnails is; None: there is none.
    """

    output: str
    images: int
    rows: int
    failures: int
    skipped: int
    seconds: float
    succeeded: bool
    gallery: str | None = None

    def record(self) -> dict[str, Any]:
        """As JSON types."""
        return dataclasses.asdict(self)


def run(
    model: str | os.PathLike[str] | Bundle,
    input: str | os.PathLike[str] | Sequence[str],  # noqa: A002 - as the command calls it
    output: str | os.PathLike[str],
    *,
    engine: Engine = "local",
    resume: bool = False,
    retry_failed: bool = False,
    limit: int | None = None,
    maps: Maps = "low",
    overlays: Overlays = "none",
    rendering: Rendering | None = None,
    gallery: int | None = None,
    processes: int | None = None,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    strict_providers: bool = False,
    precision: str | None = None,
    memory_limit: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    ray: RayOptions | None = None,
    progress: Progress | None = None,
    on_failure: OnFailure | None = None,
    tell: Callable[[str], None] | None = None,
    **arguments: Any,
) -> BatchReport:
    """Explain many images, and write a table of maps.

    A run that was killed is gone on with by `resume=True`: what is finished is not computed again.

    Args:
        model: as `ortcam.load` takes it.
        input: a folder, a glob, a manifest, tables or tar files: paths or URLs.
        output: a new folder or URL for the parts.
        engine: "local" or "ray".
        resume: go on with OUTPUT, which the same model and settings made. INPUT may have grown.
        retry_failed: resume, and explain again what failed.
        limit: take the first images of INPUT alone.
        maps: "low": at the resolution of the layer; "full": those of the size of the model's input, too.
        overlays: "none", or "jpeg": the photograph with the map over it.
        rendering: of overlays.
        gallery: images of a page of thumbnails, which is written at the end (`Results.gallery`); None: none.
        processes: that score, on one machine; None: as measured best.
        threads: of each of them; None: as measured best.
        providers: as `ortcam.load` takes them.
        strict_providers: as `ortcam.load` takes it.
        precision: as `ortcam.load` takes it.
        memory_limit: megabytes that each process that scores may have at its peak. Precision and batch size are chosen
            once, to stay below it, `batch_size` at most. An image that passes it all the same fails. Not with Ray.
        max_pixels: as `ortcam.load` takes it.
        white: as `ortcam.load` takes it.
        strict: as `ortcam.load` takes it.
        storage_options: of fsspec, for INPUT and OUTPUT.
        ray: how Ray is used.
        progress: called with a `Snapshot` after every image.
        on_failure: called with id and error of an image that failed.
        tell: called with sentences that a user should read.
        **arguments: those of `Explainer.explain`: method, target, score, limits, options.

    Returns:
        What was done.

    Raises:
        OrtcamError: what is wrong with the whole batch. What is wrong with one image is a row with an `error`.

    Example:
        >>> ortcam.batch.run("shapes", "photos/", "maps/", top_k=3)  # doctest: +SKIP
    """
    started = time.monotonic()
    _check_words(engine=(engine, ENGINES), maps=(maps, MAPS), overlays=(overlays, OVERLAYS))
    limit, gallery, memory_limit = _numbers((LIMIT, limit), (GALLERY, gallery), (MEMORY_LIMIT, memory_limit))
    threads, processes = _numbers((THREADS, threads), (PROCESSES, processes))
    work = _engine(engine, ray, processes=processes, threads=threads, memory_limit=memory_limit)
    ExplainRequest.of(**arguments)  # what is wrong with it is said before a model is exported
    target = Output(output, storage_options=storage_options)
    before = target.before(resume=(resume := resume or retry_failed))
    bundle = read_model(model, doing="ortcam.batch.run")
    source = open_source(input, storage_options=storage_options, arrays=_takes_arrays(bundle))
    reading = {"max_pixels": check_max_pixels(max_pixels), "white": check_white(white), "strict": check_strict(strict)}
    drawn = {"maps": maps, "overlays": overlays, "rendering": rendering or Rendering()}
    settings = _settings(
        bundle,
        arguments,
        tell := tell or (lambda _: None),
        **drawn,
        **reading,
        precision=bundle.check_precision(precision) if precision is not None or memory_limit is None else None,
        memory_limit=memory_limit,
        providers=None if providers is None else tuple(providers),
        strict_providers=strict_providers,
        storage_options=dict(storage_options or {}),
    )
    resources = _Resources(engine, processes, threads, ray or RayOptions())
    batch = _Batch(source, target, limit, Tally(progress, on_failure), retry_failed=retry_failed)
    with contextlib.closing(target):
        settings = batch.found(settings, before, resources)
        batch.begin(bundle, settings, resources, tell, resume=resume)
        batch.run(Job(settings, _schema(bundle, settings), processes, threads, resources.ray), work)
    return _with_gallery(batch.report(time.monotonic() - started), gallery, output, storage_options)


@dataclasses.dataclass(frozen=True)
class _Resources:
    """What a batch may use."""

    engine: Engine
    processes: int | None
    threads: int | None
    ray: RayOptions

    def find_batch_size(self, settings: BatchSettings) -> int:
        """The batch size that is found with what each process, or actor, that scores will have."""
        if self.engine == "local":
            threads = share_machine(self.processes, self.threads, providers=settings.providers).threads
            return find_batch_size(settings, threads=threads)
        if not self.ray.gpus:
            return find_batch_size(settings, threads=self.ray.cpus or 1)
        from ortcam.batch.ray.batch_size import find_on_cluster  # noqa: PLC0415 - Ray is an extra of its own

        return find_on_cluster(settings, self.ray)


class _Batch:
    """A batch that goes on: what is finished, what is left, and what was done."""

    def __init__(self, source: Source, output: Output, limit: int | None, tally: Tally, *, retry_failed: bool) -> None:
        self._source, self._output, self._limit, self._tally = source, output, limit, tally
        self._retry_failed = retry_failed

    def found(self, settings: BatchSettings, before: Mapping[str, Any] | None, resources: _Resources) -> BatchSettings:
        """The settings with batch size and precision: those given, of the run before, or measured now."""
        size, precision, limited = settings.batch_size, settings.precision, settings.memory_limit is not None
        if before is not None and (size == "auto" or limited):
            known = before["fingerprint"].get("batch_size", size)  # a record of another format may have none
            size = known if size == "auto" or known < size else size  # under a limit it is the most
            precision = precision or before["fingerprint"].get("precision")
        if limited and (before is None or size == "auto" or precision is None):
            return search(settings, resources.processes, resources.threads)
        if size == "auto":
            size = resources.find_batch_size(settings)
        return dataclasses.replace(settings, batch_size=size, precision=precision)

    def begin(
        self,
        bundle: Bundle,
        settings: BatchSettings,
        resources: _Resources,
        tell: Callable[[str], None],
        *,
        resume: bool,
    ) -> None:
        """Write down what the rows depend on, or check that it is what they depended on before.

        What differs from the runs before without being refused is told.

        Raises:
            OutputError: it is not, or OUTPUT cannot be written.
        """
        record = {
            "format": _FORMAT,
            "fingerprint": settings.fingerprint(),
            "explanation": recorded(bundle, settings.request().for_bundle(bundle.manifest)),
            "input": self._source.record,
            "ortcam": __version__,
            "onnxruntime": runtime_version(),
            "providers": [name for name, _ in resolve_providers(settings.providers)],
            "engine": resources.engine,
            "processes": resources.processes,
            "threads": resources.threads,
        }
        for line in _differences(self._output.begin(record, resume=resume), record):
            tell(line)

    def run(self, job: Job, engine: RunEngine) -> None:
        """Do what is left.

        Raises:
            BaseException: as `do_what_is_left`.
        """
        do_what_is_left(
            job,
            engine,
            self._source,
            self._output,
            self._tally,
            limit=self._limit,
            retry_failed=self._retry_failed,
        )

    def report(self, seconds: float) -> BatchReport:
        """What was done."""
        done = self._tally.snapshot()
        succeeded = done.failures < done.images or (done.images == 0 and done.skipped == 0)
        succeeded = succeeded or any(len(ids) for ids in self._output.ids(failed=False))
        return BatchReport(self._output.name, done.images, done.rows, done.failures, done.skipped, seconds, succeeded)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a user may want to know of runs that are not refused, one sentence each."""
    inputs = [str(dict(record.get("input") or {}).get("input")) for record in (before, now)]
    found = []
    if inputs[0] != inputs[1]:
        found.append(f"INPUT was {inputs[0]}, now {inputs[1]}: ids that OUTPUT has are not explained again")
    found += [
        f"{key} was {before.get(key)}, now {now[key]}: the last bits of new rows may differ"
        for key in ("ortcam", "onnxruntime", "providers")
        if before.get(key) != now[key]
    ]
    return found


def _with_gallery(
    report: BatchReport,
    count: int | None,
    output: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
) -> BatchReport:
    """Write the page of thumbnails, if one is wanted and there is something to show."""
    if count is None or not report.images + report.skipped or not report.succeeded:
        return report
    return dataclasses.replace(report, gallery=Results(output, storage_options=storage_options).gallery(count))


def _settings(bundle: Bundle, arguments: dict[str, Any], tell: Callable[[str], None], **others: Any) -> BatchSettings:
    """What the rows depend on, checked. The method that "auto" stands for is told.

    Raises:
        OrtcamError: what is not accepted.
    """
    given = dict(arguments)
    if given.get("score") is not None:
        given["score"] = Score.of(given["score"])  # its files are read here, and its arrays travel
    if given.get("target") is not None:
        labels = bundle.manifest.labels
        given["target"] = [class_index(target, labels) for target in as_targets(given["target"])]
    request = ExplainRequest.of(**given)
    given.pop("batch_size", None)
    fitting = request.for_bundle(bundle.manifest)
    if fitting.chosen is not None:
        tell(f"auto: {fitting.chosen}")
    return BatchSettings(
        bundle=bundle.path,
        bundle_sha256=bundle.sha256,
        arguments=given,
        asked=fitting.record(),
        map_shape=map_shape(bundle.manifest, fitting),
        batch_size=request.batch_size,
        are_probabilities=request.has_probabilities(bundle.manifest),
        **others,
    )


def _takes_arrays(bundle: Bundle) -> bool:
    """Whether arrays are images, too: the model takes samples."""
    return bundle.manifest.preprocessing.needs_samples


def _schema(bundle: Bundle, settings: BatchSettings) -> pa.Schema:
    shape = full_shape(bundle.manifest) if settings.maps == "full" else None
    return schema(
        settings.fingerprint(),
        settings.map_shape,
        shape,
        overlays=settings.overlays != "none",
        values=not settings.are_probabilities,
    )


def _engine(name: Engine, ray: RayOptions | None, **local: int | None) -> RunEngine:
    """What does the work.

    Args:
        name: of the engine.
        ray: how Ray is used.
        **local: what the local engine alone takes.

    Raises:
        OptionError: an option of the other engine.
        OrtcamError: what it needs is not installed.
    """
    if name == "local":
        if ray is not None:
            raise OptionError("options of Ray: they go with engine='ray'")
        from ortcam.batch.local.driver import run_local  # noqa: PLC0415 - one engine of two

        return run_local
    for given in (name for name, value in local.items() if value is not None):
        raise OptionError(f"{given}: goes with the local engine; on Ray the actors and their CPUs decide")
    try:
        from ortcam.batch.ray.pipeline import run_ray  # noqa: PLC0415 - Ray is an extra of its own
    except ImportError as error:
        raise OrtcamError(missing("engine='ray'", "ray", error)) from None
    return run_ray


def _numbers(*checked: tuple[Range, int | None]) -> list[int | None]:
    """Numbers that are in their ranges; None stays None.

    Raises:
        OptionError: one that is not.
    """
    return [None if value is None else int(range_.check(value)) for range_, value in checked]


def _check_words(**words: tuple[object, Sequence[str]]) -> None:
    """Refuse a word that is not accepted.

    Raises:
        OptionError: one of them.
    """
    for name, (value, accepted) in words.items():
        if value not in accepted:
            raise OptionError(f"{name}={shown(value)}: accepted is {' or '.join(accepted)}")
