"""What a million images cost: seconds per masked pass of six classifiers, times the passes of three budgets.

Per model, bare loops explain photographs with Score-CAM under one budget, for each way to group the cores. An image
then costs `rest + passes * seconds per pass`, both divided by the processes that work side by side. Of small models the
exact map is measured as well and stands beside what the formula says. Results go to benchmarks/results/batch-costs.md
and .json. Run as `python -m benchmarks.batch.costs`; needs $ORTCAM_TEST_DATA.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.batch.costs_report import BUDGETS, Pace, figures, passes, text_of
from benchmarks.batch.loops import Grouping, Loops, groupings, loops
from benchmarks.batch.subjects import bundle_of
from benchmarks.common.arguments import add_keep, add_output, say, whole_number
from benchmarks.common.figures import median
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import earlier_models, write_results, write_text
from benchmarks.common.subjects import SUBJECTS, Subject, missing_data, photographs

_SMALL, _LARGE = 0.12, 0.04  # the budget that is timed
_CHEAP: Final = 4  # how often each photograph is explained by a method without passes


def main(arguments: Sequence[str]) -> int:
    """Measure and write, anew after every model; 2 where the data are not there."""
    options = _options(arguments)
    if missing := missing_data():
        say(missing)
        return 2
    run = describe_run("benchmarks.batch.costs", arguments)
    settings = {"images": options.images, "budgets": list(BUDGETS), "groupings": [str(way) for way in groupings()]}
    models: dict[str, Any] = earlier_models(options.output, run, settings) if options.keep else {}
    text = ""
    with tempfile.TemporaryDirectory() as name:
        folder = options.bundles or Path(name)
        for model in options.models:
            models[model] = _measured(SUBJECTS[model], folder, Path(name), options.images)
            raw = {"settings": settings, "models": {key: models[key] for key in SUBJECTS if key in models}}
            words = f"{options.images} photographs per process ({_few(options.images)} of large models), CPU, float32"
            text = text_of(raw, run_in_words(run, words), options.price, run["machine"]["cores"])
            write_results(options.output, run=run, raw=raw, figures=figures(raw))
            write_text(options.output.with_suffix(".md"), text)
    print(text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--images", type=whole_number, default=4, metavar="N", help="photographs per process (4)")
    parser.add_argument("--bundles", type=Path, metavar="FOLDER", help="keep the exported bundles here, and use them")
    parser.add_argument("--price", type=float, default=0.1, help="of an hour of such a machine (0.10)")
    add_keep(parser)
    add_output(parser, "batch-costs")
    return parser.parse_args(arguments)


def _few(images: int) -> int:
    return max(1, images // 4)


def _measured(subject: Subject, folder: Path, scratch: Path, images: int) -> dict[str, Any]:
    """The paces of a model per grouping, and its channels."""
    bundle = bundle_of(subject.name, folder)
    count = _few(images) if subject.large else images
    found: dict[str, Any] = {"random": subject.random, "paces": {}}
    for way in groupings():
        say(f"{subject.name}: {way}")
        with loops(bundle, way, scratch) as running:
            pace, channels, method = _pace(running, way, count, _LARGE if subject.large else _SMALL)
            found["paces"][str(way)] = dataclasses.asdict(pace)
            found |= {"channels": channels, "method": method}
    best = min(found["paces"], key=lambda way: Pace(**found["paces"][way]).image_seconds(passes(found["channels"], 1)))
    found["best"] = best
    if not subject.large:
        way = next(item for item in groupings() if str(item) == best)
        say(f"{subject.name}: exact, to compare")
        with loops(bundle, way, scratch) as running:
            pace = Pace(**found["paces"][best])
            files = _files(way.processes)
            exact = running.run(files, method="scorecam", batch_size=pace.batch_size)
            needed = sum(item["passes"] for item in exact.stats) / len(files)
            found["exact"] = {
                "measured": exact.seconds / len(files),
                "predicted": pace.image_seconds(needed),
            }
    return found


def _pace(running: Loops, way: Grouping, count: int, budget: float) -> tuple[Pace, int, str]:
    """The pace, the median of the live channels, and the method that `auto` takes."""
    files = _files(count * way.processes)
    # `auto` searches a batch size by time in the first explanation.
    warm = running.run(files[: way.processes], method="scorecam", budget=budget)
    batch_size = round(median([item["batch_size"] for item in warm.stats]))
    found = running.run(files, method="scorecam", budget=budget, batch_size=batch_size)
    per_pass = [item["seconds_by_stage"]["scoring"] / item["passes"] for item in found.stats]
    rest = [item["seconds"] - item["seconds_by_stage"]["scoring"] for item in found.stats]
    channels = round(median([item["live_channels"] for item in found.stats]))
    running.run(files[: way.processes], method="auto")
    cheap = running.run(files * _CHEAP, method="auto")
    pace = Pace(
        pass_seconds=median(per_pass) / way.processes,
        rest_seconds=median(rest) / way.processes,
        cheap_seconds=cheap.seconds / (len(files) * _CHEAP),
        batch_size=batch_size,
    )
    return pace, channels, cheap.stats[0]["method"]


def _files(count: int) -> list[Path]:
    return [item.path for item in photographs(count)]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("stopped; the models that were measured are written")
        sys.exit(130)
