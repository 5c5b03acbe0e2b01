"""One explanation by ortcam, torch-cam and pytorch-grad-cam: same weights, photograph, layer and threads.

Every library runs in a process of its own (worker.py) that waits between its turns, and the turns are interleaved, so
that what disturbs the machine disturbs all. A run goes from the path of the photograph to the heatmap. The peers are
measured as their README shows them and at their best settings (worker.py says what these are). Results go to
benchmarks/results/compare.md and .json, anew after every model; `--keep` leaves the models of an earlier run in them.
Run as `python -m benchmarks.compare`; `--method sscam` and `--method iscam` compare with torch-cam alone.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.common.arguments import add_keep, add_output, add_threads, say, whole_number
from benchmarks.common.machine import describe_run
from benchmarks.common.results import earlier_models, write_results, write_text
from benchmarks.common.subjects import METHODS, SAMPLED_MODELS, SUBJECTS, missing_data, photograph
from benchmarks.compare.measurement import LIBRARIES, OURS, SAME, TITLES, Measurement, Settings, figures
from benchmarks.compare.report import report
from benchmarks.compare.turns import measure

PHOTOGRAPH: Final = "val_0012.jpg"
COLD_STARTS: Final = 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="scorecam")
    parser.add_argument(
        "--models", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"of {', '.join(SUBJECTS)} (default: all; "
        f"{' and '.join(SAMPLED_MODELS)} for SS-CAM and IS-CAM)",
    )  # fmt: skip
    parser.add_argument(
        "--libraries", nargs="+", choices=TITLES, metavar="NAME", help=f"of {', '.join(TITLES)} (default: all)"
    )
    parser.add_argument("--repeats", type=whole_number, default=5, help="timed runs a library (default %(default)s)")
    parser.add_argument(
        "--repeats-large", type=whole_number, default=1, help="the same for large models (default %(default)s)"
    )
    parser.add_argument(
        "--cold-starts", type=whole_number, default=COLD_STARTS, help="fresh processes (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=whole_number, default=32, help="images a pass (default %(default)s)")
    add_keep(parser)
    add_threads(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Measure, write both files, print the Markdown.

    Returns:
        Exit code: 1 where torch-cam and ortcam do not compute the same, 2 where the data are not there.
    """
    method = argparse.ArgumentParser(add_help=False)
    method.add_argument("--method", default="scorecam")
    parser = _parser()
    name = method.parse_known_args(arguments)[0].method
    add_output(parser, "compare" if name == "scorecam" else f"compare-{name}")
    options = parser.parse_args(arguments)
    models = options.models or (tuple(SUBJECTS) if options.method == "scorecam" else SAMPLED_MODELS)
    if missing := missing_data():
        say(missing)
        return 2
    item = photograph(PHOTOGRAPH)
    of_method = LIBRARIES[options.method]
    settings = Settings(
        method=options.method,
        libraries=tuple(name for name in of_method if name in {OURS, *(options.libraries or of_method)}),
        photograph=PHOTOGRAPH,
        target=item.target,
        label=item.label,
        repeats=options.repeats,
        repeats_large=options.repeats_large,
        cold_starts=options.cold_starts,
        batch_size=options.batch_size,
        threads=options.threads,
    )
    run = describe_run("benchmarks.compare", arguments)
    measurements: dict[str, Measurement] = {}
    if options.keep:
        kept = earlier_models(options.output, run, dataclasses.asdict(settings))
        measurements = {model: Measurement(**result) for model, result in kept.items()}
    for model in models:
        measurements[model] = measure(model, settings, item)
        measurements = {name: measurements[name] for name in SUBJECTS if name in measurements}
        raw = {
            "settings": dataclasses.asdict(settings),
            "models": {name: dataclasses.asdict(result) for name, result in measurements.items()},
        }
        write_results(options.output, run=run, raw=raw, figures=figures(measurements))
        text = report(measurements, settings, run)
        write_text(options.output.with_suffix(".md"), text)
    print(text)
    if different := [name for name, result in measurements.items() if result.agreement.get("torch-cam", 1) <= SAME]:
        say(f"ortcam and torch-cam do not compute the same map for {', '.join(different)}: see the last table")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("stopped; the models that were measured are written")
        sys.exit(130)
