"""Bare passes: features and head alone, to see what an explanation takes beyond its forward passes."""

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle
from ortcam.engine.opening import SessionOptions
from ortcam.engine.runtime import ort
from ortcam.engine.session import OnnxSession, open_session

__all__ = ["BareModel"]

_BARE_RUNS: Final = 3
_BARE_IMAGES: Final = 32


class BareModel:
    """Features and head, or the whole classifier if there is no head. Features stay on their device."""

    def __init__(self, bundle: Bundle, options: SessionOptions, image: NDArray[np.float32]) -> None:
        graphs = bundle.manifest.graphs
        self._image = image
        self._fixed = graphs.static_batch is not None
        self._graphs: list[tuple[OnnxSession, str, str]] = []
        if graphs.head is None:
            assert graphs.classifier is not None  # checked when the bundle is read
            self._graphs.append((open_session(bundle.graph(graphs.classifier), options), "image", "logits"))
        else:
            self._graphs.append((open_session(bundle.graph(graphs.features), options), "image", "features"))
            self._graphs.append((open_session(bundle.graph(graphs.head), options), "features", "logits"))

    def seconds_an_image(self, batch_size: int) -> float:
        """Time a few passes after one to warm up; the mean, because the time of an explanation is a sum."""
        images = np.repeat(self._image, batch_size, axis=0)
        batch = images if self._fixed else self._placed(images)
        self._run(batch)
        runs = max(_BARE_RUNS, -(-_BARE_IMAGES // batch_size))
        start = time.perf_counter()
        for _ in range(runs):
            self._run(batch)
        return (time.perf_counter() - start) / (runs * batch_size)

    def _placed(self, batch: NDArray[np.float32]) -> Any:
        """The images on the device of the first graph, where the masked ones of an explanation are made, too."""
        device, number = self._graphs[0][0].place
        return ort.OrtValue.ortvalue_from_numpy(batch, device, number)

    def _run(self, batch: Any) -> None:
        value = batch
        for session, taken, given in self._graphs:
            if self._fixed:  # in runs of the graph's own size
                (value,) = session.run({taken: value}, [given])
                continue
            binding = session.runtime.io_binding()
            binding.bind_ortvalue_input(taken, value)
            device, number = session.place if given == "features" else ("cpu", 0)
            binding.bind_output(given, device, number)
            with session.uncaptured() as options:
                session.runtime.run_with_iobinding(binding, options)
            (value,) = binding.get_outputs()
