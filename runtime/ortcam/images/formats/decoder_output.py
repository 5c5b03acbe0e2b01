"""What image decoders print by themselves, heard instead of printed: a sign that the image is damaged.

OpenCV reports its own troubles through its log, which has a level. libjpeg and libpng write to the C library's stream
`stderr`, past every level, and say there, and nowhere else, that an image is damaged. While an image is decoded that
stream is therefore another one, which is read afterwards. Only the stream of C changes: what Python, other processes
and crash reports write to file descriptor 2 goes where it always went.
"""

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

import cv2

__all__ = ["listening"]

_Result = TypeVar("_Result")

_LOGGING: Any = getattr(cv2.utils, "logging", cv2)  # cv2.utils.logging since OpenCV 5
_UNBUFFERED: Final = 2  # _IONBF of glibc and macOS
# Messages of libjpeg (jerror.h) and libpng that appear while decoding.
_DECODERS: Final = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Corrupt ICC|Inconsistent progression|Unknown Adobe color"
    rb"|Warning: unknown|Invalid SOS param|Unsupported marker|found marker|libpng "
)


@dataclass(eq=False)
class _Decoding:
    """One decoding under way: what was printed meanwhile, and whether another one may have printed it."""

    shared: bool
    heard: bytes = b""


class _Stream:
    """The C library's `stderr` and another stream of it in a file without a name."""

    def __init__(self) -> None:
        library: Any = ctypes.CDLL(None)
        name = "__stderrp" if sys.platform == "darwin" else "stderr"
        self._place = ctypes.c_void_p.in_dll(library, name)
        self._original = self._place.value
        self._file = _nameless_file()
        library.fdopen.argtypes, library.fdopen.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_void_p
        library.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
        self._other = library.fdopen(os.dup(self._file.fileno()), b"a")
        if not self._other:
            raise OSError
        library.setvbuf(self._other, None, _UNBUFFERED, 0)
        self._taken = 0

    def divert(self) -> None:
        self._original = self._place.value
        self._place.value = self._other

    def restore(self) -> None:
        self._place.value = self._original

    def empty(self) -> None:
        """Give the memory back; only where nobody prints, or what was printed meanwhile would be lost."""
        if self._taken:
            self._file.truncate(0)
            self._taken = 0

    def take(self) -> bytes:
        """What was printed since the last call; by its place, since what other threads print moves the file's own."""
        file = self._file.fileno()
        text = os.pread(file, os.fstat(file).st_size - self._taken, self._taken)
        self._taken += len(text)
        return text


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # in memory
        return os.fdopen(os.memfd_create("ortcam-decoders"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _open_stream() -> _Stream | None:
    """None where `stderr` is no variable that may be set: it is one in glibc and on macOS."""
    try:
        if sys.platform != "darwin" and not os.confstr("CS_GNU_LIBC_VERSION"):
            return None
        return _Stream()
    except (AttributeError, OSError, ValueError):
        return None


class _Listener:
    """Counts the decodings under way, so that the first diverts and the last restores."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._turn = threading.Condition()
        self._running: list[_Decoding] = []
        self._alone = False
        self._wanting = 0  # how many wait to run alone
        self._stream: _Stream | None = None
        self._opened = False
        self._level = 0

    def __call__(self, decode: Callable[[], _Result]) -> tuple[_Result, str]:
        result, decoding = self._run(decode, alone=False)
        if decoding.heard and decoding.shared:  # whose words these were, a decoding alone tells
            result, decoding = self._run(decode, alone=True)
        return result, decoding.heard.decode(errors="replace").strip()

    def _run(self, decode: Callable[[], _Result], *, alone: bool) -> tuple[_Result, _Decoding]:
        with self._turn:
            self._wait_for_turn(alone=alone)
            for other in self._running:
                other.shared = True
            decoding = _Decoding(shared=bool(self._running))
            self._alone = alone
            if not self._opened:
                self._stream, self._opened = _open_stream(), True
            if not self._running:
                self._level = _LOGGING.setLogLevel(0)
                if self._stream:
                    self._stream.divert()
            self._running.append(decoding)
        try:
            return decode(), decoding
        finally:
            with self._turn:
                if len(self._running) == 1:
                    self._restore()
                with contextlib.suppress(OSError):  # stderr may be closed, or full
                    self._hear()
                self._running.remove(decoding)
                self._alone = False
                self._turn.notify_all()

    def _restore(self) -> None:
        _LOGGING.setLogLevel(self._level)
        if self._stream:
            self._stream.restore()

    def _wait_for_turn(self, *, alone: bool) -> None:
        if not alone:
            self._turn.wait_for(lambda: not self._alone and not self._wanting)
            return
        self._wanting += 1
        try:
            self._turn.wait_for(lambda: not self._running)
        finally:
            self._wanting -= 1
            self._turn.notify_all()

    def _hear(self) -> None:
        if self._stream is None:
            return
        lines = self._stream.take().splitlines(keepends=True)
        if len(self._running) == 1:
            self._stream.empty()
        own = b"".join(line for line in lines if _DECODERS.match(line))
        for decoding in self._running:
            decoding.heard += own
        strange = b"".join(line for line in lines if not _DECODERS.match(line))
        if strange:  # of somebody else in this process
            os.write(2, strange)

    def after_fork(self) -> None:
        """In a child nothing is being decoded, whatever the parent's threads were at."""
        if self._running:
            self._restore()
        self._start()  # with a stream of its own


listening = _Listener()
"""Run a function that decodes: its result, and what libjpeg or libpng printed meanwhile, "" where nothing.

The string is "" on Windows and with other C libraries than glibc and macOS's, where these lines reach stderr.
"""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=listening.after_fork)
