"""A classifier that has been loaded and waits for its conversion: what both readers return."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ortcam.bundle import FixedInput, ModelRecord
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.embeddings import ClassEmbeddings
from ortcam_export.sources.types import BaselineValue

if TYPE_CHECKING:
    import torch

    from ortcam_export.sources.onnx_files.file import OnnxFile

__all__ = ["Source"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A classifier ready to be converted.

    Attributes:
        record: what the bundle says of it.
        classifier: the module in eval mode, or the `.onnx` file as read.
        preprocessing: from a photograph to the classifier's own input.
        preprocessing_source: where the preprocessing came from, in words.
        labels: one per class, or None where nobody has said what they are.
        classes: their number, where it is known before the conversion.
        notes: what was done to the classifier that its user should know, a sentence each.
        labels_source: where labels that the user has not given come from; they count only where they fit.
        assumed: what was taken over without anybody saying it, a sentence each.
        metadata: what an `.onnx` file says of itself.
        inputs: further inputs that were fixed, by name.
        embeddings: of the classes, where cosines with them are the logits.
        baseline_value: what masks hide to, where the user said it.
    """

    record: ModelRecord
    classifier: "torch.nn.Module | OnnxFile"
    preprocessing: Preprocessing
    preprocessing_source: str
    labels: tuple[str, ...] | None
    classes: int | None = None
    notes: tuple[str, ...] = ()
    labels_source: str = ""
    assumed: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, FixedInput] = dataclasses.field(default_factory=dict)
    embeddings: ClassEmbeddings | None = None
    baseline_value: BaselineValue | None = None

    @property
    def knows_preprocessing(self) -> bool:
        """Whether anything says how an image becomes the model's input."""
        return self.preprocessing_source != "not known"

    def labels_of(self, classes: int) -> tuple[str, ...] | None:
        """The labels, if there is one per class; else None.

        Raises:
            ExportError: the user gave labels, and not as many as there are classes.
        """
        if self.labels is None or len(self.labels) == classes:
            return self.labels
        if self.labels_source:  # these count only where they fit
            return None
        raise ExportError(
            f"{len(self.labels)} labels for a model of {classes} classes; accepted is one per class, in order"
        )
