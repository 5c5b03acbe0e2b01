"""How the commands reach `ortcam_export`, which only some of them need and not everybody has."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from ortcam.errors import OrtcamError
from ortcam.extras import missing
from ortcam.terminal import printable

__all__ = ["import_exporter", "timed_report"]


def import_exporter(doing: str, extra: str) -> Any:
    """The package `ortcam_export`.

    Args:
        doing: the command that needs it, say "`ortcam fuse`".
        extra: of ortcam, that has what this command needs: "onnx" for what is ONNX already, else "export".

    Raises:
        OrtcamError: what it needs is not installed; the message has the command that installs it.
    """
    try:
        import ortcam_export  # noqa: PLC0415 - only these commands may load what it needs
    except ImportError as error:
        raise OrtcamError(missing(doing, extra, error)) from None
    return ortcam_export


def timed_report() -> Callable[[str], None]:
    """What says on stderr which stage begins, and how many seconds after this call."""
    started = time.perf_counter()

    def report(stage: str) -> None:
        with contextlib.suppress(OSError):  # a full or closed standard error is no reason to stop
            print(f"{time.perf_counter() - started:6.1f} s  {printable(stage)}", file=sys.stderr, flush=True)

    return report
