"""`ortcam evaluate`: its flags, its progress and its table."""

import argparse
import sys
from typing import Any

from ortcam.arguments import batch_size, providers
from ortcam.cli.common import EXIT_BAD_INPUT
from ortcam.cli.models import add_model, open_bundle
from ortcam.errors import OrtcamError
from ortcam.evaluation.folder import check_folder
from ortcam.evaluation.variants import parse_variants
from ortcam.extras import missing
from ortcam.image import DEFAULT_MAX_PIXELS
from ortcam.ranges import LIMIT, MAX_PIXELS, RANDOMIZE, SEED, STEP, THREADS, WHITE
from ortcam.result_folders import check_output
from ortcam.session import resolve_providers
from ortcam.terminal import complain, others_aside

__all__ = ["add_evaluate"]


def add_evaluate(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure how faithful explanations are (needs `ortcam[evaluate]`)",
        allow_abbrev=False,
        description="Metrics of faithfulness and localisation, with intervals and paired differences, and a report.",
    )
    parser.set_defaults(run=_evaluate)
    add_model(parser)
    parser.add_argument(
        "images", metavar="IMAGES", help="a folder, a folder of class folders, or a CSV with file, class and boxes"
    )
    parser.add_argument(
        "-m",
        "--method",
        default="scorecam,scorecam++",
        metavar="METHOD[,METHOD...]",
        help="each METHOD[:KEY=VALUE...], say scorecam++:gate=sigmoid, iscam:budget=0.25, scorecam:precision=int8 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--metrics", metavar="M[,M...]", help="names or groups: confidence, insertion, deletion, adcc, pointing"
    )
    parser.add_argument(
        "--protocol", default="soft-map", metavar="P", help="soft-map, adcc, scorecam-paper, scorecampp-notebook"
    )
    parser.add_argument("--annotations", metavar="FILE", help="of a folder: CSV (file, class, boxes), or JSON object")
    parser.add_argument("--limit", type=LIMIT, metavar="N", help="this many of the images, drawn by --seed")
    parser.add_argument("--seed", type=SEED, default=0, metavar="S", help="of all chance (default %(default)s)")
    parser.add_argument(
        "--step", type=STEP, metavar="PIXELS", help="of insertion and deletion (default: a hundredth of the image)"
    )
    parser.add_argument(
        "--randomize",
        type=RANDOMIZE,
        metavar="N",
        help="also the randomised-weights check (Adebayo et al. 2018), on N of the images",
    )
    parser.add_argument("-o", "--output", default="evaluation", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the output folder")
    parser.add_argument(
        "--batch-size",
        type=batch_size,
        default="auto",
        metavar="N",
        help="masked images a run, 65536 at most (default: auto)",
    )
    parser.add_argument("--provider", metavar="NAME[,NAME...]", help="execution providers, say cuda,cpu")
    parser.add_argument(
        "--provider-option", action="append", default=[], metavar="KEY=VALUE", help="of the first provider"
    )
    parser.add_argument("--precision", metavar="P", help="of the masked passes: fp16, int8")
    parser.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads (default: physical cores)")
    parser.add_argument(
        "--max-pixels",
        type=MAX_PIXELS,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="skip images of more pixels, or that take more than about 12 N bytes of memory (default %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="skip damaged images, even if a part can be read")
    parser.add_argument("--white", type=WHITE, metavar="N", help="white in 16-bit PNG, TIFF, PNM: 4095 for 12 bits")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no table")


def _evaluate(options: argparse.Namespace) -> int:
    # Before what takes seconds to import.
    check_folder(check_output(options.output), resume=options.resume)
    methods = options.method.split(",")
    parse_variants(methods)
    wanted = providers(options.provider, options.provider_option)
    resolve_providers(wanted)
    try:
        from tqdm import tqdm  # noqa: PLC0415

        from ortcam.evaluation.running import Evaluation  # noqa: PLC0415 - only this command needs what it loads
    except ImportError as error:
        raise OrtcamError(missing("`ortcam evaluate`", "evaluate", error)) from None

    bundle = open_bundle(options)
    with others_aside():
        evaluation = Evaluation(
            bundle,
            options.images,
            options.output,
            methods=methods,
            metrics=None if options.metrics is None else [name.strip() for name in options.metrics.split(",")],
            protocol=options.protocol,
            labels=options.annotations,
            limit=options.limit,
            seed=options.seed,
            step=options.step,
            batch_size=options.batch_size,
            providers=wanted,
            threads=options.threads,
            precision=options.precision,
            max_pixels=options.max_pixels,
            white=options.white,
            strict=options.strict,
            randomize=options.randomize,
            resume=options.resume,
        )
    with tqdm(total=evaluation.count, desc="evaluating", unit="map", disable=True if options.quiet else None) as bar:
        earlier: int | None = None

        def advance(made: int, _: int) -> None:
            nonlocal earlier
            if earlier is None:  # what an earlier run made says nothing of the time left
                earlier = bar.n = bar.initial = made
            bar.update(made - bar.n)

        def say(failure: str) -> None:
            with bar.external_write_mode(file=sys.stderr):
                complain(failure)

        with others_aside():
            report = evaluation.run(
                progress=advance,
                on_failure=lambda failure: say(f"{failure.image}: {failure.error}"),
            )
    if not options.quiet:
        print(report.in_words())
    return EXIT_BAD_INPUT if report.failures else 0
