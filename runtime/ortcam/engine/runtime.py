"""ONNX Runtime itself: imported with its telemetry turned off, its version, and its errors in ortcam's words.

From 1.29 on ONNX Runtime writes an identifier of the device and a database into the user's cache folder when it is
imported, and looks up the host it reports to. Only the environment variable stops that, and only before the import;
child processes inherit it. Whoever sets the variable keeps what they set: `ORT_DISABLE_TELEMETRY=0` leaves it on.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from ortcam.errors import OrtcamError, OutOfMemoryError, ProviderError
from ortcam.support.extras import end_the_command, runtimes
from ortcam.support.terminal import first_line

__all__ = ["decline_telemetry", "is_out_of_memory", "ort", "readable_errors", "runtime_version"]

_VARIABLE: Final = "ORT_DISABLE_TELEMETRY"

# What ONNX Runtime, CUDA and cuDNN say when memory runs out; lower case. ONNX Runtime has no error class for it.
_OUT_OF_MEMORY: Final = (
    "failed to allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "memory allocation failure",
    "is smaller than requested bytes",  # of an arena with a limit: `gpu_mem_limit`
)


def decline_telemetry() -> None:
    """Turn the telemetry off for this process and its children, unless the user has said something else.

    If ONNX Runtime was imported before, what it wrote at the import is there already. It is then told to report
    nothing.
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "1"
    imported = sys.modules.get("onnxruntime")
    disable = getattr(imported, "disable_telemetry_events", None)
    if disable is not None:
        disable()


decline_telemetry()
try:
    import onnxruntime as ort
except ImportError as error:  # pragma: no cover - exercised in a subprocess
    is_missing = isinstance(error, ModuleNotFoundError)
    reason = "which is not installed" if is_missing else f"which cannot be imported here ({error})"
    message = f"ortcam needs an ONNX Runtime, {reason}: {runtimes()}"
    end_the_command(message)  # which has no use for a traceback
    raise ImportError(message) from error


def runtime_version() -> str:
    """The version of the ONNX Runtime in use."""
    return str(ort.__version__)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


@contextlib.contextmanager
def readable_errors(doing: str) -> Iterator[None]:
    """Raise what this package documents instead of what ONNX Runtime raises, which has types of its own.

    Args:
        doing: what cannot be done, in words: "run the head".

    Raises:
        OutOfMemoryError: memory ran out.
        ProviderError: anything else went wrong.
    """
    try:
        yield
    except OrtcamError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"out of memory: {first_line(error)}") from error
        raise ProviderError(f"ONNX Runtime cannot {doing}: {first_line(error)}") from error
