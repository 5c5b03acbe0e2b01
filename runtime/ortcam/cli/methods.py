"""`ortcam methods`: what the methods are, what they cost, and their options."""

import argparse
from typing import Any

from ortcam.cli.common import add_json
from ortcam.cli.parsers import add_command
from ortcam.methods import METHODS, Method, resolve_method
from ortcam.terminal import json_text

__all__ = ["add_methods"]


def add_methods(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "methods",
        _methods,
        help="what the methods are, what they cost, and their options",
        description="List the methods of explaining; with NAME, the options of one.",
        examples=("ortcam methods", "ortcam methods scorecam++"),
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="method whose options are shown")
    add_json(parser)


def _methods(options: argparse.Namespace) -> int:
    chosen = METHODS if options.name is None else (resolve_method(options.name, {}).method,)
    if options.json:
        print(json_text([_record(method) for method in chosen]))
    return 0


def _record(method: Method) -> dict[str, Any]:
    return {"name": method.name}
