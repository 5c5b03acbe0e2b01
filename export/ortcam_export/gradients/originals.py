"""The original model as a second reference for gradients, where it is PyTorch's."""

from ortcam.parity import probe_input
from ortcam_export.gradients.measuring import Autograd
from ortcam_export.sources.converted import Converted
from ortcam_export.sources.onnx_files.file import OnnxFile
from ortcam_export.sources.source import Source

__all__ = ["autograd_of"]


def autograd_of(source: Source, converted: Converted) -> Autograd | None:
    """PyTorch's gradients on the images of a conversion; None for an `.onnx` file."""
    if isinstance(source.classifier, OnnxFile):
        return None
    # Only here, so that an `.onnx` file needs no PyTorch.
    from ortcam_export.gradients.autograd import ModuleGradients  # noqa: PLC0415

    return ModuleGradients(source.classifier, probe_input(converted.images, source.preprocessing))
