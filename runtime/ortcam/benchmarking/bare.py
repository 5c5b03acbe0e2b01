"""Bare passes: features and head alone, to see what an explanation takes beyond its forward passes."""

import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle
from ortcam.engine.opening import SessionOptions
from ortcam.engine.session import OnnxSession, open_session

__all__ = ["BareModel"]

_BARE_RUNS: Final = 3
_BARE_IMAGES: Final = 32


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
