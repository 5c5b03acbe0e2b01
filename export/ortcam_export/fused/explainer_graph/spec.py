"""What a fused explainer is to do."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ortcam.methods import Plan

__all__ = ["ExplainerSpec"]


@dataclasses.dataclass(frozen=True)
class ExplainerSpec:
    """What a fused explainer is to do.

    Attributes:
        plan: of the method.
        budget: channels to score: a share in (0,1] of those that are not flat, or a number of them; None: all.
        precision: of the scorer.
        top_k: how many of the most probable classes are explained; None where the classes are an input.
        uint8_input: whether the input is an image as it was decoded.
        batch_size: masked images per turn of the loop.
        baseline: float32 [classes], probabilities of the empty image, where the plan subtracts them; else None.
    """

    plan: Plan
    budget: float | int | None
    precision: str
    top_k: int | None
    uint8_input: bool
    batch_size: int
    baseline: NDArray[np.float32] | None
