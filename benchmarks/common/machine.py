"""What every benchmark needs: machine and versions, quartiles, Markdown tables, and results as figures in JSON.

A benchmark writes NAME.md for people and NAME.json for programs. The JSON begins with the machine, the versions, the
command and the date; `figures` is a flat list of named series that `benchmarks.changes` compares between commits, and
the rest is raw data in the benchmark's own form.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results"
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


@dataclasses.dataclass(frozen=True)
class Figure:
    """A series of one quantity.

    Attributes:
        name: unique within its file, the coarse part first: "resnet18 / torch-cam / latency".
        unit: "s", "B", "x", "Pearson".
        values: in the order they were taken; one where the quantity does not vary.
        better: which way is good.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    better: Literal["lower", "higher"] = "lower"


def describe_run(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, command and date of a run of `python -m MODULE ARGUMENTS`."""
    cpu, system = platform.processor() or platform.machine(), platform.system()
    with contextlib.suppress(OSError, KeyError):  # where there is no /proc, or it says less
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        cpu = f"{info['model name']} (family {info['cpu family']}, model {info['model']})"
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return {
        "machine": {
            "cpu": cpu,
            "cores": physical_cores(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "os": f"{system} (kernel {platform.release()}), Python {platform.python_version()}",
            "load_average": os.getloadavg()[0],
        },
        "versions": installed_versions(),
        "command": shlex.join(["python", "-m", module, *arguments]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


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


def run_in_words(run: Mapping[str, Any], settings: str) -> str:
    """The lines that head every report, from what `describe_run` returned."""
    machine = run["machine"]
    memory, load = f"{machine['memory_bytes'] / 2**30:.0f} GiB", f"{machine['load_average']:.2f}"
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    kept = "; what it did not measure is of earlier runs on the same machine and versions"
    return (
        f"- Machine: {machine['cpu']}, {machine['cores']} physical cores, {memory}, {machine['os']}; load average "
        f"before the run {load}\n- Versions: {versions}\n- Settings: {settings}\n"
        f"- Command: `{run['command']}`, {run['date']}{kept if ' --keep' in run['command'] else ''}"
    )


def median(values: Sequence[float]) -> float:
    """The middle of a series."""
    return float(np.median(values))


def with_quartiles(values: Sequence[float], digits: int = 2) -> str:
    """The median and, in brackets, the quartiles; the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def megabytes(values: Sequence[float]) -> str:
    """The median of a series of bytes, in MB."""
    return f"{np.median(values) / 1e6:.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def write_results(stem: Path, *, run: Mapping[str, Any], raw: Mapping[str, Any], figures: Iterable[Figure]) -> None:
    """Write STEM.json: the run, the figures, and the raw data."""
    listed = [dataclasses.asdict(figure) for figure in figures]
    document = {**run, "figures": listed, **raw}
    write_text(stem.with_suffix(".json"), json.dumps(document, indent=1, default=_plain) + "\n")


def earlier_models(path: Path, run: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The models in an earlier result of the same machine, versions and settings, for `--keep`.

    Args:
        path: of the JSON file; nothing is kept where there is none.
        run: from `describe_run`.
        settings: of this run.
    """
    if not path.is_file():
        return {}
    raw = json.loads(path.read_text("utf-8"))
    now = {"cpu": run["machine"]["cpu"], "versions": run["versions"], "settings": json.loads(json.dumps(settings))}
    then = {"cpu": raw["machine"]["cpu"], "versions": raw["versions"], "settings": raw.get("settings")}
    if changed := [key for key in now if now[key] != then[key]]:
        raise SystemExit(f"--keep: {path} has other {', '.join(changed)}")
    models: dict[str, Any] = raw["models"]
    return models


def add_keep(parser: argparse.ArgumentParser) -> None:
    """The flag that asks for `earlier_models`."""
    parser.add_argument("--keep", action="store_true", help="keep what else is in the output file")


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that a run that is stopped leaves no half of one."""
    # Here, so that no peer is measured with what ortcam imports.
    from ortcam.support.files import make_folder, write_whole
    from ortcam.support.unfinished import clear

    make_folder(path.parent)
    clear(path.parent)
    write_whole(path, text.encode(), durable=True)


def _plain(value: object) -> object:
    """NumPy's numbers and paths for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def say(line: str) -> None:
    """Tell whoever watches; the results go to stdout, this does not."""
    print(line, file=sys.stderr, flush=True)


def whole_number(text: str) -> int:
    """A type for argparse: a whole number from 1 to a million."""
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: accepted is a whole number from 1 to 1000000")
    return int(text)


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """The option that says where the results go: a stem, to which .md, .json and .png are added."""
    default = RESULTS / name
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=default,
        metavar="STEM",
        help=f"of the files that are written, .md and .json among them (default {default.relative_to(ROOT)})",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option that says how many threads an operator may use."""
    parser.add_argument(
        "--threads", type=whole_number, default=physical_cores(), help="threads (default: physical cores, %(default)s)"
    )
