"""A classifier as a graph with logits to compare it with, and what both conversions share on the way there."""

import dataclasses
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Activation, OutputPart
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import PARITY_TOLERANCE
from ortcam_export.graphs.endings import Ending
from ortcam_export.graphs.normalisation import Taken
from ortcam_export.graphs.running import run_part
from ortcam_export.graphs.surgery import append_logits, logits_of
from ortcam_export.graphs.weights import WeightsFile
from ortcam_export.sources.types import SaidActivation
from ortcam_export.staging import temporary

__all__ = [
    "HIDES_TO_BLACK",
    "Converted",
    "activation_of",
    "notes_on_normalisation",
    "probe_images",
    "run_whole",
    "take_logits",
    "taken_in_front",
]

# A note on what was said, not on where the preprocessing comes from.
HIDES_TO_BLACK: Final = "masks hide to black: no mean colour was found at the start of the graph, and none was given"

# Of a probability near 0 or 1: how often it is rounded on its way to the output, and the most that a tolerance may be.
_ROUNDINGS: Final = 8
_COARSEST_TOLERANCE: Final = 1e-1

_IMAGES: Final = 2


@dataclasses.dataclass(frozen=True)
class Converted:
    """A classifier as a graph, and the classifier it came from.

    Attributes:
        model: image float32 [N,C,H,W] -> logits float32 [N,classes], N open.
        preprocessing: from a photograph to `image`.
        activation: from logits to probabilities.
        integers: whether the graph computes with 8-bit integers.
        images: what it is measured on, uint8 [N,H,W,C] at the input's size, see `probe_images`.
        logits: the original's for them, float32 [N,classes].
        reference: what computed these.
        tolerance: max |difference| / max |logit| that its head(features(x)) may have.
        scorer_tolerance: the same of its scorers.
        ending: what the original ended in.
        assumed_activation: whether nothing but custom says that its outputs are logits of a softmax.
        notes: what was done to the graph that its user should know, a sentence each.
        output_shape: of one image's output in the original, before it was flattened; empty stands for (classes,).
        parts: the outputs of the original that make up this one, where there are several.
    """

    model: ir.Model
    preprocessing: Preprocessing
    activation: Activation
    integers: bool
    images: NDArray[np.uint8]
    logits: NDArray[np.float32]
    reference: str
    tolerance: float
    scorer_tolerance: float
    ending: Ending
    assumed_activation: bool
    notes: tuple[str, ...] = ()
    output_shape: tuple[int, ...] = ()
    parts: tuple[OutputPart, ...] = ()

    @property
    def has_classes(self) -> bool:
        """Whether each output is one of a row, which may have a name; values of tensors have none."""
        return len(self.output_shape) < 2 and not self.parts

    @property
    def outputs_in_words(self) -> str:
        """What the model has, for a sentence: an output with its shape, or several."""
        if self.parts:
            return f"{len(self.parts)} outputs"
        return f"an output [{','.join(map(str, ('N', *self.output_shape)))}]"


def notes_on_normalisation(taken: Taken, given: Preprocessing, *, integers: bool = False, known: bool) -> list[str]:
    """What became of the normalisation that a graph began with, and the colour that masks hide to.

    Args:
        taken: what was taken out of the graph.
        given: from a photograph to the graph's own input.
        integers: whether that is of integers, whose mean is one of their type and no normalisation.
        known: whether anybody said what `given` is.
    """
    notes = list(taken.notes)
    prepared = taken.normalised or taken.preprocessing
    if taken.operators and taken.dropped:
        notes.append(f"the graph's own normalisation ({taken.operators}) is now part of the preprocessing")
    elif taken.operators:
        notes.append(
            f"the graph's own normalisation ({taken.operators}) is now part of the preprocessing, and undone in front "
            "of the graph, which stays as it is"
        )
    if prepared.channel_order != given.channel_order:
        notes.append(
            f"the graph's own exchange of the channels, too: the bundle's graphs take {prepared.channel_order}"
        )
    if taken.operators and any(given.mean) and not integers:
        notes.append(
            f"the graph normalises what is normalised already: together that is a mean of {_listed(prepared.mean)} and "
            f"a std of {_listed(prepared.std)}, of pixels in [0, {prepared.scale:g}]"
        )
    if taken.normalised is not None:
        notes.append(
            f"masks hide to {_listed(taken.preprocessing.mean)}, where the mean is {_listed(prepared.mean)}, of pixels "
            f"in [0, {prepared.scale:g}]"
        )
    elif not known and not any(prepared.mean):
        notes.append("the graph has no normalisation of its own: masks will hide to the colour that --mean says")
    elif not any(prepared.mean):
        notes.append(HIDES_TO_BLACK)
    return notes


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def taken_in_front(operator: str, classes: int) -> str:
    """The note on scores that a graph gives by rank, and that were taken in front of that."""
    return f"the model ends in {operator}, scores by rank: the scores in front, of all {classes} classes, are taken"


def activation_of(said: SaidActivation | None, ending: Ending, given: Activation | None) -> Activation:
    """The bundle's activation: of the probabilities that the model gives, as said, or what its graph ended in."""
    if said == "identity":
        return said
    if given is not None:
        return given
    if said is None or said == "probabilities":
        return ending.activation or "softmax"
    return said


def take_logits(
    model: ir.Model, probabilities: NDArray[np.float32], activation: Activation, notes: list[str]
) -> tuple[NDArray[np.float32], float]:
    """Make logits of probabilities, in the graph and in what it is compared with.

    Returns:
        The logits, float32 [N,classes], and how far float32 lets them differ, relative to the largest. The logit
        of a probability near 0 or 1 has few digits.
    """
    append_logits(model, activation)
    how = "their logarithms are" if activation == "softmax" else "log p - log(1 - p) of each is"
    notes.append(f"the model gives probabilities: {how} taken for logits")
    logits = logits_of(probabilities, activation)
    if activation == "softmax":
        return logits, PARITY_TOLERANCE
    spacing = float(np.finfo(np.float32).eps)
    nearest = min(float(probabilities.min()), 1 - float(probabilities.max()))
    lost = _ROUNDINGS * spacing / max(nearest, spacing) / float(np.abs(logits).max())
    return logits, min(PARITY_TOLERANCE + lost, _COARSEST_TOLERANCE)


def run_whole(model: ir.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The converted graph in ONNX Runtime, before anything is cut."""
    with temporary() as folder:
        WeightsFile(folder).store(whole := model.clone())
        return run_part(whole, folder, {"image": images})[0]


def probe_images(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Images to measure with, always the same: colours that change smoothly, edges, and a little noise.

    Returns:
        uint8 [2,height,width,channels], of levels: of RGB, or of the model's own channels (`Preprocessing.of_levels`).
    """
    generator = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    frequency = generator.uniform(-12, 12, (2, _IMAGES, channels, 6, 1, 1))
    phase = generator.uniform(0, 2 * np.pi, (_IMAGES, channels, 6, 1, 1))
    waves = np.sin(frequency[0] * rows + frequency[1] * columns + phase)
    edges = np.where(waves[:, :, 0] > 0.3, 0.25, 0)
    noise = generator.normal(0, 0.03, edges.shape)
    pixels = np.clip(0.5 + edges + waves[:, :, 1:].sum(axis=2) / 12 + noise, 0, 1)
    images: NDArray[np.uint8] = np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    return images
