"""How the commands reach `ortcam_export`, which only some of them need and not everybody has."""

import sys
import time
from collections.abc import Callable
from typing import Any

from ortcam.errors import OrtcamError

__all__ = ["import_exporter", "timed_report"]


def import_exporter(needs: str) -> Any:
    """The package `ortcam_export`.

    Args:
        needs: which commands need which extra, in words.

    Raises:
        OrtcamError: what it needs is not installed.
    """
    try:
        import ortcam_export  # noqa: PLC0415 - only these commands may load what it needs
    except ImportError as error:
        raise OrtcamError(f"{error}; {needs}") from None
    return ortcam_export


def timed_report() -> Callable[[str], None]:
    """What says on stderr which stage begins, and how many seconds after this call."""
    started = time.perf_counter()

    def report(stage: str) -> None:
        print(f"{time.perf_counter() - started:6.1f} s  {stage}", file=sys.stderr, flush=True)

    return report
