"""An evaluation by the tasks of a Ray cluster: one image per task, while the journal stays with the driver.

A batch goes through Ray Data, because its rows are written where they are made. Here all results come back to the
driver, which writes the journal, and every image takes seconds: plain tasks do that. Each has one image, so that what
kills a process costs that image alone. A process opens the model for its first image, and keeps it.

The driver reads the files and sends their bytes along: no other machine has to see the images or the output folder.
"""

import contextlib
import dataclasses
import functools
import io
import os
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import ray
from ray import exceptions

from ortcam._version import __version__
from ortcam.batch.job import RayOptions
from ortcam.batch.ray.cluster import Cluster, ShippedBundle, connected, ours
from ortcam.bundle import Bundle, read_bundle
from ortcam.errors import ImageError, ImageWarning, OptionError, OrtcamError
from ortcam.evaluation.engines.bench import Bench, Recipe
from ortcam.evaluation.engines.jobs import Job, Outcome
from ortcam.evaluation.journal import Failure
from ortcam.images.encoded import read_file

__all__ = ["RayTasks"]

_CRASHES: Final = 2  # of processes at one image, which is then given up
_LOST: Final = 10  # machines that went away while they were at one image
_FEWEST: Final = 4  # tasks that wait or run, so that an autoscaler sees what is wanted
_EVERY: Final = 5.0  # seconds, after which it is looked how large the cluster is


@dataclasses.dataclass(frozen=True)
class _Order:
    """What all tasks of an evaluation share."""

    version: str
    recipe: Recipe
    bundle: ShippedBundle


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What comes back from a task: outcomes, the providers of its process, and what it warned of."""

    outcomes: list[Outcome]
    providers: list[str]
    warnings: list[str]


@dataclasses.dataclass
class _Attempt:
    """An image in work, and how often that went wrong."""

    job: Job
    image: bytes
    crashes: int = 0
    lost: int = 0


class RayTasks:
    """Measures on a cluster. A context manager: the cluster is left at its end.

    Attributes:
        providers: execution providers that the processes of the cluster use.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, options: RayOptions) -> None:
        """Keep what is needed.

        Args:
            bundle: the model, which is sent to the machines.
            recipe: what is measured.
            options: the cluster, and what each task takes of it.
        """
        self._bundle, self._options = bundle, options
        self._cpus = options.cpus or 1
        self._recipe = dataclasses.replace(recipe, loading={**recipe.loading, "threads": self._cpus})
        self._max_pixels: int = recipe.loading["max_pixels"]
        self._stack = contextlib.ExitStack()
        self._window, self._looked = 0, -_EVERY
        self.providers: list[str] = []

    def __enter__(self) -> "RayTasks":
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(connected(self._options))
            self._check(cluster)
            # max_calls: a process with a GPU would end after each task, and the next one open the model again.
            resources = {"num_cpus": self._cpus, "num_gpus": self._options.gpus or 0, "max_calls": 0, "max_retries": 0}
            self._work = ray.remote(**resources)(work)
            shipped = cluster.ship(self._bundle.path, self._bundle.sha256)
            self._order = ray.put(_Order(__version__, self._recipe, shipped))
            try:
                self.providers = self._answer(self._work.remote([self._order], None, None, None)).providers
            except exceptions.RayError as error:
                raise OrtcamError(f"Ray: the model cannot be opened on a machine: {_line(error)}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome], None, None]:
        """Do jobs, in any order.

        Args:
            jobs: what to do.

        Yields:
            The outcomes of an image as soon as all of them are there, and the job that they are of.

        Raises:
            OrtcamError: something is wrong that is not an image's fault.
        """
        waiting: dict[Any, _Attempt] = {}
        left = iter(jobs)
        try:
            while True:
                yield from self._fill(waiting, left)
                if not waiting:
                    return
                ready, _ = ray.wait(list(waiting), timeout=_EVERY)
                for task in ready:
                    yield from self._settle(task, waiting)
        finally:
            for task in waiting:
                ray.cancel(task, force=True)

    def _check(self, cluster: Cluster) -> None:
        """Refuse what Ray on this machine alone would wait for without end, and warn of it on a cluster.

        Raises:
            OptionError: more CPUs or GPUs per task than there are.
        """
        if not cluster.alone:
            cluster.warn_if_too_small(self._cpus, self._options.gpus or 0)
            return
        there = ray.cluster_resources()
        for name, wanted in (("CPU", self._cpus), ("GPU", self._options.gpus or 0)):
            if wanted > (has := int(there.get(name, 0))):
                raise OptionError(
                    f"{name.lower()}s_per_actor={wanted}: accepted are up to {has}, which Ray has on this machine"
                )

    def _fill(self, waiting: dict[Any, _Attempt], left: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Hand out jobs, until as many wait or run as the cluster takes."""
        while len(waiting) < self._most():
            job = next(left, None)
            if job is None:
                return
            try:
                attempt = _Attempt(job, read_file(job.example.path, self._max_pixels).data)
            except ImageError as error:
                yield job, Failure(job.example.name, None, str(error))
                continue
            self._submit(attempt, waiting)

    def _submit(self, attempt: _Attempt, waiting: dict[Any, _Attempt]) -> None:
        waiting[self._work.remote([self._order], self.providers, attempt.job, attempt.image)] = attempt

    def _settle(self, task: Any, waiting: dict[Any, _Attempt]) -> Iterator[tuple[Job, Outcome]]:
        """What a task has done; one whose process or machine is gone is done again."""
        attempt = waiting.pop(task)
        try:
            answer = self._answer(task)
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            attempt.crashes += 1
            what = "memory" if isinstance(error, exceptions.OutOfMemoryError) else "a crash"
            if attempt.crashes < _CRASHES:
                self._submit(attempt, waiting)
                return
            sentence = f"the process that measured it ended {attempt.crashes} times, last by {what}"
            yield attempt.job, Failure(attempt.job.example.name, None, sentence)
        except (exceptions.NodeDiedError, exceptions.ObjectLostError) as error:
            attempt.lost += 1
            if attempt.lost < _LOST:
                self._submit(attempt, waiting)
                return
            raise OrtcamError(f"Ray: the machines go away again and again: {_line(error)}") from None
        except exceptions.RayError as error:
            raise OrtcamError(f"Ray: {_line(error)}") from error
        else:
            for text in answer.warnings:
                warnings.warn(text, ImageWarning, stacklevel=2)
            for outcome in answer.outcomes:
                yield attempt.job, outcome

    def _answer(self, task: Any) -> _Answer:
        """What a task returns.

        Raises:
            OrtcamError: what the task raised.
            RayError: its process or machine is gone.
        """
        try:
            found: _Answer = ray.get(task)
        except exceptions.RayTaskError as error:
            raise (ours(error) or OrtcamError(f"Ray: a task failed: {_line(error)}")) from error
        return found

    def _most(self) -> int:
        """How many tasks may wait or run."""
        if time.monotonic() - self._looked >= _EVERY:
            self._looked = time.monotonic()
            slots = int(ray.cluster_resources().get("CPU", 0) // self._cpus)
            fewest, most = self._options.actors or (_FEWEST, None)
            self._window = max(fewest, 2 * slots)
            if most is not None:
                self._window = min(self._window, most)
        return self._window


def work(order: list[Any], wanted: list[str] | None, job: Job | None, image: bytes | None) -> _Answer:
    """Do a job in a process of the cluster.

    Args:
        order: where what all tasks share is in the object store.
        wanted: the providers that have to be used; None: any.
        job: what to do; None: only open the model.
        image: the bytes of its file.

    Raises:
        OrtcamError: the model cannot be opened here, or another ortcam or other providers are here.
    """
    bench = _opened(order[0])
    providers = list(bench.explainer.providers)
    if wanted is not None and providers != wanted:
        node = ray.get_runtime_context().get_node_id()
        raise OrtcamError(
            f"node {node}: runs on {', '.join(providers)}, others on {', '.join(wanted)}; --provider says what all use"
        )
    if job is None or image is None:
        return _Answer([], providers, [])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ImageWarning)
        outcomes = list(bench.outcomes(job, lambda: bench.explainer.read(_Named(image, job.example.path))))
    return _Answer(outcomes, providers, [str(item.message) for item in told if issubclass(item.category, ImageWarning)])


class _Named(io.BytesIO):
    """The bytes of a file, which messages call by its path."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(data)
        self.name = os.fspath(path)


@functools.lru_cache(maxsize=1)
def _opened(order: Any) -> Bench:
    """The bench of this process, which is kept."""
    found: _Order = ray.get(order)
    if found.version != __version__:
        node = ray.get_runtime_context().get_node_id()
        raise OrtcamError(f"node {node}: has ortcam {__version__}, the driver {found.version}; install the same one")
    cv2.setNumThreads(found.recipe.loading["threads"])
    return Bench(read_bundle(found.bundle.folder()), found.recipe)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
