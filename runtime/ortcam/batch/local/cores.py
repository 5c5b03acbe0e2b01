"""How the cores of a machine are shared among processes that score, and which GPU each of them has."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ortcam.engine.memory import available_memory
from ortcam.engine.processors import usable_cores
from ortcam.engine.providers import Provider, resolve_providers

__all__ = ["Shares", "memory_of", "share_gpus", "share_machine", "visible_gpus"]

_CUDA: Final = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_BASE_MEMORY: Final = 400 << 20
_TIMES_BUNDLE: Final = 4
_GPUS: Final = Path("/proc/driver/nvidia/gpus")


@dataclasses.dataclass(frozen=True)
class Shares:
    """How a machine is shared.

    Attributes:
        threads: of each process; None: as many as it may use.
        devices: one per process: the number of its GPU, or None.
        decode_ahead: whether a process has anything to score with beside the core that decodes.
    """

    threads: int | None
    devices: tuple[int | None, ...]
    decode_ahead: bool

    @property
    def processes(self) -> int:
        """How many processes score."""
        return len(self.devices)


def share_machine(
    processes: int | None = None,
    threads: int | None = None,
    *,
    providers: Sequence[Provider] | None = None,
    memory_each: int = 0,
    cores: int | None = None,
) -> Shares:
    """Share the cores, or the GPUs, among processes.

    On the CPU each process has one core, unless something else is asked for: runs of a graph share a core's work less
    well among threads than images share cores among processes. Where memory is short there are fewer processes, with
    more threads. On GPUs each process has one GPU.

    Args:
        processes: None: as many as there are cores for, or GPUs.
        threads: of each process; None: the cores of its share.
        providers: as `ortcam.load` takes them.
        memory_each: bytes that a process takes; `memory_of` estimates it.
        cores: None: those that this process may use, by its affinity and the quota of its control group.

    Example:
        >>> share_machine(cores=4, providers=["cpu"])
        Shares(threads=1, devices=(None, None, None, None), decode_ahead=False)
        >>> share_machine(2, cores=8, providers=["cpu"]).threads, share_machine(threads=4, cores=8).processes
        (4, 2)
    """
    name, options = resolve_providers(providers)[0]
    cores = cores or usable_cores() or os.cpu_count() or 1
    if name in _CUDA:
        devices = share_gpus(processes, visible_gpus(), named="device_id" in options)
        return Shares(threads, devices, decode_ahead=True)
    if processes is None:
        processes = max(1, cores // (threads or 1))
        left = available_memory() if memory_each else None
        if left is not None:
            processes = max(1, min(processes, left // memory_each))
    threads = max(1, cores // processes) if threads is None else threads
    return Shares(threads, (None,) * processes, decode_ahead=threads > 1 or name != "CPUExecutionProvider")


def memory_of(bundle: Path) -> int:
    """About how many bytes a process takes that scores with a bundle, on the safe side.

    Measured with 8 and 32 masked images per run: 180 to 240 MB with a bundle of 2 MB, 340 to 400 MB with one of 45 MB.
    """
    return _BASE_MEMORY + _TIMES_BUNDLE * sum(file.stat().st_size for file in bundle.iterdir() if file.is_file())


def share_gpus(processes: int | None, gpus: int, *, named: bool = False) -> tuple[int | None, ...]:
    """The GPU of each process: one process per GPU, or as many as asked for, in turn.

    Args:
        processes: None: as many as there are GPUs.
        gpus: how many there are.
        named: whether the user has named one, which all processes then use.

    Example:
        >>> share_gpus(None, 4), share_gpus(3, 2), share_gpus(2, 4, named=True)
        ((0, 1, 2, 3), (0, 1, 0), (None, None))
    """
    if named or gpus <= 1:
        return (None,) * (processes or 1)
    return tuple(place % gpus for place in range(processes or gpus))


def visible_gpus(environment: Mapping[str, str] = os.environ, folder: Path = _GPUS) -> int:
    """How many GPUs CUDA lets this process see; 1 where nothing says so.

    CUDA itself is not asked: that takes memory on each of them.

    Args:
        environment: of this process.
        folder: where the driver lists the GPUs.

    Example:
        >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "2,5"})
        2
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return len(list(folder.iterdir())) if folder.is_dir() else 1
    count = 0
    for name in named.split(","):
        if name.strip() in ("", "-1"):  # CUDA takes no name behind one that it does not know
            break
        count += 1
    return count
