"""How long explanations take with this model on this device: by method, precision and batch size.

A measured explanation starts from the encoded image and ends with the map, after one to warm up. Beside it stand bare
passes: features and head alone, in batches of the same size, on copies of the same image, timed between the
explanations. They show what an explanation takes beyond its forward passes. This module needs nothing that serving
does not need.
"""

import dataclasses
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam._version import __version__
from ortcam.bundle import Bundle
from ortcam.engine.opening import SessionOptions
from ortcam.engine.processors import processor_name
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.engine.runtime import runtime_version
from ortcam.engine.session import OnnxSession, open_session
from ortcam.errors import OptionError
from ortcam.explainer import Explainer, load
from ortcam.images.encoded import read_file
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels
from ortcam.methods import resolve_method
from ortcam.models.opening import read_model
from ortcam.results.explanation import Explanation
from ortcam.support.ranges import RUNS, SECONDS

__all__ = ["DEFAULT_RUNS", "DEFAULT_SECONDS", "PEAK_MEMORY", "BareModel", "Case", "Report", "Row", "benchmark"]

DEFAULT_RUNS: Final = 5
DEFAULT_SECONDS: Final = 60.0
PEAK_MEMORY: Final = (
    "the highest resident memory of this process so far: Python, libraries, sessions and all methods together; memory "
    "of devices other than the CPU is not included"
)

_BARE_RUNS: Final = 3
_BARE_IMAGES: Final = 32
_SEARCHES: Final = 3
_ESTIMATE_BATCH: Final = 8

# Called with the number of cases that are measured, of all, and with the one that is measured next.
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """What a row measures.

    Attributes:
        method: name.
        precision: of the masked passes, as the bundle calls it.
        batch_size: masked images per run, or "auto".
    """

    method: str
    precision: str
    batch_size: int | str


@dataclasses.dataclass(frozen=True)
class Row:
    """The times of one case.

    Attributes:
        method: name.
        precision: that ran, as the bundle calls it.
        batch_size: that ran.
        providers: that ran.
        passes: masked forward passes that were measured; 0 for methods that mask nothing.
        all_passes: passes of a whole explanation; more than `passes` if there was no time for all of them.
        head_passes: passes of the head alone, for methods that mask nothing.
        seconds: of each run, with the passes that were measured.
        bare_seconds: seconds per image of features and head alone, at this batch size; None if nothing is masked, or
            if the masked passes have another precision.
        median: seconds of a whole explanation; scaled up if not all passes were measured.
        p95: the same for the 95th percentile (interpolated between the runs).
        overhead: `median` divided by the time of all its bare passes, minus 1; None without these.
    """

    method: str
    precision: str
    batch_size: int
    providers: tuple[str, ...]
    passes: int
    all_passes: int
    head_passes: int
    seconds: tuple[float, ...]
    bare_seconds: float | None
    median: float
    p95: float
    overhead: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured, and where.

    Attributes:
        bundle: folder and SHA-256 of the manifest.
        model: its name.
        image: the image explained.
        machine: processor, logical cores, system.
        versions: of ortcam, ONNX Runtime, NumPy and Python.
        threads: asked for; None: chosen automatically.
        runs: explanations timed per case.
        seconds_allowed: for all cases together.
        rows: one per case.
        notes: cases that could not be measured, and why.
        peak_memory_bytes: see PEAK_MEMORY; None if the system does not tell.
    """

    bundle: dict[str, str]
    model: str
    image: str
    machine: dict[str, Any]
    versions: dict[str, str]
    threads: int | None
    runs: int
    seconds_allowed: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    peak_memory_bytes: int | None


def benchmark(
    model: str | os.PathLike[str] | Bundle,
    image: str | os.PathLike[str],
    *,
    methods: Sequence[str],
    precisions: Sequence[str] | None = None,
    batch_sizes: Sequence[int | str] = ("auto",),
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
    strict_providers: bool = False,
    runs: int = DEFAULT_RUNS,
    seconds: float = DEFAULT_SECONDS,
    progress: Progress | None = None,
) -> Report:
    """Measure every combination of method, precision and batch size.

    Args:
        model: what `ortcam.load` takes.
        image: image to explain.
        methods: names; one that a model cannot have (`cam` without a linear head) becomes a note.
        precisions: of the masked passes; None takes the bundle's own.
        batch_sizes: masked images per run, or "auto".
        providers: execution providers, in order of preference.
        threads: inside an operator on the CPU.
        max_pixels: an image with more pixels is refused, as by `ortcam.load`.
        white: as `ortcam.load` takes it.
        strict: the same.
        strict_providers: the same.
        runs: explanations timed per case, after one to warm up.
        seconds: time for all cases together. An explanation that would need more than its share is measured with a
            budget: as many channels as fit, at least one batch. Its scoring time is then scaled up to all channels.
        progress: called before each case, and at the end.

    Raises:
        BundleError: the bundle cannot be trusted or read.
        ImageError: missing or not an image.
        OptionError: an unknown method, precision or value.
        ProviderError: a provider that this ONNX Runtime does not have.

    ```python
    from ortcam.benchmarking import benchmark

    report = benchmark("shapes", "cat.jpg", methods=["scorecam++"], seconds=10)
    print(report.rows[0].median)  # seconds per explanation
    ```
    """
    RUNS.check(runs)
    SECONDS.check(seconds)
    names = [resolve_method(method, {}).method.name for method in methods]
    read = read_model(model, doing="benchmark")
    chosen = tuple(dict.fromkeys(read.check_precision(name) for name in precisions or (None,)))
    cases = [
        Case(method, precision, size)
        for precision in chosen
        for method in names
        for size in _sizes_of(method, batch_sizes)
        if precision == chosen[0] or _is_masking(method)
    ]
    if not cases:
        raise OptionError(f"methods={list(methods)}, batch_sizes={list(batch_sizes)}: accepted is one of each or more")
    load_options = {
        "providers": providers,
        "threads": threads,
        "max_pixels": max_pixels,
        "white": white,
        "strict": strict,
        "strict_providers": strict_providers,
    }
    content = read_file(image, check_max_pixels(max_pixels)).data
    bench: _Bench | None = None
    rows: list[Row] = []
    notes: list[str] = []
    for done, case in enumerate(cases):
        if progress is not None:
            progress(done, len(cases), f"{case.method}, {case.precision}, batch size {case.batch_size}")
        if bench is None or bench.precision != case.precision:
            bench = _Bench(
                read, content, case.precision, load_options, SessionOptions(resolve_providers(providers), threads)
            )
        try:
            rows.append(bench.measure(case, runs, seconds / len(cases)))
        except OptionError as error:
            if _is_masking(case.method):  # a model may lack what the others need
                raise
            notes.append(f"{case.method} is left out: {error}")
    if progress is not None:
        progress(len(cases), len(cases), "")
    assert bench is not None
    record = bench.explainer.bundle
    return Report(
        bundle={"path": str(record.path), "sha256": record.sha256},
        model=record.manifest.model.name,
        image=os.fspath(image),
        machine={"processor": processor_name(), "logical_cores": os.cpu_count(), "system": platform.platform()},
        versions={
            "ortcam": __version__,
            "onnxruntime": runtime_version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        threads=threads,
        runs=runs,
        seconds_allowed=seconds,
        rows=tuple(rows),
        notes=tuple(notes),
        peak_memory_bytes=_peak_memory(),
    )


class _Bench:
    """One bundle in one precision, and its bare graphs."""

    def __init__(
        self,
        bundle: Bundle,
        content: bytes,
        precision: str,
        load_options: dict[str, Any],
        bare_options: SessionOptions,
    ) -> None:
        self.precision = precision
        self.explainer: Explainer = load(bundle, precision=precision, **load_options)
        self._content = content
        self._bare = BareModel(self.explainer.bundle, bare_options, self.explainer.preprocess(content))
        self._estimate = self._bare.seconds_an_image(_ESTIMATE_BATCH)

    def measure(self, case: Case, runs: int, seconds: float) -> Row:
        """Time a case, in about this many seconds."""
        plan = resolve_method(case.method, {}).plan
        samples = 0 if plan is None else plan.samples
        options: dict[str, Any] = {"method": case.method}
        if case.batch_size != "auto" or samples:
            options["batch_size"] = case.batch_size
        options |= self._cap(case, samples, seconds / (runs + 1))
        first = self._warm_up(options)
        size = first.stats.batch_size
        comparable = first.stats.precision == self.explainer.bundle.manifest.precision
        explanations, bare = [], []
        for _ in range(runs):
            explanations.append(self._timed(options))
            if samples and comparable:
                # A batch size beyond all passes is never made; so many images might not fit into memory.
                bare.append(self._bare.seconds_an_image(min(size, max(first.stats.passes, 1))))
        times = [elapsed for elapsed, _ in explanations]
        all_passes = first.stats.live_channels * samples
        whole = [_whole(elapsed, explanation, all_passes) for elapsed, explanation in explanations]
        median = float(np.median(whole))
        bare_seconds = float(np.median(bare)) if bare else None
        overhead = median / (bare_seconds * all_passes) - 1 if bare_seconds and all_passes else None
        return Row(
            method=case.method,
            precision=first.stats.precision,
            batch_size=size,
            providers=tuple(first.stats.providers),
            passes=first.stats.passes,
            all_passes=all_passes,
            head_passes=explanations[-1][1].stats.head_passes,
            seconds=tuple(times),
            bare_seconds=bare_seconds,
            median=median,
            p95=float(np.percentile(whole, 95)),
            overhead=overhead,
        )

    def _warm_up(self, options: dict[str, Any]) -> Explanation:
        """Explain once, or more often while the automatic batch size is still being searched."""
        explanation = self.explainer.explain(self._content, **options)
        for _ in range(_SEARCHES):
            before = explanation.stats.batch_size
            if options.get("batch_size") != "auto":
                break
            explanation = self.explainer.explain(self._content, **options)
            if explanation.stats.batch_size == before:
                break
        return explanation

    def _cap(self, case: Case, samples: int, seconds: float) -> dict[str, Any]:
        """Choose a budget for an explanation that would take longer than this; none for others."""
        channels = self.explainer.bundle.manifest.cut.channels
        if channels * samples * self._estimate <= seconds:
            return {}
        least = case.batch_size if isinstance(case.batch_size, int) else _ESTIMATE_BATCH
        fit = math.floor(seconds / (samples * self._estimate))
        return {"budget": min(channels, max(least, fit)), "completion": "none"}

    def _timed(self, options: dict[str, Any]) -> tuple[float, Explanation]:
        start = time.perf_counter()
        explanation = self.explainer.explain(self._content, **options)
        return time.perf_counter() - start, explanation


class BareModel:
    """Features and head, or the whole classifier if there is no head. Features stay on their device."""

    def __init__(self, bundle: Bundle, options: SessionOptions, image: NDArray[np.float32]) -> None:
        graphs = bundle.manifest.graphs
        self._image = image
        self._graphs: list[tuple[OnnxSession, str, str]] = []
        if graphs.head is None:
            assert graphs.classifier is not None  # checked when the bundle is read
            self._graphs.append((open_session(bundle.graph(graphs.classifier), options), "image", "logits"))
        else:
            self._graphs.append((open_session(bundle.graph(graphs.features), options), "image", "features"))
            self._graphs.append((open_session(bundle.graph(graphs.head), options), "features", "logits"))

    def seconds_an_image(self, batch_size: int) -> float:
        """Time a few passes after one to warm up; the mean, because the time of an explanation is a sum."""
        batch = np.repeat(self._image, batch_size, axis=0)
        self._run(batch)
        runs = max(_BARE_RUNS, -(-_BARE_IMAGES // batch_size))
        start = time.perf_counter()
        for _ in range(runs):
            self._run(batch)
        return (time.perf_counter() - start) / (runs * batch_size)

    def _run(self, batch: NDArray[np.float32]) -> None:
        value = None
        for session, taken, given in self._graphs:
            binding = session.runtime.io_binding()
            if value is None:
                binding.bind_cpu_input(taken, batch)
            else:
                binding.bind_ortvalue_input(taken, value)
            on_cuda = given == "features" and session.on_gpu
            binding.bind_output(given, "cuda" if on_cuda else "cpu")
            session.runtime.run_with_iobinding(binding)
            (value,) = binding.get_outputs()


def _whole(elapsed: float, explanation: Explanation, all_passes: int) -> float:
    """Seconds with all passes: the scoring stage is scaled up if only some were measured."""
    stats = explanation.stats
    if not 0 < stats.passes < all_passes:
        return elapsed
    return elapsed + stats.seconds_by_stage["scoring"] * (all_passes / stats.passes - 1)


def _sizes_of(method: str, sizes: Sequence[int | str]) -> Iterator[int | str]:
    """The batch sizes to measure a method with: all, or one if it masks nothing."""
    yield from sizes if _is_masking(method) else ("auto",)


def _is_masking(method: str) -> bool:
    return resolve_method(method, {}).method.masks_image


def _peak_memory() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    # Linux counts KiB, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
