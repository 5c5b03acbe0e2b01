"""Tell probabilities from logits at the end of a graph without a known activation, or refuse what is unclear."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam_export.errors import ExportError
from ortcam_export.graphs.endings.activation import Ending
from ortcam_export.graphs.endings.operators import DECLARE, Declared

__all__ = ["gives_probabilities", "refuse_infinite"]

# How far rounding may take probabilities out of [0,1], and their sum from 1.
_ROUNDING: Final = 1e-3
# How far the sums of float32 outputs may differ where they are the same number.
_EQUAL_SUMS: Final = 1e-5


def gives_probabilities(
    model: str, ending: Ending, outputs: NDArray[np.float32], *, said: Declared | None
) -> Activation | None:
    """Find out whether a graph gives probabilities though it ends in no known activation.

    Args:
        model: its name, for the error.
        ending: of the graph.
        outputs: float32 [N,classes], with the activation taken out where there was one.
        said: what the user said of them.

    Returns:
        The activation that belongs to the probabilities: "softmax" where each row sums to 1, else "sigmoid", class by
        class. None for logits.

    Raises:
        ExportError: outputs that could mean several things, or that contradict what the user said.
    """
    refuse_infinite(model, outputs)
    if ending.activation == "softmax":
        _refuse_sigmoid_of_softmax(model, said)
    if ending.activation is not None:
        return None
    lowest, highest = float(outputs.min()), float(outputs.max())
    if lowest < -_ROUNDING or highest > 1 + _ROUNDING:
        if said == "probabilities":
            raise ExportError(
                f"{model}: --activation probabilities: its outputs for a picture go from {lowest:.3g} to "
                f"{highest:.3g}; accepted are outputs from 0 to 1. Say softmax or sigmoid for logits"
            )
        _refuse_multiples(model, outputs)
        return None
    if outputs.shape[1] > 1 and np.abs(outputs.astype(np.float64).sum(axis=1) - 1).max() < _ROUNDING:
        _refuse_sigmoid_of_softmax(model, said)
        return "softmax"
    if said == "probabilities":
        return "sigmoid"
    if lowest < 0 or highest > 1:
        return None
    if ending.bounding is not None:
        raise ExportError(
            f"{model}: its outputs lie between 0 and 1, where {ending.bounding} keeps them: they are no logits; "
            f"{DECLARE}. Accepted otherwise is a model that gives logits, or ends in Softmax or Sigmoid"
        )
    if said is None and outputs.shape[1] > 1:
        raise ExportError(
            f"{model}: its outputs lie between 0 and 1 without summing to 1, and it ends in no Sigmoid: they may be "
            f"logits or not; where they are, say how they become probabilities with --activation softmax or sigmoid; "
            f"{DECLARE}"
        )
    return None


def refuse_infinite(model: str, outputs: NDArray[np.float32]) -> None:
    """Refuse outputs that are infinite or not a number for the probe's images.

    Raises:
        ExportError: some are.
    """
    if not np.isfinite(outputs).all():
        raise ExportError(
            f"{model}: its logits are not finite for an ordinary picture; accepted is one whose logits are"
        )


def _refuse_multiples(model: str, outputs: NDArray[np.float32]) -> None:
    """Percentages and the like: not negative, and with the same sum for images that differ."""
    sums = outputs.astype(np.float64).sum(axis=1)
    alike = float(sums.max() - sums.min()) <= _EQUAL_SUMS * float(sums.max())
    # A model whose outputs do not depend on the image has equal sums as well.
    differ = float(np.ptp(outputs, axis=0).max()) > _ROUNDING * float(outputs.max())
    percent = bool(np.allclose(sums, 100, rtol=_EQUAL_SUMS))
    if outputs.shape[1] > 1 and outputs.min() >= 0 and alike and (differ or percent):
        raise ExportError(
            f"{model}: its outputs are not negative and sum to {sums.mean():.4g} for each picture: they are "
            f"probabilities times {sums.mean():.4g}, not logits; divide them in the model, and say "
            "--activation probabilities"
        )


def _refuse_sigmoid_of_softmax(model: str, said: Declared | None) -> None:
    """A softmax knows its logits up to a constant only, on which their sigmoids would depend."""
    if said == "sigmoid":
        raise ExportError(
            f"{model}: --activation sigmoid: the graph ends in a softmax, whose classes exclude each other; accepted "
            "is softmax"
        )
