"""Which method's maps are faithful? The tables behind faithfulness.md, by `ortcam evaluate` on real models.

Every study is a list of methods on some models; a run of one study on one model is an evaluation in a folder of its own
under --work, which goes on where it was when it is started again. Tables go to
benchmarks/results/faithfulness-tables.md and .json, anew after every evaluation; what other runs of the same models
and studies found stays in them. Run as `python -m benchmarks.faithfulness`; all of it takes a night, `--studies` and
`--models` choose, `--limit` shortens.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.fidelity import calibration_folder
from benchmarks.common.measuring import (
    RESULTS,
    ROOT,
    Figure,
    add_threads,
    describe_run,
    run_in_words,
    say,
    table,
    whole_number,
    write_results,
    write_text,
)
from benchmarks.common.subjects import DATA, SUBJECTS, WITH_WEIGHTS, bundle_path, missing_data, photographs

STEM: Final = RESULTS / "faithfulness-tables"
SEED: Final = 0
KEPT_OUT: Final = 200  # photographs, the first by the seed, that int8 is not calibrated on
GATES: Final = ("tanh", "sigmoid", "sigmoid-relu", "relu", "mish", "swish", "softsign", "minmax")
SAMPLES: Final = (1, 2, 5, 10, 20, 35)
METHODS: Final = ("scorecam", "scorecam++", "recipro-cam", "ablation-cam", "eigen-cam")
FINER: Final = 4  # steps of insertion and deletion in one of the coarse ones, 25 instead of 100
COARSE_STEP: Final = FINER * math.ceil(224 * 224 / 100)


@dataclasses.dataclass(frozen=True)
class Study:
    """A question that one table a model answers.

    Attributes:
        name: in `--studies`.
        question: that it answers.
        methods: as `ortcam evaluate -m` takes them; the first is what the others are compared with.
        models: of SUBJECTS.
        images: how many, where nothing else is said.
        protocol: of `ortcam evaluate`.
        metrics: of `ortcam evaluate`; None for all.
        precisions: that the bundle has to have.
        alike: the method whose maps the others' are correlated with; None leaves that out.
        randomize: images for the randomised-weights check.
        step: pixels that a step of insertion and deletion changes; None for a hundredth of them.
    """

    name: str
    question: str
    methods: tuple[str, ...]
    models: tuple[str, ...]
    images: int = 100
    protocol: str = "soft-map"
    metrics: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ()
    alike: str | None = None
    randomize: int | None = None
    step: int | None = None


STUDIES: Final = {
    study.name: study
    for study in (
        Study(
            "methods",
            "Which method, on every metric?",
            METHODS,
            ("squeezenet1_1",),
            alike="scorecam",
            randomize=10,
        ),
        Study(
            "models",
            "The same on other models (insertion and deletion in 25 steps)",
            METHODS,
            ("mobilenet_v2", "resnet18", "deit_tiny"),
            alike="scorecam",
            step=COARSE_STEP,
        ),
        Study(
            "sampled",
            "Do SS-CAM and IS-CAM gain what their passes cost? (budgets of 12 %, completed)",
            ("scorecam:budget=0.12", "sscam:budget=0.12", "iscam:budget=0.12", "iscam:path=linear:budget=0.12"),
            ("squeezenet1_1", "mobilenet_v2"),
            images=40,
            alike="scorecam:budget=0.12",
        ),
        Study(
            "gates",
            "ScoreCAM++: which gate, and in the mask only or also in the sum? (budgets of 25 %, completed)",
            (
                *(f"scorecam++:gate={gate}:budget=0.25" for gate in GATES),
                "scorecam++:gate_sum=false:budget=0.25",
                "scorecam:budget=0.25",
            ),
            ("squeezenet1_1", "mobilenet_v2"),
            alike="scorecam:budget=0.25",
        ),
        Study(
            "samples",
            "SS-CAM: how many samples, and noise on what? (budgets of 12 %, completed)",
            (
                *(f"sscam:num_samples={count}:budget=0.12" for count in reversed(SAMPLES)),
                "sscam:noise=activation:num_samples=35:budget=0.12",
                "sscam:seed=1:num_samples=35:budget=0.12",
            ),
            ("squeezenet1_1",),
            images=40,
            metrics=("confidence", "adcc", "pointing"),
            alike=f"sscam:num_samples={SAMPLES[-1]}:budget=0.12",
        ),
        Study(
            "published",
            "ResNet-18 and the published ADCC figures",
            ("scorecam:maps=normalized", "scorecam"),
            ("resnet18",),
            protocol="adcc",
        ),
        Study(
            "approximations",
            "What do precisions and budgets do to faithfulness?",
            (
                "scorecam",
                "scorecam:precision=int8",
                "scorecam:precision=fp16",
                "scorecam:budget=0.25",
                "scorecam:budget=0.12",
                "scorecam:budget=0.12:precision=int8",
            ),
            ("squeezenet1_1", "mobilenet_v2"),
            images=60,
            precisions=("fp32", "fp16", "int8"),
            alike="scorecam",
        ),
    )
}

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


def evaluate(study: Study, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a study on a model, or go on with it, and return what is said of it."""
    from ortcam.evaluation.run import Evaluation

    bundle = _bundle(model, study.precisions, options.work)
    evaluation = Evaluation(
        bundle,
        DATA / "images.csv",
        options.work / f"{study.name}-{model}",
        methods=study.methods,
        protocol=study.protocol,
        metrics=study.metrics,
        limit=options.limit or study.images,
        seed=SEED,
        threads=options.threads,
        providers=["cpu"],
        randomize=study.randomize,
        step=study.step,
        resume=True,
    )

    def progress(made: int, total: int) -> None:
        if made % (10 * len(evaluation.variants)) == 0:
            say(f"{study.name}, {model}: {made}/{total}")

    report = evaluation.run(progress=progress)
    found: dict[str, Any] = json.loads((report.folder / "summary.json").read_text("utf-8"))
    drawn = {example.name for example in evaluation.examples}  # the journal may hold more, of a larger limit
    if study.alike is not None:
        found["alike"] = alike(report.folder, drawn, study.alike)
    if study.step is None and study.metrics is None:
        found["coarser"] = coarser(report.folder, drawn, study.methods[0])
    kept = ("images", "methods", "metrics", "table", "differences", "randomized", "alike", "coarser")
    return {key: found[key] for key in kept if key in found}


def alike(folder: Path, images: Collection[str], reference: str) -> dict[str, float]:
    """Mean Pearson correlation of every method's maps with the reference's, from the small maps in the journal."""
    from ortcam.evaluation.journal import read_measurements

    thumbnails: dict[tuple[str, str], Any] = {}
    for found in read_measurements(folder):
        if found.image not in images:
            continue
        thumbnails[found.image, found.variant] = found.thumbnail.astype(np.float64).ravel()
    values: dict[str, list[float]] = {}
    for (image, variant), pixels in thumbnails.items():
        other = thumbnails.get((image, reference))
        if other is not None and np.ptp(pixels) and np.ptp(other):
            values.setdefault(variant, []).append(float(np.corrcoef(pixels, other)[0, 1]))
    return {variant: float(np.mean(column)) for variant, column in values.items()}


def coarser(folder: Path, images: Collection[str], first: str) -> dict[str, float]:
    """What a quarter of the steps would change of insertion and deletion, from the curves in the journal.

    Returns:
        The largest change over metrics and methods, in points: `mean`, of a method's mean; `difference`, of that of a
        method less the first one.
    """
    from ortcam.evaluation.journal import read_measurements
    from ortcam.evaluation.metrics import area_under, shares

    changes: dict[tuple[str, str], list[float]] = {}
    for found in read_measurements(folder):
        for metric, curve in found.curves.items() if found.image in images else ():
            counts = shares(224 * 224, None)
            every, some = np.asarray(curve), np.append(np.arange(0, len(counts) - 1, FINER), len(counts) - 1)
            change = area_under(every[some], counts[some]) - area_under(every, counts)
            changes.setdefault((metric, found.variant), []).append(change)
    means = {key: float(np.mean(column)) for key, column in changes.items()}
    return {
        "mean": max(map(abs, means.values())),
        "difference": max(abs(mean - means[metric, first]) for (metric, _), mean in means.items()),
    }


def _bundle(model: str, precisions: Sequence[str], work: Path) -> Path:
    """Exported once; the evaluations that are gone on with want the same one."""
    folder = work / "-".join(["bundles", *precisions])
    from ortcam.evaluation.dataset import read_dataset
    from ortcam.request import class_index

    path = bundle_path(folder, model)
    if not path.exists():
        say(f"{model}: exporting")
        more: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if precisions:
            calibration = folder / "calibration"
            if not calibration.exists():
                by_index = functools.partial(class_index, labels=("",) * 1000)
                kept = read_dataset(DATA / "images.csv", by_index, limit=KEPT_OUT, seed=SEED)
                drawn = {item.name for item in kept}
                calibration_folder(folder, [item for item in photographs() if item.path.name in drawn])
            more = {"precision": list(precisions), "calibration": str(calibration)}
        SUBJECTS[model].export(folder, **more)
    return path


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
    images = found["images"]
    yield (
        f"### {model}: {images['measured']} images, {images['classified_as_labelled']} of them classified as labelled"
    )
    run = found["run"]
    yield f"`{run['command']}`, {run['date']}, {run['machine']['cpu']}"
    for groups in GROUPS:
        metrics = [metric for metric in found["metrics"] if metric["group"] in groups]
        metrics = [metric for metric in metrics if any(metric["name"] in row for row in found["table"].values())]
        if not metrics:
            continue
        head = ["method", *(f"{metric['title']} {_ARROWS[metric['better']]}" for metric in metrics)]
        yield table(head, ([method["title"], *_cells(found, method["name"], metrics)] for method in found["methods"]))
        compared = [metric for metric in metrics if metric["name"] in found["differences"]]
        first = next(method for method in found["methods"] if method["name"] == study.methods[0])
        others = [method for method in found["methods"] if method is not first]
        yield table(
            [f"less {first['title']}", *(f"{metric['title']} {_ARROWS[metric['better']]}" for metric in compared)],
            ([method["title"], *_apart(found, method["name"], first["name"], compared)] for method in others),
        )
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
            f"{found['coarser']['mean']:.2f}, differences from {first['title']} by at most "
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


def _figures(results: Mapping[str, Mapping[str, Any]]) -> Iterable[Figure]:
    for study, models in results.items():
        for model, found in models.items():
            better = {metric["name"]: metric["better"] for metric in found["metrics"]}
            for method, metric in itertools.product(found["table"], better):
                item = found["table"][method].get(metric)
                if item is not None:
                    name = f"{study} / {model} / {method} / {metric}"
                    yield Figure(name, "%", (item["mean"],), better[metric] or "lower")


def main(arguments: Sequence[str]) -> int:
    """Evaluate and write; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", nargs="+", choices=STUDIES, default=list(STUDIES), metavar="S", help=f"of {', '.join(STUDIES)}"
    )
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=WITH_WEIGHTS, metavar="NAME")
    parser.add_argument("--limit", type=whole_number, metavar="N", help="images (default: what the study says)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "faithfulness-runs", metavar="DIR", help="default: %(default)s"
    )
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.faithfulness", arguments)
    path = STEM.with_suffix(".json")
    results: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["studies"] if path.is_file() else {}
    text = ""
    for name, model in itertools.product(options.studies, options.models):
        if model not in STUDIES[name].models:
            continue
        results.setdefault(name, {})[model] = evaluate(STUDIES[name], model, options) | {"run": run}
        results = {study: results[study] for study in STUDIES if study in results}
        write_results(STEM, run=run, raw={"studies": results}, figures=_figures(results))
        text = report(results, run, options.threads)
        write_text(STEM.with_suffix(".md"), text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
