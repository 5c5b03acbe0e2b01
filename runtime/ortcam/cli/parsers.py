"""The parser of the command line: safe messages, suggestions, accepted values in help."""

import argparse
import sys
import types
from collections.abc import Mapping
from typing import Any

from ortcam.ranges import Range
from ortcam.suggestions import did_you_mean
from ortcam.terminal import printable

__all__ = ["HelpWithEpilog", "Parser"]


class _Help(argparse.HelpFormatter):
    """Says of an option of numbers which ones it accepts."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        kind = action.type
        return f"{action.help}; accepted: {kind.bounds}" if isinstance(kind, Range) else action.help


class HelpWithEpilog(_Help, argparse.RawDescriptionHelpFormatter):
    """The same with an epilog whose lines stay as they are."""


class Parser(argparse.ArgumentParser):
    """A parser whose messages are safe for a terminal, and that knows what an unknown flag may have meant."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Help} | named)

    commands: Mapping[str, argparse.ArgumentParser] = types.MappingProxyType({})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and suggest what an unknown flag may have meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            chosen = next((word for word in (sys.argv[1:] if args is None else args) if word in self.commands), None)
            flags = [] if chosen is None else list(self.commands[chosen]._option_string_actions)
            hints = "".join(did_you_mean(word.partition("=")[0], flags) for word in unknown[:1] if word[:1] == "-")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hints}")
        return options

    def error(self, message: str) -> Any:
        """Print the message, made safe for a terminal, and exit with 2."""
        super().error(printable(message))
