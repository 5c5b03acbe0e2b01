"""The processor cores that this process may use: its affinity, the quotas of its control groups, physical cores."""

import functools
import math
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["control_groups", "processor_facts", "processor_name", "usable_cores"]

_ROOT: Final = Path("/")


@functools.cache
def processor_name(root: Path = _ROOT) -> str:
    """The model of the processor, as the system names it; on ARM the numbers of implementer and part."""
    facts = processor_facts(root)
    arm = " ".join(facts[key] for key in ("CPU implementer", "CPU part") if key in facts)
    return facts.get("model name") or arm or platform.processor() or platform.machine()


def processor_facts(root: Path = _ROOT) -> dict[str, str]:
    """What Linux says of the processor, by the names in /proc/cpuinfo, each with its first value; empty elsewhere.

    Args:
        root: of the file system, for tests.
    """
    facts: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return facts


def usable_cores(root: Path = _ROOT) -> int | None:
    """How many threads of this process can compute at once; None where the system does not say (it is not Linux).

    That is the number of physical cores among the processors it may run on, and no more than its quota of processor
    time, rounded up.

    Args:
        root: of the file system, for tests.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = _physical(os.sched_getaffinity(0), root)
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([cores, *quotas]))


def _physical(processors: Iterable[int], root: Path) -> int:
    """How many cores the processors belong to; those whose core is not known count as one each."""
    cores = set()
    for processor in processors:
        topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        cores.add(_text(topology / "thread_siblings_list") or str(processor))
    return len(cores)


def control_groups(controller: str, root: Path = _ROOT) -> Iterator[Path]:
    """Folders in which limits of this process may stand: of every control group around it, of both versions of those.

    Args:
        controller: say "cpu", whose files of version 1 lie in folders of their own.
        root: of the file system, for tests.
    """
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":  # version 2
            yield from _upwards(root / "sys/fs/cgroup", group)
        elif controller in controllers.split(","):
            for name in dict.fromkeys((controllers, controller, "cpu,cpuacct")):
                yield from _upwards(root / "sys/fs/cgroup" / name, group)


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time in each period, of every control group that this process is in and that has a limit."""
    for folder in control_groups("cpu", root):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        yield from _ratio(quota, period)
        yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The folders of a group and of those around it; in a container only the last of them may be there."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _ratio(quota: str | None, period: str | None) -> Iterator[float]:
    try:
        share = int(quota or "") / int(period or "")
    except (ValueError, ZeroDivisionError):  # "max", or nothing there
        return
    if share > 0:  # -1 is no limit
        yield share


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
