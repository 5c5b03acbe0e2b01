"""`ortcam export`: its flags, and the bundle that it made."""

import argparse
import re
from pathlib import Path
from typing import Any

from ortcam.cli.common import add_alias, add_force
from ortcam.cli.models import OF_THE_MODEL, add_input, given_flags
from ortcam.cli.parsers import add_command
from ortcam.cli.printing import print_bundle
from ortcam.cli.progress import stages
from ortcam.errors import OptionError
from ortcam.models.exporter import extra_for, import_exporter
from ortcam.models.opening import is_bundle
from ortcam.support.terminal import others_aside

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "export",
        _export,
        help="make a bundle of a model, to deploy without PyTorch",
        description="Make a bundle: a folder that ONNX Runtime explains from, on any machine, without PyTorch.",
        examples=(
            "ortcam export resnet18",
            "ortcam export model.onnx -o model.ortcam --preset imagenet --labels labels.txt",
        ),
    )
    parser.add_argument(
        "model", metavar="MODEL", help="torchvision name, FILE.onnx, FILE.pt2, or package.module:callable"
    )
    parser.add_argument(
        "-o", "--output", dest="bundle", action=_Once, metavar="BUNDLE", help="folder to write (default: NAME.ortcam)"
    )
    add_alias(parser, "-o", "--bundle")
    add_force(parser, "replace a bundle that is there")
    parser.add_argument(
        "--precision",
        metavar="P[,...]",
        help="of masked passes, beside fp32: fp16, int8, qnn; `explain --precision` picks",
    )
    add_input(parser)


class _Once(argparse.Action):
    """A flag that is given once: `--output` used to name an output of the model."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        earlier = getattr(namespace, self.dest)
        if earlier is not None:
            raise argparse.ArgumentError(
                self, f"{earlier!r} and {values!r}: accepted is one folder; an output of the model is --model-output"
            )
        setattr(namespace, self.dest, values)


def _export(options: argparse.Namespace) -> int:
    if is_bundle(options.model):
        raise OptionError(f"{options.model}: is a bundle or a folder already; accepted is a model to make one of")
    exporter = import_exporter(f"`ortcam export {options.model}`", extra_for(options.model))
    given = given_flags(options, OF_THE_MODEL)
    bundle = options.bundle or f"{_stem(options.model)}.ortcam"
    with others_aside(), stages() as report:
        made = exporter.export(options.model, bundle, force=options.force, report=report, **given)
    print_bundle(made)
    return 0


def _stem(model: str) -> str:
    """A name for the bundle of a model: resnet18, model of model.onnx, make of package.module:make."""
    name = Path(model).stem if Path(model).is_file() else model.rpartition(":")[2]
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "model"
