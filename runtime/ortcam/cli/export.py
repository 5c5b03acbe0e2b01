"""`ortcam export`: its flags, and the bundle that it made."""

import argparse
from typing import Any

from ortcam.cli.models import OF_THE_MODEL, add_input, add_weights, extra_for, given_flags
from ortcam.cli.printing import print_bundle
from ortcam.exporter import import_exporter, timed_report
from ortcam.terminal import others_aside

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = commands.add_parser(
        "export", help="make a bundle from a classifier (needs `ortcam[export]`)", allow_abbrev=False
    )
    parser.set_defaults(run=_export)
    parser.add_argument("model", help="torchvision name, package.module:callable, FILE.onnx, or FILE.pt2")
    parser.add_argument("-o", "--bundle", required=True, metavar="BUNDLE", help="folder to write, say resnet18.ortcam")
    add_weights(parser)
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")
    parser.add_argument(
        "--precision", metavar="P[,P...]", help="what masked passes can compute in: fp32 (always), fp16, int8"
    )
    add_input(parser)


def _export(options: argparse.Namespace) -> int:
    exporter = import_exporter(f"`ortcam export {options.model}`", extra_for(options.model))
    given = given_flags(options, OF_THE_MODEL)
    with others_aside():
        bundle = exporter.export(options.model, options.bundle, force=options.force, report=timed_report(), **given)
    print_bundle(bundle)
    return 0
