"""The frontier as Markdown and as a plot."""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.common.fidelity import COMPLETED, EXACT, FAMILIES, HEAD
from benchmarks.common.figures import median, table, with_quartiles
from benchmarks.common.machine import run_in_words
from benchmarks.common.plots import label_nines, legend_below, nines, panels, plain_numbers, save, style
from benchmarks.common.subjects import METHODS
from benchmarks.frontier.points import PRECISIONS, Point, Points, fastest_at

AIMED_BUDGET: Final = 0.12
LETTERS_ABOVE: Final = (6, -12)  # points, in turn: marks lie close together

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


# A family has a colour and a mark, a precision a line and a filling.
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "fp32": {"linestyle": "-"},
    "fp16": {"linestyle": "--", "markerfacecolor": "white"},
    "int8": {"linestyle": ":", "fillstyle": "left", "markerfacecoloralt": "white"},
}


def suffix(method: str) -> str:
    """What the names of a method's files end in."""
    return "" if method == "scorecam" else f"-{method}"


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
        title=METHODS[settings["method"]],
        suffix=suffix(settings["method"]),
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
