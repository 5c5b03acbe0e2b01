"""`Outcome`: what a method gives for an image, before it becomes an `Explanation`."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam.results.explanation import Stats

__all__ = ["Outcome"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a method gives for K classes: the arrays of an `Explanation` before they become float32.

    Attributes:
        maps: float32 [K,H,W] in [0,1].
        raw_maps: float64 [K,h,w] or [K,H,W], before ReLU.
        weights: float64 [K,C].
        flat: bool [K].
        scored: bool [C].
        stats: what was done.
        layers: the maps are of.
    """

    maps: NDArray[np.float32]
    raw_maps: NDArray[np.float64]
    weights: NDArray[np.float64]
    flat: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    stats: Stats
    layers: tuple[Cut, ...]
