"""What the server counts and measures, in the text format of Prometheus (`GET /metrics`).

Names follow Prometheus: base units (seconds, bytes), `_total` for counters. Every label has few values: names of served
bundles, kinds of requests, reasons. So no client can fill the memory by inventing names.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ortcam._version import __version__
from ortcam.serve.http.refusals import Refusal

__all__ = ["MEASURES", "Measure", "Metrics", "router"]

router = APIRouter()

Kind = Literal["counter", "gauge", "histogram"]

_OTHER: Final = "other"  # a model that is not served
# Why a request was refused, by its status. Lanes, jobs and `Held` count those with 429 and 503: they know why.
_REASONS: Final = {400: "input", 401: "token", 403: "origin", 408: "slow", 413: "size", 415: "input", 422: "input"}


@dataclasses.dataclass(frozen=True)
class Measure:
    """One metric. Of a counter the exported name ends in `_total`.

    Attributes:
        kind: "counter", "gauge" or "histogram".
        name: of the metric.
        help: what it says, in one sentence.
        labels: names of its labels.
        more: what its class takes besides: the buckets of a histogram.
    """

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_BUCKETS: Final = {"buckets": (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)}
_ERRORS: Final = {"buckets": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)}

MEASURES: Final = (
    Measure("counter", "ortcam_requests", "Requests that were answered.", ("kind", "model", "status")),
    Measure("gauge", "ortcam_requests_running", "Requests that are not answered yet.", ("kind",)),
    Measure("histogram", "ortcam_request_seconds", "Seconds from arrival to answer.", ("kind", "model"), _BUCKETS),
    Measure(
        "histogram",
        "ortcam_stage_seconds",
        "Seconds in each stage of a request: queue, decode, run, encode.",
        ("kind", "stage"),
        _BUCKETS,
    ),
    Measure(
        "counter",
        "ortcam_requests_refused",
        "Requests that were refused, by reason: queue, deadline, drain, token, origin, input, size, slow.",
        ("reason",),
    ),
    Measure(
        "counter",
        "ortcam_explanations_stopped",
        "Explanations that were stopped early, by reason: gone, cancelled, drain, time.",
        ("reason",),
    ),
    Measure("gauge", "ortcam_queue_waiting", "Calls that wait for a lane: quick, unmasked or masked.", ("lane",)),
    Measure("gauge", "ortcam_queue_running", "Calls that run in a lane.", ("lane",)),
    Measure("gauge", "ortcam_held_bytes", "Bytes of bodies, decoded images and answers of requests that wait or run."),
    Measure("counter", "ortcam_explanations", "Explanations that were made.", ("model", "method")),
    Measure("counter", "ortcam_forward_passes", "Masked forward passes of explanations.", ("model",)),
    Measure(
        "histogram",
        "ortcam_estimated_error",
        "Estimated error of the maps; 0 is exact, 1 is unknown.",
        ("model",),
        _ERRORS,
    ),
    Measure("gauge", "ortcam_model_ready", "1 if the bundle is open and warmed up.", ("model",)),
    Measure(
        "counter", "ortcam_model_reloads", "Reloads of changed bundles, by outcome: done, failed.", ("model", "outcome")
    ),
    Measure(
        "counter",
        "ortcam_decoders_replaced",
        "Processes that decode images and had to be replaced, by reason: time, died.",
        ("reason",),
    ),
    Measure(
        "gauge", "ortcam_jobs", "Jobs that are kept, by state: waiting, running, done, failed, cancelled.", ("state",)
    ),
    Measure("counter", "ortcam_jobs_ended", "Jobs that have ended: done, failed, cancelled.", ("model", "state")),
)
_MAKERS: Final[Mapping[str, Any]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Metrics:
    """Counters, gauges and histograms of one server. Each has its own registry, so two servers fit in one process.

    All methods may be called from any thread. They are named after what has happened.

    Example:
        >>> metrics = Metrics(("cat",))
        >>> metrics.finished("explain", "cat", 200, 0.25, {"queue": 0.05, "run": 0.2})
        >>> text, media_type = metrics.page()
        >>> b'ortcam_requests_total{kind="explain",model="cat",status="200"} 1.0' in text
        True
    """

    def __init__(self, models: tuple[str, ...] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self._models = set(models)
        counters, gauges, histograms = (
            {
                measure.name: make(measure.name, measure.help, measure.labels, registry=registry, **measure.more)
                for measure in MEASURES
                if measure.kind == kind
            }
            for kind, make in _MAKERS.items()
        )
        self._counters: dict[str, Counter] = counters
        self._gauges: dict[str, Gauge] = gauges
        self._histograms: dict[str, Histogram] = histograms
        Info("ortcam_build", "Version of ortcam.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def serves(self, model: str) -> None:
        """A bundle of this name is served: its name may be a label."""
        self._models.add(model)

    def ready(self, model: str, ready: bool) -> None:
        """A bundle is open and warmed up, or no longer."""
        self.serves(model)
        self._gauges["ortcam_model_ready"].labels(model).set(int(ready))

    @contextmanager
    def running(self, kind: str) -> Iterator[None]:
        """Count a request as running within the block."""
        gauge = self._gauges["ortcam_requests_running"].labels(kind)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def finished(
        self, kind: str, model: str, status: int, seconds: float, stages: Mapping[str, float] | None = None
    ) -> None:
        """A request was answered.

        Args:
            kind: "predict", "explain", "job", "health" and so on: a fixed word, nothing that a client sent.
            model: name of the bundle; one that is not served counts as "other". "" where there is none.
            status: of HTTP; 499 if the client went away first.
            seconds: from arrival to answer.
            stages: seconds of "queue", "decode", "run" and "encode", as far as they happened.
        """
        name = self._known(model)
        self._counters["ortcam_requests"].labels(kind, name, str(status)).inc()
        self._histograms["ortcam_request_seconds"].labels(kind, name).observe(seconds)
        if status in _REASONS:
            self.refused(_REASONS[status])
        self._spent(kind, stages or {})

    def job_ended(self, model: str, state: str, seconds: float, stages: Mapping[str, float]) -> None:
        """A job has ended. The request that asked for it was answered with 202, and counted, before.

        Args:
            model: name of the bundle.
            state: "done", "failed" or "cancelled".
            seconds: from its request to its end.
            stages: as of `finished`.
        """
        name = self._known(model)
        self._counters["ortcam_jobs_ended"].labels(name, state).inc()
        self._histograms["ortcam_request_seconds"].labels("job-work", name).observe(seconds)
        self._spent("job-work", stages)

    def _spent(self, kind: str, stages: Mapping[str, float]) -> None:
        for stage, spent in stages.items():
            self._histograms["ortcam_stage_seconds"].labels(kind, stage).observe(spent)

    def refused(self, reason: str) -> None:
        """A request was refused for another reason than its status says: "queue", "deadline" or "drain"."""
        self._counters["ortcam_requests_refused"].labels(reason).inc()

    def stopped(self, reason: str) -> None:
        """An explanation was stopped early: "gone", "cancelled", "drain" or "time"."""
        self._counters["ortcam_explanations_stopped"].labels(reason).inc()

    def queued(self, lane: str, waiting: int, running: int) -> None:
        """A lane ("quick", "unmasked" or "masked") has this many calls that wait, and that run."""
        self._gauges["ortcam_queue_waiting"].labels(lane).set(waiting)
        self._gauges["ortcam_queue_running"].labels(lane).set(running)

    def explained(self, model: str, method: str, passes: int, estimated_errors: tuple[float, ...] = ()) -> None:
        """An explanation was made.

        Args:
            model: name of the bundle.
            method: name of the method.
            passes: masked forward passes.
            estimated_errors: one per map, as far as there are estimates.
        """
        name = self._known(model)
        self._counters["ortcam_explanations"].labels(name, method).inc()
        self._counters["ortcam_forward_passes"].labels(name).inc(passes)
        for error in estimated_errors:
            self._histograms["ortcam_estimated_error"].labels(name).observe(error)

    def reloaded(self, model: str, done: bool) -> None:
        """A changed bundle was opened, or it was broken and the old one stays."""
        self._counters["ortcam_model_reloads"].labels(self._known(model), "done" if done else "failed").inc()

    def decoder_replaced(self, reason: str) -> None:
        """A worker process for decoding ended, by "time" or because it "died", and another takes its place."""
        self._counters["ortcam_decoders_replaced"].labels(reason).inc()

    def holds(self, count: Callable[[], float]) -> None:
        """What tells how many bytes requests hold; it is asked whenever somebody looks."""
        self._gauges["ortcam_held_bytes"].set_function(count)

    def jobs(self, states: Mapping[str, int]) -> None:
        """So many asynchronous jobs are kept in each state."""
        for state, count in states.items():
            self._gauges["ortcam_jobs"].labels(state).set(count)

    def page(self, accept: str | None = None) -> tuple[bytes, str]:
        """Everything as text.

        Args:
            accept: the header `Accept` of the request; OpenMetrics is sent to those who ask for it.

        Returns:
            The text, and its media type.
        """
        try:
            encode, media_type = choose_encoder(accept or "")
        except (TypeError, ValueError):  # versions that are none, such as "version=new", are compared with numbers
            encode, media_type = choose_encoder("")
        return encode(_WithoutBirths(self.registry)), media_type

    def _known(self, model: str) -> str:
        return model if model in self._models or not model else _OTHER


class _WithoutBirths:
    """A registry without the time at which each series began, which doubles the page and which few ask for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families of the registry, as Prometheus's encoders ask for them."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


@router.get("/metrics")
async def page(request: Request) -> Response:
    """All metrics of the server, also while its models are opening."""
    service: Any = getattr(request.app.state, "service", None)
    if service is None:
        raise Refusal(503, "the server has not been started", retry_after=1)
    text, media_type = service.metrics.page(request.headers.get("accept"))
    return Response(text, media_type=None, headers={"Content-Type": media_type})
