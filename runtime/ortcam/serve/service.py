"""`Service`: what every protocol calls. It holds the models, the lanes, the decoders, the metrics and the jobs."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from ortcam.errors import OrtcamError
from ortcam.images.photograph import Photograph
from ortcam.results.explanation import Explanation
from ortcam.serve.decoding.pool import Decoders
from ortcam.serve.decoding.sources import Source
from ortcam.serve.http.held import Held
from ortcam.serve.http.logs import log
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.jobs.store import Jobs
from ortcam.serve.models.models import Models
from ortcam.serve.models.served import ServedModel
from ortcam.serve.monitoring import Metrics
from ortcam.serve.protocols.asked import Asked
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.scheduling.lanes import Lanes
from ortcam.serve.settings import Settings

__all__ = ["Predicted", "Service", "call_of", "service_of"]

_OFTEN: Final = 0.02  # seconds between two looks whether everything is answered


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """What the classifier says of an image.

    Attributes:
        logits: float32 [D].
        probabilities: float32 [D]; where the outputs are values, these.
        labels: of all classes; () for a tensor.
        are_probabilities: whether there are probabilities.
        shape: of the output of one image; D is its product.
        parts: the outputs by name, where there are several.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: tuple[str, ...]
    are_probabilities: bool = True
    shape: tuple[int, ...] = ()
    parts: Mapping[str, NDArray[np.float32]] | None = None


class Service:
    """The server without HTTP. One per application; made inside its event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(tuple(item.name for item in settings.bundles))
        self.models = Models(settings, self.metrics)
        self.lanes = Lanes(settings, self.metrics)
        self.decoders = Decoders(settings.limits, settings.decoders, ended=self.metrics.decoder_replaced)
        self.jobs = Jobs(settings.limits, self.metrics)
        self.draining = False
        self.failure: OrtcamError | None = None  # what kept the models from opening
        self.opened = asyncio.Event()  # the models are open, or cannot be opened
        self.held = Held(settings.limits.waiting_bytes, self.metrics.refused)
        self.metrics.holds(lambda: self.held.total)
        self._attended = 0  # predictions and explanations that are not answered yet
        self._opening: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._drained: asyncio.Task[None] | None = None
        self._drained_by = math.inf

    @property
    def ready(self) -> bool:
        """Whether requests are answered: every model is open and warm, and the server does not end."""
        return self.opened.is_set() and self.failure is None and self.models.ready and not self.draining

    def start(self) -> None:
        """Open models and start workers, beside the event loop: health checks are answered meanwhile."""
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        started = time.monotonic()
        try:
            await self.lanes.start()
            await asyncio.gather(self.decoders.start(), self.models.start())
        except OrtcamError as error:
            self.failure = error
            log("models cannot be opened", level=logging.ERROR, reason=str(error))
        except Exception as error:  # noqa: BLE001 - whoever waits for the models has to hear of it
            self.failure = OrtcamError(f"the models cannot be opened: {type(error).__name__}: {error}")
            log("models cannot be opened", level=logging.ERROR, error=error)
        else:
            if self.settings.watch:
                self._watching = asyncio.create_task(self.models.watch())
            log("ready", models=list(self.models.names), seconds=round(time.monotonic() - started, 3))
        finally:
            self.opened.set()

    @contextlib.contextmanager
    def attending(self) -> Iterator[None]:
        """Count a request as one that waits for its answer within the block."""
        self._attended += 1
        try:
            yield
        finally:
            self._attended -= 1

    async def drain(self, seconds: float | None = None) -> None:
        """Take no more work, and answer what has arrived: in full, or at the time limit with the best map so far.

        Answers of jobs are kept until somebody has fetched them, or the time is up.

        Args:
            seconds: for all of this; None: those of the settings. The first call decides.
        """
        if self._drained is None:
            limit = self.settings.drain_seconds if seconds is None else seconds
            self._drained = asyncio.create_task(self._drain(limit))
        await asyncio.shield(self._drained)

    async def _drain(self, seconds: float) -> None:
        self.draining = True
        self._drained_by = time.monotonic() + seconds
        log("draining", seconds=seconds, requests=self._attended)
        done = await self.lanes.drain(seconds, elsewhere=lambda: self._attended + self.jobs.running)
        while (self._attended or self.jobs.unseen) and time.monotonic() < self._drained_by:
            await asyncio.sleep(_OFTEN)
        log("drained", answered=done, requests=self._attended, jobs_not_fetched=self.jobs.unseen)

    async def hurry(self) -> None:
        """Drain no longer: what runs or waits is abandoned, and its clients are told so."""
        self.draining = True
        self._drained_by = time.monotonic()
        await self.lanes.drain(0)

    async def close(self) -> None:
        """End everything."""
        for task in (self._opening, self._watching):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.drain()
        await self.jobs.close()
        await self.decoders.close()
        await self.models.close()

    async def predict(self, model: ServedModel, source: Source, call: Call) -> Predicted:
        """Predict one image.

        Args:
            model: leased.
            source: the image.
            call: of the request.

        Raises:
            Refusal: the queue is full, or the image is too large or too slow to decode.
            Abandoned: the client has gone.
            OrtcamError: as `Explainer.predict`.
        """
        photograph = await self._read(model, source, call)
        explainer, manifest = model.explainer, model.manifest

        def run() -> Predicted:
            logits, probabilities = explainer.classify(photograph)
            of_classes = manifest.activation != "identity"
            parts = manifest.outputs_by_name(probabilities) if manifest.output_parts else None
            return Predicted(logits, probabilities, manifest.labels, of_classes, manifest.output_shape, parts)

        with self._holding(photograph, call):
            return await self.lanes.quick(model, run, call)

    async def explain(
        self,
        model: ServedModel,
        source: Source,
        asked: Asked,
        call: Call,
        show: Callable[[Explanation], None] | None = None,
    ) -> Explanation:
        """Explain one image.

        Args:
            model: leased.
            source: the image.
            asked: checked for this model.
            call: of the request, or of the job.
            show: called with maps on the way, and with the last one, from the thread of the explanation.

        Raises:
            Refusal: the queue is full or eats the deadline, or the image is too large or too slow to decode.
            Abandoned: the client has gone, or the job was cancelled.
            OrtcamError: as `Explainer.explain`.
        """
        call.expect(asked.deadline_ms)
        photograph = await self._read(model, source, call)

        def run() -> Explanation:
            explainer, request = model.explainer_of(asked.precision), call.within(asked.request)
            if show is None:
                return explainer.explain_request(request, photograph, progress=call.progress, stop=call.stopping)
            steps = explainer.explain_iter_request(request, photograph, progress=call.progress, stop=call.stopping)
            for explanation in steps:
                show(explanation)
            return explanation

        with self._holding(photograph, call):
            explanation = await self.lanes.explain(model, asked.request, run, call)
        stats = explanation.stats
        self.metrics.explained(model.name, explanation.method, stats.passes, stats.estimated_error or ())
        return explanation

    def grown(self, call: Call, size: int, more: int) -> int:
        """The size of an answer that has grown. What was added counts as held until the request has ended.

        Args:
            call: of the request, or of the job.
            size: of the answer before, in bytes.
            more: bytes that were added.

        Raises:
            Refusal: 422, the answer is larger than the server sends.
        """
        most = self.settings.limits.answer_bytes
        if size + more > most:
            raise Refusal(
                422,
                f"the answer has more than {most} bytes: ask for fewer images or classes, overlay=jpeg or map=low",
            )
        self.held.take(call, more)
        return size + more

    async def _read(self, model: ServedModel, source: Source, call: Call) -> Photograph:
        with call.timing("decode"):
            return await self.decoders.read(
                source, model, tell=call.notes.append, always=call.admitted, check=call.check
            )

    def _holding(self, photograph: Photograph, call: Call) -> AbstractContextManager[None]:
        """Count the memory of an image for as long as it is worked on."""
        own = 0 if photograph.samples is photograph.pixels else photograph.samples.nbytes
        return self.held.during(call, photograph.pixels.nbytes + photograph.model_input.nbytes + own)


def service_of(request: Request) -> Service:
    """The service that answers a request.

    Raises:
        Refusal: 503, the application has not been started.
    """
    service: Service | None = getattr(request.app.state, "service", None)
    if service is None:
        raise Refusal(503, "the server has not been started", retry_after=1)
    return service


def call_of(request: Request) -> Call:
    """The call of a request: its id is that of the answer, and its time counts from the arrival of the request."""
    call: Call | None = getattr(request.state, "call", None)
    if call is None:
        seconds = service_of(request).settings.limits.seconds
        call = Call(request.state.request_id, request.state.arrived, seconds=seconds)
        request.state.call = call
    return call
