"""Comparing the maps of a model with those of a copy of it whose weights are shuffled."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ortcam.bundle import Bundle
from ortcam.engine.batching import BatchSize
from ortcam.errors import OrtcamError, OutputError
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.journal import Failure
from ortcam.evaluation.measuring import Clean, Measuring, explain
from ortcam.evaluation.sanity.shuffling import Similarity, shuffled_bundle, similarity
from ortcam.explainer import Explainer
from ortcam.support.unfinished import temporary_folder

__all__ = ["ShuffledModels"]

_BATCH_SIZE: Final = 8  # no search, because its result would be kept for a bundle that is thrown away


class ShuffledModels:
    """Copies of a model whose weights are shuffled, one at a time: the copy of one depth gives way to the next one."""

    def __init__(
        self,
        measuring: Measuring,
        bundle: Bundle,
        load: Callable[[Path], Explainer],
        batch_size: BatchSize,
        seed: int,
    ) -> None:
        """Write nothing yet.

        Args:
            measuring: makes the maps of the model.
            bundle: of the model.
            load: opens a bundle whose weights are shuffled.
            batch_size: masked images per run.
            seed: of the shuffling.
        """
        self._measuring, self._bundle, self._load = measuring, bundle, load
        own = bundle.manifest.graphs.static_batch or _BATCH_SIZE
        self._batch_size: BatchSize = own if batch_size == "auto" else batch_size
        self._seed = seed
        self._copy: Explainer | None = None
        self._depth: float | None = None

    def compare(self, clean: Clean, entry: Entry, depth: float) -> Similarity | Failure:
        """Compare the maps of one entry.

        Args:
            clean: the image.
            entry: method or baseline.
            depth: share of the weights that are shuffled, from the logits down.

        Raises:
            OutputError: the copy cannot be written.
        """
        name = clean.example.name
        shuffled = self._of_depth(depth)
        try:
            own = self._measuring.explain(clean, clean.photograph, entry).saliency
            other = explain(shuffled, clean.photograph, clean.target, entry, name, self._batch_size).saliency
        except OrtcamError as error:
            return Failure(name, f"{entry.name}, {depth:.0%} of the weights shuffled", str(error))
        return Similarity(name, entry.name, depth, similarity(own, other))

    def _of_depth(self, depth: float) -> Explainer:
        if self._copy is not None and self._depth == depth:
            return self._copy
        self._copy = None  # before the next one, so that memory holds one
        try:
            with temporary_folder() as folder:  # what is loaded needs its files no more
                self._copy = self._load(shuffled_bundle(self._bundle, folder, depth, seed=self._seed))
        except OSError as error:
            where = error.filename or "the folder for temporary files"
            raise OutputError(f"{where}: shuffled weights cannot be written: {error.strerror or error}") from error
        self._depth = depth
        return self._copy
