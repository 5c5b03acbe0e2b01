"""What a scorer graph is asked for: columns of its outputs, the weights of scores, and what is subtracted."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Manifest
from ortcam.engine.features import to_probabilities
from ortcam.engine.score import term_sizes
from ortcam.methods import Plan
from ortcam.request import ExplainRequest

__all__ = ["Scored", "blank_scores", "scored_by"]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What goes to a scorer for a request.

    Attributes:
        columns: int64 [K], its input `targets`.
        rows: float32 [S,U], its input `score`; zeros where only classes are asked for.
        baseline: float32 [K], its input `baseline`.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.float32]
    baseline: NDArray[np.float32]


def scored_by(request: ExplainRequest, manifest: Manifest, plan: Plan, targets: NDArray[np.int64]) -> Scored:
    """What a scorer is asked for, without a baseline.

    The columns are those of the scorers (`ortcam_export.graphs.scorer`): classes, one score, then with softmax and
    sigmoid all logits and all probabilities, for both outputs.

    Args:
        request: for this bundle.
        manifest: of the bundle.
        plan: of the method.
        targets: int64 [K], the classes; -1 for an expression.
    """
    terms, outputs, score = manifest.graphs.score_terms, manifest.outputs, request.score
    rows = np.zeros((1, sum(term_sizes(terms, outputs))), np.float32)
    columns = targets
    if score is not None and score.word is None:
        rows, columns = score.matrix(manifest).rows(terms), np.array([outputs])
    elif score is not None and manifest.activation != "identity":
        by_probability = score.word == "probabilities"
        if by_probability != (plan.weighting == "probability"):
            columns = targets + outputs + 1 + (outputs if by_probability else 0)
    return Scored(columns.astype(np.int64), rows, np.zeros(len(targets), np.float32))


def blank_scores(
    request: ExplainRequest, manifest: Manifest, targets: NDArray[np.int64], logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The scores of the blank image, float32 [K], of its logits, float32 [outputs]."""
    score = request.score
    found: NDArray[Any]
    if score is not None and score.word is None:
        found = score.matrix(manifest).value(logits)
    elif score is not None and score.word == "logits":
        found = logits[targets]
    else:
        found = to_probabilities(logits, manifest.activation)[targets]
    return found.astype(np.float32)
