"""How far ortcam's maps are from the formulas in float64: real weights, photographs, all four methods.

The reference is tests/parity/reference, a plain PyTorch loop. A class of a photograph is a pair; every photograph is
explained for its most probable classes. Weights and photographs come from the folder that ORTCAM_TEST_DATA names
(default: ../shared/data beside the repository). The table goes to benchmarks/results/parity.md, anew after every
photograph. Run as `python -m benchmarks.parity`.
"""

import argparse
import dataclasses
import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import say, whole_number
from benchmarks.common.results import ROOT, write_text
from benchmarks.common.subjects import DATA
from numpy.typing import NDArray
from tests.parity.cases import BOUND, CLOSE, Case, map_differences, real_case
from tests.parity.reference import DEFAULTS

from ortcam.engine.processors import processor_name

MODELS: Final = ("squeezenet1_1", "mobilenet_v2", "resnet18", "deit_tiny")
DISTRIBUTIONS: Final = ("ortcam", "onnxruntime", "torch", "torchvision", "numpy")

REPORT: Final = """\
# Parity: ortcam in float32 against the formulas of its methods in float64

max |difference| of the final map in [0,1], over all pairs of a photograph and one of its {targets} most probable
classes. Promised are at most {bound:.0e}, and at most {close:.0e} for at least 95 %. Options are the \
defaults, but `num_samples={samples}` for SS-CAM and IS-CAM.

{unfinished}\
| model | layer | method | photographs | maps | max abs. difference | share <= {close:.0e} | share <= {bound:.0e} |
|---|---|---|---|---|---|---|---|
{rows}

- Machine: {machine}
- Versions: {versions}
- Photographs: {photographs}
- Command: `{command}`, {date}, {minutes:.0f} min
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research
"""


@dataclasses.dataclass
class Row:
    """The differences of a model and a method so far: one float64 [K] a photograph."""

    model: str
    layer: str
    method: str
    differences: list[NDArray[np.float64]]

    def __str__(self) -> str:
        pairs = np.concatenate(self.differences)
        cells = (
            self.model,
            self.layer,
            self.method,
            len(self.differences),
            len(pairs),
            f"{pairs.max():.1e}",
            f"{(pairs <= CLOSE).mean():.1%}",
            f"{(pairs <= BOUND).mean():.1%}",
        )
        return f"| {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str]) -> int:
    """Run the sweep; 1 where the target is missed."""
    options = _parser().parse_args(arguments)
    photographs = _spread(sorted((DATA / "images").glob("*.jpg")), options.images)
    if not photographs:
        say(f"no photographs in {DATA / 'images'}: ORTCAM_TEST_DATA names the data folder")
        return 2
    started = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            (bundle_folder := Path(folder) / name).mkdir()
            case = real_case(name, DATA, bundle_folder)
            layer = case.explainer.bundle.manifest.cut.module or ""
            of_model = {method: Row(name, layer, method, []) for method in DEFAULTS}
            for photograph in photographs:
                for method, differences in _compare(case, photograph, options.samples, options.targets).items():
                    of_model[method].differences.append(differences)
                written = [*rows, *of_model.values()]
                text = _report(written, photographs, options, arguments, (time.monotonic() - started) / 60)
                write_text(options.output, text)
                say(f"{name}, {photograph.name}\n" + "\n".join(str(row) for row in of_model.values()))
            rows += of_model.values()
    pairs = [np.concatenate(row.differences) for row in rows]
    return int(any(pair.max() > BOUND for pair in pairs) or (np.concatenate(pairs) <= CLOSE).mean() < 0.95)


def _compare(case: Case, photograph: Path, samples: int, targets: int) -> dict[str, NDArray[np.float64]]:
    """Differences of the maps of one photograph, float64 [K], by method."""
    classes = np.argsort(-case.explainer.predict(photograph))[:targets].tolist()
    reference = case.reference(photograph)
    differences = {}
    for method, defaults in DEFAULTS.items():
        options: dict[str, Any] = {"num_samples": samples} if "num_samples" in defaults else {}
        explanation = case.explainer.explain(photograph, method=method, target=classes, **options)
        differences[method] = map_differences(explanation, reference.explain(method, classes, **options))
    return differences


def _spread(paths: list[Path], count: int) -> list[Path]:
    """`count` of the paths, evenly spread."""
    return [paths[index * len(paths) // count] for index in range(min(count, len(paths)))]


def _report(
    rows: list[Row], photographs: list[Path], options: argparse.Namespace, arguments: Sequence[str], minutes: float
) -> str:
    expected = len(options.models) * len(DEFAULTS) * len(photographs)
    done = sum(len(row.differences) for row in rows)
    return REPORT.format(
        unfinished="" if done == expected else f"**Unfinished: {done} of {expected} explanations.**\n\n",
        targets=options.targets,
        samples=options.samples,
        bound=BOUND,
        close=CLOSE,
        rows="\n".join(str(row) for row in rows),
        machine=f"{processor_name()}, {os.cpu_count()} cores, {platform.system()}",
        versions=", ".join(
            f"{name} {version}"
            for name, version in (
                ("Python", platform.python_version()),
                *((name, importlib.metadata.version(name)) for name in DISTRIBUTIONS),
            )
        ),
        photographs=", ".join(path.name for path in photographs),
        command=shlex.join(["python", "-m", "benchmarks.parity", *arguments]),
        date=dt.datetime.now(dt.UTC).date(),
        minutes=minutes,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument(
        "--images", type=whole_number, default=4, metavar="N", help="photographs, evenly spread (default: 4)"
    )
    parser.add_argument(
        "--targets", type=whole_number, default=5, metavar="K", help="most probable classes (default: 5)"
    )
    parser.add_argument(
        "--samples", type=whole_number, default=2, metavar="N", help="num_samples of SS-CAM and IS-CAM (default: 2)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "parity.md", metavar="FILE", help="the table"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
