"""`--required-operators FILE` of `ortcam fuse` and `ortcam inspect`: what a small build of ONNX Runtime needs."""

import argparse
from pathlib import Path
from typing import Any

from ortcam.cli.parsers import Rare
from ortcam.errors import OptionError, OutputError
from ortcam.support.files import write_whole

__all__ = ["add_operators", "check_operators", "write_operators"]


def add_operators(group: Any) -> None:
    """Add the two flags."""
    group.add_argument(
        "--required-operators",
        metavar="FILE",
        help=Rare("list the operators for a small build of ONNX Runtime, as --include_ops_by_config takes them"),
    )
    group.add_argument(
        "--operator-types", action="store_true", help=Rare("for --required-operators: with the types of each")
    )


def check_operators(options: argparse.Namespace, *, force: bool = False) -> None:
    """Find out whether the list can be written, before any work.

    Raises:
        OptionError: types without a list.
        OutputError: there is no such folder, or a file is there that is not to be replaced.
    """
    if options.required_operators is None:
        if options.operator_types:
            raise OptionError("--operator-types: goes with --required-operators FILE")
        return
    path = Path(options.required_operators)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir() or (path.exists() and not force):
        raise OutputError(f"{path}: is there already; name another")


def write_operators(exporter: Any, model: Any, options: argparse.Namespace) -> None:
    """Write the list for a bundle or a fused file.

    Raises:
        OrtcamError: a graph cannot be read or converted.
    """
    text = exporter.required_operators(model, types=options.operator_types)
    write_whole(Path(options.required_operators), text.encode())
