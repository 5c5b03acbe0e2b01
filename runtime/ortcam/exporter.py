"""How the commands reach `ortcam_export`, which only some of them need and not everybody has."""

from typing import Any

from ortcam.errors import OrtcamError
from ortcam.extras import missing

__all__ = ["import_exporter"]


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
