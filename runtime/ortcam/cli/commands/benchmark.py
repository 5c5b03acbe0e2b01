"""`ortcam benchmark`: its flags, its table, its JSON and its plot."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ortcam.benchmarking import DEFAULT_RUNS, DEFAULT_SECONDS, PEAK_MEMORY, benchmark
from ortcam.cli.common import (
    add_alias,
    add_execution,
    add_force,
    add_image_reading,
    add_json,
    add_method,
    add_quiet,
    add_score,
    providers_of,
)
from ortcam.cli.latency.plot import PLOTS, check_plot, draw
from ortcam.cli.latency.table import in_words
from ortcam.cli.method_names import list_methods
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import add_command
from ortcam.cli.progress import LateBar
from ortcam.errors import OptionError
from ortcam.methods import METHODS
from ortcam.request import Score
from ortcam.support.ranges import BATCH_SIZE, RUNS, SECONDS, shown
from ortcam.support.terminal import json_text, others_aside, say

__all__ = ["add_benchmark"]


def add_benchmark(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "benchmark",
        _benchmark,
        help="measure how long explanations take on this device",
        description="Measure the time per explanation by method, precision and batch size, and the memory it takes.",
        examples=(
            "ortcam benchmark shapes",
            "ortcam benchmark resnet18 --batch-size 1,8,auto --plot latency.png",
        ),
    )
    add_model(parser)
    what = parser.add_argument_group("what to measure")
    list_methods(
        add_method(
            what,
            default=None,
            help="auto, %(methods)s; with options, such as cam:augment=10 (default: all that the model can have)",
        )
    )
    what.add_argument("--image", metavar="FILE", help="image to explain (default: a shipped one, or noise)")
    add_score(what)
    what.add_argument("--runs", type=RUNS, default=DEFAULT_RUNS, metavar="N", help="timed runs, after one to warm up")
    what.add_argument(
        "--seconds",
        type=SECONDS,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="time for all together; what takes longer is measured in part and scaled up (default: %(default)g)",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--plot", metavar="FILE", help=f"also draw them: {', '.join(PLOTS)} (needs `ortcam[plot]`)")
    add_force(results, "replace a plot that is there")
    add_json(results)
    add_quiet(results)
    add_execution(parser, low_memory=False, several=True)
    add_image_reading(parser)
    for flag, old in (("--method", "--methods"), ("--batch-size", "--batch-sizes")):
        add_alias(parser, flag, old)


def _benchmark(options: argparse.Namespace) -> int:
    plot = None if options.plot is None else check_plot(Path(options.plot), force=options.force)
    sizes = [_batch_size(size) for size in _names(options.batch_size) or ["auto"]]
    wanted = providers_of(options)
    score = Score.of(options.score)  # what is wrong with it is said before a model is exported
    bundle = open_bundle(options)
    with LateBar("measuring", unit="cases", quiet=options.quiet) as bar, others_aside():
        timings = benchmark(
            bundle,
            options.image,
            score=score,
            methods=_names(options.method) or [method.name for method in METHODS],
            precisions=_names(options.precision),
            batch_sizes=sizes,
            providers=wanted,
            threads=options.threads,
            max_pixels=options.max_pixels,
            white=options.white,
            strict=options.strict,
            strict_providers=options.strict_providers,
            memory_limit=options.memory_limit,
            runs=options.runs,
            seconds=options.seconds,
            progress=lambda done, total, doing: bar.update(done, total, note=doing),
        )
    if options.json:
        print(json_text(dataclasses.asdict(timings) | {"peak_memory": PEAK_MEMORY}))
    elif not options.quiet:
        print(in_words(timings))
    if plot is not None and timings.rows:
        draw(timings, plot)
        if not options.json and not options.quiet:
            say(f"Open {plot}")
    return 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(BATCH_SIZE.parse(text))
    except ValueError:
        raise OptionError(
            f"--batch-size {shown(text)}: accepted is auto, or whole numbers {BATCH_SIZE.bounds}"
        ) from None
