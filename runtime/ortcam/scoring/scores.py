"""Scores: what the masked passes of an image gave, as the weight of every channel."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.masks import Masks
from ortcam.scoring.prediction.links import ROUNDING
from ortcam.scoring.tally import Tally

__all__ = ["Scores", "weigh"]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the passes gave.

    Attributes:
        weights: float64 [K,C], alpha; where a channel was not scored what was predicted for it, or zero.
        gated_sum: float64 [K,H,W], sum of alpha_k gate(U(A_k)), where the plan sums gated maps.
        scored: bool [C], the channels whose weights come from passes.
        passes: forward passes made, padding left out.
        chunks: runs of the scorer graph.
        batch_size: masked images of a full run; during the search: the best size so far.
        energy_covered: share of the active channels' energy that the scored ones have, in [0,1].
        error: float64 [K], the estimate of the largest error of the finished maps; 0 where every channel was scored
            with all samples, 1 where it is not known yet, None where nothing was predicted.
        standard_error: float64 [K], of the weights that are means of fewer samples than the method has: the largest
            over channels, relative to the weight or the mean weight; None where all samples were made.
        simplified: what was done in a simpler way to meet the deadline, in words.
    """

    weights: NDArray[np.float64]
    gated_sum: NDArray[np.float64] | None
    scored: NDArray[np.bool_]
    passes: int
    chunks: int
    batch_size: int
    energy_covered: float
    error: NDArray[np.float64] | None
    standard_error: NDArray[np.float64] | None
    simplified: tuple[str, ...] = ()


def weigh(
    tally: Tally, masks: Masks, offset: NDArray[np.float64], predicted: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """The weight of every channel, less the offset, before a softmax divides them by their sum: float64 [C,K].

    Args:
        tally: what the passes gave.
        masks: of the image.
        offset: float64 [K], subtracted from every weight.
        predicted: float64 [L,K], weights before the offset is subtracted, of the active channels in the order of
            `masks.order`; where a channel was scored they are not looked at. None gives the others no weight.
    """
    channels, given = tally.positive_weights()
    positive = np.zeros((len(tally.count), len(offset)))
    if predicted is not None:
        positive[masks.order] = predicted
    positive[channels] = given if tally.soft else tally.means(channels)
    weighed = masks.active if predicted is not None else tally.scored
    weights = np.zeros_like(positive)
    weights[weighed] = positive[weighed] - offset
    if tally.offset is not None and weighed.any():  # what rounding leaves of scores that are all the same is no weight
        largest = np.maximum(np.abs(positive[weighed]).max(axis=0), np.abs(offset))
        weights[:, np.abs(weights).max(axis=0) <= ROUNDING * largest] = 0
    return weights
