"""One Score-CAM explanation by ortcam, torch-cam and pytorch-grad-cam: same weights, photograph, batch size, threads.

Every library runs in a process of its own (worker.py) that waits between its turns, and the turns are interleaved, so
that what disturbs the machine disturbs all. A run goes from the path of the photograph to the heatmap. Weights and
photographs come from the folder that ORTCAM_TEST_DATA names (default: ../shared/data beside the repository). The
results go to benchmarks/results/compare.md and, as raw numbers, to compare.json beside it.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime as dt
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import psutil  # type: ignore[import-untyped]

ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = Path(os.environ.get("ORTCAM_TEST_DATA", ROOT.parent / "shared" / "data"))

# The layer all libraries explain: the last one with maps.
LAYERS: Final = {"squeezenet1_1": "features.12", "mobilenet_v2": "features.18", "resnet18": "layer4"}
PHOTOGRAPH: Final = "val_0012.jpg"

OURS: Final = "ortcam"
PEERS: Final = ("torch-cam", "pytorch-grad-cam")
EXPLAINERS: Final = (OURS, "ortcam-scorecam++", *PEERS)
FORWARDS: Final = ("onnxruntime-forward", "torch-forward")
TITLES: Final = {
    OURS: "ortcam",
    "ortcam-scorecam++": "ortcam, ScoreCAM++",
    "torch-cam": "torch-cam",
    "pytorch-grad-cam": "pytorch-grad-cam",
}

COLD_STARTS: Final = 3
DISTRIBUTIONS: Final = ("ortcam", "onnxruntime", "torch", "torchvision", "torchcam", "grad-cam", "numpy")

# torch-cam normalises maps before it upsamples them and weighs by a softmax of logits; with the same choices ortcam has
# to give the same map. pytorch-grad-cam upsamples with aligned corners, which ortcam does not: its map is only close.
SEMANTICS: Final = {
    "torch-cam": {"weighting": "logit-softmax", "normalize": "before-upsampling"},
    "pytorch-grad-cam": {"weighting": "logit-softmax", "normalize": "after-upsampling"},
}
SAME: Final = 0.999

REPORT: Final = """\
# One Score-CAM explanation: ortcam, torch-cam, pytorch-grad-cam

From the path of a photograph to its heatmap, with the same weights, layer, batch size and threads. Numbers are medians,
in brackets the quartiles; × is the median divided by ortcam's for Score-CAM.

- Machine: {machine}
- Versions: {versions}
- Settings: photograph {settings.photograph} (class {settings.target}, {settings.label}), batch size \
{settings.batch_size}, threads {settings.threads}, float32, CPU, timed runs {settings.repeats} (interleaved, after one \
to warm up), starts {settings.cold_starts}, one process a library, progress bars off (TQDM_DISABLE=1)
- Command: `{command}`, {date}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research

## × over all models (geometric mean)

{means}

## By model

{details}

Latency: the model is loaded and has run once. Peak memory: the most that was resident in a fresh process up to its
first heatmap.{cold_start}

## What an explanation adds to its forward passes

Bare passes: nothing but the classifier in ONNX Runtime (for ortcam) or PyTorch (for the others, channels last, its
faster layout), at the same batch size, on as many images. torchvision's transforms give channels last, too:
pytorch-grad-cam keeps that, torch-cam copies into a plain buffer. ortcam makes no passes for channels that are the same
everywhere; its time is that of the scoring loop, padding of the last batch included.

{overheads}

## Do they compute the same?

Pearson correlation of a library's map with ortcam's when that makes the same choices. torch-cam's are options of
ortcam, so more than {same} is required; pytorch-grad-cam upsamples with aligned corners, which ortcam does not offer.

{agreements}
"""
COLD_START: Final = """ Cold start: such a process from its start to the heatmap, imports and loading included,
with all files in the page cache."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for all libraries.

    Attributes:
        models: torchvision names.
        photograph: file under images/.
        target: class index that is explained.
        label: its name.
        repeats: timed runs a library, after one to warm up.
        cold_starts: fresh processes a library.
        batch_size: masked images a forward pass.
        threads: inside an operator.
    """

    models: tuple[str, ...]
    photograph: str
    target: int
    label: str
    repeats: int
    cold_starts: int
    batch_size: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The raw numbers of one model; lists in the order of the runs.

    Attributes:
        layer: module path of the maps.
        channels: C, the passes that the peers make.
        passes: what ortcam makes: it leaves out channels that are the same everywhere.
        seconds: of every run, a library.
        scoring_seconds: of ortcam's runs, the part that makes the passes.
        forward_images: that the bare forward passes of a run took.
        cold_start_seconds: from the start of a process to its first heatmap.
        peak_bytes: resident memory at most up to the first heatmap.
        agreement: Pearson correlation of a peer's map with ortcam's when that makes the peer's choices.
    """

    layer: str
    channels: int
    passes: int
    seconds: dict[str, list[float]]
    scoring_seconds: list[float]
    forward_images: int
    cold_start_seconds: dict[str, list[float]]
    peak_bytes: dict[str, list[int]]
    agreement: dict[str, float]


class Worker:
    """A process of worker.py; it ends with the block."""

    def __init__(self, library: str, arguments: Sequence[str], folder: Path) -> None:
        self._library = library
        self._log = folder / f"{library}.log"
        script = Path(__file__).with_name("worker.py")
        with self._log.open("w") as log:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, str(script), library, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TQDM_DISABLE": "1"},
            )
        self.first = self._answer()
        self.seconds_to_first = time.perf_counter() - self._started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """One more run."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except BaseException:
            self.close()
            raise
        if not line:
            self.close()
            raise SystemExit(f"{self._library} failed:\n{self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(model: str, settings: Settings) -> Measurement:
    """Prepare a model for all libraries and take every number of it."""
    with tempfile.TemporaryDirectory(prefix="ortcam-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        task = {
            "model": model,
            "layer": LAYERS[model],
            "weights": DATA / "weights" / f"{model}.pth.xz",
            "folder": folder,
            "photograph": DATA / "images" / settings.photograph,
            "target": settings.target,
            "batch-size": settings.batch_size,
            "threads": settings.threads,
        }
        arguments = [f"--{key}={value}" for key, value in task.items()]
        _say(f"{model}: exporting")
        Worker("prepare", arguments, folder).close()

        cold: dict[str, list[float]] = {library: [] for library in EXPLAINERS}
        peaks: dict[str, list[int]] = {library: [] for library in EXPLAINERS}
        workers: dict[str, Worker] = {}
        for start in range(settings.cold_starts):
            for library in EXPLAINERS:
                worker = stack.enter_context(Worker(library, arguments, folder))
                cold[library].append(worker.seconds_to_first)
                peaks[library].append(worker.first["peak_bytes"])
                _say(f"{model}: start {start + 1}/{settings.cold_starts}, {library} {worker.seconds_to_first:.2f} s")
                if start + 1 < settings.cold_starts:
                    worker.close()
                workers[library] = worker
        for library in FORWARDS:
            workers[library] = stack.enter_context(Worker(library, arguments, folder))

        figures = workers[OURS].first
        seconds: dict[str, list[float]] = {library: [] for library in workers}
        scoring = []
        images = 0
        for repeat in range(settings.repeats):
            for library, worker in workers.items():
                answer = worker.ask(images=figures["passes"], save=str(folder / f"{library}.npz"))
                seconds[library].append(answer["seconds"])
                _say(f"{model}: run {repeat + 1}/{settings.repeats}, {library} {answer['seconds']:.2f} s")
                if library == OURS:
                    scoring.append(answer["stages"]["scoring"])
                images = answer.get("images", images)
        return Measurement(
            layer=LAYERS[model],
            channels=figures["channels"],
            passes=figures["passes"],
            seconds=seconds,
            scoring_seconds=scoring,
            forward_images=images,
            cold_start_seconds=cold,
            peak_bytes=peaks,
            agreement={peer: _agreement(workers[OURS], peer, folder) for peer in PEERS},
        )


def _agreement(ours: Worker, peer: str, folder: Path) -> float:
    """Pearson correlation of a peer's last map with ortcam's map in the peer's semantics, at the size of the peer's."""
    file = folder / "agreement.npz"
    ours.ask(options=SEMANTICS[peer], save=str(file))
    theirs = np.load(folder / f"{peer}.npz")["map"]
    arrays = np.load(file)
    mine = arrays["map"] if arrays["map"].shape == theirs.shape else np.maximum(arrays["raw_map"], 0)
    return float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1])


def report(measurements: dict[str, Measurement], settings: Settings, run: dict[str, Any], *, cold: bool) -> str:
    """The results as Markdown."""
    columns = [("latency, s", "seconds", _seconds), ("peak memory, MB", "peak_bytes", _megabytes)]
    if cold:
        columns.append(("cold start, s", "cold_start_seconds", _seconds))
    means = [
        [TITLES[library], *(f"{_mean_ratio(measurements.values(), field, library):.2f}" for _, field, _ in columns)]
        for library in EXPLAINERS
    ]
    details = [
        [
            model,
            TITLES[library],
            *itertools.chain.from_iterable(
                (show(getattr(result, field)[library]), f"{_ratio(getattr(result, field), library):.2f}")
                for _, field, show in columns
            ),
        ]
        for model, result in measurements.items()
        for library in EXPLAINERS
    ]
    overheads = [row for model, result in measurements.items() for row in _overhead(model, result)]
    agreements = [
        [model, *(f"{result.agreement[peer]:.6f}" for peer in PEERS)] for model, result in measurements.items()
    ]
    machine = run["machine"]
    return REPORT.format(
        machine=f"{machine['cpu']}, {machine['cores']} physical cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['os']}; load average before the run {machine['load_average']:.2f}",
        versions=", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        settings=settings,
        command=run["command"],
        date=run["date"],
        cold_start=COLD_START if cold else "",
        same=SAME,
        means=_table(["library", *(title.split(",")[0] for title, _, _ in columns)], means),
        details=_table(["model", "library", *(cell for title, _, _ in columns for cell in (title, "×"))], details),
        overheads=_table(["model", "library", "passes", "bare passes, s", "explanation, s", "overhead"], overheads),
        agreements=_table(["model", *PEERS], agreements),
    )


def _overhead(model: str, result: Measurement) -> Iterable[list[str]]:
    rows = (
        (OURS, "onnxruntime-forward", result.passes, result.scoring_seconds),
        *((peer, "torch-forward", result.channels, result.seconds[peer]) for peer in PEERS),
    )
    for library, forward, passes, seconds in rows:
        bare = float(np.median(result.seconds[forward])) * passes / result.forward_images
        median = float(np.median(seconds))
        yield [
            model,
            TITLES[library],
            str(passes),
            f"{bare:.2f}",
            f"{median:.2f}",
            f"{100 * (median / bare - 1):+.0f} %",
        ]


def _ratio(by_library: dict[str, list[float]] | dict[str, list[int]], library: str) -> float:
    return float(np.median(by_library[library]) / np.median(by_library[OURS]))


def _mean_ratio(results: Iterable[Measurement], field: str, library: str) -> float:
    return statistics.geometric_mean(_ratio(getattr(result, field), library) for result in results)


def _seconds(values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def _megabytes(values: Sequence[int]) -> str:
    return f"{np.median(values) / 1e6:.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def describe_run(argv: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, command and date."""
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
            "memory_bytes": psutil.virtual_memory().total,
            "os": f"{system} (kernel {platform.release()}), Python {platform.python_version()}",
            "load_average": os.getloadavg()[0],
        },
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "command": shlex.join(["python", "benchmarks/compare.py", *argv]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def physical_cores() -> int:
    """Cores of the machine, hyperthreads not counted."""
    count: int | None = psutil.cpu_count(logical=False) or os.cpu_count()
    return count or 1


def _read_target() -> tuple[int, str]:
    """Class index and label of the photograph."""
    with (DATA / "images.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["file"] == PHOTOGRAPH)
    return int(row["class_index"]), row["label"]


def _missing_data(models: Sequence[str]) -> list[Path]:
    needed = [
        DATA / "images.csv",
        DATA / "images" / PHOTOGRAPH,
        *(DATA / "weights" / f"{name}.pth.xz" for name in models),
    ]
    return [path for path in needed if not path.is_file()]


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: accepted is a whole number from 1")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Measure, write both files, print the Markdown.

    Returns:
        Exit code: 1 where torch-cam and ortcam do not compute the same, 2 where the data are not there.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="NAME", help="%(choices)s")
    parser.add_argument("--repeats", type=_count, default=5, help="timed runs a library (default %(default)s)")
    parser.add_argument("--batch-size", type=_count, default=32, help="images a forward pass (default %(default)s)")
    parser.add_argument(
        "--threads", type=_count, default=physical_cores(), help="threads (default: physical cores, %(default)s)"
    )
    parser.add_argument(
        "--skip-cold-start", action="store_true", help=f"start every library once instead of {COLD_STARTS} times"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results" / "compare.md",
        help="Markdown file; the raw numbers go beside it as .json (default benchmarks/results/compare.md)",
    )
    options = parser.parse_args(argv)
    if missing := _missing_data(options.models):
        _say(
            f"the benchmark needs weights and a photograph that are not here: {', '.join(map(str, missing))}. "
            "Set ORTCAM_TEST_DATA to the folder that has weights/, images/ and images.csv"
        )
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    target, label = _read_target()
    settings = Settings(
        models=tuple(options.models),
        photograph=PHOTOGRAPH,
        target=target,
        label=label,
        repeats=options.repeats,
        cold_starts=1 if options.skip_cold_start else COLD_STARTS,
        batch_size=options.batch_size,
        threads=options.threads,
    )
    header = describe_run(argv)
    measurements = {model: measure(model, settings) for model in settings.models}
    raw = {
        **header,
        "settings": dataclasses.asdict(settings),
        "models": {model: dataclasses.asdict(result) for model, result in measurements.items()},
    }
    text = report(measurements, settings, header, cold=not options.skip_cold_start)
    _write(options.output.with_suffix(".json"), json.dumps(raw, indent=1) + "\n")
    _write(options.output, text)
    print(text)
    if different := [model for model, result in measurements.items() if not result.agreement["torch-cam"] > SAME]:
        _say(f"ortcam and torch-cam do not compute the same map for {', '.join(different)}: see the last table")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        _say("stopped; nothing was written")
        sys.exit(130)
