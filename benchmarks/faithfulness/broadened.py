"""Is ScoreCAM++'s gain more than a broader map? Both maps brought to the same mean by a power, and the metrics again.

A power of a map keeps the order of its pixels, so insertion and deletion stay what they are; Average Drop and Increase
in Confidence do not, since more of the image shows. For every photograph the power is found that gives Score-CAM's map
the mean (the complexity) of ScoreCAM++'s, and the other way round. Results go to benchmarks/results/broadened.md and
.json. Run as `python -m benchmarks.faithfulness.broadened`; needs $ORTCAM_TEST_DATA.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_keep, add_threads, say, whole_number
from benchmarks.common.figures import Figure, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import RESULTS, earlier_models, write_results, write_text
from benchmarks.common.subjects import DATA, SUBJECTS, WITH_WEIGHTS, missing_data
from numpy.typing import NDArray

STEM: Final = RESULTS / "broadened"
SEED: Final = 0
_NOTHING: Final = 1e-6  # percent; what bisection leaves
MAPS: Final = {
    "scorecam": "Score-CAM",
    "scorecam, broadened": "Score-CAM, as broad as ScoreCAM++",
    "scorecam++": "ScoreCAM++",
    "scorecam++, narrowed": "ScoreCAM++, as narrow as Score-CAM",
}
METRICS: Final = ("average-drop", "increase", "average-gain", "complexity")
PAIRS: Final = (
    ("scorecam++", "scorecam"),
    ("scorecam++", "scorecam, broadened"),
    ("scorecam++, narrowed", "scorecam"),
)

REPORT: Final = """\
# Is ScoreCAM++'s gain more than a broader map?

Score-CAM's map M is taken to the power g for which the mean of M^g is that of ScoreCAM++'s map of the same photo, and
ScoreCAM++'s to the power that gives it the mean of Score-CAM's. A power keeps the order of the pixels, so insertion,
deletion and the pointing game are those of the maps as they are. Percent; mean and 95 % bootstrap interval; protocol
soft-map. **Bold** where the interval of a difference excludes zero.

{run}

{models}
"""


def power_to(saliency: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """The power of a map in [0,1] that has a mean, by bisection on the exponent's logarithm."""
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        if (saliency ** np.exp(middle)).mean() > mean:
            low = middle
        else:
            high = middle
    power: NDArray[np.float64] = saliency ** np.exp(low)
    return power


def measure(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The scores of every photograph: metric -> map -> a value a photograph."""
    import ortcam
    from ortcam.engine.features import exact_probabilities
    from ortcam.evaluation import metrics
    from ortcam.evaluation.dataset import read_dataset

    found: dict[str, dict[str, list[float]]] = {metric: {name: [] for name in MAPS} for metric in METRICS}
    images = []
    with tempfile.TemporaryDirectory() as folder:
        say(f"{model}: exporting")
        explainer = ortcam.load(SUBJECTS[model].export(Path(folder)), threads=options.threads, providers=["cpu"])
        examples = read_dataset(DATA / "images.csv", explainer.class_index, limit=options.limit, seed=SEED)
        for place, example in enumerate(examples):
            photograph = explainer.read(example.path)
            plain, gated = (explainer.explain(photograph, method=name) for name in ("scorecam", "scorecam++"))
            if plain.flat[0] or gated.flat[0]:
                say(f"{example.name}: a flat map; left out")
                continue
            one, other = (found.maps[0].astype(np.float64) for found in (plain, gated))
            maps = (one, power_to(one, other.mean()), other, power_to(other, one.mean()))
            image = photograph.model_input
            shown = np.concatenate([image, *(saliency.astype(np.float32) * image for saliency in maps)])
            logits = explainer.logits(len(shown), shown.__getitem__)
            clean, *masked = exact_probabilities(logits, explainer.bundle.manifest.activation)[:, plain.targets[0]]
            for name, saliency, confidence in zip(MAPS, maps, masked, strict=True):
                found["average-drop"][name].append(metrics.average_drop(clean, confidence))
                found["increase"][name].append(100.0 * (confidence > clean))
                found["average-gain"][name].append(metrics.average_gain(clean, confidence))
                found["complexity"][name].append(100 * float(saliency.mean()))
            images.append(example.name)
            if place % 10 == 9:
                say(f"{model}: {place + 1}/{len(examples)}")
    return {"images": images, "scores": found}


def _summary(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Intervals by metric and map, and differences by metric, as the evaluation has them."""
    from ortcam.evaluation import metrics, statistics

    kinds = {metric.name: metric for metric in metrics.METRICS}
    values = {name: {key: np.array(column) for key, column in row.items()} for name, row in scores.items()}
    return {
        name: (
            statistics.intervals(row, seed=SEED),
            {(pair.first, pair.second): pair.interval for pair in statistics.differences(row, kinds[name], seed=SEED)},
        )
        for name, row in values.items()
    }


def report(models: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any], threads: int) -> str:
    """All models as Markdown."""
    from ortcam.evaluation import metrics

    kinds = {metric.name: metric for metric in metrics.METRICS}
    head = [f"{kinds[name].title} {'↓' if kinds[name].better == 'lower' else '↑'}" for name in METRICS]
    parts = []
    for model, found in models.items():
        summary = _summary(found["scores"])
        rows = [[title, *(_cell(summary[metric][0][name]) for metric in METRICS)] for name, title in MAPS.items()]
        apart = []
        for first, second in PAIRS:
            cells = [_difference(summary[metric][1], first, second) for metric in METRICS]
            apart.append([f"{MAPS[first]} less {MAPS[second]}", *cells])
        parts += [f"## {model}, {len(found['images'])} photographs", table(["map", *head], rows)]
        parts += [table(["difference", *head], apart)]
    words = f"CPU, {threads} threads, every channel scored"
    return REPORT.format(run=run_in_words(run, words), models="\n\n".join(parts))


def _cell(interval: Any) -> str:
    return f"{interval.mean:.2f}" + ("" if interval.low is None else f" [{interval.low:.1f}, {interval.high:.1f}]")


def _difference(found: Mapping[tuple[str, str], Any], first: str, second: str) -> str:
    sign = 1 if (first, second) in found else -1
    interval = found[first, second] if sign == 1 else found[second, first]
    text = f"{sign * interval.mean:+.2f}"
    if interval.low is None:
        return text
    low, high = sorted((sign * interval.low, sign * interval.high))
    text += f" [{low:+.1f}, {high:+.1f}]"
    return text if low <= _NOTHING and high >= -_NOTHING else f"**{text}**"


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WITH_WEIGHTS, default=["squeezenet1_1"], metavar="NAME")
    parser.add_argument("--limit", type=whole_number, default=100, metavar="N", help="photographs (default 100)")
    add_keep(parser)
    add_threads(parser)
    options = parser.parse_args(arguments)
    if missing := missing_data(options.models, real=True):
        say(missing)
        return 2
    run = describe_run("benchmarks.faithfulness.broadened", arguments)
    models = earlier_models(STEM, run, {}) if options.keep else {}
    for model in options.models:
        models[model] = measure(model, options)
        models = {name: models[name] for name in WITH_WEIGHTS if name in models}
        figures = [
            Figure(
                f"{name} / {key} / {metric}",
                "%",
                (float(np.mean(column)),),
                "lower" if metric in ("average-drop", "complexity") else "higher",
            )
            for name, found in models.items()
            for metric, row in found["scores"].items()
            for key, column in row.items()
        ]
        write_results(STEM, run=run, raw={"settings": {}, "models": models}, figures=figures)
        write_text(STEM.with_suffix(".md"), report(models, run, options.threads))
    print(report(models, run, options.threads))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
