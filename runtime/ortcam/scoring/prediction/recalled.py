"""Recalled weights: those that earlier frames of a stream scored, as observations of what they are in this one.

`gaussian_process` models y_k of a channel k as mu + f_k + e_k, smooth over the masks but for e_k, which is the
channel's own. A channel that an earlier frame scored, and this one did not, was seen as z_k. It counts as an
observation, too:

    b_0 + b_1 z_k = y_k + c_k,   c_k ~ N(0, c^2 u_k),

a random walk: u_k is the number of frames since then, in which frames where the mask moved more than most count more
(`memory`). So the process has the scores of several frames, and what they say fades with time. Where the masks change
slowly it is as if more channels had been scored.

b_0, b_1 and c^2 come from the channels that were scored before and in this frame, per class. These are not any
channels: most of them mattered most before. So b_0 + b_1 z must hold for weights that are smaller than theirs. Of
scores without a sign b_0 is 0, since only t can have changed, and b_1 is the ratio of the sums of y and z. Of scores of
either sign b_1 is the ratio of their standard deviations (the reduced major axis; Ricker, "Linear Regressions in
Fishery Research", 1973), which does not shrink what is seen with errors on both sides. All these sums weigh a channel
by 1 / u_k, and b_1 is 1/4 at least and 4 at most. c^2 is the mean of the squared residuals over u_k. With fewer than
`FEWEST` such channels nothing is recalled.

Nor is it where weights change more than masks tell: where the mean square of y_k - b_0 - b_1 z_k is more than `WORST`
times that of what the process misses y_k by when k is left out. A guess whose variance is twice that of another adds
little to it, and c^2 is found from few channels: with the shipped model, whose weights change fast, maps with what was
recalled were worse than without. The prediction is then that of a single image. It is found out once for a frame, since
the channels that are scored next are chosen by it.
"""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "FIRST_CHANGE", "WORST", "Before", "Recalled", "recall"]

FEWEST: Final = 4
WORST: Final = 2.0
FIRST_CHANGE: Final = 0.05  # c^2 over the variance of y, before a second frame tells it
_LEAST_CHANGE: Final = 1e-5  # c^2, so that what is recalled is never exact
_LEAST_VARIANCE: Final = 1e-4
_SLOPES: Final = (0.25, 4.0)  # b_1 at least and at most; of few channels any ratio is possible


@dataclasses.dataclass(frozen=True)
class Before:
    """What earlier frames say of L channels and K classes, or what is known after a frame.

    Attributes:
        y: float64 [L,K], z: as `links` has it; of channels that no frame scored it is predicted.
        age: float64 [L], u: 0 where this frame scored it, infinite where none did.
        open: float64 [L,K], variance that is left of y.
        change: float64 [K], c^2.
    """

    y: NDArray[np.float64]
    age: NDArray[np.float64]
    open: NDArray[np.float64]
    change: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Recalled:
    """The n channels that were scored before, and not in this frame.

    Attributes:
        channels: intp [n], places among all.
        y: float64 [n,K], on the scale of this frame.
        noise: float64 [n], variance of the changes since, over that of y, a mean over classes.
        change: float64 [K], c^2.
        missed: float64 [N,K], y less b_0 + b_1 z of the channels that this frame scored; NaN of those seen first.
    """

    channels: NDArray[np.intp]
    y: NDArray[np.float64]
    noise: NDArray[np.float64]
    change: NDArray[np.float64]
    missed: NDArray[np.float64]

    def some(self, places: NDArray[np.intp]) -> "Recalled":
        """Those at some places."""
        return dataclasses.replace(self, channels=self.channels[places], y=self.y[places], noise=self.noise[places])

    def helps(self, used: NDArray[np.intp], left_out: NDArray[np.float64]) -> bool:
        """Whether what channels were says enough of what they are.

        Args:
            used: intp [n], places among the channels that this frame scored.
            left_out: float64 [n,K], what the process misses y of these by, from the others alone.
        """
        again = np.isfinite(self.missed[used, 0])
        if not again.any():
            return False
        own, others = ((missed[again] ** 2).mean(axis=0) for missed in (self.missed[used], left_out))
        return bool((own / np.maximum(others, np.finfo(np.float64).tiny)).mean() <= WORST)


def recall(
    before: Before, scored: NDArray[np.intp], y: NDArray[np.float64], *, signed: bool = False
) -> Recalled | None:
    """What earlier frames say of the channels that this one did not score; None: too little to know how.

    Args:
        before: of all channels.
        scored: intp [n], those that this frame scored.
        y: float64 [n,K], theirs.
        signed: whether scores may have either sign.
    """
    again = np.isfinite(before.age[scored])
    if again.sum() < FEWEST:
        return None
    others = np.isfinite(before.age)
    others[scored] = False
    channels = np.flatnonzero(others)
    u, z, now = before.age[scored[again], None], before.y[scored[again]], y[again]
    level, slope = _line(z, now, (1 / u) / (1 / u).sum(), signed=signed)
    missed = np.full(y.shape, np.nan)
    missed[again] = now - level - slope * z
    change = np.maximum((missed[again] ** 2 / u).mean(axis=0), _LEAST_CHANGE)
    share_of_spread = (change / np.maximum(y.var(axis=0), _LEAST_VARIANCE)).mean()
    noise = share_of_spread * before.age[channels]
    return Recalled(channels, level + slope * before.y[channels], noise, change, missed)


def _line(
    z: NDArray[np.float64], y: NDArray[np.float64], share: NDArray[np.float64], *, signed: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """b_0 and b_1, [K] each, from [n,K] each and shares [n,1] whose sum is 1."""
    then, now = (share * z).sum(axis=0), (share * y).sum(axis=0)
    tiny = np.finfo(np.float64).tiny
    if not signed:
        return np.zeros(len(now)), np.clip(now / np.maximum(then, tiny), *_SLOPES)
    squares = [(share * (values - mean) ** 2).sum(axis=0) for values, mean in ((y, now), (z, then))]
    slope = np.clip(np.sqrt(squares[0] / np.maximum(squares[1], tiny)), *_SLOPES)
    return now - slope * then, slope
