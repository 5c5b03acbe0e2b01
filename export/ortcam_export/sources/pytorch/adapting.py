"""A module as a classifier of one argument and one output, by what its user said of its inputs and outputs."""

import dataclasses
from collections.abc import Mapping

import torch

from ortcam.bundle import FixedInput
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.sources.embeddings import ClassEmbeddings, embeddings_of
from ortcam_export.sources.fixed_inputs import read_inputs
from ortcam_export.sources.pytorch.arguments import arguments_of
from ortcam_export.sources.pytorch.outputs import LogitsOf, as_classifier, count_classes
from ortcam_export.sources.types import InputSpec

__all__ = ["Adapted", "adapt_module"]


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A module that takes images alone and returns one tensor [N,outputs].

    Attributes:
        classifier: the module.
        classes: how many it tells apart, or how many values it gives; None where that is not known, or where values
            have no names.
        inputs: further arguments that were fixed.
        embeddings: of the classes, if it is an encoder.
    """

    classifier: torch.nn.Module
    classes: int | None
    inputs: Mapping[str, FixedInput]
    embeddings: ClassEmbeddings | None


def adapt_module(
    module: torch.nn.Module, spec: InputSpec, preprocessing: Preprocessing, argument: str | None = None
) -> Adapted:
    """Fix a module's further arguments, take one of its outputs, and make a classifier of an encoder.

    Args:
        module: in eval mode; it stays as it is.
        spec: what was said.
        preprocessing: from a photograph to its input.
        argument: the name of its argument for the images, where it is not the first.

    Raises:
        ExportError: see `as_classifier`, `arguments_of` and `embeddings_of`.
    """
    height, width, channels = preprocessing.height, preprocessing.width, len(preprocessing.mean)
    embeddings = embeddings_of(spec)
    given = read_inputs(spec.inputs)
    arguments = arguments_of(module, argument, given)
    raw = spec.activation == "identity"
    classifier = as_classifier(
        module,
        height=height,
        width=width,
        output=spec.output,
        arguments=arguments,
        raw=raw,
        classes=embeddings,
        channels=channels,
    )
    if raw:
        shape = classifier.shape if isinstance(classifier, LogitsOf) else ()
        classes = shape[0] if len(shape) == 1 else None
    else:
        classes = count_classes(classifier, height=height, width=width, channels=channels)
    inputs = classifier.arguments.records(given) if isinstance(classifier, LogitsOf) else {}
    return Adapted(classifier, classes, inputs, embeddings)
