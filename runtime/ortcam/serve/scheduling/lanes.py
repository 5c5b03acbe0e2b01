"""`Lanes`: work beside the event loop. Quick work never waits behind explanations that take hundreds of passes."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from ortcam.request import ExplainRequest
from ortcam.serve.http.logs import log
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.scheduling.cores import share_cores
from ortcam.serve.scheduling.lane import Lane, LaneMetrics
from ortcam.serve.settings import Settings

__all__ = ["LOOKING_SECONDS", "Lanes", "Named", "is_quick"]

_Result = TypeVar("_Result")

_FEW_SAMPLES: Final = 8  # noisy images of a gradient method
# While the server stops: seconds for each call that has to end early, and how often it looks whether all have ended.
_SECONDS_EACH: Final = 2.0
LOOKING_SECONDS: Final = 0.02
# Of the time, and at most in seconds, what is left to tell callers whose calls do not even end early.
_LAST_SHARE: Final = 0.1
_LAST_SECONDS: Final = 1.0


class Named(Protocol):
    """A bundle that is served: `ServedModel`, or what stands for one in a test."""

    @property
    def name(self) -> str:
        """By which clients know it."""


class Lanes:
    """Three lanes: "quick" for predictions, "unmasked" for methods that mask no image, "masked" for the others.

    So a prediction waits for predictions alone: among methods that mask no image, too, some take seconds. A masked
    explanation gets all cores of its share and gives way to everything else: its threads have a lower
    priority, where the system has priorities per thread.
    """

    def __init__(self, settings: Settings, metrics: LaneMetrics | None = None) -> None:
        """Start nothing yet.

        Args:
            settings: of the server.
            metrics: is told what waits, runs and is refused.
        """
        names = [bundle.name for bundle in settings.bundles]
        self._settings = settings
        self._shares = shares = share_cores(settings.workers, settings.threads)
        limits = settings.limits
        places = limits.quick_queue
        self._quick = Lane("quick", threads=1, places=places, models=names, metrics=metrics)
        self._unmasked = Lane("unmasked", threads=1, places=places, models=names, metrics=metrics)
        self._masked = Lane(
            "masked", threads=shares.workers, places=limits.queue, models=names, gives_way=True, metrics=metrics
        )
        self._lanes = (self._quick, self._unmasked, self._masked)

    async def start(self) -> None:
        """Start the threads, and log how the cores are shared."""
        asked, shares = self._settings, self._shares
        less = shares.workers < asked.workers or (asked.threads is not None and shares.threads < asked.threads)
        log(
            "fewer workers or threads than asked for: there are not as many cores" if less else "cores are shared",
            level=logging.WARNING if less else logging.INFO,
            cores=shares.cores,
            workers=shares.workers,
            threads=shares.threads,
        )
        for lane in self._lanes:
            lane.start()

    async def quick(self, model: Named, function: Callable[[], _Result], call: Call) -> _Result:
        """Run a function that takes no longer than a prediction, in a thread; see `Lane.run`."""
        return await self._quick.run(model.name, function, call)

    async def masked(self, model: Named, function: Callable[[], _Result], call: Call) -> _Result:
        """Run an explanation that makes many forward passes, in a thread, when it is its turn; see `Lane.run`."""
        return await self._masked.run(model.name, function, call)

    async def explain(
        self, model: Named, request: ExplainRequest, function: Callable[[], _Result], call: Call
    ) -> _Result:
        """Run an explanation in the lane that suits its method."""
        lane = self._unmasked if is_quick(request) else self._masked
        return await lane.run(model.name, function, call)

    @property
    def busy(self) -> int:
        """Calls that wait or run."""
        return sum(lane.waiting + lane.running for lane in self._lanes)

    async def drain(self, seconds: float, *, elsewhere: Callable[[], int] = lambda: 0) -> bool:
        """Let the calls of requests that have arrived end, refuse those that come later, and end the threads.

        When as much time is left as they need to end early, explanations end with their best map. What does not even do
        that is abandoned, and its caller gets a `Refusal` with 503.

        Args:
            seconds: for all of this.
            elsewhere: how many requests have arrived and may still come here, such as those whose image is decoded.

        Returns:
            Whether every call had its answer.
        """
        spare = min(_LAST_SHARE * seconds, _LAST_SECONDS)
        end = time.monotonic() + seconds - spare
        for lane in self._lanes:
            lane.refuse_new()
        stopping = False
        while (self.busy or elsewhere()) and (left := end - time.monotonic()) > 0:
            if not stopping and left <= min(seconds / 2, _SECONDS_EACH * (self.busy + 1)):
                stopping = True
            if stopping:  # again and again: others may have been decoded meanwhile
                for lane in self._lanes:
                    lane.stop_all("drain")
            await asyncio.sleep(LOOKING_SECONDS)
        answered = not self.busy
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        return answered


def is_quick(request: ExplainRequest) -> bool:
    """Whether an explanation takes no longer than a few predictions: nothing is masked or moved, and little is sampled.

    Args:
        request: for a bundle: its method is not "auto".
    """
    settings = request.settings
    samples = settings.options.get("num_samples", 1)
    few = isinstance(samples, int) and samples <= _FEW_SAMPLES
    return few and not settings.method.masks_image and settings.augmentation is None
