"""Posterior: what the process of `gaussian_process` says once weights are given, and the prediction made of it."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.prediction.recalled import FIRST_CHANGE, Before, Recalled

__all__ = ["Posterior", "Prediction"]


@dataclasses.dataclass(frozen=True)
class Posterior:
    """The process given weights; C channels, of which O were not scored; K classes."""

    open: NDArray[np.intp]  # [O]
    channels: NDArray[np.intp]  # [n], those that the others are predicted from
    scored: NDArray[np.intp]  # [N]
    length: float
    noise: float
    spread: NDArray[np.float64]  # [K], s^2
    top: NDArray[np.float64]  # [K], t
    slopes: NDArray[np.float64]  # [O,K], d alpha / d y over `unit`
    unit: NDArray[np.float64]  # [K]
    mean: NDArray[np.float64]  # [O,K]
    variance: NDArray[np.float64]  # [O], over s^2, without the noise; of a recalled channel less than it is at least
    cross: NDArray[np.float32]  # [O,n], kernel, with the noise where a channel was recalled
    inverse: NDArray[np.float64]  # [n,n]
    surprise: NDArray[np.float64]  # [K]
    recalls: bool | None  # whether earlier frames count; None: nothing says
    recalled: Recalled | None  # from earlier frames
    safety: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The weights of all channels, given those scored.

    Attributes:
        weights: float64 [C,K]; those scored as they are.
        deviation: float64 [C,K], standard deviation of the others; 0 where scored.
        y: float64 [C,K], what is modelled of the weights: of those scored as it is, of the others the mean.
        posterior: the process given the scores, which the estimate of the error is made of.
    """

    weights: NDArray[np.float64]
    deviation: NDArray[np.float64]
    y: NDArray[np.float64]
    posterior: Posterior

    def known(self, before: Before | None) -> Before:
        """What is known after a frame, for the next one; `before` is what was known before it."""
        posterior = self.posterior
        y, age, left = self.y.copy(), np.full(len(self.y), np.inf), np.zeros(self.y.shape)
        change = FIRST_CHANGE * posterior.spread
        left[posterior.open] = (posterior.variance + posterior.noise)[:, None] * posterior.spread
        if before is not None and posterior.recalled is not None:
            change, again = posterior.recalled.change, posterior.recalled.channels
            y[again], age[again] = posterior.recalled.y, before.age[again]
        age[posterior.scored] = 0
        return Before(y, age, left, change)
