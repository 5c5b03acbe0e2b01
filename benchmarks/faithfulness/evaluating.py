"""One study on one model: the evaluation, and what its journal says beyond its summary."""

import argparse
import functools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common.arguments import say
from benchmarks.common.fidelity import calibration_folder
from benchmarks.common.subjects import DATA, SUBJECTS, bundle_path, photographs
from benchmarks.faithfulness.studies import FINER, KEPT_OUT, SEED, Study


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
