"""An evaluation in this process: one image after the other, the next ones decoded meanwhile."""

import contextlib
from collections.abc import Generator, Iterable

from ortcam.evaluation.engines.bench import Bench
from ortcam.evaluation.engines.jobs import Job, Outcome
from ortcam.images.photograph import read_ahead

__all__ = ["measure"]


def measure(jobs: Iterable[Job], bench: Bench) -> Generator[tuple[Job, Outcome], None, None]:
    """Do jobs in their order.

    Args:
        jobs: what to do.
        bench: the model.

    Yields:
        Each outcome as soon as it is there, and the job that it is of.

    Raises:
        OutputError: shuffled weights cannot be written.
    """
    with contextlib.closing(read_ahead(jobs, lambda job: bench.explainer.read(job.example.path))) as ahead:
        for job, photograph in ahead:
            for outcome in bench.outcomes(job, photograph):
                yield job, outcome
