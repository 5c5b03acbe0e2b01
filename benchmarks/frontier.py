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
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.fidelity import (
    CALIBRATION_PHOTOGRAPHS,
    COMPLETED,
    EXACT,
    FAMILIES,
    HEAD,
    SAMPLED,
    TOLERANCE,
    Configuration,
    calibration_folder,
    configurations,
    pearson,
)
from benchmarks.common.measuring import (
    Figure,
    add_keep,
    add_output,
    add_threads,
    describe_run,
    earlier_models,
    median,
    run_in_words,
    say,
    table,
    whole_number,
    with_quartiles,
    write_results,
    write_text,
)
from benchmarks.common.plots import label_nines, legend_below, nines, panels, plain_numbers, save, style
from benchmarks.common.processes import Worker
from benchmarks.common.replay import load_remembering
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, Photograph, bundle_path, missing_data, photographs
from benchmarks.compare import DEFAULT_SAMPLES, METHODS, SAMPLED_MODELS

BUDGETS: Final = (0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.25, 0.5)
TOLERANCES: Final = (0.05, 0.1)
PRECISIONS: Final = ("fp32", "fp16", "int8")
DEFAULT_PRECISIONS: Final = ("fp32", "int8")  # half precision gains nothing on a CPU
AIMED_BUDGET: Final = 0.12
LETTERS_ABOVE: Final = (6, -12)  # points, in turn: marks lie close together
BATCH_SIZE: Final = 4  # where nothing is timed

REPORT: Final = """\
# {title}: fidelity and latency

![Pearson correlation with the exact map against time](frontier{suffix}.png)

Pearson correlation of a map with the exact float32 map of the same photograph and class (the most probable one), over
{settings[photographs]} photographs; time on {settings[timed]} of them, in brackets the quartiles. × is torch-cam's time
for its exact map by ours, as its README shows it, in the same turn. Passes are the median share of the channels.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are for non-commercial research
- int8, where it is in the table, is calibrated on {settings[calibration]} photographs, none of them explained here

## Targets

{targets}

## By model

{details}
"""


@dataclasses.dataclass(frozen=True)
class Point:
    """A configuration on one model.

    Attributes:
        family: of FAMILIES.
        precision: of the masked passes.
        options: of the explanation.
        pearson: with the exact map, a photograph each.
        shares: passes by those of the exact map, a photograph each.
        seconds: of the timed explanations.
        speedups: torch-cam's time by each of them.
    """

    family: str
    precision: str
    options: dict[str, Any]
    pearson: list[float]
    shares: list[float]
    seconds: list[float]
    speedups: list[float]

    @property
    def mean(self) -> float:
        """Mean correlation."""
        return float(np.mean(self.pearson))


Points = dict[str, Point]

# A family has a colour and a mark, a precision a line and a filling.
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "fp32": {"linestyle": "-"},
    "fp16": {"linestyle": "--", "markerfacecolor": "white"},
    "int8": {"linestyle": ":", "fillstyle": "left", "markerfacecoloralt": "white"},
}


class Study:
    """One model with all configurations."""

    def __init__(self, name: str, settings: Mapping[str, Any], wanted: Sequence[Configuration], folder: Path) -> None:
        """Export the model and open it in all precisions.

        Args:
            name: of SUBJECTS.
            settings: of the run.
            wanted: configurations, the exact one first.
            folder: for the bundle; empty.
        """
        import ortcam

        self._name, self._settings = name, settings
        self._photographs = photographs(settings["photographs"])
        precisions = list(dict.fromkeys(item.precision for item in wanted))
        more: dict[str, Any] = {}
        if precisions != ["fp32"]:
            more = {"precision": precisions, "calibration": str(calibration_folder(folder, self._photographs))}
        first = self._photographs[0]
        self._task = {
            "model": name,
            "layer": SUBJECTS[name].layer,
            "method": settings["method"],
            "folder": folder,
            "photograph": first.path.resolve(),
            "target": first.target,
            "batch-size": 32,
            "threads": settings["threads"],
        }
        self._folder = folder
        say(f"{name}: exporting")
        Worker("prepare", {**self._task, "export": json.dumps(more)}, folder).close()
        self._explainers = {
            precision: ortcam.load(
                bundle_path(folder, name),
                providers=["cpu"],
                threads=settings["threads"],
                precision=precision if more else None,
            )
            for precision in precisions
        }
        self.points: Points = {
            item.name: Point(item.family, item.precision, item.options, [], [], [], [])
            for item in wanted
            if _runs(self._explainers["fp32"], item, first)
        }

    def take_fidelity(self) -> None:
        """The maps of all photographs; nothing is timed."""
        remembering = {
            precision: load_remembering(explainer.bundle.path, threads=self._settings["threads"], precision=precision)
            for precision, explainer in self._explainers.items()
        }
        for index, item in enumerate(self._photographs):
            _take_fidelity(remembering, self.points, item)
            say(f"{self._name}: {index + 1}/{len(self._photographs)} photographs")

    def take_time(self) -> None:
        """The times of some of them."""
        timed = self._settings["timed"]
        with Worker("torch-cam", self._task, self._folder) as peer:
            for index, item in enumerate(photographs(timed)):
                _take_time(self._explainers, self.points, item, peer, self._settings["method"])
                say(f"{self._name}: timed {index + 1}/{timed}")


def _runs(explainer: Any, wanted: Configuration, item: Photograph) -> bool:
    """Whether a model has what a head-only method needs; the others always run."""
    from ortcam import OptionError

    if wanted.family != HEAD:
        return True
    try:
        explainer.explain(item.path, **wanted.options)
    except OptionError as error:
        say(f"left out: {error}")
        return False
    return True


def _take_fidelity(explainers: Mapping[str, Any], points: Points, item: Photograph) -> None:
    exact = None
    for point in points.values():
        target = None if exact is None else exact.targets
        explainer = explainers[point.precision]
        explanation = explainer.explain(item.path, target=target, batch_size=BATCH_SIZE, **point.options)
        exact = exact or explanation  # the first configuration
        point.pearson.append(pearson(explanation.maps[0], exact.maps[0]))
        point.shares.append(explanation.stats.passes / exact.stats.passes)


def _take_time(explainers: Mapping[str, Any], points: Points, item: Photograph, peer: Worker, method: str) -> None:
    samples = {"samples": DEFAULT_SAMPLES[method]} if method in DEFAULT_SAMPLES else {}
    target = int(np.argmax(explainers["fp32"].predict(item.path)))
    theirs = peer.ask(photograph=str(item.path.resolve()), target=target, **samples)["seconds"]
    for point in points.values():
        seconds = explainers[point.precision].explain(item.path, target=target, **point.options).stats.seconds
        point.seconds.append(seconds)
        point.speedups.append(theirs / seconds)


def report(models: Mapping[str, Points], settings: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    details = [
        [
            model,
            name,
            f"{point.mean:.4f}",
            f"{min(point.pearson):.4f}",
            "-" if point.family == HEAD else f"{100 * median(point.shares):.0f} %",
            with_quartiles(point.seconds, 3),
            with_quartiles(point.speedups, 1),
        ]
        for model, points in models.items()
        for name, point in points.items()
    ]
    words = f"{settings['method']}, float32 unless said, CPU, {settings['threads']} threads, batch size automatic"
    return REPORT.format(
        title=METHODS[settings["method"]][0],
        suffix=_suffix(settings["method"]),
        settings=settings,
        run=run_in_words(run, words),
        targets=table(["what", "target", "measured"], _targets(models)),
        details=table(["model", "configuration", "mean Pearson", "least", "passes", "time, s", "×"], details),
    )


def _targets(models: Mapping[str, Points]) -> Iterable[list[str]]:
    for model, points in models.items():
        for point in points.values():
            if point.family == COMPLETED and point.precision == "fp32" and point.options["budget"] == AIMED_BUDGET:
                yield [
                    f"{model}: Pearson at {AIMED_BUDGET:.0%} of the passes, mean and least",
                    "at least 0.99 and 0.95",
                    f"{point.mean:.4f} and {min(point.pearson):.4f}",
                ]
    for what, target, precisions in (
        ("float32, fewer passes alone", "at least 20", {"fp32"}),
        ("any precision", "at least 30", set(PRECISIONS)),
    ):
        fastest = {model: fastest_at(points, precisions) for model, points in models.items()}
        named = ", ".join(f"{model}: {name or 'none'}" for model, name in fastest.items())
        if all(fastest.values()):
            ratios = [median(models[model][name].speedups) for model, name in fastest.items() if name]
            measured = f"{statistics.geometric_mean(ratios):.1f} ({named})"
        else:
            measured = f"- ({named})"
        yield [f"× over torch-cam at mean Pearson 0.99, {what}, geometric mean", target, measured]


def fastest_at(points: Points, precisions: set[str], *, aim: float = 0.99) -> str | None:
    """The configuration with the largest speed-up among those of a mean correlation of at least `aim`."""
    enough = [
        name
        for name, point in points.items()
        if point.family in (EXACT, COMPLETED, TOLERANCE, SAMPLED)
        and point.precision in precisions
        and point.mean >= aim
    ]
    return max(enough, key=lambda name: median(points[name].speedups), default=None)


def plot(models: Mapping[str, Points], path: Path) -> None:
    """Small multiples: time on a logarithmic axis, correlation on one that counts its nines."""
    figure, axes = panels(len(models), columns=2, size=(5.2, 3.9))
    shown = list(
        dict.fromkeys((point.family, point.precision) for points in models.values() for point in points.values())
    )
    for axis, (model, points) in zip(axes, models.items(), strict=True):
        for family, precision in shown:
            series = [p for p in points.values() if (p.family, p.precision) == (family, precision)]
            series.sort(key=lambda point: median(point.seconds))
            seconds = [median(point.seconds) for point in series]
            heights = nines([point.mean for point in series])
            look = style(FAMILIES.index(family)) | _LOOKS[precision]
            if family in (EXACT, HEAD):
                look["linestyle"] = "none"
            label = family if precision == "fp32" else f"{family}, {precision}"
            if family == HEAD:
                label += ": Ablation-, Eigen-, Recipro-CAM, CAM"
            axis.plot(seconds, heights, label=label, markersize=6, linewidth=1.4, **look)
            if family == HEAD:
                for index, point in enumerate(series):
                    axis.annotate(
                        _letter(point),
                        (seconds[index], heights[index]),
                        xytext=(0, LETTERS_ABOVE[index % len(LETTERS_ABOVE)]),
                        textcoords="offset points",
                        fontsize=7,
                        ha="center",
                    )
        first = next(iter(points.values()))
        peer = median([ours * ratio for ours, ratio in zip(first.seconds, first.speedups, strict=True)])
        axis.axvline(peer, color="#555555", linestyle="--", linewidth=1)
        axis.annotate(
            "torch-cam", (peer, 0.03), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, ha="right",
            color="#555555",
        )  # fmt: skip
        axis.set_xscale("log")
        plain_numbers(axis.xaxis)
        axis.set_ylim(-0.35, 5.3)  # room for labels under marks at 0
        label_nines(axis)
        axis.set_title(model, fontsize=10)
        axis.set_xlabel("time of an explanation, s (logarithmic)")
        axis.set_ylabel("mean Pearson with the exact map")
    legend_below(figure, axes[0], columns=2)
    save(figure, path)


def _letter(point: Point) -> str:
    """The first letter of a head-only method; the legend has their names."""
    return str(point.options["method"])[0].upper()


def _figures(models: Mapping[str, Points]) -> Iterable[Figure]:
    for model, points in models.items():
        for name, point in points.items():
            yield Figure(f"{model} / {name} / mean Pearson", "Pearson", (point.mean,), "higher")
            yield Figure(f"{model} / {name} / least Pearson", "Pearson", (min(point.pearson),), "higher")
            yield Figure(f"{model} / {name} / latency", "s", tuple(point.seconds))
            yield Figure(f"{model} / {name} / speed-up over torch-cam", "x", tuple(point.speedups), "higher")


def _in_order(points: Points) -> Points:
    """As `configurations` has them, wherever they were measured; the exact one first."""

    def place(item: tuple[str, Point]) -> tuple[float, ...]:
        point = item[1]
        amounts = (float(point.options.get(key, 0)) for key in ("sampling_error", "tolerance", "budget"))
        return (FAMILIES.index(point.family), PRECISIONS.index(point.precision), *amounts)

    return dict(sorted(points.items(), key=place))


def _suffix(method: str) -> str:
    return "" if method == "scorecam" else f"-{method}"


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
    stem = options.output.with_name(options.output.name + _suffix(options.method))
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
        kept = earlier_models(stem.with_suffix(".json"), run, settings)
        results = {model: {name: Point(**point) for name, point in points.items()} for model, points in kept.items()}
    for model in models:
        with tempfile.TemporaryDirectory(prefix="ortcam-frontier-") as folder:
            study = Study(model, settings, wanted, Path(folder))
            study.take_fidelity()
            study.take_time()
        results[model] = _in_order(results.get(model, {}) | study.points)
        results = {name: results[name] for name in WITH_WEIGHTS if name in results}
        raw = {
            name: {label: dataclasses.asdict(point) for label, point in points.items()}
            for name, points in results.items()
        }
        write_results(stem, run=run, raw={"settings": settings, "models": raw}, figures=_figures(results))
        text = report(results, settings, run)
        write_text(stem.with_suffix(".md"), text)
        plot(results, stem.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
