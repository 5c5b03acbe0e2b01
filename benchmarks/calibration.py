"""Is the estimate of the remaining error honest? Estimated against true error, over many photographs and models.

A photograph is explained exactly and then with tolerances and budgets; the true error is the largest |difference| of
the two maps in [0,1], the estimate is what the result states. Results go to benchmarks/results/calibration.md, .json
and .png, anew after every model; `--keep` leaves the models of an earlier run in them. Run as
`python -m benchmarks.calibration`; it takes an hour.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_keep, add_output, add_threads, say, whole_number
from benchmarks.common.fidelity import COMPLETED, EXACT, TOLERANCE, Configuration, configurations, pearson
from benchmarks.common.figures import Figure, median, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.plots import legend_below, panels, plain_numbers, save, style
from benchmarks.common.replay import load_remembering
from benchmarks.common.results import earlier_models, write_results, write_text
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, Photograph, missing_data, photographs

MODELS: Final = ("squeezenet1_1", "mobilenet_v2", "resnet18")
TOLERANCES: Final = (0.02, 0.05, 0.1)
BUDGETS: Final = (0.06, 0.12, 0.25)
# The first photographs chose the factor in ortcam.scoring.gaussian_process; they would flatter it.
CHOSE_THE_FACTOR: Final = 100
AIMED_TOLERANCE: Final = 0.05
BATCH_SIZE: Final = 4
SMALLEST: Final = 1e-4

REPORT: Final = """\
# The estimate of the remaining error against the error

![Estimated against true error](calibration.png)

{settings[photographs]} photographs, none of the first {factor}, which chose the factor in gaussian_process.py; each
explained exactly and with every configuration, for its most probable class. The error is the largest |difference| of
the two maps in [0,1]; covered is the share of explanations whose error is at most the tolerance, or at most the
estimate. Passes are the median share of the exact map's.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research

Aim: a tolerance of {aim} keeps the true error under it in at least 90 % of the explanations. Measured over all models:
{measured}.

{details}
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One explanation beside the exact one.

    Attributes:
        photograph: file name.
        estimated: error, as the result states it.
        true: error.
        pearson: of the two maps.
        share: of the exact map's passes.
    """

    photograph: str
    estimated: float
    true: float
    pearson: float
    share: float


Runs = dict[str, list[Run]]


def measure(name: str, settings: Mapping[str, Any], wanted: Sequence[Configuration]) -> Runs:
    """Every configuration on every photograph of one model."""
    import ortcam

    chosen = photographs()[CHOSE_THE_FACTOR:][: settings["photographs"]]
    with tempfile.TemporaryDirectory(prefix="ortcam-calibration-") as folder:
        say(f"{name}: exporting")
        bundle = SUBJECTS[name].export(Path(folder))
        if settings["method"] == "scorecam++":  # gated sums come from whole runs of the graph
            explainer = ortcam.load(bundle, providers=["cpu"], threads=settings["threads"])
        else:
            explainer = load_remembering(bundle, threads=settings["threads"])
        runs: Runs = {item.name: [] for item in wanted}
        for index, item in enumerate(chosen):
            for label, run in _of_photograph(explainer, item, settings["method"], wanted):
                runs[label].append(run)
            if (index + 1) % 10 == 0:
                say(f"{name}: {index + 1}/{len(chosen)} photographs")
    return runs


def _of_photograph(
    explainer: Any, item: Photograph, method: str, wanted: Sequence[Configuration]
) -> Iterable[tuple[str, Run]]:
    exact = explainer.explain(item.path, method=method, batch_size=BATCH_SIZE)
    for configuration in wanted:
        explanation = explainer.explain(item.path, target=exact.targets, batch_size=BATCH_SIZE, **configuration.options)
        estimated = explanation.stats.estimated_error
        assert estimated is not None  # None is for weights that were not completed
        yield (
            configuration.name,
            Run(
                photograph=item.path.name,
                estimated=estimated[0],
                true=float(np.abs(explanation.maps[0] - exact.maps[0]).max()),
                pearson=pearson(explanation.maps[0], exact.maps[0]),
                share=explanation.stats.passes / exact.stats.passes,
            ),
        )


def coverage(runs: Sequence[Run], tolerance: float | None) -> float:
    """The share of runs whose error is at most the tolerance; at most their own estimate where there is none."""
    return float(np.mean([run.true <= (run.estimated if tolerance is None else tolerance) for run in runs]))


def report(models: Mapping[str, Runs], settings: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    details = []
    for model, by_configuration in models.items():
        for name, runs in by_configuration.items():
            tolerance = _tolerance(name)
            errors = [item.true for item in runs]
            low, high = np.percentile([item.share for item in runs], [25, 75])
            details.append(
                [
                    model,
                    name,
                    "-" if tolerance is None else f"{coverage(runs, tolerance):.1%}",
                    f"{coverage(runs, None):.1%}",
                    f"{median(errors):.3f}",
                    f"{np.percentile(errors, 90):.3f}",
                    f"{max(errors):.3f}",
                    f"{np.mean([item.pearson for item in runs]):.4f}",
                    f"{100 * median([item.share for item in runs]):.0f} % [{100 * low:.0f}, {100 * high:.0f}]",
                ]
            )
    head = [
        "model",
        "configuration",
        "within tolerance",
        "within estimate",
        "error, median",
        "90th percentile",
        "largest",
        "mean Pearson",
        "passes",
    ]
    words = f"{settings['method']}, float32, CPU, {settings['threads']} threads, batch size {BATCH_SIZE}"
    aimed = f"{TOLERANCE} {AIMED_TOLERANCE:g}"
    every = [item for runs in models.values() for item in runs.get(aimed, [])]
    measured = (
        f"{coverage(every, AIMED_TOLERANCE):.1%} of {len(every)}, with {median([item.share for item in every]):.0%} of "
        "the passes (median)"
        if every
        else "not in this run"
    )
    return REPORT.format(
        settings=settings,
        factor=CHOSE_THE_FACTOR,
        run=run_in_words(run, words),
        aim=AIMED_TOLERANCE,
        measured=measured,
        details=table(head, details),
    )


def _tolerance(name: str) -> float | None:
    return float(name.removeprefix(TOLERANCE)) if name.startswith(TOLERANCE) else None


def plot(models: Mapping[str, Runs], path: Path) -> None:
    """A panel a model: estimate against error, both logarithmic, and the line where they are equal."""
    figure, axes = panels(len(models), columns=3, size=(4.4, 4.2))
    for axis, (model, by_configuration) in zip(axes, models.items(), strict=True):
        for index, (name, runs) in enumerate(by_configuration.items()):
            axis.scatter(
                [max(run.estimated, SMALLEST) for run in runs],
                [max(run.true, SMALLEST) for run in runs],
                s=10,
                alpha=0.5,
                linewidths=0,
                label=name,
                **style(index),
            )
        axis.plot([SMALLEST, 1], [SMALLEST, 1], color="#555555", linestyle="--", linewidth=1)
        axis.annotate("estimate = error", (1.4e-4, 2.1e-4), rotation=45, fontsize=7, color="#555555")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(SMALLEST * 0.8, 1.2)
        axis.set_ylim(SMALLEST * 0.8, 1.2)
        for direction in (axis.xaxis, axis.yaxis):
            plain_numbers(direction)
        axis.set_aspect("equal")
        axis.set_title(model, fontsize=10)
        axis.set_xlabel("estimated error of the map")
        axis.set_ylabel("true error (max |difference|, map in [0,1])")
    legend_below(figure, axes[0], columns=min(3, len(models)))
    save(figure, path)


def _figures(models: Mapping[str, Runs]) -> Iterable[Figure]:
    for model, by_configuration in models.items():
        for name, runs in by_configuration.items():
            label = f"{model} / {name}"
            yield Figure(f"{label} / within estimate", "share", (coverage(runs, None),), "higher")
            if (tolerance := _tolerance(name)) is not None:
                yield Figure(f"{label} / within tolerance", "share", (coverage(runs, tolerance),), "higher")
            yield Figure(f"{label} / error", "map", tuple(run.true for run in runs))
            yield Figure(f"{label} / passes", "share", tuple(run.share for run in runs))


def main(arguments: Sequence[str]) -> int:
    """Measure, write, plot; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("scorecam", "scorecam++", "sscam", "iscam"), default="scorecam")
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=MODELS, metavar="NAME")
    parser.add_argument("--photographs", type=whole_number, default=200, help="of each model (default %(default)s)")
    parser.add_argument("--tolerances", nargs="*", type=float, default=TOLERANCES, metavar="T")
    parser.add_argument("--budgets", nargs="*", type=float, default=BUDGETS, metavar="SHARE")
    add_keep(parser)
    add_threads(parser)
    add_output(parser, "calibration")
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    every = configurations(
        options.method,
        families=(TOLERANCE, COMPLETED),
        budgets=options.budgets,
        tolerances=options.tolerances,
        precisions=("fp32",),
    )
    wanted = [item for item in every if item.family != EXACT]
    settings = {"method": options.method, "photographs": options.photographs, "threads": options.threads}
    run = describe_run("benchmarks.calibration", arguments)
    results: dict[str, Runs] = {}
    if options.keep:
        kept = earlier_models(options.output, run, settings)
        results = {
            model: {name: [Run(**item) for item in runs] for name, runs in by_configuration.items()}
            for model, by_configuration in kept.items()
        }
    for model in options.models:
        results[model] = measure(model, settings, wanted)
        results = {name: results[name] for name in WITH_WEIGHTS if name in results}
        raw = {
            name: {label: [dataclasses.asdict(item) for item in runs] for label, runs in by_configuration.items()}
            for name, by_configuration in results.items()
        }
        write_results(options.output, run=run, raw={"settings": settings, "models": raw}, figures=_figures(results))
        text = report(results, settings, run)
        write_text(options.output.with_suffix(".md"), text)
        plot(results, options.output.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
