"""A piece of an evaluation that is measured at once, anywhere, and what comes of it."""

import dataclasses

from ortcam.evaluation.dataset import Example
from ortcam.evaluation.journal import Failure
from ortcam.evaluation.measuring import Measurement
from ortcam.evaluation.sanity.shuffling import Similarity

__all__ = ["Job", "Outcome", "maps_of"]

# What the journal gets a line of.
Outcome = Measurement | Similarity | Failure


@dataclasses.dataclass(frozen=True)
class Job:
    """An image, and the entries that it still lacks a result of.

    Attributes:
        example: the image.
        entries: their names, in the order of the evaluation.
        depth: share of the weights that are shuffled, for the randomised-weights check; None: measure the maps of the
            model as it is.
    """

    example: Example
    entries: tuple[str, ...]
    depth: float | None = None


def maps_of(outcome: Outcome, job: Job) -> int:
    """Count the maps of a job that an outcome settles: all of them where the image cannot be read."""
    return len(job.entries) if isinstance(outcome, Failure) and outcome.variant is None else 1
