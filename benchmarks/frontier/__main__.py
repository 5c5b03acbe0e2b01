"""How close to the exact map, and how fast: budgets, tolerances, precisions and head-only methods of every model.

Fidelity is the Pearson correlation with the exact float32 map of the same method, photograph and class, over many
photographs; it does not vary, and each masked pass is made once. Time does, and is taken on a few photographs, every
configuration in turn and torch-cam (as its README shows it, exact) in each turn: a speed-up is the median over the
turns of torch-cam's time by ours. Results go to benchmarks/results/frontier.md, .json and .png, anew after every
model; `--keep` leaves what an earlier run measured of other models and configurations in them. Run as
`python -m benchmarks.frontier`; `--method sscam` and `--method iscam` do the same for those.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.common.arguments import add_keep, add_output, add_threads, say, whole_number
from benchmarks.common.fidelity import CALIBRATION_PHOTOGRAPHS, FAMILIES, configurations
from benchmarks.common.machine import describe_run
from benchmarks.common.results import earlier_models, write_results, write_text
from benchmarks.common.subjects import DEFAULT_SAMPLES, METHODS, SAMPLED_MODELS, WITH_WEIGHTS, missing_data
from benchmarks.frontier.points import PRECISIONS, Point, Points, figures, in_order
from benchmarks.frontier.report import plot, report, suffix
from benchmarks.frontier.study import Study

BUDGETS: Final = (0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.25, 0.5)
TOLERANCES: Final = (0.05, 0.1)
DEFAULT_PRECISIONS: Final = ("fp32", "int8")  # half precision gains nothing on a CPU


def main(arguments: Sequence[str]) -> int:
    """Measure, write, plot; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="scorecam")
    parser.add_argument(
        "--models", nargs="+", choices=WITH_WEIGHTS, metavar="NAME", help=f"of {', '.join(WITH_WEIGHTS)}"
    )
    parser.add_argument("--photographs", type=whole_number, default=100, help="for fidelity (default %(default)s)")
    parser.add_argument("--timed", type=whole_number, default=5, help="photographs for the time (default %(default)s)")
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="F", help=f"of {'; '.join(FAMILIES)}"
    )
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, metavar="SHARE")
    parser.add_argument("--tolerances", nargs="+", type=float, default=TOLERANCES, metavar="T")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=DEFAULT_PRECISIONS, metavar="P")
    add_keep(parser)
    add_threads(parser)
    add_output(parser, "frontier")
    options = parser.parse_args(arguments)
    sampled = options.method in DEFAULT_SAMPLES
    models = options.models or (SAMPLED_MODELS if sampled else WITH_WEIGHTS)
    if missing := missing_data(models, real=True):
        say(missing)
        return 2
    wanted = configurations(
        options.method,
        families=options.families,
        budgets=options.budgets,
        tolerances=options.tolerances,
        precisions=options.precisions,
    )
    stem = options.output.with_name(options.output.name + suffix(options.method))
    settings = {
        "method": options.method,
        "photographs": options.photographs,
        "timed": options.timed,
        "threads": options.threads,
        "calibration": CALIBRATION_PHOTOGRAPHS,
    }
    run = describe_run("benchmarks.frontier", arguments)
    results: dict[str, Points] = {}
    if options.keep:
        kept = earlier_models(stem, run, settings)
        results = {model: {name: Point(**point) for name, point in points.items()} for model, points in kept.items()}
    for model in models:
        with tempfile.TemporaryDirectory(prefix="ortcam-frontier-") as folder:
            study = Study(model, settings, wanted, Path(folder))
            study.take_fidelity()
            study.take_time()
        results[model] = in_order(results.get(model, {}) | study.points)
        results = {name: results[name] for name in WITH_WEIGHTS if name in results}
        raw = {
            name: {label: dataclasses.asdict(point) for label, point in points.items()}
            for name, points in results.items()
        }
        write_results(stem, run=run, raw={"settings": settings, "models": raw}, figures=figures(results))
        text = report(results, settings, run)
        write_text(stem.withsuffix(".md"), text)
        plot(results, stem.withsuffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
