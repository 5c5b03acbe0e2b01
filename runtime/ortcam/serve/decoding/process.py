"""One process that decodes, as the server sees it: started, asked, replaced once it is gone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OrtcamError
from ortcam.images.preprocessing import Preprocessing
from ortcam.serve.decoding.frames import BrokenFrameError, read_array, read_head, write_frame
from ortcam.serve.decoding.sources import Encoded
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.settings import RequestLimits

__all__ = ["Decoded", "DecodingProcess"]

_START_SECONDS: Final = 120.0  # until a process is ready, on a machine that is busy
_PIPE_BYTES: Final = 1 << 20  # the most that Linux grants without privileges
_END_SECONDS: Final = 5.0  # until a process has ended that has closed its pipes
# Of the environment a process gets what finds Python, its packages and their libraries: no token of this server, and
# no password of a cloud, since its decoders work on hostile bytes.
_PASSED: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
_PASSED_BEGINNINGS: Final = ("PYTHON", "OPENCV_", "LC_", "LANG")
_SAMPLES: Final[dict[str, type[np.generic]]] = {
    kind.__name__: kind for kind in (np.uint8, np.uint16, np.int16, np.float32)
}
_FROM_OUTSIDE: Final = {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"}  # a decoder ends by none of these


class _InterruptedError(Exception):
    """Somebody ended the process; says by which signal."""


@dataclass(frozen=True)
class Decoded:
    """What a process made of an image.

    Attributes:
        pixels: uint8 [h,w,3], RGB, upright: the image, or its rendering.
        model_input: float32 [1,C,H,W].
        warnings: what is wrong with the image, one sentence each.
        samples: [h,w,C] of what the preprocessing takes; the pixels themselves unless it needs samples.
    """

    pixels: NDArray[np.uint8]
    model_input: NDArray[np.float32]
    warnings: tuple[str, ...]
    samples: NDArray[Any]


class DecodingProcess:
    """A process that decodes one image at a time. One thread at a time may start or ask it; any may kill it.

    Attributes:
        limits: of an image.
    """

    def __init__(self, limits: RequestLimits, *, ended: Callable[[str], None] = lambda _: None) -> None:
        """Start nothing yet.

        Args:
            limits: of an image.
            ended: called with "time" where a process took too long, and with "died" where it ended otherwise, before
                another one takes its place.
        """
        self.limits = limits
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._late = False
        self._closed = False
        self._turn = threading.Lock()  # held while the process is replaced or killed

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """Number of the process; None where there is none."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start a process and wait until it can decode.

        Raises:
            OrtcamError: it does not start, or this was closed.
        """
        self._end()
        bounds = {
            "pixels": self.limits.pixels,
            "memory": self.limits.decode_bytes,
            "seconds": self.limits.decode_seconds,
        }
        command = [sys.executable, "-P", "-m", "ortcam.serve.decoding.worker", json.dumps(bounds)]
        with self._turn:
            if self._closed:
                raise OrtcamError("the processes that decode images are closed")
            try:
                process = self._process = subprocess.Popen(  # noqa: S603 - this Python and a module of ours
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    env=_environment(),
                    # Ctrl-C in a terminal goes to the server alone, which drains. A session of its own would do, too,
                    # but Linux then shares processors among sessions, whatever the priority of the server's threads.
                    process_group=None if sys.platform == "win32" else 0,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            except OSError as error:
                raise OrtcamError(f"no process can be started that decodes images ({error.strerror})") from None
        _widen(_open(process.stdin), _open(process.stdout))
        with self._killed_after(_START_SECONDS):
            try:
                read_head(_open(process.stdout))
            except (BrokenFrameError, ValueError):
                ending = _ending(process)
                self._end()
                raise OrtcamError(
                    f"the process that decodes images did not start ({ending}): run "
                    f"`{Path(sys.executable).name} -m ortcam.serve.decoding.worker '{command[-1]}'` to see why"
                ) from None

    def decode(self, source: Encoded, preprocessing: Preprocessing) -> Decoded:
        """Have an image decoded and preprocessed.

        Raises:
            ImageError: the image is refused.
            Refusal: 413, it has too many pixels. 422, it takes too long or too much memory, or crashed its decoder.
                503, the process was ended from outside, or could not be started.
        """
        try:
            return self._attempt(source, preprocessing)
        except _InterruptedError:  # not by the image, so it may try once more
            pass
        try:
            return self._attempt(source, preprocessing)
        except _InterruptedError as error:
            raise Refusal(
                503,
                f"{_name(source)} was not decoded, because its decoder was ended ({error}): try again",
                retry_after=1,
            ) from None

    def _attempt(self, source: Encoded, preprocessing: Preprocessing) -> Decoded:
        """Ask a process, which is started if there is none.

        Raises:
            _InterruptedError: somebody ended the process.
        """
        if not self.running:
            if self._process is not None:
                self._ended("died")  # while it had nothing to do
            try:
                self.start()
            except OrtcamError:
                raise Refusal(503, "images cannot be decoded at the moment: try again", retry_after=5) from None
        process = self._process
        assert process is not None
        question = {"name": source.name, "preprocessing": asdict(preprocessing)}
        with self._killed_after(self.limits.decode_seconds):
            try:
                write_frame(_open(process.stdin), question, [source.content])
                return self._answer(_open(process.stdout), preprocessing)
            except (BrokenFrameError, OSError):
                ending = _ending(process)
            except (KeyError, OverflowError, TypeError, ValueError):
                ending = "a broken answer"
        self._end()
        if self._closed:
            raise Refusal(503, "the server is shutting down", retry_after=5)
        self._ended("time" if self._late else "died")
        if self._late:
            most = f"{self.limits.decode_seconds:g} s"
            raise Refusal(422, f"{_name(source)} takes more than {most} to decode: give a smaller or simpler image")
        if ending in _FROM_OUTSIDE:
            raise _InterruptedError(ending)
        raise Refusal(422, f"{_name(source)} cannot be decoded, its decoder crashed ({ending}): give another image")

    def _answer(self, stream: Any, preprocessing: Preprocessing) -> Decoded:
        """Read what came of an image.

        Raises:
            ImageError: the image is refused.
            Refusal: it has too many pixels.
            ValueError: no answer that a process gives.
        """
        head = read_head(stream)
        refused = head.get("refused")
        if refused is not None:
            if refused["status"] == 413:
                raise Refusal(413, str(refused["message"]))
            raise ImageError(str(refused["message"]))
        height, width = (int(side) for side in head["pixels"][:2])
        if height < 1 or width < 1 or height * width > self.limits.pixels:
            raise ValueError
        pixels = read_array(stream, (height, width, 3), np.uint8)
        channels = preprocessing.channels
        model_input = read_array(stream, (1, channels, preprocessing.height, preprocessing.width), np.float32)
        samples: NDArray[Any] = pixels
        if preprocessing.needs_samples:
            kind = _SAMPLES[head["samples"]]
            if height * width * channels * np.dtype(kind).itemsize > self.limits.decode_bytes:
                raise ValueError
            samples = read_array(stream, (height, width, channels), kind)
        return Decoded(pixels, model_input, tuple(str(warning) for warning in head["warnings"]), samples)

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the process if what is done here takes longer."""
        process, over = self._process, False

        def expire() -> None:
            with self._turn:
                if not over:
                    self._late = True
                    _kill(process)

        self._late = False
        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._turn:
                over = True

    def kill(self) -> None:
        """End the process at once; the image that it decodes is lost."""
        with self._turn:
            _kill(self._process)

    def close(self) -> None:
        """End the process for good."""
        with self._turn:
            self._closed = True
            _kill(self._process)
        self._end()

    def _end(self) -> None:
        """End the process if it still runs, and close its pipes."""
        with self._turn:
            process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                _open(pipe).close()


def _widen(*pipes: IO[bytes]) -> None:
    """Let an image through in few writes: a pipe of Linux holds 64 KiB, then the other process has to read."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # another system, or a user with too many pipes
        import fcntl  # noqa: PLC0415 - Windows has none

        for pipe in pipes:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _open(pipe: IO[bytes] | None) -> Any:
    assert pipe is not None  # each was asked for
    return pipe


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.kill()


def _environment() -> dict[str, str]:
    """What a process needs to know: where packages are, and that one thread is enough."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_BEGINNINGS)
    }
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)  # noqa: PTH100 - as text
    return passed | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process ended that is gone, or about to be: the name of a signal, or its exit code in words."""
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _name(source: Encoded) -> str:
    return source.name or f"image of {len(source.content)} bytes"
