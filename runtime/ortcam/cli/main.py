"""The command line: `ortcam export | inspect | fuse | explain | evaluate | benchmark | demo`."""

import argparse
import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence

from ortcam._version import __version__
from ortcam.cli.benchmark import add_benchmark
from ortcam.cli.common import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED
from ortcam.cli.demo import add_demo
from ortcam.cli.evaluate import add_evaluate
from ortcam.cli.explain import add_explain
from ortcam.cli.export import add_export
from ortcam.cli.fuse import add_fuse
from ortcam.cli.inspect import add_inspect
from ortcam.cli.parsers import Parser
from ortcam.cli.web import add_web
from ortcam.errors import OrtcamError, OutputError
from ortcam.terminal import complain, guarded_output

__all__ = ["main"]


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
        options = _parser().parse_args(arguments)
        with _orderly_termination():
            code: int = options.run(options)
    except OrtcamError as error:
        complain(str(error))
        return EXIT_BAD_INPUT
    except MemoryError:
        complain(
            "there is not enough memory for this; accepted are smaller images, fewer pixels or a smaller --batch-size"
        )
        return EXIT_BAD_INPUT
    except OSError as error:  # a path that the system refuses: too long, or below a folder that is closed to the user
        complain(f"{error.filename or 'a file'}: cannot be looked at: {error.strerror or error}")
        return EXIT_BAD_INPUT
    except _Terminated:
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


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that what is half made is removed."""


@contextlib.contextmanager
def _orderly_termination() -> Iterator[None]:
    """Raise `_Terminated` where SIGTERM arrives, which containers and `timeout` stop a process with."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ortcam", description="Explain image classifiers with ONNX Runtime, without PyTorch.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"ortcam {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_export(commands)
    add_inspect(commands)
    add_fuse(commands)
    add_explain(commands)
    add_evaluate(commands)
    add_benchmark(commands)
    add_demo(commands)
    add_web(commands)
    parser.commands = commands.choices
    return parser
