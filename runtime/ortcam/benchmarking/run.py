"""`benchmark`: how long explanations take with this model on this device.

A measured explanation starts from the encoded image and ends with the map, after one to warm up. Beside it stand bare
passes: features and head alone, in batches of the same size, on copies of the same image, timed between the
explanations. They show what an explanation takes beyond its forward passes. This room needs nothing that serving
does not need.
"""

import dataclasses
import io
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ortcam._version import __version__
from ortcam.benchmarking.bare import BareModel
from ortcam.benchmarking.timings import Case, Row, Timings
from ortcam.bundle import Bundle, Manifest
from ortcam.bundle.shipped import demo_image
from ortcam.engine.memory import MemoryLimit, ResetPeaks
from ortcam.engine.opening import SessionOptions
from ortcam.engine.processors import processor_name
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.engine.runtime import runtime_version
from ortcam.errors import MemoryLimitError, OptionError
from ortcam.explainer import Explainer, load_with
from ortcam.images.encoded import read_file
from ortcam.images.limits import DEFAULT_MAX_PIXELS, check_max_pixels
from ortcam.images.preprocessing import Preprocessing
from ortcam.models.opening import read_model
from ortcam.request import (
    ExplainRequest,
    MethodEntry,
    Score,
    check_batch_size,
    first_output,
    outputs_in_words,
    parse_entry,
)
from ortcam.results.explanation import Explanation
from ortcam.scoring import Limits
from ortcam.support.ranges import RUNS, SECONDS

__all__ = ["DEFAULT_RUNS", "DEFAULT_SECONDS", "benchmark"]

DEFAULT_RUNS: Final = 5
DEFAULT_SECONDS: Final = 60.0
_SEARCHES: Final = 3
_ESTIMATE_BATCH: Final = 8
_NOISE: Final = "noise"  # the name of the image where none is given and no photograph fits

# Called with the number of cases that are measured, of all, and with the one that is measured next.
Progress = Callable[[int, int, str], None]


def benchmark(
    model: str | os.PathLike[str] | Bundle,
    image: str | os.PathLike[str] | None = None,
    *,
    methods: Sequence[str],
    score: Score | str | None = None,
    precisions: Sequence[str] | None = None,
    batch_sizes: Sequence[int | str] = ("auto",),
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white: int | None = None,
    strict: bool = False,
    strict_providers: bool = False,
    memory_limit: int | None = None,
    runs: int = DEFAULT_RUNS,
    seconds: float = DEFAULT_SECONDS,
    progress: Progress | None = None,
) -> Timings:
    """Measure every combination of method, precision and batch size.

    Args:
        model: what `ortcam.load` takes.
        image: image to explain; None: a shipped one, or noise where the model needs samples.
        methods: each METHOD[:KEY=VALUE...], such as "recipro-cam:augment=10"; a key is an option of the method, or a
            limit. "auto" is the method that suits the bundle. One that a model cannot have (`cam` without a linear
            head) becomes a note.
        score: that is explained; None: the most probable class, or the first element of a tensor without classes.
        precisions: of the masked passes; None takes the bundle's own.
        batch_sizes: masked images per run, or "auto".
        providers: execution providers, in order of preference.
        threads: inside an operator on the CPU.
        max_pixels: an image with more pixels is refused, as by `ortcam.load`.
        white: as `ortcam.load` takes it.
        strict: the same.
        strict_providers: the same.
        memory_limit: megabytes that this process may have. Without `precisions` the first that fits is measured; batch
            sizes are the most, and a case that passes the limit becomes a note. No bare passes are measured beside.
        runs: explanations timed per case, after one to warm up.
        seconds: time for all cases together. An explanation that would need more than its share is measured with a
            budget: as many channels as fit, at least one batch. Its scoring time is then scaled up to all channels.
        progress: called before each case, and at the end.

    Raises:
        BundleError: the bundle cannot be trusted or read.
        ImageError: missing or not an image.
        OptionError: an unknown method, precision or value.
        MemoryLimitError: no case could be measured below `memory_limit`.
        ProviderError: a provider that this ONNX Runtime does not have.

    ```python
    from ortcam.benchmarking import benchmark

    timings = benchmark("shapes", "cat.jpg", methods=["scorecam++"], seconds=10)
    print(timings.rows[0].median)  # seconds per explanation
    ```
    """
    RUNS.check(runs)
    SECONDS.check(seconds)
    entries = [_entry(method) for method in methods]
    wanted = Score.of(score)
    read = read_model(model, doing="benchmark")
    asked, left_out = _score(wanted, read.manifest)
    limit = None if memory_limit is None else MemoryLimit(memory_limit, ResetPeaks())
    if limit is not None and not precisions:
        precisions = [limit.plan(read).precision]
    cases, more = _cases(read, entries, precisions, batch_sizes, asked)
    left_out += more
    if not entries or not batch_sizes:
        raise OptionError(f"methods={list(methods)}, batch_sizes={list(batch_sizes)}: accepted is one of each or more")
    name, content = _image(image, read.manifest.preprocessing, check_max_pixels(max_pixels))
    bare = SessionOptions(resolve_providers(providers), threads)
    opening = dataclasses.replace(bare, strict_providers=strict_providers, memory_limit=limit)
    reading = {"max_pixels": max_pixels, "white": white, "strict": strict}

    def bench_in(precision: str) -> _Bench:
        explainer = load_with(opening, read, reading, precision=precision)
        return _Bench(explainer, content, precision, bare if limit is None else None)

    rows, notes = _measure(cases, bench_in, runs, seconds / max(len(cases), 1), progress)
    return Timings(
        bundle={"path": str(read.path), "sha256": read.sha256},
        model=read.manifest.model.name,
        image=name,
        machine={"processor": processor_name(), "logical_cores": os.cpu_count(), "system": platform.platform()},
        versions=_versions(),
        threads=threads,
        runs=runs,
        seconds_allowed=seconds,
        rows=tuple(rows),
        notes=(*left_out, *notes),
        peak_memory_bytes=_peak_memory(),
    )


def _image(source: str | os.PathLike[str] | None, preprocessing: Preprocessing, max_pixels: int) -> tuple[str, bytes]:
    """The name of the image that is explained, and the bytes of its file."""
    if source is None and preprocessing.needs_samples:
        low, high = preprocessing.value_range or (0.0, 1.0)
        shape = preprocessing.height, preprocessing.width, preprocessing.channels
        noise = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
        file = io.BytesIO()
        np.save(file, noise)
        return _NOISE, file.getvalue()
    image = demo_image() if source is None else source
    return os.fspath(image), read_file(image, max_pixels).data


def _score(score: Score | None, manifest: Manifest) -> tuple[Score | None, list[str]]:
    """What is explained, and a sentence about it where nobody has said it of a model without classes."""
    if score is not None or manifest.has_classes:
        return score, []
    first = Score(first_output(manifest))
    return first, [f"{outputs_in_words(manifest)} without classes: {first.text} is explained"]


def _entry(text: str) -> MethodEntry:
    """A method as it is measured.

    Raises:
        OptionError: an unknown method, key or value; a precision, which is of all methods here.
    """
    entry = parse_entry(text)
    if entry.precision is not None:
        raise OptionError(f"{entry.name}: accepted is --precision (precisions=), which is for all methods")
    return entry


def _cases(
    bundle: Bundle,
    entries: Sequence[MethodEntry],
    precisions: Sequence[str] | None,
    batch_sizes: Sequence[int | str],
    score: Score | None,
) -> tuple[list[Case], list[str]]:
    """Every combination, and sentences about methods that the bundle does not allow.

    Methods that mask nothing have one batch size and the first precision alone.
    """
    chosen = tuple(dict.fromkeys(bundle.check_precision(name) for name in precisions or (None,)))
    requests, notes = {}, []
    for entry in entries:
        try:
            asked = entry.request if score is None else ExplainRequest.of(**{**entry.arguments, "score": score})
            request = asked.for_bundle(bundle.manifest)
        except OptionError as error:
            notes.append(f"{entry.name} is left out: {error}")
            continue
        requests[f"{entry.name}: {request.settings.method.name}" if request.chosen else entry.name] = request
    cases = [
        Case(name, precision, check_batch_size(size), request)
        for precision in chosen
        for name, request in requests.items()
        for size in (batch_sizes if request.settings.method.masks_image else ("auto",))
        if precision == chosen[0] or request.settings.method.masks_image
    ]
    return cases, notes


def _measure(
    cases: Sequence[Case],
    bench_in: "Callable[[str], _Bench]",
    runs: int,
    seconds: float,
    progress: Progress | None,
) -> tuple[list[Row], list[str]]:
    """Rows, and sentences about the cases that cannot be measured.

    Args:
        cases: those of one precision one after the other.
        bench_in: opens the bundle in a precision.
        runs: of each case.
        seconds: for each case.
        progress: called before each case, and at the end.

    Raises:
        MemoryLimitError: no case could be measured below the limit.
    """
    rows: list[Row] = []
    notes: list[str] = []
    bench: _Bench | None = None
    refused: MemoryLimitError | None = None
    for done, case in enumerate(cases):
        if progress is not None:
            progress(done, len(cases), f"{case.method}, {case.precision}, batch size {case.batch_size}")
        try:
            if bench is None or bench.precision != case.precision:
                bench = None  # before the next one, so that memory holds one
                bench = bench_in(case.precision)
            rows.append(bench.measure(case, runs, seconds))
        except MemoryLimitError as error:
            notes.append(f"{case.method}, {case.precision}, batch size {case.batch_size} is left out: {error}")
            refused = error
        except OptionError as error:
            if case.request.settings.method.masks_image:  # a model may lack what the others need
                raise
            notes.append(f"{case.method} is left out: {error}")
    if refused is not None and not rows:
        raise refused
    if progress is not None:
        progress(len(cases), len(cases), "")
    return rows, notes


class _Bench:
    """One bundle in one precision, and its bare graphs, where there is memory for them."""

    def __init__(
        self, explainer: Explainer, content: bytes, precision: str, bare_options: SessionOptions | None
    ) -> None:
        self.precision = precision
        self._explainer = explainer
        self._content = content
        self._bare: BareModel | None = None
        self._estimate: float | None = None
        if bare_options is not None:
            self._bare = BareModel(explainer.bundle, bare_options, explainer.preprocess(content))
            self._estimate = self._bare.seconds_an_image(_ESTIMATE_BATCH)

    def measure(self, case: Case, runs: int, seconds: float) -> Row:
        """Time a case, in about this many seconds."""
        settings, limits = case.request.settings, case.request.limits
        samples = 0 if settings.plan is None else settings.plan.samples
        request = dataclasses.replace(case.request, batch_size=case.batch_size)
        # What is limited or explained in copies is measured as it is asked for: there is nothing to scale up.
        as_asked = bool(limits.given) or settings.augmentation is not None
        if samples and not as_asked:
            request = dataclasses.replace(request, limits=self._cap(case, samples, seconds / (runs + 1)))
        first = self._warm_up(request)
        size = first.stats.batch_size
        comparable = first.stats.precision == self._explainer.bundle.manifest.precision
        explanations, bare = [], []
        for _ in range(runs):
            explanations.append(self._timed(request))
            if samples and comparable and self._bare is not None:
                # A batch size beyond all passes is never made; so many images might not fit into memory.
                bare.append(self._bare.seconds_an_image(min(size, max(first.stats.passes, 1))))
        times = [elapsed for elapsed, _ in explanations]
        all_passes = first.stats.passes if as_asked else first.stats.live_channels * samples
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
            gradient_passes=explanations[-1][1].stats.gradient_passes,
        )

    def _warm_up(self, request: ExplainRequest) -> Explanation:
        """Explain once, or more often while the automatic batch size is still being searched."""
        explanation = self._explainer.explain_request(request, self._content)
        for _ in range(_SEARCHES):
            before = explanation.stats.batch_size
            if request.batch_size != "auto" or not request.settings.method.masks_image:
                break
            explanation = self._explainer.explain_request(request, self._content)
            if explanation.stats.batch_size == before:
                break
        return explanation

    def _cap(self, case: Case, samples: int, seconds: float) -> Limits:
        """Choose a budget for an explanation that would take longer than this; none for others."""
        channels = self._explainer.bundle.manifest.cut.channels
        estimate = self._seconds_a_pass(case.request)
        if channels * samples * estimate <= seconds:
            return Limits()
        least = case.batch_size if isinstance(case.batch_size, int) else _ESTIMATE_BATCH
        fit = math.floor(seconds / (samples * estimate))
        return Limits(budget=min(channels, max(least, fit)), completion="none")

    def _seconds_a_pass(self, request: ExplainRequest) -> float:
        """About the seconds of a masked pass: those of a bare one, or else by the second of two short explanations."""
        if self._estimate is None:
            channels = min(self._explainer.bundle.manifest.cut.channels, _ESTIMATE_BATCH)
            short = dataclasses.replace(request, limits=Limits(budget=channels, completion="none"))
            stats = [self._explainer.explain_request(short, self._content).stats for _ in range(2)][-1]
            self._estimate = stats.seconds_by_stage["scoring"] / max(stats.passes, 1)
        return self._estimate

    def _timed(self, request: ExplainRequest) -> tuple[float, Explanation]:
        start = time.perf_counter()
        explanation = self._explainer.explain_request(request, self._content)
        return time.perf_counter() - start, explanation


def _whole(elapsed: float, explanation: Explanation, all_passes: int) -> float:
    """Seconds with all passes: the scoring stage is scaled up if only some were measured."""
    stats = explanation.stats
    if not 0 < stats.passes < all_passes:
        return elapsed
    return elapsed + stats.seconds_by_stage["scoring"] * (all_passes / stats.passes - 1)


def _versions() -> dict[str, str]:
    return {
        "ortcam": __version__,
        "onnxruntime": runtime_version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _peak_memory() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    # Linux counts KiB, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
