"""`run_ray`: explain the items of a batch on Ray.

Ray Data reads the manifest, fetches images in tasks, and explains them in a pool of actors. It scales the pool, holds
back what gets ahead, and repeats what was lost with a process or a machine. What comes back is written here, by the
same `PartWriter` as the local engine's, and not by Ray Data's `write_parquet` with its checkpoints (Ray 2.60), because
these

1. write a file under its final name: on a file system, though not in an object store, readers see halves of it;
2. close a file with a task, which may be the whole batch, or after so many rows, which divides those of an image among
   two files; and never by the time, so that little is lost;
3. delete the files of tasks that a killed run did not commit, which were whole, and which readers may have seen;
4. know only what Ray has written, and cannot replace the rows of images that failed.

Here a part appears whole, OUTPUT alone says what is finished, and a run that was killed can be gone on with on either
engine. A worker of a run that was killed cannot write any more, however late it notices. The price: all rows pass
through one process, whose speed bounds the batch (docs/explanation/scale.md, "The driver").
"""

import contextlib
import inspect
import itertools
import queue
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ortcam.batch.items import Item
from ortcam.batch.job import Job, RayOptions
from ortcam.batch.output.parts import Output, PartWriter
from ortcam.batch.progress import Tally
from ortcam.batch.ray.attempts import attempts_actor
from ortcam.batch.ray.cluster import Cluster, connected, in_a_line, ours
from ortcam.batch.ray.manifest import Numbers, write_manifest
from ortcam.batch.ray.stages import Explain, Reading, read_images, rows_of
from ortcam.bundle import read_bundle
from ortcam.errors import OptionError, OrtcamError
from ortcam.methods import MASKED_METHODS
from ortcam.support.unfinished import temporary_folder

__all__ = ["MOST_TASKS", "Shares", "run_ray", "until_stopped"]

MOST_TASKS = 20_000  # of a dataset; minutes of work for a large cluster, which then starts its actors anew
# Images per task: a few seconds of work, so that a task costs little beside it and a lost one loses little.
_MASKED: Final = 4
_QUICK: Final = 32
_SHARES: Final = 32  # tasks at least, where there are few images
_READERS: Final = 8  # where nothing says how many actors there may be
_MANIFEST_READERS: Final = 2  # processes; without CPUs of their own there would be one per file
_AHEAD: Final = 2  # tasks of an actor: one in work, one whose images are on the way
_TICK: Final = 0.2  # seconds
_PATIENCE: Final = 10.0  # seconds, for Ray Data to end
_IN_ONE_PROCESS: Final = "memory://"
_NO_MODULE: Final = re.compile(r"No module named '([\w.]+)'")


def run_ray(job: Job, items: Iterator[Item], output: Output, tally: Tally) -> None:
    """Explain items and write their rows, until there are no more or `job.stop` is set.

    Raises:
        OrtcamError: what is wrong with all of them. What was finished before is written.
    """
    writer = PartWriter(output, job.schema)
    left = until_stopped(items, job.stop)
    with connected(job.ray) as cluster:
        pipeline = _Pipeline(job, cluster)
        try:
            while not job.stop.is_set():
                with temporary_folder() as folder:
                    count = write_manifest(itertools.islice(left, pipeline.most), folder)
                    if not count or job.stop.is_set():
                        break
                    _explain(pipeline.dataset(folder, count), Numbers.of(count), job.stop, writer, tally)
        finally:
            writer.flush()


def _explain(dataset: Any, numbers: Numbers, stop: threading.Event, writer: PartWriter, tally: Tally) -> None:
    """Write what comes out of a dataset.

    Raises:
        OrtcamError: as `run_ray`.
    """
    for batch in _results(dataset, stop):
        if batch is not None:
            for number, rows in rows_of(batch):
                if numbers.is_new(number):
                    writer.add(rows)
                    tally.add(rows)
        writer.tick()
    if numbers.left and not stop.is_set():
        raise OrtcamError(f"Ray has ended, and did not give back {numbers.left} image(s)")


@dataclass(frozen=True)
class Shares:
    """What the stages take of a cluster.

    Attributes:
        cpus: of each actor.
        gpus: of each actor.
        fewest: actors.
        most: actors; None: as many as fit.
        readers: tasks that read at once, at most; None: as many as Ray likes.
        reader_cpus: of each of them.
    """

    cpus: int
    gpus: float
    fewest: int
    most: int | None
    readers: int | None
    reader_cpus: int

    @classmethod
    def of(cls, options: RayOptions, cluster: Cluster) -> "Shares":
        """Share a cluster as the options say.

        Actors on CPUs leave some of their time to whoever reads for them, as the local engine's processes do: if each
        reader needed a CPU of its own, a cluster that the actors fill would read nothing. Actors on GPUs do not
        compute on CPUs.

        Raises:
            OptionError: more than this machine has, so that Ray would wait for ever.
        """
        cpus, gpus = options.cpus or 1, options.gpus or 0
        fewest, most = options.actors or (1, None)
        if cluster.alone:
            for name, asked, there in (("CPUs", cpus * fewest, cluster.cpus), ("GPUs", gpus * fewest, cluster.gpus)):
                if asked > there:
                    raise OptionError(f"{fewest} actor(s) want {asked:g} {name}, and this machine has {there:g}")
            fitting = cluster.cpus // cpus
            if options.actors is None and not gpus:
                fewest = most = fitting
        if gpus:
            return cls(cpus, gpus, fewest, most, None, 1)
        # Each reader is a process. A cluster may have no CPUs yet, because none were asked for.
        return cls(cpus, gpus, fewest, most, max(2, most or cluster.cpus or _READERS), 0)


class _Pipeline:
    """Makes the datasets of a batch, one after another.

    Of each task that it has run, a dataset keeps about 24 kB in the driver until it ends. So one for millions of images
    would fill the memory.

    Attributes:
        most: images of a dataset.
    """

    def __init__(self, job: Job, cluster: Cluster) -> None:
        """Get ready what all datasets share.

        Raises:
            OptionError: as `Shares.of`.
        """
        settings = job.settings
        self._shares = Shares.of(job.ray, cluster)
        cluster.warn_if_too_small(self._shares.cpus, self._shares.gpus)
        bundle = read_bundle(settings.bundle)
        self._reading = Reading(
            settings, bundle.manifest.preprocessing, settings.overlays != "none", attempts_actor(), secrets.token_hex(8)
        )
        self._bundle = cluster.ship(bundle.path, bundle.sha256)
        self._per_task: int = _MASKED if settings.asked["method"] in MASKED_METHODS else _QUICK
        self.most = MOST_TASKS * self._per_task

    def dataset(self, folder: Path, count: int) -> Any:
        """The pipeline, from a manifest with so many images."""
        size, shares = max(1, min(self._per_task, count // _SHARES)), self._shares
        with _ray_data_settings():
            # Blocks of so many images come out of the tasks that read it: to divide them later would take a CPU, and
            # the actors may have them all.
            manifest = ray.data.read_parquet(
                str(folder),
                num_cpus=0,
                concurrency=_MANIFEST_READERS,
                override_num_blocks=-(-count // size),
                **_on_this_machine(),
            )
            return manifest.map_batches(
                read_images,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"reading": self._reading},
                compute=TaskPoolStrategy(size=shares.readers),
                num_cpus=shares.reader_cpus,
            ).map_batches(
                Explain,
                batch_size=size,
                batch_format="pyarrow",
                fn_constructor_args=(self._reading, self._bundle, shares.cpus),
                compute=ActorPoolStrategy(
                    min_size=shares.fewest, max_size=shares.most, max_tasks_in_flight_per_actor=_AHEAD
                ),
                num_cpus=shares.cpus,
                num_gpus=shares.gpus,
            )


@contextlib.contextmanager
def _ray_data_settings() -> Iterator[None]:
    """Settings of the datasets that are made in a block.

    The newer reader of Ray Data would start 32 processes to read the footers of Parquet files.
    """
    context = DataContext.get_current()
    wanted = {"enable_progress_bars": False, "use_datasource_v2": False}
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    for name in before:
        setattr(context, name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _on_this_machine() -> dict[str, Any]:
    """For tasks that read the manifest: it lies where the driver runs, whatever the others see."""
    node = ray.get_runtime_context().get_node_id()
    if "label_selector" in inspect.signature(ray.data.read_parquet).parameters:
        return {"label_selector": {"ray.io/node-id": node}}
    return {"ray_remote_args": {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}}


def until_stopped(items: Iterator[Item], stop: threading.Event) -> Iterator[Item]:
    """The items, until the batch is to end.

    Raises:
        OptionError: an item that no other process can fetch.
    """
    for item in itertools.takewhile(lambda _: not stop.is_set(), items):
        if str(getattr(item.place, "url", "")).startswith(_IN_ONE_PROCESS):
            raise OptionError(f"{item.path}: {_IN_ONE_PROCESS} exists in this process alone; Ray's cannot read it")
        yield item


def _results(dataset: Any, stop: threading.Event) -> Iterator[Any]:
    """Tables as they come; None now and then while none comes.

    Raises:
        OrtcamError: what is wrong with all images, or with Ray.
    """
    found: queue.Queue[Any] = queue.Queue(maxsize=4)
    over = threading.Event()

    def hand_over(what: Any) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                found.put(what, timeout=_TICK)
                return

    def pump() -> None:
        try:
            with contextlib.closing(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))) as batches:
                for batch in batches:
                    hand_over(batch)
                    if over.is_set():
                        return
            hand_over(None)
        except BaseException as error:  # noqa: BLE001 - raised where the results are wanted
            hand_over(error)

    thread = threading.Thread(target=pump, name="ortcam-ray", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                batch = found.get(timeout=_TICK)
            except queue.Empty:
                yield None
                continue
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise _readable(batch) from None
            yield batch
        while True:  # what is there already
            try:
                batch = found.get_nowait()
            except queue.Empty:
                return
            if batch is None or isinstance(batch, BaseException):
                return
            yield batch
    finally:
        over.set()
        thread.join(_PATIENCE)  # Ray Data is to end before Ray does


def _readable(error: BaseException) -> BaseException:
    """What is told of an error that Ray raised: ours, or what Ray says in a line."""
    found = ours(error)
    if found is not None:
        return found
    text = str(error)
    if module := _NO_MODULE.search(text):
        return OrtcamError(f"a machine of the cluster has no {module[1]}: all need what this one has installed")
    if isinstance(error, ray.exceptions.RayTaskError):  # a mistake of ours, with the worker's traceback
        return RuntimeError(text)
    return OrtcamError(f"Ray has ended the batch: {in_a_line(error)}")
