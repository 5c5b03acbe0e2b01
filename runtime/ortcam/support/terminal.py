"""What is printed: text that any terminal and any encoding takes, on a standard output that may be gone or full."""

import contextlib
import ctypes
import errno
import functools
import io
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO, TypeVar

from ortcam.errors import OutputError
from ortcam.support.strict_json import encode_json

__all__ = [
    "as_text",
    "columns",
    "complain",
    "first_line",
    "guarded_output",
    "json_text",
    "one_line",
    "others_aside",
    "printable",
    "say",
    "shortened",
]

_Json = TypeVar("_Json")

# Beside the controls of ASCII: those behind them, marks that turn the direction of text, and separators of lines.
_CONTROLS: Final = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_HALVES: Final = re.compile(r"[\ud800-\udfff]")
_UNSAFE: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_CONTROLS}\ud800-\udfff]")
_UNSAFE_IN_JSON: Final = re.compile(f"[{_CONTROLS}]")


def printable(text: str) -> str:
    r"""A text on one line with nothing in it that moves the cursor, colours, hides or turns text: escaped as in Python.

    Example:
        >>> print(printable("a" + chr(27) + "[31m"))
        a\x1b[31m
    """
    return _UNSAFE.sub(_escaped, text.replace("\n", "\\n").replace("\t", "\\t"))


def as_text(value: _Json) -> _Json:
    r"""A value of JSON whose texts are Unicode: what is none in the name of a file is escaped, say "caf\xe9.jpg"."""
    found: Any = value
    if isinstance(value, str):
        found = value if value.isascii() else _HALVES.sub(_escaped, value)
    elif isinstance(value, dict):
        found = {as_text(key): as_text(item) for key, item in value.items()}
    elif isinstance(value, list):
        found = [as_text(item) for item in value]
    elif isinstance(value, tuple):
        found = tuple(as_text(item) for item in value)
    return found  # type: ignore[no-any-return]


def columns() -> int:
    """How wide the terminal is: 80 where there is none, never less than 40 or more than 120."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 40), 120)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; what is longer loses its middle, since names differ at both ends.

    Example:
        >>> shortened("a_photograph_of_a_cat.jpg", 15)
        'a_photo...t.jpg'
    """
    if len(text) <= most:
        return text
    front = (most - 3 + 1) // 2 + (1 if most > 12 else 0)
    back = most - 3 - front
    return text[:most] if most <= 5 else f"{text[:front]}...{text[len(text) - back :]}"


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, for messages that are long; without one, the name of its class.

    Example:
        >>> first_line(ValueError("\nfirst\nsecond"))
        'first'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException) -> str:
    r"""The message of an error on one line; without one, the name of its class.

    Example:
        >>> one_line(ValueError("two\nlines")), one_line(ValueError())
        ('two lines', 'ValueError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def json_text(value: Any) -> str:
    """JSON as `--json` prints it: any encoding takes it, a terminal is safe from it, infinite numbers are null."""
    value = _finite(as_text(value))
    text = encode_json(value)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        text = encode_json(value, ascii_only=True)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def complain(message: str) -> None:
    """Print a line on standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(f"ortcam: {printable(message)}", file=sys.stderr, flush=True)


def say(line: str, ours: TextIO | None = None) -> None:
    """Print one line of ours: a text in it that comes from a file begins no other.

    Args:
        line: to print.
        ours: where results go; None: standard output.
    """
    print(printable(line), file=ours)


@contextlib.contextmanager
def guarded_output() -> Iterator[Callable[[], None]]:
    """Let everything be printed, whatever standard output is: closed, full, a pipe without a reader, ASCII alone.

    What cannot be printed does not stop the work. Texts are escaped where a terminal would take them for commands, and
    where the encoding lacks them. Only what Python prints reaches standard output: file descriptor 1 itself leads to
    standard error meanwhile, where libraries in C and C++ may print. A standard stream that was closed is one that
    leads nowhere, so that no file that is opened later is taken for it.

    Yields:
        A function to call at the end, once what is printed matters no more: OutputError if it could not be printed,
        nothing if its reader had left.
    """
    before, errors, last_resort = sys.stdout, sys.stderr, logging.lastResort
    _occupy_standard_streams()
    if errors is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for bars and warnings
    logging.lastResort = _Complaints(logging.WARNING)
    try:
        with _descriptor_aside(before) as target:
            output = _Output(target)
            sys.stdout = output
            try:
                yield output.close_up
            finally:
                sys.stdout = before
                if output.failure is not None and target is not None:
                    # Nothing is left in its buffer that could fail again at exit.
                    with contextlib.suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                        os.dup2(nowhere.fileno(), target.fileno())
    finally:
        logging.lastResort = last_resort
        if errors is None:
            sys.stderr = errors


@contextlib.contextmanager
def others_aside() -> Iterator[TextIO]:
    """Lead what is printed in Python to standard error, escaped: libraries print, and only a result belongs on stdout.

    Yields:
        Standard output, for results.
    """
    ours = sys.stdout
    with contextlib.redirect_stdout(_Output(sys.stderr)):
        yield ours


def _occupy_standard_streams() -> None:
    """Open each standard descriptor that is closed to the null device; the next file would get its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextlib.contextmanager
def _descriptor_aside(before: TextIO | None) -> Iterator[TextIO | None]:
    """Standard output under a descriptor of its own, while descriptor 1 leads to standard error.

    Yields:
        What to print to; `before` itself where it is not descriptor 1, or no descriptor is free.
    """
    try:
        own = before is not None and before.fileno() == 1
        kept = os.dup(1) if own else -1
    except (OSError, ValueError, AttributeError):
        own = False
    if before is None or not own:
        yield before
        return
    with contextlib.suppress(OSError, ValueError):
        before.flush()
    encoding, buffering = before.encoding, 1 if getattr(before, "line_buffering", False) else -1
    target = open(kept, "w", buffering, encoding=encoding, errors=before.errors, closefd=False)  # noqa: SIM115
    os.dup2(2, 1)
    try:
        yield target
    finally:
        with contextlib.suppress(OSError, ValueError):
            target.close()
        _flush_c_streams()  # what waits there is not ours
        os.dup2(kept, 1)
        os.close(kept)


def _flush_c_streams() -> None:
    if os.name == "posix":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)


class _Complaints(logging.Handler):
    """Prints what libraries log and nobody handles, as a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


class _Output(io.TextIOBase):
    """Standard output that escapes what it prints and remembers the first failure instead of raising it."""

    def __init__(self, target: TextIO | None) -> None:
        super().__init__()
        self._target = target
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._target, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._target is not None and self._target.isatty()

    def fileno(self) -> int:
        if self._target is None:
            raise io.UnsupportedOperation("fileno")
        return self._target.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        safe = _UNSAFE.sub(_escaped, text)
        with contextlib.suppress(LookupError):
            safe = safe.encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._target is None:
            self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
        else:
            self._attempt(functools.partial(self._target.write, safe))
        return len(text)

    def flush(self) -> None:
        # Python flushes it once more when it is collected, and from 3.13 on prints what that raises.
        if self._target is not None and not getattr(self._target, "closed", False):
            self._attempt(self._target.flush)

    def close_up(self) -> None:
        """Print what is waiting.

        Raises:
            OutputError: something could not be printed, and not because its reader had left.
        """
        self.flush()
        if self.failure is not None and not isinstance(self.failure, BrokenPipeError):
            raise OutputError(f"standard output: cannot be written to: {self.failure.strerror or self.failure}")

    def _attempt(self, what: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                what()
            except OSError as error:
                self.failure = error


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
