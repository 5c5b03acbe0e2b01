"""`ortcam evaluate`: its flags, its progress and what it prints."""

import argparse
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from ortcam.bundle import read_bundle
from ortcam.cli.common import (
    EXIT_BAD_INPUT,
    add_alias,
    add_execution,
    add_image_reading,
    add_method,
    add_output,
    add_quiet,
    add_score,
    providers_of,
)
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import Parser, Rare, add_command
from ortcam.cli.progress import LateBar
from ortcam.cli.ray_cluster import add_ray, ray_options
from ortcam.errors import OptionError, OrtcamError
from ortcam.evaluation.entries import parse_entries
from ortcam.evaluation.folder import check_folder
from ortcam.images.inputs import STDIN, expand
from ortcam.request import Score
from ortcam.results.folders import check_output
from ortcam.support.extras import missing
from ortcam.support.ranges import LIMIT, RANDOMIZE, SEED, STEP
from ortcam.support.terminal import complain, others_aside, say

if TYPE_CHECKING:
    from ortcam.evaluation.run import Evaluation, Report

__all__ = ["add_evaluate"]

_WIDTH: Final = 80  # columns of what is printed; less in a narrower terminal
_NARROWEST: Final = 50

# Flags that `Evaluation` takes as they are.
_AS_GIVEN: Final = (
    *("protocol", "score", "annotations", "limit", "seed", "step", "randomize", "resume", "engine"),
    *("batch_size", "threads", "precision", "max_pixels", "white", "strict", "strict_providers", "memory_limit"),
)


def add_evaluate(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        help="measure which method explains a model best",
        description="Measure how faithful explanations are on your images, and write a report that says which method "
        "wins. Needs the extra `evaluate`.",
        examples=(
            "ortcam evaluate shapes photos/",
            "ortcam evaluate resnet18 photos.csv -m scorecam++,iscam:budget=25% --limit 50",
        ),
    )
    add_model(parser)
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="a folder, a folder with one folder per class, a CSV (file, class, boxes), or images",
    )
    _add_measures(parser)
    _add_choice(parser)
    results = parser.add_argument_group("results")
    add_output(results, default="evaluation", help="folder to write to")
    results.add_argument("--resume", action="store_true", help="go on with what is in the output folder")
    add_quiet(results)
    add_execution(parser, low_memory=False)
    add_ray(parser)
    add_image_reading(parser)
    add_alias(parser, "--method", "--methods")


def _add_measures(parser: Parser) -> None:
    """Add the flags that say what is measured."""
    what = parser.add_argument_group("what to measure")
    add_method(
        what,
        default="auto,scorecam++",
        metavar="METHOD[:KEY=VALUE]",
        help="methods, with options, limits or precision, such as iscam:budget=0.25 (default: %(default)s)",
    )
    what.add_argument(
        "--metrics",
        metavar="M[,...]",
        help="names, or groups: confidence, insertion, deletion, adcc, pointing (default: those of the protocol)",
    )
    add_score(what)
    what.add_argument(
        "--protocol",
        default="soft-map",
        metavar="P",
        help=Rare("conventions: soft-map, adcc, scorecam-paper, scorecampp-notebook"),
    )
    what.add_argument(
        "--randomize", type=RANDOMIZE, metavar="N", help="also check on N images that maps change with the weights"
    )
    what.add_argument(
        "--step",
        type=STEP,
        metavar="PIXELS",
        help=Rare("pixels per step of insertion and deletion (default: a hundredth of the image)"),
    )


def _add_choice(parser: Parser) -> None:
    """Add the flags that say which of the images are measured."""
    which = parser.add_argument_group("which images")
    which.add_argument("--limit", type=LIMIT, metavar="N", help="take N of the images, drawn by --seed (default: all)")
    which.add_argument("--seed", type=SEED, default=0, metavar="S", help=Rare("of everything that chance decides"))
    which.add_argument(
        "--annotations", metavar="FILE", help="what a folder's images show: CSV (file, class, boxes) or JSON"
    )


def _evaluate(options: argparse.Namespace) -> int:
    # Before what takes seconds to import.
    check_folder(check_output(options.output), resume=options.resume)
    methods = options.method.split(",")
    parse_entries(methods, Score.of(options.score))
    wanted = providers_of(options)
    _images(options.images, arrays=True, quiet=True)  # what is not there is said before a model is exported
    try:
        from ortcam.evaluation.run import Evaluation  # noqa: PLC0415 - only this command needs what it loads
    except ImportError as error:
        raise OrtcamError(missing("`ortcam evaluate`", "evaluate", error)) from None

    ray = ray_options(options, "ortcam evaluate")
    bundle = read_bundle(open_bundle(options))
    images = _images(options.images, arrays=bundle.manifest.preprocessing.needs_samples, quiet=options.quiet)
    with others_aside():
        evaluation = Evaluation(
            bundle,
            images,
            options.output,
            methods=methods,
            metrics=None if options.metrics is None else [name.strip() for name in options.metrics.split(",")],
            providers=wanted,
            ray=ray,
            **{name: getattr(options, name) for name in _AS_GIVEN},
        )
        evaluation.check()
    if not options.quiet:
        for note in evaluation.notes:
            complain(note)
    report = _run(evaluation, quiet=options.quiet)
    if not options.quiet:
        width = max(_NARROWEST, min(_WIDTH, shutil.get_terminal_size().columns))
        for line in report.in_words(width).splitlines():
            say(line)
    return EXIT_BAD_INPUT if report.failures else 0


def _run(evaluation: "Evaluation", *, quiet: bool) -> "Report":
    """Run an evaluation, with a bar."""
    with LateBar("evaluating", unit="maps", quiet=quiet) as bar, others_aside():
        return evaluation.run(
            progress=bar.update, on_failure=lambda failure: bar.say(f"{failure.image}: {failure.error}")
        )


def _images(arguments: list[str], *, arrays: bool, quiet: bool) -> str | list[str]:
    """One folder, file or CSV as it is; several images, or a pattern, as their list."""
    if STDIN in arguments:
        raise OptionError("IMAGES -: standard input has one image; accepted are a folder, a CSV, or images")
    pattern = any(mark in arguments[0] for mark in "*?[") and not os.path.lexists(arguments[0])
    if len(arguments) == 1 and not pattern:
        return arguments[0]
    return expand(arguments, tell=(lambda _: None) if quiet else None, arrays=arrays)
