"""What an explanation costs as things grow: channels, image size, classes, batch size; memory, cold start, install.

All on SqueezeNet 1.1, exact Score-CAM; other layers give other numbers of channels at the same cost of a pass. The
values of a quantity are measured in turn, run after run. Installed sizes need the package registry and minutes, so only
`--installed-size` measures them. Results go to benchmarks/results/scaling.md, .json and .png. Run as
`python -m benchmarks.scaling`.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure, median, megabytes, table, with_quartiles
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.plots import COLOURS, panels, save
from benchmarks.common.processes import Worker
from benchmarks.common.results import ROOT, write_results, write_text
from benchmarks.common.subjects import SIDE, SUBJECTS, missing_data, photograph

MODEL: Final = "squeezenet1_1"
PHOTOGRAPH: Final = "val_0012.jpg"
LAYERS: Final = ("features.4", "features.7", "features.10", "features.12")
SIDES: Final = (128, 160, 192, 224, 256, 288, 320)
CLASSES: Final = (1, 10, 100)
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
BATCH_SIZE: Final = 8

CHANNELS, IMAGE, TARGETS, BATCH = "channels", "side of the image, pixels", "classes", "batch size"
PARTS: Final = (CHANNELS, IMAGE, TARGETS, BATCH)

_COLD_START: Final = """\
import json, sys, time
times = [time.perf_counter()]
import ortcam
times.append(time.perf_counter())
explainer = ortcam.load(sys.argv[1], providers=["cpu"], threads=int(sys.argv[3]))
times.append(time.perf_counter())
explainer.explain(sys.argv[2], method="scorecam", batch_size=int(sys.argv[4]))
times.append(time.perf_counter())
explainer.explain(sys.argv[2], method="scorecam", batch_size=int(sys.argv[4]))
times.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(times, times[1:])]))
"""
_COLD_STAGES: Final = ("import", "load, hashes checked", "first explanation", "second explanation")

# What is installed for serving, and what the peers need.
INSTALLS: Final = {
    "ortcam[cpu]": (f"ortcam[cpu] @ {ROOT.as_uri()}",),
    "torch, torchvision, torchcam": ("torch", "torchvision", "torchcam"),
}

REPORT: Final = """\
# What an explanation costs as things grow

![Time against channels, image size, classes and batch size; memory against batch size](scaling.png)

Exact Score-CAM of one photograph on {model}, batches of {batch} unless said. Medians, in brackets the quartiles.

{run}

{parts}

## Memory

The most that was resident in a fresh process up to its first heatmap.

{memory}

## Cold start

A fresh Python process with all files in the page cache, milliseconds.

{cold}
{installed}"""
INSTALLED: Final = """
## Installed size

What a fresh virtual environment holds in site-packages, with the versions in constraints.txt.

{rows}
"""


@dataclasses.dataclass(frozen=True)
class Point:
    """One value of one quantity.

    Attributes:
        part: of PARTS.
        value: of the quantity.
        passes: that were made.
        seconds: of the runs.
    """

    part: str
    value: int
    passes: int
    seconds: list[float]


def measure(settings: Mapping[str, Any]) -> tuple[list[Point], dict[int, list[int]], dict[str, list[float]]]:
    """Times of all parts, peak memory by batch size, and the stages of a cold start."""
    item = photograph(PHOTOGRAPH)
    subject = SUBJECTS[MODEL]
    threads = settings["threads"]
    with tempfile.TemporaryDirectory(prefix="ortcam-scaling-") as root:
        folder = Path(root)
        module = subject.module()
        say("exporting")
        bundle = subject.export(folder, module=module)
        layers = {}
        for layer in LAYERS:
            (folder / layer).mkdir()
            layers[layer] = subject.export(folder / layer, module=module, layer=layer)
        sides = {side: bundle if side == SIDE else subject.export(folder, module=module, side=side) for side in SIDES}
        points = list(_times(settings, item.path, item.target, bundle, layers, sides))
        memory: dict[int, list[int]] = {}
        task = {"model": MODEL, "layer": subject.layer, "folder": folder, "photograph": item.path.resolve()}
        for size in BATCH_SIZES:
            with Worker(
                "ortcam", {**task, "target": item.target, "batch-size": size, "threads": threads}, folder
            ) as worker:
                memory[size] = [worker.first["peak_bytes"]]
            say(f"memory, batch size {size}: {megabytes(memory[size])} MB")
        cold: dict[str, list[float]] = {stage: [] for stage in ("from process start to first map", *_COLD_STAGES)}
        for _ in range(settings["repeats"]):
            for stage, seconds in zip(cold, _cold_start(bundle, item.path, threads), strict=True):
                cold[stage].append(seconds)
    return points, memory, cold


def _times(
    settings: Mapping[str, Any],
    image: Path,
    target: int,
    bundle: Path,
    layers: Mapping[str, Path],
    sides: Mapping[int, Path],
) -> Iterable[Point]:
    import ortcam

    def explain(path: Path, **options: Any) -> Callable[[], Any]:
        explainer = ortcam.load(path, providers=["cpu"], threads=settings["threads"])
        complete = {"method": "scorecam", "target": target, "batch_size": BATCH_SIZE, **options}
        return lambda: explainer.explain(image, **complete).stats

    parts: dict[str, dict[int, Callable[[], Any]]] = {
        CHANNELS: {ortcam.load(path).bundle.manifest.cut.channels: explain(path) for path in layers.values()},
        IMAGE: {side: explain(path) for side, path in sides.items()},
        TARGETS: {count: explain(bundle, target=list(range(count))) for count in CLASSES},
        BATCH: {size: explain(bundle, batch_size=size) for size in BATCH_SIZES},
    }
    for part in settings["parts"]:
        runs = parts[part]
        points = {value: Point(part, value, run().passes, []) for value, run in runs.items()}  # warms up
        for repeat in range(settings["repeats"]):
            for value, run in runs.items():
                points[value].seconds.append(run().seconds)
            say(f"{part}: run {repeat + 1}/{settings['repeats']}")
        yield from points.values()


def _cold_start(bundle: Path, image: Path, threads: int) -> list[float]:
    """Seconds from the start of the process to the first map, and of the stages inside."""
    started = time.perf_counter()
    arguments = (str(bundle), str(image), str(threads), str(BATCH_SIZE))
    done = subprocess.run([sys.executable, "-c", _COLD_START, *arguments], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - started
    stages = json.loads(done.stdout)
    return [whole - stages[-1], *stages]


def installed_bytes(requirements: Sequence[str]) -> int:
    """The size of what a fresh environment with these requirements has in site-packages, files' bytes added up."""
    with tempfile.TemporaryDirectory(prefix="ortcam-install-") as folder:
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", folder, "--python", sys.executable, "--clear"], check=True)
        constraint = ["--constraint", str(ROOT / "constraints.txt")]
        install = [*uv, "pip", "install", "--quiet", "--python", folder, *constraint, *requirements]
        subprocess.run(install, check=True)
        files = next(Path(folder).glob("lib/*/site-packages")).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())


def report(
    points: Sequence[Point],
    memory: Mapping[int, Sequence[int]],
    cold: Mapping[str, Sequence[float]],
    installed: Mapping[str, int],
    settings: Mapping[str, Any],
    run: Mapping[str, Any],
) -> str:
    """The results as Markdown."""
    sections = []
    for part in settings["parts"]:
        rows = [
            [
                str(point.value),
                str(point.passes),
                with_quartiles(point.seconds, 3),
                f"{1e3 * median(point.seconds) / point.passes:.3f}",
            ]
            for point in points
            if point.part == part
        ]
        sections.append(f"## {part[0].upper()}{part[1:]}\n\n{table([part, 'passes', 'time, s', 'ms a pass'], rows)}")
    words = (
        f"{PHOTOGRAPH}, float32, CPU, {settings['threads']} threads, {settings['repeats']} runs after one to warm up"
    )
    sizes = [[name, f"{size / 1e6:.0f} MB"] for name, size in installed.items()]
    return REPORT.format(
        model=MODEL,
        batch=BATCH_SIZE,
        run=run_in_words(run, words),
        parts="\n\n".join(sections),
        memory=table(["batch size", "peak memory, MB"], [[str(size), megabytes(m)] for size, m in memory.items()]),
        cold=table(
            ["stage", "ms"], [[stage, with_quartiles([1e3 * s for s in times], 0)] for stage, times in cold.items()]
        ),
        installed=INSTALLED.format(rows=table(["what", "size"], sizes)) if sizes else "",
    )


def plot(points: Sequence[Point], memory: Mapping[int, Sequence[int]], path: Path) -> None:
    """A panel a quantity, time from zero; the last is memory."""
    parts = list(dict.fromkeys(point.part for point in points))
    figure, axes = panels(len(parts) + 1, columns=3, size=(3.6, 3.0))
    for axis, part in zip(axes, parts, strict=False):
        series = [point for point in points if point.part == part]
        values = [point.value for point in series]
        axis.plot(values, [median(point.seconds) for point in series], marker="o", color=COLOURS[0])
        axis.set_xlabel(part)
        axis.set_ylabel("time of an explanation, s")
        if part in (TARGETS, BATCH):
            _powers(axis, values)
    axes[-1].plot(list(memory), [median(peak) / 1e6 for peak in memory.values()], marker="s", color=COLOURS[1])
    _powers(axes[-1], list(memory))
    axes[-1].set_xlabel(BATCH)
    axes[-1].set_ylabel("peak memory of the process, MB")
    for axis in axes:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    save(figure, path)


def _powers(axis: Any, values: Sequence[int]) -> None:
    """A logarithmic axis with the values themselves as its ticks."""
    axis.set_xscale("log")
    axis.set_xticks(values, [str(value) for value in values])
    axis.minorticks_off()


def _figures(
    points: Sequence[Point],
    memory: Mapping[int, Sequence[int]],
    cold: Mapping[str, Sequence[float]],
    installed: Mapping[str, int],
) -> Iterable[Figure]:
    for point in points:
        yield Figure(f"{point.part} {point.value} / latency", "s", tuple(point.seconds))
    for size, peak in memory.items():
        yield Figure(f"batch size {size} / peak memory", "B", tuple(peak))
    for stage, seconds in cold.items():
        yield Figure(f"cold start / {stage}", "s", tuple(seconds))
    for name, size in installed.items():
        yield Figure(f"installed / {name}", "B", (size,))


def main(arguments: Sequence[str]) -> int:
    """Measure, write, plot; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=whole_number, default=5, help="runs of each value (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {PARTS}")
    parser.add_argument("--installed-size", action="store_true", help="also install both and measure their size")
    add_threads(parser)
    add_output(parser, "scaling")
    options = parser.parse_args(arguments)
    if missing := missing_data((MODEL,), real=True):
        say(missing)
        return 2
    settings = {"parts": options.parts, "repeats": options.repeats, "threads": options.threads}
    run = describe_run("benchmarks.scaling", arguments)
    points, memory, cold = measure(settings)
    installed = {name: installed_bytes(needs) for name, needs in INSTALLS.items()} if options.installed_size else {}
    raw = {
        "settings": settings,
        "points": [dataclasses.asdict(point) for point in points],
        "memory": memory,
        "cold_start": cold,
        "installed": installed,
    }
    write_results(options.output, run=run, raw=raw, figures=_figures(points, memory, cold, installed))
    text = report(points, memory, cold, installed, settings, run)
    write_text(options.output.with_suffix(".md"), text)
    plot(points, memory, options.output.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
