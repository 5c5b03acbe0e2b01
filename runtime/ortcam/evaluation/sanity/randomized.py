"""The plan of the randomised-weights check: which maps are compared, and what the similarities add up to."""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ortcam.bundle import Bundle
from ortcam.errors import OptionError
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.engines.jobs import Job
from ortcam.evaluation.entries import Entry
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.sanity.shuffling import DEPTHS, Similarity, check_weights
from ortcam.evaluation.statistics import intervals

__all__ = ["RandomizedCheck", "drawn"]


@dataclasses.dataclass(frozen=True)
class RandomizedCheck:
    """Compares the maps of a model with those of copies of it whose weights are shuffled.

    Attributes:
        examples: the images to compare on.
        seed: of the intervals.
    """

    examples: Sequence[Example]
    seed: int

    def check(self, bundle: Bundle, precisions: Iterable[str | None]) -> None:
        """Refuse to begin where other weights would run than those that are shuffled.

        Args:
            bundle: of the model.
            precisions: of the masked passes that are asked for; None: the bundle's own.

        Raises:
            OptionError: one of them is another than the bundle's own.
            BundleError: the bundle keeps no float weights in a file of their own.
        """
        if not self.examples:
            return
        own = bundle.manifest.precision
        if any(bundle.check_precision(name) != own for name in precisions):
            raise OptionError(f"randomize: goes with {own}, the bundle's own precision, whose weights are shuffled")
        check_weights(bundle)

    def count(self, entries: Sequence[Entry]) -> int:
        """How many maps are compared in all."""
        return len(self.examples) * len(DEPTHS) * len(entries)

    def missing(self, journal: Journal, entries: Sequence[Entry]) -> Iterator[Job]:
        """Find what is not compared yet, of the images and entries that are measured; depth by depth.

        Args:
            journal: of the evaluation.
            entries: methods and baselines.
        """
        done = {(item.image, item.variant, item.depth) for item in journal.similarities()}
        measured = set(journal.measured())
        for depth in DEPTHS:
            for example in self.examples:
                names = [item.name for item in entries if (example.name, item.name) in measured]
                left = tuple(name for name in names if (example.name, name, depth) not in done)
                if left:
                    yield Job(example, left, depth)

    def summary(self, similarities: Iterable[Similarity]) -> dict[str, list[dict[str, Any]]]:
        """Compute mean similarities with their intervals, by entry and depth; empty without the check."""
        place = {example.name: number for number, example in enumerate(self.examples)}
        columns: dict[str, dict[float, dict[int, float]]] = {}
        for item in similarities:
            if item.image in place:
                columns.setdefault(item.variant, {}).setdefault(item.depth, {})[place[item.image]] = item.spearman
        return {
            name: [
                {"depth": depth, **dataclasses.asdict(self._interval(name, column))}
                for depth, column in sorted(by_depth.items())
            ]
            for name, by_depth in columns.items()
        }

    def _interval(self, name: str, column: dict[int, float]) -> Any:
        values = np.array([value for _, value in sorted(column.items())])
        return intervals({name: values}, seed=self.seed)[name]


def drawn(examples: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """Draw images for the check; a larger count adds to those of a smaller one."""
    return sorted(examples, key=lambda example: zlib.crc32(f"{seed}/{example.name}".encode()))[:count]
