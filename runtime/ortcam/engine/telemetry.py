"""ONNX Runtime's telemetry, which ortcam turns off: a picture and what is done with it stay on this device.

From 1.29 on ONNX Runtime writes an identifier of the device and a database into the user's cache folder when it is
imported, and looks up the host it reports to. Only the environment variable stops that, and only before the import;
child processes inherit it. Whoever sets the variable keeps what they set: `ORT_DISABLE_TELEMETRY=0` leaves it on.
"""

import os
import sys
from typing import Final

__all__ = ["decline_telemetry"]

_VARIABLE: Final = "ORT_DISABLE_TELEMETRY"


def decline_telemetry() -> None:
    """Turn the telemetry off for this process and its children, unless the user has said something else.

    Where ONNX Runtime was imported before, what it wrote at the import is there already; it is told to report nothing.
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "1"
    imported = sys.modules.get("onnxruntime")
    disable = getattr(imported, "disable_telemetry_events", None)
    if disable is not None:
        disable()
