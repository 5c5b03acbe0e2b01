"""How ortcam reaches `ortcam_export`, which only exporting needs and not everybody has."""

from typing import Any

from ortcam.errors import OrtcamError
from ortcam.support.extras import missing

__all__ = ["extra_for", "import_exporter", "is_of_torchvision"]


def import_exporter(doing: str, extra: str) -> Any:
    """The package `ortcam_export`.

    Args:
        doing: what needs it, such as "`ortcam fuse`".
        extra: of ortcam, that has what this needs: "onnx" for what is ONNX already, else "export".

    Raises:
        OrtcamError: what it needs is not installed; the message has the command that installs it.
    """
    try:
        import ortcam_export  # noqa: PLC0415 - only who exports loads what it needs
    except ImportError as error:
        raise OrtcamError(missing(doing, extra, error)) from None
    return ortcam_export


def is_of_torchvision(name: str) -> bool:
    """Whether torchvision has a classifier of this name, as far as what exporting needs is installed to tell."""
    try:
        from ortcam_export.sources.model_names import torchvision_names  # noqa: PLC0415 - where the name is asked for
    except ImportError:
        return False
    return torchvision_names().get(name) == "classifier"


def extra_for(model: str) -> str:
    """The extra that exporting a model needs: a file in ONNX's format needs no PyTorch."""
    return "onnx" if model.lower().endswith(".onnx") else "export"
