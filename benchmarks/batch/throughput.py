"""What is timed side by side: a batch in a process of its own, and bare loops over the same files."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.batch.loops import Grouping, environment, groupings, loops
from benchmarks.common.arguments import say
from benchmarks.common.results import ROOT
from benchmarks.common.subjects import photographs

from ortcam.batch.local.cores import share_machine

__all__ = [
    "KINDS",
    "SHIPPED",
    "Kind",
    "Timing",
    "copied",
    "measure_ray",
    "measure_throughput",
    "rate",
    "seconds_per_image",
    "time_batch",
    "time_loops",
]

_WARM: Final = 0.1  # of the images, before the rate is taken
_FIRST: Final = 20  # images of the run that finds the batch size
_SMALL_IMAGES: Final = 5000
_BATCH: Final = 8  # masked images per run, for both engines


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is explained, and how.

    Attributes:
        model: the shipped one, or the name of a subject.
        options: of `Explainer.explain`.
        slow: whether it takes part in one round alone, with fewer images.
    """

    model: str
    options: dict[str, Any]
    slow: bool = False

    @property
    def name(self) -> str:
        """In words."""
        method = self.options["method"]
        return f"{self.model}, {method}" + (f", budget {self.options['budget']}" if "budget" in self.options else "")


SHIPPED: Final = "shapes"
KINDS: Final = (
    Kind(SHIPPED, {"method": "grad-cam"}),
    Kind(SHIPPED, {"method": "scorecam", "budget": 0.04}),
    Kind("squeezenet1_1", {"method": "grad-cam"}),
    Kind("squeezenet1_1", {"method": "scorecam", "budget": 0.04}, slow=True),
)
_SLOW_SHARE: Final = 0.4  # of the images, for slow kinds


@dataclasses.dataclass(frozen=True)
class Timing:
    """How fast images were explained.

    Attributes:
        rate: images per second while it runs: from the first tenth of the images to the last.
        seconds: from the start of the first process to the end of the last, loading included.
        processor_seconds: that all processes had on the cores, of the same time.
    """

    rate: float
    seconds: float
    processor_seconds: float


def rate(counts: Sequence[int], clocks: Sequence[float]) -> float:
    """Images per second from the first tenth of the images to the last.

    Args:
        counts: of the images done, rising.
        clocks: seconds, when there were so many.

    Raises:
        ValueError: all were done at once.
    """
    first = next(place for place, count in enumerate(counts) if count >= _WARM * counts[-1])
    if clocks[-1] <= clocks[first]:
        raise ValueError(f"{counts[-1]} images were done at once: no rate can be told")
    return (counts[-1] - counts[first]) / (clocks[-1] - clocks[first])


def seconds_per_image(answer: Mapping[str, Sequence[float]]) -> float:
    """Seconds that the driver had on the cores per image, between the first and the last that was done."""
    counts, processor = answer["counts"], answer["processor"]
    return (processor[-1] - processor[1]) / (counts[-1] - counts[1])


def measure_throughput(bundles: Mapping[str, Path], images: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Time batches and bare loops over the same files, for every way to share the cores, in turn.

    Args:
        bundles: model -> bundle; kinds of other models are left out.
        images: a folder of them.
        folder: for outputs.
        rounds: how often.

    Returns:
        Per kind: `name`, `images`, `batch_size`, `default` (the cores as a batch shares them that is not told to), and
        `batch` and `loop`: grouping -> timings of the rounds.
    """
    found = []
    # Hyperthreads, or an affinity, make the default another one than those of the physical cores.
    default = _default()
    ways = list(dict.fromkeys([*groupings(), default]))
    for kind in KINDS:
        if kind.model not in bundles:
            continue
        bundle = bundles[kind.model]
        count = len(list(images.iterdir()))
        count = max(1, round(count * _SLOW_SHARE)) if kind.slow else count
        files = sorted(images.iterdir())[:count]
        _, report = time_batch(bundle, images, folder, limit=min(_FIRST, count), **kind.options)
        fixed = {**kind.options, "batch_size": report["record"]["fingerprint"]["batch_size"]}
        entry: dict[str, Any] = {"name": kind.name, "images": count, "batch_size": fixed["batch_size"]}
        entry |= {what: {str(way): [] for way in ways} for what in ("batch", "loop")}
        for number in range(1 if kind.slow else rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                say(f"{kind.name}, round {number + 1}: {way}")
                # Which comes first changes, so that what warms or cools the machine favours neither.
                for what in ("batch", "loop") if number % 2 else ("loop", "batch"):
                    if what == "batch":
                        timing, _ = time_batch(bundle, images, folder, grouping=way, limit=count, **fixed)
                    else:
                        timing = time_loops(bundle, files, way, folder, **fixed)
                    entry[what][str(way)].append(dataclasses.asdict(timing))
        entry["default"] = str(default)
        found.append(entry)
    return found


def measure_ray(bundle: Path, images: Path, folder: Path) -> list[dict[str, Any]]:
    """Time batches of both engines over the same files.

    Args:
        bundle: of the shipped model.
        images: a folder of them.
        folder: for outputs.

    Returns:
        Per kind: `name`, `images`, and a timing of `local` and of `ray`, each with `driver`, the seconds that it had on
        the cores per image. The last kind is a classifier and images so
        small that hardly anything but the engines takes time.
    """
    small = _small_images(folder / "small", _SMALL_IMAGES)
    kinds = [(kind.name, bundle, images, kind.options) for kind in KINDS if kind.model == SHIPPED]
    kinds.append(("tiny classifier, 32 x 32 pixels", ROOT / "tests" / "data" / "tiny.ortcam", small, kinds[0][3]))
    found = []
    for name, model, source, options in kinds:
        entry: dict[str, Any] = {"name": name, "images": len(list(source.iterdir()))}
        for engine in ("local", "ray"):
            say(f"{name}: {engine}")
            timing, report = time_batch(model, source, folder, engine=engine, **options, batch_size=_BATCH)
            entry[engine] = {**dataclasses.asdict(timing), "driver": report["seconds_per_image"]}
        found.append(entry)
    return found


def _small_images(folder: Path, count: int) -> Path:
    """A new folder with so many drawn images of 32 x 32 pixels."""
    import cv2

    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    for number in range(count):
        (folder / f"{number:06d}.png").write_bytes(content)
    return folder


def copied(folder: Path, count: int) -> Path:
    """A new folder with so many files: the photographs in turn, each under names of its own."""
    folder.mkdir()
    sources = [item.path for item in photographs()]
    for number in range(count):
        source = sources[number % len(sources)]
        place = folder / f"{number:06d}-{source.name}"
        try:
            os.link(source, place)
        except OSError:  # of another file system
            shutil.copyfile(source, place)
    return folder


def time_loops(bundle: Path, files: Sequence[Path], way: Grouping, folder: Path, **options: Any) -> Timing:
    """Explain files in bare loops, which read and decode each file when its turn comes."""
    before, started = _children_seconds(), time.monotonic()
    with loops(bundle, way, folder) as running:
        found = running.run(files, **options)
        seconds = time.monotonic() - started
    counts = list(range(1, len(found.ends) + 1))
    return Timing(rate(counts, found.ends), seconds, _children_seconds() - before)


def time_batch(
    bundle: Path, images: Path, folder: Path, *, grouping: Grouping | None = None, **arguments: Any
) -> tuple[Timing, dict[str, Any]]:
    """Run a batch over a folder of images.

    Args:
        bundle: to explain with.
        images: the folder.
        folder: for OUTPUT, which is new, and for what ortcam remembers of this machine.
        grouping: of the cores; None: the default.
        **arguments: of `ortcam.batch.run`.

    Returns:
        The timing; the report with `record`, what `_batch.json` has, and `seconds_per_image` of the driver.

    Raises:
        SystemExit: it failed, or an image did.
    """
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    task: dict[str, Any] = {"model": str(bundle), "input": str(images), "output": str(output), **arguments}
    if grouping is not None:
        task |= {"processes": grouping.processes, "threads": grouping.threads}
    command = [sys.executable, "-m", "benchmarks.batch.engine", json.dumps(task)]
    before, started = _children_seconds(), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(folder), check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"the batch ended with {done.returncode}; what it said is above")
    answer = json.loads(done.stdout.splitlines()[-1])
    report: dict[str, Any] = answer["report"]
    if report["failures"] or report["images"] != answer["counts"][-1]:
        raise SystemExit(f"the batch failed for some images: {report}")
    report["seconds_per_image"] = seconds_per_image(answer)
    report["record"] = json.loads((output / "_batch.json").read_text("utf-8"))
    timing = Timing(rate(answer["counts"], answer["clocks"]), seconds, _children_seconds() - before)
    return timing, report


def _default() -> Grouping:
    """How a batch shares the cores that is not told to."""
    shares = share_machine(providers=["cpu"])
    assert shares.threads is not None
    return Grouping(shares.processes, shares.threads)


def _children_seconds() -> float:
    """Seconds of all cores that ended children of this process have had, and theirs."""
    times = os.times()
    return times.children_user + times.children_system
