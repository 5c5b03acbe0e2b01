"""`ortcam completion`: a script that lets the Tab key complete commands, flags, methods and files."""

import argparse
from collections.abc import Callable
from typing import Any, Final

from ortcam.cli.parsers import Parser, add_command
from ortcam.errors import OrtcamError
from ortcam.methods import AUTO_METHOD, METHODS
from ortcam.support.extras import missing

__all__ = ["add_completion"]

_SHELLS: Final = ("bash", "zsh", "tcsh")
_FILES: Final = ("FILE", "IMAGE", "IMAGES", "MODEL", "BUNDLE")
_FOLDERS: Final = ("DIR",)


def add_completion(commands: Any, root: Callable[[], Parser]) -> None:
    """Add the command to the subparsers of `ortcam`.

    Args:
        commands: what `add_subparsers` returned.
        root: makes the parser of all commands.
    """
    parser = add_command(
        commands,
        "completion",
        lambda options: _completion(options, root()),
        help="print a script that lets the Tab key complete ortcam commands",
        description="Print a script that lets the Tab key complete commands, flags and files. Needs the extra "
        "`completion`. In bash: run the example, and add `source ~/.ortcam.bash` to ~/.bashrc.",
        examples=("ortcam completion bash > ~/.ortcam.bash",),
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))


def _completion(options: argparse.Namespace, root: Parser) -> int:
    try:
        import shtab  # noqa: PLC0415 - only this command needs it
    except ImportError as error:
        raise OrtcamError(missing("`ortcam completion`", "completion", error)) from None
    for parser in root.commands.values():
        for action in parser._actions:
            _describe(action, shtab)
    print(shtab.complete(root, options.shell))
    return 0


def _describe(action: Any, shtab: Any) -> None:
    """Say of a flag or an argument which values there are: methods, files or folders."""
    if "--method" in action.option_strings or (action.dest == "name" and not action.option_strings):
        action.choices = [method.name for method in (AUTO_METHOD, *METHODS)]
    elif action.metavar in _FILES:
        action.complete = shtab.FILE
    elif action.metavar in _FOLDERS:
        action.complete = shtab.DIRECTORY
