"""`ortcam fuse`: its flags, and what it says of the file that it wrote."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortcam.allocation import Limits
from ortcam.arguments import budget, pairs_of
from ortcam.bundle import Bundle, read_bundle
from ortcam.cli.models import add_model, open_bundle
from ortcam.errors import OptionError, OutputError
from ortcam.exporter import import_exporter, timed_report
from ortcam.methods import MASKED_METHODS, Plan, resolve_method
from ortcam.ranges import CHUNK, TOP_K
from ortcam.terminal import others_aside, say
from ortcam.unfinished import clear

__all__ = ["add_fuse"]


def add_fuse(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    names = ", ".join(method.name for method in MASKED_METHODS)
    parser = commands.add_parser(
        "fuse",
        help="make one .onnx file that explains (needs `ortcam[onnx]`)",
        allow_abbrev=False,
        description="One ONNX file, image in and saliency out, for any ONNX Runtime: Python, Node, C++, Triton ...",
    )
    parser.set_defaults(run=_fuse)
    add_model(parser)
    parser.add_argument("-m", "--method", default="scorecam++", metavar="METHOD", help=f"{names} (default: scorecam++)")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write, say explainer.onnx")
    parser.add_argument("--triton", metavar="DIR", help="instead: a model repository of Triton Inference Server")
    parser.add_argument("--name", metavar="NAME", help="of the model in the repository (default: bundle and method)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the method, as in explain"
    )
    parser.add_argument(
        "--budget", type=budget, metavar="B", help="channels to score, by energy: 0.25, 25%%, or a number"
    )
    parser.add_argument("--precision", metavar="P", help="of the masked passes, where the bundle has it: fp16, int8")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--top-k", type=TOP_K, metavar="K", help="explain the K most probable classes (default 1)")
    classes.add_argument("--runtime-targets", action="store_true", help="the classes are an input, int64 [K]")
    parser.add_argument(
        "--uint8-input", action="store_true", help="the input is an RGB picture, uint8 [h,w,3], of any size"
    )
    parser.add_argument(
        "--batch-size", type=CHUNK, metavar="N", help="masked images at a time: time and memory (default 8)"
    )
    parser.add_argument("--external", action="store_true", help="weights beside the file, in FILE.data")
    parser.add_argument("--no-verify", action="store_true", help="do not run the file and compare it with the runtime")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--quiet", action="store_true", help="say nothing")


def _fuse(options: argparse.Namespace) -> int:
    if (options.output is None) == (options.triton is None):
        raise OptionError("accepted is -o FILE, or --triton DIR")
    settings = resolve_method(options.method, _pairs(options.option))
    if not isinstance(settings.plan, Plan):
        names = ", ".join(method.name for method in MASKED_METHODS)
        raise OptionError(f"{settings.method.name}: masks no image and cannot be fused; accepted is {names}")
    bundle = _check(options)  # before what takes seconds to import
    exporter = import_exporter("`ortcam fuse`", "onnx")
    size: dict[str, Any] = {} if options.batch_size is None else {"batch_size": options.batch_size}
    with others_aside():
        fused = exporter.fuse(
            bundle,
            options.output,
            triton=options.triton,
            name=options.name,
            method=options.method,
            budget=options.budget,
            precision=options.precision,
            top_k=options.top_k,
            runtime_targets=options.runtime_targets,
            uint8_input=options.uint8_input,
            external=options.external,
            verify=not options.no_verify,
            force=options.force,
            report=None if options.quiet else timed_report(),
            **size,
            **settings.options,
        )
    if not options.quiet:
        _print(fused)
    return 0


def _check(options: argparse.Namespace) -> Bundle:
    """Find out what is wrong with destination, numbers and bundle; the bundle is opened.

    Raises:
        OrtcamError: as `ortcam_export.fuse`, for whatever can be told without ONNX's packages.
    """
    Limits(budget=options.budget)
    if options.output is not None:
        path = Path(options.output)
        if path.suffix != ".onnx":
            raise OptionError(f"-o {path}: accepted is the name of a file that ends in .onnx")
        clear(path.parent, former=path.name)
        beside = [path.with_name(f"{path.name}.data")] if options.external else []
        for taken in [path, *beside]:
            if taken.exists() and not options.force:
                raise OutputError(f"{taken}: is there already; --force replaces it")
    folder = Path(options.triton) if options.output is None else path.parent
    if not folder.is_dir():
        raise OutputError(f"{options.output or options.triton}: the folder {folder} does not exist")
    bundle = read_bundle(open_bundle(options))
    bundle.check_precision(options.precision)
    classes = len(bundle.manifest.labels)
    if options.top_k is not None and options.top_k > classes:
        raise OptionError(f"top_k={options.top_k}: accepted is a whole number from 1 to {classes}, the model's classes")
    return bundle


def _pairs(pairs: Sequence[str]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in pairs_of("--option", pairs).items()}


def _print(fused: Any) -> None:
    beside = "" if fused.external is None else f", weights in {fused.external.name}"
    say(f"file           {fused.path} ({fused.size / 1e6:.1f} MB, opset {fused.opset}, {fused.nodes} nodes{beside})")
    for title, values in (("input", fused.inputs), ("output", fused.outputs)):
        for name, kind in values.items():
            say(f"{title:<15}{name}: {kind}")
    if fused.difference is None:
        say("verified       no")
    else:
        say(f"verified       maps within {fused.difference:.1e} of the runtime's, on a picture of the bundle")
