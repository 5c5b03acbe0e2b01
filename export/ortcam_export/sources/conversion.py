"""From a source to one tidy ONNX IR model, image [N,C,H,W] -> logits [N,classes], and the original to compare with."""

from ortcam_export.sources.converted import Converted
from ortcam_export.sources.onnx_files.conversion import convert_file
from ortcam_export.sources.onnx_files.file import OnnxFile
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import SaidActivation

__all__ = ["convert"]


def convert(source: Source, *, opset: int, activation: SaidActivation | None) -> Converted:
    """Convert a source.

    Args:
        source: as opened.
        opset: version of the ONNX operator set, for a PyTorch module.
        activation: from logits to probabilities, where the user said it, or "probabilities" where the model gives them
            itself; None takes the activation that a graph ends in, else softmax.

    Raises:
        ExportError: a model that cannot be converted, that is no classifier, or whose output could mean several things.
    """
    known = source.knows_preprocessing
    if isinstance(source.classifier, OnnxFile):
        return convert_file(
            source.classifier,
            source.preprocessing,
            activation,
            known=known,
            embeddings=source.embeddings,
            baseline=source.baseline_value,
        )
    # Only here, so that an `.onnx` file needs no PyTorch.
    from ortcam_export.sources.pytorch.conversion import convert_module  # noqa: PLC0415

    return convert_module(
        source.classifier,
        source.preprocessing,
        opset=opset,
        activation=activation,
        notes=source.notes,
        known=known,
        embeddings=source.embeddings,
        baseline=source.baseline_value,
    )
