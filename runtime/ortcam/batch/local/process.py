"""`ScoringProcess`: one scoring process, as the driver sees it: started, given tasks, listened to, killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final

from ortcam.batch.local.messages import BrokenStreamError, Search, Sender, Setup, receive
from ortcam.errors import OrtcamError
from ortcam.support.terminal import printable

__all__ = ["WORKER", "Ended", "Heard", "ScoringProcess"]

WORKER = "ortcam.batch.local.worker"  # the module that a process runs; tests have one that breaks

_PIPE_BYTES: Final = 1 << 20  # the most that Linux grants without privileges
_END_SECONDS: Final = 5.0  # until a process has ended that has closed its pipes
_KEPT: Final = 2000  # bytes of what a process printed last


@dataclass(frozen=True)
class Ended:
    """The last thing that is heard of a process.

    Attributes:
        how: the name of a signal, or an exit code in words.
        said: the last line that it printed; "" if there is none.
    """

    how: str
    said: str


class ScoringProcess:
    """A process that scores. What it sends is handed on by a thread of its own, and at last an `Ended`."""

    def __init__(self, setup: Setup | Search, heard: "Heard") -> None:
        """Start it.

        Args:
            setup: its first message.
            heard: called with this and each message, in the thread that listens.

        Raises:
            OrtcamError: the system starts no more processes.
        """
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this Python and a module of ours
                [sys.executable, "-P", "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_environment(setup.threads),
                # Ctrl-C in a terminal goes to the driver alone, which ends the batch in an orderly way.
                process_group=None if sys.platform == "win32" else 0,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise OrtcamError(f"no scoring process can be started ({error.strerror})") from None
        self._heard = heard
        self._said = b""
        self._widen()
        self._sender = Sender(_open(self._process.stdin))
        self._reader = threading.Thread(target=self._read_errors, name="ortcam-errors", daemon=True)
        self._reader.start()
        threading.Thread(target=self._listen, name="ortcam-listen", daemon=True).start()
        self.send(setup)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send a message. A process that is gone gets none; its `Ended` is on the way."""
        with contextlib.suppress(BrokenStreamError):
            self._sender.send(message)

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended, but no longer than so many seconds; whether it has."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _listen(self) -> None:
        answers = _open(self._process.stdout)
        while True:
            try:
                message = receive(answers)
            except BrokenStreamError:
                break
            except Exception:  # noqa: BLE001 - a process that was killed while it wrote, or wrote nonsense
                self.kill()
                break
            self._heard(self, message)
        how = self._ending()
        self._reader.join(_END_SECONDS)
        self._heard(self, Ended(how, _last_line(self._said)))
        for pipe in (self._process.stdin, answers):
            with contextlib.suppress(OSError):
                _open(pipe).close()

    def _read_errors(self) -> None:
        with _open(self._process.stderr) as errors:
            while piece := errors.read(_KEPT):
                self._said = (self._said + piece)[-_KEPT:]

    def _ending(self) -> str:
        """How the process ended that is gone, or about to be."""
        if not self.wait(_END_SECONDS):
            self.kill()
        code = self._process.wait()
        try:
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError:
            return f"signal {-code}"

    def _widen(self) -> None:
        """Let rows through in few writes: a pipe of Linux holds 64 KiB, then the other process has to read."""
        with contextlib.suppress(ImportError, AttributeError, OSError):  # another system, or a user with too many pipes
            import fcntl  # noqa: PLC0415 - Windows has none

            for pipe in (self._process.stdin, self._process.stdout):
                fcntl.fcntl(_open(pipe), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


Heard = Callable[[ScoringProcess, Any], None]


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # each was asked for
    return pipe


def _environment(threads: int | None) -> dict[str, str]:
    """That of this process, with the places of its packages. Libraries besides ONNX Runtime get no more threads."""
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)  # noqa: PTH100 - as text
    environment = dict(os.environ) | {"PYTHONPATH": path}
    environment.pop("PYTHONWARNINGS", None)  # the driver shows warnings as its user wants them
    if threads is not None:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.setdefault(name, str(threads))
    return environment


def _last_line(content: bytes) -> str:
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    return printable(lines[-1].strip()) if lines else ""
