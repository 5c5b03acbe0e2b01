"""Batches: how many rows each run of a graph has, found while explaining and cached, and the loop that runs them."""

import contextlib
import dataclasses
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.forking import ForkLock
from ortcam.engine.memory import MemoryLimit, RowMemory
from ortcam.errors import MemoryLimitError, OutOfMemoryError
from ortcam.support.cache_folder import batch_sizes_file
from ortcam.support.files import write_whole
from ortcam.support.locks import lock
from ortcam.support.strict_json import encode_json, parse_json
from ortcam.support.unfinished import clear_locked

__all__ = [
    "CPU_CANDIDATES",
    "GPU_CANDIDATES",
    "Batch",
    "BatchSize",
    "BatchSizer",
    "Done",
    "Progress",
    "Stop",
    "limited_sizer",
    "pad_rows",
    "recall",
    "remember",
    "run_batches",
    "searching_sizer",
]

BatchSize = int | Literal["auto"]

# Called with (passes made, passes in all) after every run.
Progress = Callable[[int, int], None]

# Asked after every run: whether to end with what is known.
Stop = Callable[[], bool]

_Prepared = TypeVar("_Prepared")
_Result = TypeVar("_Result")
_Number = TypeVar("_Number", bound=np.generic)

CPU_CANDIDATES: Final = (2, 4, 8, 16, 32)
GPU_CANDIDATES: Final = (16, 32, 64, 128, 256)

# A larger size has to be faster by this factor; with the first that is not the search ends, since to try a size takes
# its memory.
_WORTHWHILE: Final = 0.985
_RUNS: Final = 3

# Of the cache: entries that are kept, bytes that are read, and seconds to wait for another process that writes.
_MOST_ENTRIES: Final = 256
_MOST_BYTES: Final = 2**20
_PATIENCE: Final = 0.5


class BatchSizer:
    """The batch sizes of one graph's runs: fixed, or searched among candidates in ascending order.

    The search costs no forward pass: it times the runs that an explanation makes anyway. It goes on from one
    explanation to the next until it has an answer. Any number of threads may use one at once.
    """

    def __init__(
        self,
        candidates: Sequence[int],
        *,
        fixed_shape: bool,
        found: Callable[[int], None] = lambda _: None,
        memory: RowMemory | None = None,
        largest: bool = False,
        least: int = 1,
    ) -> None:
        """Begin with the first candidate.

        Args:
            candidates: ascending; a single one is used as it is.
            fixed_shape: whether the last run of a series is padded to the size of the others. A GPU needs that: there
                every new shape is planned and tuned anew. For the same reason the first run of a size is then not
                timed.
            found: called with the result of a search.
            memory: ends the search at a size that does not fit; None: any size may be tried.
            largest: take the largest that fits, be it faster or not.
            least: rows that the graph can be run with, if it is not 1.
        """
        self._least = least
        self._memory = memory
        self._largest = largest
        self._lock = ForkLock()
        self._trials = list(candidates) if len(candidates) > 1 else []
        self._fixed_shape = fixed_shape
        self._found = found
        self._times: dict[int, list[float]] = {}
        self._best: float | None = None
        self._size = candidates[0]

    @property
    def size(self) -> int:
        """Rows of a full run; during the search: the best size so far."""
        return self._size

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to try."""
        return not self._trials

    def next(self, remaining: int) -> tuple[int, int]:
        """How many of the remaining rows the next run takes, and how many it has with padding."""
        with self._lock:
            if self._memory is not None:
                self._memory.begin()
                if self._trials and not self._memory.fits(self._trials[0]):
                    self._trials = []
            size = self._trials[0] if self._trials and self._trials[0] <= remaining else self._size
        if size <= remaining:
            return size, size
        return remaining, size if self._fixed_shape else remaining

    def record(self, size: int, seconds: float) -> None:
        """Take in how long a run of a size took.

        Raises:
            MemoryLimitError: the process has passed the limit of its memory. If it may go on, later runs are smaller.
        """
        with self._lock:
            if self._memory is not None:
                try:
                    self._memory.end(size)
                except MemoryLimitError:
                    if not self._memory.steady:
                        self._trials = []
                        self._size = max(self._least, min(self._size, size // 2))
                    raise
            if not self._trials or size != self._trials[0]:
                return
            times = self._times.setdefault(size, [])
            times.append(seconds / size)
            warm = times[1:] if self._fixed_shape else times
            if len(warm) < (1 if self._largest else _RUNS):
                return
            worthwhile = self._largest or self._best is None or min(warm) < _WORTHWHILE * self._best
            if worthwhile:
                self._best, self._size = min(warm), size
            self._trials = self._trials[1:] if worthwhile else []
            answer = None if self._trials else self._size
        if answer is not None:
            self._found(answer)  # no lock is held while it writes

    def halve(self, size: int) -> None:
        """A run of a size did not fit into memory: go on with half of it.

        Raises:
            OutOfMemoryError: not even one masked image fits, or the graph takes no fewer.
        """
        if size <= self._least:
            rows = self._least
            images = "a single masked image fits" if rows == 1 else f"{rows} masked images, the bundle's batch, fit"
            raise OutOfMemoryError(f"not even {images} into memory")
        with self._lock:
            searching = bool(self._trials)
            self._trials = []
            self._size = answer = min(self._size, size // 2)
        if searching:
            self._found(answer)


def searching_sizer(key: str | None, *, fixed_shape: bool, on_gpu: bool) -> BatchSizer:
    """Batch sizes that are searched by time, or found by an earlier process.

    Args:
        key: under which that one has kept it; None: it is searched every time.
        fixed_shape: as `BatchSizer` takes it.
        on_gpu: whether the graph runs there.
    """
    candidates = GPU_CANDIDATES if on_gpu else CPU_CANDIDATES
    if key is None:
        return BatchSizer(candidates, fixed_shape=fixed_shape)
    if (known := recall(key)) is not None:
        return BatchSizer([known], fixed_shape=fixed_shape)
    return BatchSizer(candidates, fixed_shape=fixed_shape, found=lambda size: remember(key, size))


def limited_sizer(batch_size: BatchSize, limit: MemoryLimit, *, fixed_shape: bool, arena: bool) -> BatchSizer:
    """Batch sizes that grow from 1 while the next one fits under a limit of memory, unless it is a steady one.

    Args:
        batch_size: the most rows; or "auto", which also stops where larger is not faster.
        limit: of the process.
        fixed_shape: as `BatchSizer` takes it.
        arena: whether the session has one.
    """
    memory = RowMemory(limit, arena=arena)
    if limit.steady and batch_size != "auto":
        return BatchSizer([batch_size], fixed_shape=fixed_shape, memory=memory)
    if batch_size == "auto":
        return BatchSizer((1, *CPU_CANDIDATES), fixed_shape=fixed_shape, memory=memory)
    sizes = [1 << power for power in range(int(batch_size - 1).bit_length())]
    return BatchSizer([*sizes, batch_size], fixed_shape=fixed_shape, memory=memory, largest=True)


@dataclasses.dataclass(frozen=True)
class Batch:
    """The rows of one run: `size` of them from `start` on, and padding up to `padded`."""

    start: int
    size: int
    padded: int

    @property
    def rows(self) -> slice:
        """Which rows of all."""
        return slice(self.start, self.start + self.size)


@dataclasses.dataclass(frozen=True)
class Done(Generic[_Result]):
    """What a run gave, and the seconds that it took."""

    batch: Batch
    result: _Result
    seconds: float


def run_batches(
    count: int,
    sizer: BatchSizer,
    prepare: Callable[[Batch], _Prepared],
    run: Callable[[_Prepared], _Result],
    *,
    most_rows: Callable[[], int] = lambda: sys.maxsize,
) -> Iterator[Done[_Result]]:
    """Run `count` rows in batches; yield after each run.

    A batch that does not fit into memory is halved, and so are those after it. Only `run` is timed.

    Args:
        count: rows in all.
        sizer: decides how many each run takes, and is told how long it took.
        prepare: makes the input of a run, padding included (`pad_rows`).
        run: runs the graph on what was prepared.
        most_rows: asked before each run: it takes no more rows than that.

    Raises:
        OutOfMemoryError: not even one row fits.
    """
    start = 0
    while start < count:
        batch = Batch(start, *sizer.next(min(count - start, most_rows())))
        prepared = prepare(batch)
        clock = time.perf_counter()
        try:
            result = run(prepared)
        except OutOfMemoryError:
            sizer.halve(batch.padded)
            continue
        finally:
            del prepared  # its memory is that of the next one
        seconds = time.perf_counter() - clock
        sizer.record(batch.padded, seconds)
        start += batch.size
        yield Done(batch, result, seconds)


def pad_rows(rows: NDArray[_Number], length: int) -> NDArray[_Number]:
    """Repeat the last of the rows [N,...] up to a length: [length,...]."""
    missing = length - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows


def recall(key: str) -> int | None:
    """The size that an earlier process found for a key; None where there is none."""
    path = batch_sizes_file()
    size = _read(path).get(key) if path else None
    return size if type(size) is int and 1 <= size <= max(GPU_CANDIDATES) else None


def remember(key: str, size: int) -> None:
    """Keep a size for later processes, in the user's cache folder; where that cannot be written it is forgotten.

    What others have found meanwhile stays. The file holds the newest `_MOST_ENTRIES`.
    """
    path = batch_sizes_file()
    if path is None:
        return
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last of links in a circle
        path = path.resolve()  # a link stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path.parent, patience=_PATIENCE)  # where there are none, two that write at once may lose an entry
        try:
            clear_locked(path.parent)
            if path.exists() and not path.is_file():  # a device or a pipe is not to be replaced
                return
            entries = _read(path)
            entries.pop(key, None)
            newest = dict([*entries.items(), (key, size)][-_MOST_ENTRIES:])
            write_whole(path, encode_json(newest, ascii_only=True).encode() + b"\n")
        finally:
            if held is not None:
                held.release()


def _read(path: Path) -> dict[str, object]:
    """What the cache holds; nothing where it is no regular file, too large, or anything but a JSON object."""
    try:
        # Without waiting for somebody who writes, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
                return {}
            content = parse_json(file.read(_MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
