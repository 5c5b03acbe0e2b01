"""The machine that a benchmark runs on: processor, memory, versions, and the lines that head every report."""

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

DISTRIBUTIONS: Final = (
    "ortcam",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "torchvision",
    "torchcam",
    "grad-cam",
    "numpy",
)
# In every report, below the command.
RAW: Final = "Raw numbers: the command writes them beside this file, `*-raw.json`; git has the figures (`*.json`) alone"


def describe_run(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, command and date of a run of `python -m MODULE ARGUMENTS`."""
    system = platform.system()
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return {
        "machine": {
            "cpu": processor(),
            "cores": physical_cores(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "os": f"{system} (kernel {platform.release()}), Python {platform.python_version()}",
            "load_average": os.getloadavg()[0],
        },
        "versions": installed_versions(),
        "command": shlex.join(["python", "-m", module, *arguments]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def processor() -> str:
    """The processor's name, with the family and the model where the system says them: clouds hide it in the name."""
    # Here, so that no peer is measured with what ortcam imports.
    from ortcam.engine.processors import processor_facts, processor_name

    facts = processor_facts()
    named = {"family": "cpu family", "model": "model"}
    kind = ", ".join(f"{word} {facts[key]}" for word, key in named.items() if key in facts)
    return f"{processor_name()} ({kind})" if kind else processor_name()


def installed_versions() -> dict[str, str]:
    """The versions of those of DISTRIBUTIONS that are installed."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def physical_cores() -> int:
    """Cores of the machine, hyperthreads not counted."""
    count: int | None = None
    with contextlib.suppress(ImportError):  # not where a GPU machine lacks it
        import psutil  # type: ignore[import-untyped]

        count = psutil.cpu_count(logical=False)
    return count or os.cpu_count() or 1


def run_in_words(run: Mapping[str, Any], settings: str, *, raw: bool = True) -> str:
    """The lines that head every report, from what `describe_run` returned; `raw`: raw numbers are beside it."""
    machine = run["machine"]
    memory, load = f"{machine['memory_bytes'] / 2**30:.0f} GiB", f"{machine['load_average']:.2f}"
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    kept = "; what it did not measure is of earlier runs on the same machine and versions"
    return (
        f"- Machine: {machine['cpu']}, {machine['cores']} physical cores, {memory}, {machine['os']}; load average "
        f"before the run {load}\n- Versions: {versions}\n- Settings: {settings}\n"
        f"- Command: `{run['command']}`, {run['date']}{kept if ' --keep' in run['command'] else ''}"
        + (f"\n- {RAW}" if raw else "")
    )
