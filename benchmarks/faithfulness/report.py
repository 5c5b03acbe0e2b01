"""All studies as Markdown, and their figures."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.common.figures import Figure, table
from benchmarks.common.machine import run_in_words
from benchmarks.common.subjects import WITH_WEIGHTS
from benchmarks.faithfulness.studies import FINER, KEPT_OUT, SEED, STUDIES, Study

GROUPS: Final = (("confidence", "adcc"), ("insertion", "deletion", "pointing"))

REPORT: Final = """\
# Faithfulness, measured: the tables

Percent; mean and, in brackets, the 95 % bootstrap interval over images; ↑ higher is better, ↓ lower is better. n is the
number of images, drawn from the 300 by seed {seed}; the pointing games count only those whose class was recognised.
Below each table: what a method differs by from the first one on the same images, **bold** where the interval excludes
zero, ✓ where that is for the better and ✗ where it is for the worse. Metrics and protocols are defined in
`runtime/ortcam/evaluation`. [faithfulness.md](faithfulness.md) says what follows from them.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are compressed, for non-commercial research
- int8 is calibrated on 32 photographs, none of the first {kept_out} drawn by the seed

{studies}
"""


def report(results: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any], threads: int) -> str:
    """All studies as Markdown."""
    words = f"CPU, {threads} threads, `ortcam evaluate` with the methods as they stand in the tables"
    parts: list[str] = []
    for study in STUDIES.values():
        models = results.get(study.name, {})
        if not models:
            continue
        parts.append(f"## {study.name}: {study.question}")
        parts.append(f"`python -m benchmarks.faithfulness --studies {study.name}`, protocol {study.protocol}")
        for model in (name for name in WITH_WEIGHTS if name in models):
            parts += _of_model(model, models[model], study)
    return REPORT.format(seed=SEED, kept_out=KEPT_OUT, run=run_in_words(run, words), studies="\n\n".join(parts))


def _of_model(model: str, found: Mapping[str, Any], study: Study) -> Iterator[str]:
    yield heading(model, found)
    run = found["run"]
    yield f"`{run['command']}`, {run['date']}, {run['machine']['cpu']}"
    yield from metric_tables(found, (study.methods[0],))
    head = ["method", "seconds, median", "passes, median", "flat maps"]
    rows = [
        [
            method["title"],
            *("-" if method[key] is None else f"{method[key]:{form}}" for key, form in _COSTS.items()),
            str(method["flat_maps"]),
        ]
        for method in found["methods"]
    ]
    if "alike" in found:
        head.append(f"Pearson with {study.alike}")
        for row, method in zip(rows, found["methods"], strict=True):
            row.append(f"{found['alike'].get(method['name'], float('nan')):.3f}")
    yield table(head, rows)
    if "coarser" in found:
        yield (
            f"With every {FINER}th step of insertion and deletion alone, means would change by at most "
            f"{found['coarser']['mean']:.2f}, differences from {_title(found, study.methods[0])} by at most "
            f"{found['coarser']['difference']:.2f} points."
        )
    if found.get("randomized"):
        yield "Randomised weights: Spearman correlation with the model's own map, by share of the weights shuffled"
        depths = [item["depth"] for item in next(iter(found["randomized"].values()))]
        titles = {method["name"]: method["title"] for method in found["methods"]}
        yield table(
            ["method", *("last weight" if depth == 0 else f"{depth:.0%}" for depth in depths)],
            (
                [titles[name], *(f"{item['mean']:.2f} {_interval(item, 2)}" for item in items)]
                for name, items in found["randomized"].items()
            ),
        )


def heading(model: str, found: Mapping[str, Any]) -> str:
    """The heading of a model's tables."""
    images = found["images"]
    return (
        f"### {model}: {images['measured']} images, {images['classified_as_labelled']} of them classified as labelled"
    )


def metric_tables(found: Mapping[str, Any], references: Sequence[str]) -> Iterator[str]:
    """All methods on all metrics, in two tables; below each, for each reference, what the others differ by from it.

    A method that a metric was not measured of has no cell, or no row, there.
    """
    for groups in GROUPS:
        metrics = [metric for metric in found["metrics"] if metric["group"] in groups]
        metrics = [metric for metric in metrics if any(metric["name"] in row for row in found["table"].values())]
        if not metrics:
            continue
        head = ["method", *(f"{metric['title']} {_ARROWS[metric['better']]}" for metric in metrics)]
        names = {metric["name"] for metric in metrics if metric["better"]}
        methods = [method for method in found["methods"] if names & found["table"][method["name"]].keys()]
        yield table(head, ([method["title"], *_cells(found, method["name"], metrics)] for method in methods))
        compared = [metric for metric in metrics if metric["name"] in found["differences"]]
        for first in references:
            rows = (
                [method["title"], *_apart(found, method["name"], first, compared)]
                for method in methods
                if method["name"] != first
            )
            yield table(
                [
                    f"less {_title(found, first)}",
                    *(f"{metric['title']} {_ARROWS[metric['better']]}" for metric in compared),
                ],
                rows,
            )


def _title(found: Mapping[str, Any], name: str) -> str:
    return str(next(method["title"] for method in found["methods"] if method["name"] == name))


_COSTS: Final = {"median_seconds": ".2f", "median_passes": ".0f"}
_ARROWS: Final = {"higher": "↑", "lower": "↓", None: ""}


def _cells(found: Mapping[str, Any], name: str, metrics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for metric in metrics:
        item = found["table"][name].get(metric["name"])
        yield "-" if item is None else f"{item['mean']:.2f} {_interval(item, 1)}"


def _apart(found: Mapping[str, Any], name: str, first: str, metrics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of every metric, the method less the first one."""
    for metric in metrics:
        pairs = found["differences"][metric["name"]]
        item = next((pair for pair in pairs if {pair["first"], pair["second"]} == {name, first}), None)
        if item is None:
            yield "-"
            continue
        sign = 1 if item["first"] == name else -1
        mean = sign * item["interval"]["mean"] + 0.0  # no minus before a zero
        ends = [item["interval"][end] for end in ("low", "high")]
        ends = sorted(sign * end + 0.0 for end in ends if end is not None)
        text = f"{mean:+.2f}" + (f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else "")
        yield text if item["better"] is None else f"**{text}** {'✓' if item['better'] == name else '✗'}"


def _interval(item: Mapping[str, Any], digits: int) -> str:
    return "" if item["low"] is None else f"[{item['low']:.{digits}f}, {item['high']:.{digits}f}]"


def figures(results: Mapping[str, Mapping[str, Any]]) -> Iterable[Figure]:
    """What is compared between commits."""
    for study, models in results.items():
        for model, found in models.items():
            better = {metric["name"]: metric["better"] for metric in found["metrics"]}
            for method, metric in itertools.product(found["table"], better):
                item = found["table"][method].get(metric)
                if item is not None:
                    name = f"{study} / {model} / {method} / {metric}"
                    yield Figure(name, "%", (item["mean"],), better[metric] or "lower")
