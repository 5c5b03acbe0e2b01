"""Memory: how much there is, what this process has, a limit to that, and given back once it is no longer used."""

import ctypes
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ortcam.bundle import Bundle
from ortcam.engine.processors import control_groups
from ortcam.errors import MemoryLimitError, OptionError
from ortcam.support.ranges import MEMORY_LIMIT

__all__ = [
    "MemoryLimit",
    "MemoryPlan",
    "ResetPeaks",
    "RowMemory",
    "Usage",
    "available_memory",
    "give_back",
    "graph_size",
    "memory_of_process",
    "model_memory",
]

_MB: Final = 10**6

# Measured on SqueezeNet and the shipped model with ONNX Runtime 1.31 on one thread, without its arena. What the first
# session and the first image take; bytes of memory per byte of a graph and its weights; bytes per byte of the input
# for the values inside the network, for one image.
_STARTED: Final = 18 * _MB
_OPENED: Final = 2.5
_INSIDE: Final = 16
# Bytes per pixel of a map while maps of many classes are made: 16 to 22 were measured.
_OF_A_MAP: Final = 20

# With the arena a run may take twice what its values need. It is worth that where there is more room than that.
_ROOM_FOR_ARENA: Final = 2

# What a run takes is not quite linear in its rows, and the C library keeps some of what it is given back.
_MARGIN: Final = 1.25
_MARGIN_OF_ARENA: Final = 2
_KEPT: Final = 4 * _MB


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process and those it starts may take; None where the system does not say (it is not Linux).

    That is what the machine has left, and no more than the limits of the control groups.

    Args:
        root: of the file system, for tests.
    """
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        left = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    for folder in control_groups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            try:
                left.append(int((folder / name).read_text("ascii")))
            except (OSError, ValueError):  # "max", or nothing there
                continue
    return min(left, default=None)


@dataclasses.dataclass(frozen=True)
class Usage:
    """Bytes of this process that are resident now, and that were resident at most."""

    now: int
    peak: int


def memory_of_process(root: Path = Path("/")) -> Usage | None:
    """What this process has; None where the system does not say (it is not Linux).

    Args:
        root: of the file system, for tests.
    """
    try:
        lines = (root / "proc/self/status").read_text("ascii", "replace").splitlines()
        found = {line.split()[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
        return Usage(found["VmRSS:"], max(found["VmHWM:"], found["VmRSS:"]))
    except (OSError, ValueError, IndexError, KeyError):
        return None


class ResetPeaks:
    """What a process has, for one that lives on after it was refused something: a peak counts until it was refused.

    Any number of threads may use it.
    """

    def __init__(
        self, usage: Callable[[], Usage | None] = memory_of_process, reset: Callable[[], bool] | None = None
    ) -> None:
        """Know of no peak.

        Args:
            usage: says what the process has.
            reset: has the system count the peak anew, and says whether it does; None: as Linux does it.
        """
        self._usage = usage
        self._reset = _reset_peak if reset is None else reset
        self._refused = 0

    def __call__(self) -> Usage | None:
        """What the process has, without the peaks that were refused."""
        found = self._usage()
        if found is None or found.peak > self._refused:
            return found
        return Usage(found.now, found.now)

    def forget(self, peak: int) -> None:
        """Count no longer what was refused."""
        if not self._reset():
            self._refused = peak


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """How a model is opened to stay below a limit.

    Attributes:
        precision: of the scorers.
        low_memory: whether sessions have no arena, and no file is held.
    """

    precision: str
    low_memory: bool


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """The most memory that this process may have resident at its peak, since it started.

    Attributes:
        megabytes: of a million bytes.
        usage: says what the process has. With `ResetPeaks` a peak is refused once, and the process may go on.
        runs: of graphs that may happen at once, in as many threads.
        reserved: bytes that are left free when precision, arena and batch size are chosen.
        steady: every run has the batch size that was asked for, from the first on; else batches grow to it while they
            fit. So equal images give equal bits in all processes.
    """

    megabytes: int
    usage: Callable[[], Usage | None] = memory_of_process
    runs: int = 1
    reserved: int = 0
    steady: bool = False

    def __post_init__(self) -> None:
        MEMORY_LIMIT.check(self.megabytes)

    @property
    def bytes(self) -> int:
        """The limit in bytes."""
        return self.megabytes * _MB

    def used(self) -> Usage:
        """What the process has.

        Raises:
            OptionError: the system does not say.
        """
        found = self.usage()
        if found is None:
            raise OptionError(
                f"memory_limit={self.megabytes}: this system does not say how much memory a process has; accepted is "
                "low_memory=True (--low-memory), or a limit on Linux"
            )
        return found

    def plan(
        self, bundle: Bundle, precision: str | None = None, *, low_memory: bool = False, masks: bool = True
    ) -> MemoryPlan:
        """Choose precision and arena before anything is opened.

        The need is estimated from the sizes of files and of the input: about right for convolutional networks.

        Args:
            bundle: that will be opened.
            precision: of the scorers; None takes the first of the bundle's that fits.
            low_memory: whether the arena is off anyway.
            masks: whether images will be masked; else nothing but the clean pass is run.

        Raises:
            MemoryLimitError: it cannot fit.
            OptionError: the system does not say what the process has.
        """
        used = self.used()
        wanted = bundle.precisions if precision is None else (bundle.check_precision(precision),)
        needs = {name: used.now + self.reserved + model_memory(bundle, name, masks=masks) for name in wanted}
        for name, need in needs.items():
            if max(need, used.peak) <= self.bytes:
                return MemoryPlan(name, low_memory or self.bytes < _ROOM_FOR_ARENA * need)
        name = min(needs, key=lambda name: needs[name])
        least = _megabytes(max(needs[name], used.peak))
        raise MemoryLimitError(
            f"memory_limit={self.megabytes}: this process has {_megabytes(used.now)} MB, {_megabytes(used.peak)} at "
            f"its peak, and needs about {_megabytes(needs[name])} with this model in {name}; accepted is {least} or "
            "more"
        )

    def check(self, doing: str) -> None:
        """Refuse to go on once the limit was passed.

        Args:
            doing: what was done, for the message.

        Raises:
            MemoryLimitError: the peak is beyond the limit.
        """
        peak = self.used().peak
        if peak > self.bytes:
            if isinstance(self.usage, ResetPeaks):
                self.usage.forget(peak)
            had = _megabytes(peak)
            raise MemoryLimitError(
                f"memory_limit={self.megabytes}: this process had {had} MB once it had {doing}; accepted is {had} "
                "or more"
            )

    def check_classes(self, count: int, size: tuple[int, int]) -> None:
        """Refuse more classes than there is memory for their maps.

        Args:
            count: of classes.
            size: H, W of a map.

        Raises:
            MemoryLimitError: the maps will not fit.
        """
        used, more = self.used().now, (count - 1) * _OF_A_MAP * size[0] * size[1]
        if more > 0 and used + more > self.bytes:
            raise MemoryLimitError(
                f"memory_limit={self.megabytes}: this process has {_megabytes(used)} MB, and the maps of {count} "
                f"classes need about {_megabytes(more)} MB more; accepted is {_megabytes(used + more)} or more, or "
                "fewer classes"
            )

    def check_opening(self, name: str, size: int) -> None:
        """Refuse to open a graph that will not fit.

        Args:
            name: of its file.
            size: of the file and its weights, in bytes.

        Raises:
            MemoryLimitError: it will not fit.
        """
        need = self.used().now + int(_OPENED * size)
        if need > self.bytes:
            least = _megabytes(need)
            raise MemoryLimitError(
                f"memory_limit={self.megabytes}: to open {name} takes about {least} MB of this process; accepted is "
                f"{least} or more"
            )


def _megabytes(size: int) -> int:
    """Bytes in MB, rounded up, so that what is beyond a limit is told as more than it."""
    return math.ceil(size / _MB)


def model_memory(bundle: Bundle, precision: str, *, masks: bool = True) -> int:
    """Bytes that a model takes beyond what the process has: opened, and in its smallest run. An estimate.

    That is a run of one masked image, or of as many as graphs of fixed shapes have.

    Args:
        bundle: of the model.
        precision: of the scorers, by its full name.
        masks: whether images will be masked, which takes a scorer.
    """
    graphs, image = bundle.manifest.graphs, bundle.manifest.preprocessing
    clean = [name for name in (graphs.features, graphs.head, graphs.classifier) if name is not None]
    scorers = [bundle.scorer(kind, precision).name for kind in graphs.scorers]
    largest = max((graph_size(bundle, [name]) for name in scorers if masks), default=0)
    rows = (graphs.static_batch or 1) if masks else 1
    inside = _INSIDE * 4 * image.channels * image.height * image.width * rows
    return _STARTED + int(_OPENED * (graph_size(bundle, clean) + largest)) + inside


def graph_size(bundle: Bundle, graphs: Sequence[str]) -> int:
    """Bytes of the files of some graphs and of their weights, each once."""
    names = {name for graph in graphs for name in (graph, *bundle.weights[graph])}
    return sum(bundle.manifest.files[name].size for name in names)


class RowMemory:
    """What runs of one graph take by their rows, and how many more rows fit under a limit."""

    def __init__(self, limit: MemoryLimit, *, arena: bool) -> None:
        """Know nothing yet.

        Args:
            limit: of the process.
            arena: whether the session has one.
        """
        self._limit = limit
        self._margin = _MARGIN_OF_ARENA if arena else _MARGIN
        self._before: int | None = None
        self._rows = 0
        self._taken = 0

    @property
    def steady(self) -> bool:
        """Whether all runs have one size, whatever they take."""
        return self._limit.steady

    def begin(self) -> None:
        """Look at the memory before the first run. Later runs reuse what that one has left."""
        if self._before is None:
            self._before = self._limit.used().now

    def end(self, rows: int) -> None:
        """Look at the memory after a run.

        Raises:
            MemoryLimitError: the limit was passed.
        """
        self._limit.check(f"run {rows} {'image' if rows == 1 else 'images'} at a time")
        if rows >= self._rows and self._before is not None:
            self._rows, self._taken = rows, self._limit.used().peak - self._before

    def fits(self, rows: int) -> bool:
        """Whether a run of so many rows will stay below the limit, by what the largest yet has taken."""
        if self._before is None or rows <= self._rows or not self._rows:
            return True
        limit = self._limit
        taken = limit.runs * self._margin * self._taken * rows / self._rows
        return self._before + limit.reserved + taken + _KEPT <= limit.bytes


def give_back() -> None:
    """Have the C library return the memory that it keeps for later, where it can (glibc); else do nothing.

    Sessions are made and dropped in pieces of many sizes, most of which the C library would keep: of 50 dropped
    explainers 1.7 GB.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def _reset_peak() -> bool:
    """Have the kernel count the peak anew from what is resident; whether it does (Linux, unless it is kept from it)."""
    try:
        Path("/proc/self/clear_refs").write_text("5\n", "ascii")
    except OSError:
        return False
    return True


@functools.cache
def _trim() -> "Callable[[int], int] | None":
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return trim
