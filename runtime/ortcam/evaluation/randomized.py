"""The run of the randomised-weights check: maps of a model beside maps of copies of it whose weights are shuffled."""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam.engine.batching import BatchSize
from ortcam.errors import OptionError, OrtcamError, OutputError
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.journal import Failure, Journal
from ortcam.evaluation.measuring import Clean, Measuring, explain
from ortcam.evaluation.progress import Tally
from ortcam.evaluation.sanity import DEPTHS, Similarity, check_weights, shuffled_bundle, similarity
from ortcam.evaluation.statistics import intervals
from ortcam.explainer import Explainer
from ortcam.support.unfinished import temporary_folder

__all__ = ["RandomizedCheck", "drawn"]

_BATCH_SIZE: Final = 8  # no search, because its result would be kept for a bundle that is thrown away


@dataclasses.dataclass(frozen=True)
class RandomizedCheck:
    """Compares the maps of a model with those of copies of it whose weights are shuffled.

    Attributes:
        examples: the images to compare on.
        explainer: of the model.
        measuring: classifies images and makes the maps of the model.
        load: opens a bundle whose weights are shuffled.
        batch_size: masked images per run.
        seed: of the shuffling.
    """

    examples: Sequence[Example]
    explainer: Explainer
    measuring: Measuring
    load: Callable[[Path], Explainer]
    batch_size: BatchSize
    seed: int

    def check(self, precisions: Iterable[str | None]) -> None:
        """Refuse to begin where other weights would run than those that are shuffled.

        Args:
            precisions: of the masked passes that are asked for; None: the bundle's own.

        Raises:
            OptionError: one of them is another than the bundle's own.
            BundleError: the bundle keeps no float weights in a file of their own.
        """
        bundle = self.explainer.bundle
        own = bundle.manifest.precision
        if any(bundle.check_precision(name) != own for name in precisions):
            raise OptionError(f"randomize: goes with {own}, the bundle's own precision, whose weights are shuffled")
        check_weights(bundle)

    def run(
        self,
        journal: Journal,
        entries: Sequence[Entry],
        tally: Tally,
        fail: Callable[[Failure], None],
    ) -> None:
        """Compare what is not compared yet, of the images and entries that are measured.

        Args:
            journal: of the evaluation.
            entries: methods and baselines.
            tally: counts the maps.
            fail: called where a map cannot be made.

        Raises:
            OutputError: the copies cannot be written.
        """
        done = {(item.image, item.variant, item.depth) for item in journal.similarities()}
        measured = set(journal.measured())
        pairs = [
            (example, [item for item in entries if (example.name, item.name) in measured]) for example in self.examples
        ]
        for depth in DEPTHS:
            missing = {
                example: left
                for example, measurable in pairs
                if (left := [item for item in measurable if (example.name, item.name, depth) not in done])
            }
            tally.skip(len(self.examples) * len(entries) - sum(map(len, missing.values())))
            if missing:
                with contextlib.closing(self._compared(depth, missing)) as comparisons:
                    for found in comparisons:
                        if isinstance(found, Failure):
                            fail(found)
                        else:
                            journal.add(found)
                        tally.advance()

    def _compared(
        self, depth: float, missing: Mapping[Example, Sequence[Entry]]
    ) -> Generator[Similarity | Failure, None, None]:
        """Shuffle the weights down to a depth, and compare the maps that are missing."""
        try:
            with temporary_folder() as folder:
                shuffled = self.load(shuffled_bundle(self.explainer.bundle, folder, depth, seed=self.seed))
                for example, entries in missing.items():
                    yield from self._compare(shuffled, depth, example, entries)
        except OSError as error:
            where = error.filename or "the folder for temporary files"
            raise OutputError(f"{where}: shuffled weights cannot be written: {error.strerror or error}") from error

    def _compare(
        self, shuffled: Explainer, depth: float, example: Example, entries: Sequence[Entry]
    ) -> Iterator[Similarity | Failure]:
        """Compare the maps of one image by the model and by the one with shuffled weights."""
        batch_size = _BATCH_SIZE if self.batch_size == "auto" else self.batch_size
        clean: Clean | None = None
        for entry in entries:
            try:
                clean = clean or self.measuring.clean(example, self.explainer.read(example.path))
                own = self.measuring.explain(clean, clean.photograph, entry).saliency
                other = explain(shuffled, clean.photograph, clean.target, entry, example.name, batch_size).saliency
                yield Similarity(example.name, entry.name, depth, similarity(own, other))
            except OrtcamError as error:
                yield Failure(example.name, f"{entry.name}, {depth:.0%} of the weights shuffled", str(error))

    def summary(self, similarities: Iterable[Similarity]) -> dict[str, list[dict[str, Any]]]:
        """Compute mean similarities with their intervals, by entry and depth; empty without the check."""
        asked = {example.name for example in self.examples}
        columns: dict[str, dict[float, list[float]]] = {}
        for item in similarities:
            if item.image in asked:
                columns.setdefault(item.variant, {}).setdefault(item.depth, []).append(item.spearman)
        return {
            name: [
                {"depth": depth, **dataclasses.asdict(intervals({name: np.array(column)}, seed=self.seed)[name])}
                for depth, column in sorted(by_depth.items())
            ]
            for name, by_depth in columns.items()
        }


def drawn(examples: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """Draw images for the check; a larger count adds to those of a smaller one."""
    return sorted(examples, key=lambda example: zlib.crc32(f"{seed}/{example.name}".encode()))[:count]
