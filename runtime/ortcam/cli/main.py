"""The command line: `ortcam COMMAND ...`, its exit codes and its errors."""

import argparse
import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ortcam._version import __version__
from ortcam.cli.commands.batch import add_batch
from ortcam.cli.commands.benchmark import add_benchmark
from ortcam.cli.commands.cache import add_cache
from ortcam.cli.commands.completion import add_completion
from ortcam.cli.commands.demo import add_demo
from ortcam.cli.commands.evaluate import add_evaluate
from ortcam.cli.commands.explain import add_explain
from ortcam.cli.commands.export import add_export
from ortcam.cli.commands.fuse import add_fuse
from ortcam.cli.commands.inspect import add_inspect
from ortcam.cli.commands.methods import add_methods
from ortcam.cli.commands.predict import add_predict
from ortcam.cli.commands.serve import add_serve
from ortcam.cli.commands.web import add_web
from ortcam.cli.common import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated
from ortcam.cli.parsers import Parser
from ortcam.errors import OrtcamError, OutputError
from ortcam.support.terminal import complain, guarded_output, say

__all__ = ["main", "make_parser", "orderly_termination"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input."""
    warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
    with guarded_output() as conclude:
        try:
            code = _run(arguments)
        except SystemExit as ended:  # of argparse: --help, --version, or wrong arguments
            code = ended.code if isinstance(ended.code, int) else EXIT_BAD_INPUT
            if _concluded(conclude, code) == code:
                raise
            return EXIT_BAD_INPUT
        return _concluded(conclude, code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = make_parser().parse_args(arguments)
        with orderly_termination():
            code: int = options.run(options)
    except OrtcamError as error:
        complain(str(error))
        for note in getattr(error, "__notes__", ()):
            for line in note.splitlines():
                say(line, sys.stderr)
        return EXIT_BAD_INPUT
    except MemoryError:
        complain(
            "there is not enough memory for this; accepted are smaller images, fewer pixels or a smaller --batch-size"
        )
        return EXIT_BAD_INPUT
    except OSError as error:  # a path that the system refuses: too long, or below a folder that is closed to the user
        complain(f"{error.filename or 'a file'}: cannot be looked at: {error.strerror or error}")
        return EXIT_BAD_INPUT
    except Terminated:
        complain("terminated")
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    return code


def _concluded(conclude: Callable[[], None], code: int) -> int:
    """The exit code, once it is known whether everything could be printed."""
    try:
        conclude()
    except OutputError as error:
        complain(str(error))
        return code or EXIT_BAD_INPUT
    return code


@contextlib.contextmanager
def orderly_termination() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives, which containers and `timeout` stop a process with."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_EXAMPLES: Final = (
    ("ortcam demo", "see it work on a shipped picture"),
    ("ortcam explain resnet18 photo.jpg", "explain the likeliest class"),
    ("ortcam explain model.onnx photos/ -t cat", "explain a class in many images"),
)


def make_parser() -> Parser:
    """Make the parser of `ortcam` with all its commands."""
    parser = Parser(
        prog="ortcam",
        usage="ortcam COMMAND ...",
        description=f"Show what an image classifier looks at. Runs on ONNX Runtime, without PyTorch.\n\nexamples:\n"
        f"{_in_columns(_EXAMPLES)}",
        epilog="`ortcam COMMAND --help` says more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"ortcam {__version__}", help="print the version")
    parser.set_defaults(run=_greet, command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="ortcam")
    add_demo(commands)
    add_explain(commands)
    add_batch(commands)
    add_predict(commands)
    add_web(commands)
    add_serve(commands)
    add_methods(commands)
    add_inspect(commands)
    add_export(commands)
    add_fuse(commands)
    add_evaluate(commands)
    add_benchmark(commands)
    add_cache(commands)
    add_completion(commands, make_parser)
    parser.commands = commands.choices
    for name, command in parser.commands.items():
        command.set_defaults(command=name)
    return parser


def _greet(_: argparse.Namespace) -> int:
    """What `ortcam` alone prints: what it is for, three examples, and the commands."""
    print(make_parser().format_help(), end="")
    return 0


def _in_columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
