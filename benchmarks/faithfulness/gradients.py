"""Gradient methods beside those that mask the image or ask the head, on the same photographs, with real weights.

Every entry gets the metrics of the confidence and the pointing game; ADCC and the curves (insertion and deletion with
zeros, 25 steps) are measured where PARTS says so. Also: does ScoreCAM++ beat the baselines of its paper? A journal per
model lies under --work; what is in it is not measured again, and `--parts` adds to it. Results go to
benchmarks/results/faithfulness-gradients.md and .json. Run as `python -m benchmarks.faithfulness.gradients`; all of it
takes hours.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_threads, say, whole_number
from benchmarks.common.figures import Figure, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import RESULTS, ROOT, write_results, write_text
from benchmarks.common.subjects import SUBJECTS, WITH_WEIGHTS, bundle_path, missing_data
from benchmarks.faithfulness.parts import PROTOCOL, Part, measure, open_journal, photographs_of
from benchmarks.faithfulness.report import heading, metric_tables
from benchmarks.faithfulness.studies import COARSE_STEP, SEED

from ortcam.evaluation.entries import Entry
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.metrics import share_changed
from ortcam.evaluation.protocols import resolve_metrics
from ortcam.evaluation.results import Results, as_json, collect, summarise
from ortcam.explainer import load

STEM: Final = RESULTS / "faithfulness-gradients"
PIXELS: Final = 224 * 224
MEASURED: Final = 0.9

CURVES: Final = ("insertion-zero", "deletion-zero")
ALL: Final = ("confidence", "adcc", *CURVES, "pointing")
WITHOUT_ADCC: Final = ("confidence", "complexity", *CURVES, "pointing")  # coherency costs a second explanation
WITHOUT_CURVES: Final = ("confidence", "adcc", "pointing")
WITHOUT_CURVES_OR_ADCC: Final = ("confidence", "complexity", "pointing")
CONFIDENCE: Final = ("average-drop", "increase", "average-gain", "win")

CONVOLUTIONAL: Final = ("squeezenet1_1", "mobilenet_v2", "resnet18")
AUGMENTED: Final = "grad-cam++:augment=10"
PARTS: Final = (
    Part("masked", ("scorecam", "scorecam++"), WITHOUT_ADCC, ("squeezenet1_1",)),
    Part("masked", ("scorecam:budget=0.12", "scorecam++:budget=0.12"), WITHOUT_ADCC, ("mobilenet_v2",)),
    Part("masked", ("scorecam:budget=0.12", "scorecam++:budget=0.12"), WITHOUT_CURVES_OR_ADCC, ("resnet18",)),
    # Of DeiT-tiny a budget gives another map: its maps have both signs, and cancel.
    Part("masked", ("scorecam", "scorecam++"), WITHOUT_CURVES_OR_ADCC, ("deit_tiny",)),
    Part("head", ("recipro-cam",), ALL, WITH_WEIGHTS),
    Part("gradients", ("grad-cam",), ALL, WITH_WEIGHTS),
    Part("gradients", ("grad-cam++",), ALL, CONVOLUTIONAL),
    Part("gradients", ("layer-cam",), ALL, ("squeezenet1_1", "mobilenet_v2")),
    Part("attention", ("grad-attention",), ALL, ("deit_tiny",)),
    Part("more", ("layer-cam",), WITHOUT_CURVES, ("resnet18",)),
    Part("more", ("grad-cam++", "layer-cam", "grad-attention:positive=heads"), WITHOUT_CURVES, ("deit_tiny",)),
    # Where the gradient is the same everywhere, these are Grad-CAM and Grad-CAM++. HiResCAM is zero at tokens before
    # a LayerNorm. Smooth Grad-CAM++ is Grad-CAM++ also where g_k is a number per channel times a factor per position
    # that all channels share, as of SqueezeNet's ReLU behind its 1x1 convolution: noise scales all weights alike.
    Part("more", ("xgrad-cam",), WITHOUT_CURVES, ("squeezenet1_1", "deit_tiny")),
    Part("more", ("hires-cam",), WITHOUT_CURVES, ("squeezenet1_1",)),
    Part("more", ("smooth-grad-cam++",), WITHOUT_CURVES, ("deit_tiny",)),
    Part("more", ("finer-cam",), WITHOUT_CURVES, WITH_WEIGHTS),
    Part("augmented", (AUGMENTED,), WITHOUT_CURVES, WITH_WEIGHTS),
    Part("baselines", ("random-weights", "mean-activation", "centred-gaussian"), WITHOUT_CURVES, WITH_WEIGHTS),
)
# The methods of the paper's table: its own, and its baselines.
OF_THE_PAPER: Final = ("grad-cam", "grad-cam++", AUGMENTED)

REPORT: Final = """\
# Faithfulness of gradient methods: the tables

Percent; mean and, in brackets, the 95 % bootstrap interval over images; ↑ higher is better, ↓ lower is better. n is the
number of images, drawn from the 300 by seed {seed}, the same for all models and the same as in
[faithfulness-tables.md](faithfulness-tables.md); the pointing games count only those whose class was recognised. Below
each table: what a method differs by from another on the same images, **bold** where the interval excludes zero, ✓ where
that is for the better and ✗ where it is for the worse. Insertion and deletion in 25 steps, with zeros as the fill. A
dash: not measured, because it costs many passes. [faithfulness.md](faithfulness.md) says what follows from them.

{run}
- Weights: described in the data folder's README.md; those of resnet18 are compressed, for non-commercial research
- Score-CAM and ScoreCAM++ score every channel of SqueezeNet 1.1 and DeiT-tiny, an eighth of the others', the rest
  completed. What a table lacks, its run had no time for: the command without `--parts` measures it

## Does ScoreCAM++ beat the baselines of its paper?

Means, and each of them less ScoreCAM++: ✗ where ScoreCAM++ is ahead. Win: among these methods alone. AugGradCAM++ is
`{augmented}`.

{claim}

{models}
"""


def found(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing of a model, and return what is said of all that is measured."""
    explainer = load(_bundle(model, options.work), threads=options.threads, providers=["cpu"])
    examples = photographs_of(explainer, options.limit)
    parts = [part for part in PARTS if model in part.models]
    with open_journal(options.work, model) as journal:
        for part in parts:
            if options.parts is None or part.name in options.parts:
                measure(part, explainer, examples, journal)
        entries = [entry for part in parts for entry in part.entries]
        return summary(journal, entries, [example.name for example in examples])


def summary(journal: Journal, entries: Sequence[Entry], images: Iterable[str]) -> dict[str, Any]:
    """What is said of the entries that are measured, over the images on which all of them are.

    An entry that a run was stopped at, with less than MEASURED of the images, is left out. `contest` is the same of the
    methods of the paper alone, on the metrics of its table.
    """
    by_entry: dict[str, set[str]] = {}
    for image, variant in journal.measured():
        by_entry.setdefault(variant, set()).add(image)
    asked = set(images)
    measured = [item for item in entries if len(asked & by_entry.get(item.name, set())) >= MEASURED * len(asked)]
    measured.sort(key=lambda item: item.baseline is not None)
    common = asked.intersection(*(by_entry[item.name] for item in measured))
    contest = [item for item in measured if item.name.startswith("scorecam") or item.name in OF_THE_PAPER]
    wanted = [name for name in resolve_metrics(None, PROTOCOL) if name != "win"]
    share = share_changed(PIXELS, COARSE_STEP)

    def summed(of: Sequence[Entry], metrics: Sequence[str]) -> dict[str, Any]:
        results = collect(journal, common, of, metrics, share)
        _leave_out_parts(results)
        said: dict[str, Any] = json.loads(as_json(results, summarise(results, PROTOCOL, seed=SEED), {}))
        return {key: said[key] for key in ("images", "methods", "metrics", "table", "differences")}

    return {**summed(measured, wanted), "contest": summed(contest, CONFIDENCE)}


def _leave_out_parts(results: Results) -> None:
    """Take out a metric of an entry that has less than MEASURED of what others have: it was asked for in part."""
    for metric in results.metrics:
        columns = [row[metric.name] for row in results.values.values()]
        counts = [np.count_nonzero(~np.isnan(column)) for column in columns]
        for column, count in zip(columns, counts, strict=True):
            if count < MEASURED * max(counts):
                column[:] = np.nan


def _bundle(model: str, work: Path) -> Path:
    folder = work / "bundles"
    path = bundle_path(folder, model)
    if not path.exists():
        say(f"{model}: exporting")
        folder.mkdir(parents=True, exist_ok=True)
        SUBJECTS[model].export(folder)
    return path


def report(models: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any], threads: int) -> str:
    """All models as Markdown."""
    parts = []
    for model, item in models.items():
        parts.append(heading(model, item).replace("###", "##", 1))
        names = [method["name"] for method in item["methods"]]
        parts += metric_tables(item, [name for name in names if name.startswith(("scorecam", "recipro-cam"))])
        rows = (
            [method["title"], f"{method['median_passes']:.0f}", str(method["flat_maps"])] for method in item["methods"]
        )
        parts.append(table(["method", "masked passes, median", "flat maps"], rows))
    words = f"CPU, {threads} threads, protocol {PROTOCOL.name}"
    return REPORT.format(
        seed=SEED,
        run=run_in_words(run, words),
        augmented=AUGMENTED,
        claim="\n\n".join(_claim(models)),
        models="\n\n".join(parts),
    )


def _claim(models: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Means of the methods in the paper's table, and each of the others less ScoreCAM++."""
    for model, item in models.items():
        contest = item["contest"]
        names = [method["name"] for method in contest["methods"]]
        gated = next((name for name in names if name.startswith("scorecam++")), None)
        if gated is None:
            continue
        contest = {**contest, "methods": sorted(contest["methods"], key=lambda method: method["name"] != gated)}
        yield f"**{model}**"
        yield from metric_tables(contest, (gated,))


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=WITH_WEIGHTS, metavar="NAME")
    names = list(dict.fromkeys(part.name for part in PARTS))
    parser.add_argument(
        "--parts", nargs="*", choices=names, metavar="PART", help=f"of {', '.join(names)} (default: all)"
    )
    parser.add_argument("--limit", type=whole_number, default=100, metavar="N", help="photographs (default 100)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "faithfulness-runs", metavar="DIR", help="default: %(default)s"
    )
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.faithfulness.gradients", arguments)
    models: dict[str, Any] = {}
    for model in options.models:
        models[model] = found(model, options)
        write_results(STEM, run=run, raw={"models": models}, figures=figures(models))
        write_text(STEM.with_suffix(".md"), report(models, run, options.threads))
    print(report(models, run, options.threads))
    return 0


def figures(models: Mapping[str, Mapping[str, Any]]) -> Iterable[Figure]:
    """What is compared between commits."""
    for model, item in models.items():
        better = {metric["name"]: metric["better"] for metric in item["metrics"]}
        for method, row in item["table"].items():
            for metric, interval in row.items():
                yield Figure(f"{model} / {method} / {metric}", "%", (interval["mean"],), better[metric] or "lower")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
