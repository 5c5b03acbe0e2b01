"""One model with all configurations: exported once, its maps compared and its times taken."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import say
from benchmarks.common.fidelity import HEAD, Configuration, calibration_folder, pearson
from benchmarks.common.processes import Worker
from benchmarks.common.replay import load_remembering
from benchmarks.common.subjects import DEFAULT_SAMPLES, SUBJECTS, Photograph, bundle_path, photographs
from benchmarks.frontier.points import Point, Points

BATCH_SIZE: Final = 4  # where nothing is timed


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
