"""How ortcam reaches `ortcam_export`, which only exporting needs and not everybody has: by its name, as a plugin."""

import importlib
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
        return importlib.import_module("ortcam_export")
    except ImportError as error:
        raise OrtcamError(missing(doing, extra, error)) from None


def is_of_torchvision(name: str) -> bool:
    """Whether torchvision has a classifier of this name, as far as what exporting needs is installed to tell."""
    try:
        names = importlib.import_module("ortcam_export.sources.model_names")
    except ImportError:
        return False
    return bool(names.torchvision_names().get(name) == "classifier")


def extra_for(model: str) -> str:
    """The extra that exporting a model needs: a file in ONNX's format needs no PyTorch."""
    return "onnx" if model.lower().endswith(".onnx") else "export"
