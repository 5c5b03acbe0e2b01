"""The parser of the command line: one look of help for every command, and errors that help."""

import argparse
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ortcam.support.ranges import Numbers, Range, is_number, numbers_in
from ortcam.support.suggestions import did_you_mean
from ortcam.support.terminal import complain, printable

__all__ = ["Parser", "Rare", "add_command"]

_WIDEST: Final = 100  # columns of help text, however wide the terminal is
_FLAGS: Final = 24  # columns for the flags, before their help begins
_REQUIRED: Final = "the following arguments are required: "
_EXPECTED: Final = re.compile(r"expected (one argument|at least one argument|\d+ arguments?)")


class Rare(str):
    """The help of a flag that few people need: `--help` leaves the flag out, `--help-all` shows it."""

    __slots__ = ()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that fits a screen: short usage, a line per flag, defaults; flags with `Rare` help left out."""

    complete: bool = False

    def __init__(self, prog: str, **named: Any) -> None:
        position: dict[str, Any] = {"max_help_position": _FLAGS}
        super().__init__(prog, **position | named)
        self._width = max(min(self._width, _WIDEST - 2), 11)

    def add_usage(self, usage: Any, actions: Iterable[argparse.Action], groups: Any, prefix: Any = None) -> None:
        if usage is None:
            shown = list(actions)
            flags = [action for action in shown if action.option_strings and action.help != argparse.SUPPRESS]
            needed = [f"{flag.option_strings[0]} {flag.metavar}" for flag in flags if flag.required]
            places = [_place(action) for action in shown if not action.option_strings]
            words = [*(["[options]"] if flags else []), *needed, *places]
            usage = " ".join(["%(prog)s", *(word.replace("%", "%%") for word in words)])
        super().add_usage(usage, actions, groups, prefix)

    def add_argument(self, action: argparse.Action) -> None:
        if self.complete or not isinstance(action.help, Rare):
            super().add_argument(action)

    def _format_action(self, action: argparse.Action) -> str:
        """A flag and its help; of the list of commands the commands alone, without a line for the list."""
        if isinstance(action, argparse._SubParsersAction):
            return self._join_parts([self._format_action(item) for item in action._get_subactions()])
        return super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        default = action.default
        told = default in (None, False, argparse.SUPPRESS) or default == [] or "default" in text
        if not told and (action.option_strings or action.nargs in ("?", "*")):
            text += " (default: %(default)s)"
        if self.complete and isinstance(action.type, Range):
            text += f"; accepted: {action.type.bounds}"
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap paragraphs; lines that begin with a space stay as they are."""
        blocks = re.split(r"\n(?=\s*\n)|\n(?= )|(?<=\n)(?=\S)", text)
        fill = argparse.HelpFormatter._fill_text
        return "\n".join(
            block if block[:1] in ("", " ", "\n") else fill(self, block, width, indent) for block in blocks
        )


class _CompleteHelp(_Help):
    """The same with the flags that few people need, and the numbers that each flag accepts."""

    complete = True


class Parser(argparse.ArgumentParser):
    """A parser with short help, and with errors of one sentence that say what to type.

    Attributes:
        commands: the parsers of the commands, by name; none where this is the parser of one.
        examples: commands that can be run, which help and errors show.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        look: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False, "add_help": False}
        super().__init__(*arguments, **look | named)
        self._positionals.title = "arguments"
        self.commands: Mapping[str, Parser] = types.MappingProxyType({})
        self.examples: tuple[str, ...] = ()
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        self.add_argument("--help-all", action=_ShowAll, help=argparse.SUPPRESS)

    @property
    def actions(self) -> tuple[argparse.Action, ...]:
        """The arguments and flags, help included."""
        return tuple(self._actions)

    def format_help(self) -> str:
        """Help that fits a screen, with the command that shows the rest."""
        rest = f"\nMore flags, and the numbers accepted: {self.prog} --help-all\n" if self.has_more else ""
        return super().format_help() + rest

    def format_complete_help(self) -> str:
        """Help with every flag, and the range of every number."""
        short, self.formatter_class = self.formatter_class, _CompleteHelp
        try:
            return super().format_help()
        finally:
            self.formatter_class = short

    @property
    def has_more(self) -> bool:
        """Whether `--help-all` shows more than `--help`."""
        return any(isinstance(item.help, Rare) or isinstance(item.type, Range) for item in self.actions)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and suggest what an unknown flag may have meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self.commands.get(getattr(options, "command", None) or "", self)
            parser.error(_unknown(unknown, parser))
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, once numbers that belong together are one word: `--mean .5 .5 .5` is `--mean=.5,.5,.5`."""
        return super().parse_known_args(self._joined(sys.argv[1:] if args is None else args), namespace)

    def _joined(self, words: Sequence[str]) -> list[str]:
        joined: list[str] = []
        waiting = list(words)
        while waiting and waiting[0] != "--":
            word = waiting.pop(0)
            action = self._option_string_actions.get(word)
            if action is not None and isinstance(action.type, Numbers):
                numbers: list[str] = []
                while waiting and len(numbers) < action.type.count and is_number(waiting[0]):
                    numbers += numbers_in(waiting.pop(0))
                word = f"{word}={','.join(numbers)}" if numbers else word
            joined.append(word)
        return joined + waiting

    def error(self, message: str) -> NoReturn:
        """Print one sentence, made safe for a terminal, and exit with 2."""
        complain(f"{self._in_words(message)}; see `{self.prog} --help`")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = list(action.choices)
        if isinstance(action, argparse._SubParsersAction):
            hint = did_you_mean(str(value), names)
            if not hint and Path(str(value)).exists():
                hint = f"; to explain an image: ortcam explain MODEL {value}"
            raise argparse.ArgumentError(None, f"unknown command {value!r}{hint}")
        accepted = ", ".join(map(str, names))
        raise argparse.ArgumentError(action, f"{value!r}: accepted is {accepted}{did_you_mean(str(value), names)}")

    def _in_words(self, message: str) -> str:
        """A message of argparse as a sentence that says what to type."""
        if message.startswith(_REQUIRED):
            missing = message.removeprefix(_REQUIRED).split(", ")
            example = f", such as `{self.examples[0]}`" if self.examples else ""
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing{example}"
        message = message.removeprefix("argument ")
        if found := _EXPECTED.search(message):
            flag = message.partition(":")[0].split("/")[-1]
            action = self._option_string_actions.get(flag)
            value = f": {flag} {_values(action)}" if action else ""
            if action and flag == "--score":  # the one text that often begins so
                value += "; where it begins with a minus: --score=-entropy"
            return f"{flag}: {found[1].replace('argument', 'value')} expected{value}"
        return message


class _ShowAll(argparse.Action):
    """`--help-all`: print the complete help and exit."""

    def __init__(self, option_strings: Sequence[str], **named: Any) -> None:
        super().__init__(
            option_strings, **(named | {"nargs": 0, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS})
        )

    def __call__(self, parser: Any, *_: Any) -> None:
        print(parser.format_complete_help(), end="")
        parser.exit()


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,  # noqa: A002 - as argparse calls it
    description: str,
    examples: Sequence[str],
) -> Parser:
    """Add a command to the subparsers of `ortcam`, with help that looks like that of the others.

    Args:
        commands: what `add_subparsers` returned.
        name: of the command.
        run: does the work; takes the options and returns the exit code.
        help: a few words for the list of commands.
        description: a sentence or two at the top of `ortcam NAME --help`.
        examples: commands that can be run, the simplest first; errors show that one.

    Returns:
        The parser, which the flags are added to.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    heading = "example" if len(examples) == 1 else "examples"
    parser: Parser = commands.add_parser(name, help=help, description=f"{description}\n\n{heading}:\n{shown}")
    parser.examples = tuple(examples)
    parser.set_defaults(run=run)
    return parser


def _unknown(words: Sequence[str], parser: Parser) -> str:
    """What is unknown in a command, and what it may have meant."""
    first = words[0].partition("=")[0]
    if first[:1] != "-":
        return f"{printable(first)}: `{parser.prog}` takes no such argument"
    shown = [item for item in parser.actions if item.help != argparse.SUPPRESS]
    known = [flag for item in shown for flag in item.option_strings if flag.startswith("--")]
    return f"unknown flag {first}{did_you_mean(first, known)}"


def _place(action: argparse.Action) -> str:
    """An argument without a flag in the usage line: MODEL, IMAGE..., [NAME]."""
    name = str(action.metavar or action.dest)
    if action.nargs in ("?", "*"):
        return f"[{name}{'...' if action.nargs == '*' else ''}]"
    return f"{name}..." if action.nargs in ("+", argparse.PARSER) else name


def _values(action: argparse.Action) -> str:
    """The values of a flag as help shows them."""
    metavar = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    if isinstance(metavar, tuple):
        return " ".join(metavar)
    return " ".join([metavar] * (action.nargs if isinstance(action.nargs, int) else 1))
