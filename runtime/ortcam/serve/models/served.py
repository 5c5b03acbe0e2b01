"""`ServedModel`: a bundle that is open and warmed up."""

import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from ortcam.bundle import Bundle, Manifest, open_bundle, read_bundle
from ortcam.engine.memory import MemoryLimit, ResetPeaks
from ortcam.engine.opening import SessionOptions
from ortcam.engine.providers import resolve_providers
from ortcam.errors import BundleError, OptionError
from ortcam.explainer import Explainer
from ortcam.methods.fitting import fitting_methods
from ortcam.request import ExplainRequest, first_output
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.scheduling.cores import give_way, share_cores
from ortcam.serve.settings import ServedBundle, Settings

__all__ = ["ServedModel", "memory_limit", "open_model"]

# Channels that are scored when a model is warmed up: enough that what is known of the speed of runs is not that of the
# first, which is slow.
_WARMING_CHANNELS: Final = 16


class ServedModel:
    """A bundle that is open and warmed up. Any number of threads may use it.

    Attributes:
        name: by which clients know it.
        bundle: what is served; it stays the same whatever becomes of its folder.
        explainer: of the bundle, in the precision of the settings.
    """

    def __init__(
        self, name: str, bundle: Bundle, make: Callable[[str | None], Explainer], precision: str | None
    ) -> None:
        """Open an explainer, and no session of it yet.

        Args:
            name: by which clients know it.
            bundle: that was read.
            make: an explainer in a precision.
            precision: of the masked passes, where a request does not say.
        """
        self.name = name
        self.bundle = bundle
        self.explainer = make(precision)
        self._make = make
        self._others: dict[str, Explainer] = {bundle.check_precision(precision): self.explainer}
        self._lock = threading.Lock()
        self._ready = False

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return self.bundle.manifest

    @property
    def ready(self) -> bool:
        """Whether the sessions that requests use are open and warmed up."""
        return self._ready

    def explainer_of(self, precision: str | None) -> Explainer:
        """The explainer whose masked passes compute in a precision. It may read files: call it in a thread.

        Args:
            precision: None: that of the settings.

        Raises:
            OptionError: no precision of this name, or the bundle has no scorers in it.
            Refusal: 503, the bundle's folder has changed since it was opened.
        """
        if precision is None:
            return self.explainer
        try:
            name = self.bundle.check_precision(precision)
        except BundleError:
            has = ", ".join(self.bundle.precisions)
            raise OptionError(f"precision {precision}: this model has no scorers in it; it has {has}") from None
        with self._lock:
            if name not in self._others:
                try:
                    self._others[name] = self._make(name)
                except BundleError:
                    raise Refusal(
                        503, f"precision {name} cannot be opened: the model is being replaced", retry_after=5
                    ) from None
            return self._others[name]

    def warm_up(self) -> None:
        """Run once what requests will run: a prediction, the default method, a gradient, and some masked passes.

        The graphs that mask images are opened in a thread that gives way, and so are the threads of their sessions.

        Raises:
            OrtcamError: the bundle does not work.
        """
        manifest, explainer = self.manifest, self.explainer
        preprocessing = manifest.preprocessing
        shape = 1, preprocessing.channels, preprocessing.height, preprocessing.width
        # Noise, since of an even image every channel may be flat, and then no masked pass is made.
        noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        explainer.predict(preprocessed=noise)
        gradient = ["grad-cam"] if "grad-cam" in fitting_methods(manifest) else []
        # A tensor has no classes: its first element stands for what requests will explain.
        score = None if manifest.has_classes else first_output(manifest)
        methods = ("auto", *gradient)
        requests = [ExplainRequest.of(method=method, score=score).for_bundle(manifest) for method in methods]
        masked = ExplainRequest.of(budget=_WARMING_CHANNELS, score=score).for_bundle(manifest)
        for request in requests:
            if not request.settings.method.masks_image:
                explainer.explain_request(request, preprocessed=noise)
        _giving_way(lambda: explainer.explain_request(masked, preprocessed=noise))
        self._ready = True

    def close(self) -> None:
        """Give sessions and weights back. Runs in other threads finish."""
        self._ready = False
        with self._lock:
            for explainer in self._others.values():
                explainer.close()


def memory_limit(settings: Settings) -> MemoryLimit | None:
    """The limit of this process, which all models share; None where there is none.

    A request that passes it is refused, and the next one is taken. There is room for what requests hold, and for a run
    by each worker.
    """
    if settings.memory_limit is None:
        return None
    runs = share_cores(settings.workers, settings.threads).workers
    return MemoryLimit(settings.memory_limit, ResetPeaks(), runs=runs, reserved=settings.limits.waiting_bytes)


def open_model(served: ServedBundle, settings: Settings, limit: MemoryLimit | None = None) -> ServedModel:
    """Read a bundle, check it, open what requests use, and warm it up. Takes seconds: call it in a thread.

    Args:
        served: which bundle.
        settings: of the server.
        limit: of the memory of this process, by `memory_limit`.

    Raises:
        BundleError: the bundle cannot be trusted or read, or has no scorers in the precision of the settings.
        MemoryLimitError: it does not fit beside what is open.
        OrtcamError: it does not work, or the settings ask for what this machine does not have.
    """
    threads = share_cores(settings.workers, settings.threads).threads
    options = SessionOptions(resolve_providers(settings.providers), threads, memory_limit=limit)
    held: object = None
    if limit is None:
        bundle, held = open_bundle(served.path, settings.precision)
    else:
        bundle = read_bundle(served.path)
    options, precision = options.fitted(bundle, settings.precision)

    def make(precision: str | None) -> Explainer:
        return Explainer(bundle, options, max_pixels=settings.limits.pixels, precision=precision)

    model = ServedModel(served.name, bundle, make, precision)
    del held  # the explainer holds it
    try:
        model.warm_up()
    except BaseException:
        model.close()
        raise
    return model


def _giving_way(work: Callable[[], object]) -> None:
    """Do some work in a thread of a lower priority, whose sessions' threads inherit it."""
    failures: list[BaseException] = []

    def run() -> None:
        give_way()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="ortcam-warm-up")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
