"""Memory: what a stream of frames remembers from one frame to the next, and when it forgets.

After a frame, `keep` takes for every class and channel y, as `links` has it (of scored channels as it is, of the others
as predicted), and u, the variance that was left of it over s^2 (`trend.Before`):

    u_k = 0 where channel k was scored, else g_k (v_k + noise) / (1 + noise),

with v_k the posterior variance of d_k and g_k that of `trend` (1 in a frame that started cold). Before the next frame,
`before` gives both for the channels that are active now. A class that was not explained for n frames has u + n. So has
every class after n frames of which nothing could be kept, because there was no time to predict.

**Movement.** The masks cost nothing, so what changes is seen before anything is scored. With phi_k the features of a
mask (`gaussian_process`), the mask of channel k has moved by

    m_k = |phi_k(now) - phi_k(before)|^2 / median_(i,j) |phi_i(now) - phi_j(now)|^2.

It is about 1 where a channel's mask is as far from what it was as from the mask of another channel. A channel that was
flat or new has m_k = 1 and the mean y of the others. A weight is a smooth function of the mask, so what has moved more
than the median m, as where a thing enters a still scene, is known less: `before` adds m_k / m - 1 to u_k where that is
positive. m is 0.001 at least, and u_k 1000 at most.

**Cuts.** Where the median m is above `CUT` the frames have nothing in common: the memory is cleared, and the frame is
explained like a single image. So is a frame with a class that is not remembered, and one in which less than half of the
active channels are.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.prediction.trend import Before

__all__ = ["CUT", "Memory"]

# How far masks may have moved, over their distances among each other.
CUT: Final = 0.5
# Frames for which a class is remembered that is not explained, and classes.
_FRAMES: Final = 16
_CLASSES: Final = 64
# The least median movement. Times the variance of y over all channels, about 0.1, it is the least s^2 of `trend`.
_LEAST_MOVED: Final = 1e-3


class Memory:
    """What one stream remembers. One thread at a time may use it."""

    def __init__(self) -> None:
        self._y: dict[int, NDArray[np.float64]] = {}  # by class, [C]; NaN where not known
        self._unknown: dict[int, NDArray[np.float64]] = {}
        self._kept: dict[int, int] = {}  # the number of the frame
        self._features: NDArray[np.float32] | None = None  # [C,D]; NaN where flat
        self._frame = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered, as before the first frame."""
        return self._features is None

    def clear(self) -> None:
        """Forget everything."""
        self._y, self._unknown, self._kept, self._features = {}, {}, {}, None

    def before(
        self, classes: Sequence[int], order: NDArray[np.intp], features: NDArray[np.float32], unit: float
    ) -> Before | None:
        """What the frames before say of the active channels; None: nothing.

        Args:
            classes: K of them, or other numbers that tell scores apart.
            order: intp [L], the active channels.
            features: float32 [L,D], of their masks.
            unit: the median squared distance of two of them.
        """
        if self._features is None:
            return None
        apart = _apart(features, self._features[order], unit)
        typical = _median(apart)
        if typical > CUT:
            self.clear()
            return None
        if any(index not in self._y for index in classes):
            return None
        y = np.stack([self._y[index][order] for index in classes], axis=1)
        ages = np.array([self._frame - self._kept[index] for index in classes])
        unknown = np.stack([self._unknown[index][order] for index in classes], axis=1) + ages
        known = np.isfinite(y).all(axis=1)
        if known.sum() < max(len(order) / 2, 1):
            return None
        y[~known] = y[known].mean(axis=0)
        unknown[~known] = unknown[known].max(axis=0)
        moved = np.where(known & (apart < 1), apart, 1) / max(typical, _LEAST_MOVED)
        return Before(y, np.minimum(unknown + np.maximum(moved - 1, 0)[:, None], 1 / _LEAST_MOVED))

    def keep(
        self,
        classes: Sequence[int],
        channels: int,
        order: NDArray[np.intp],
        features: NDArray[np.float32],
        y: NDArray[np.float64],
        unknown: NDArray[np.float64],
    ) -> None:
        """Take in what is known of a frame.

        Args:
            classes: as `before` takes them.
            channels: C.
            order: intp [L], the active channels.
            features: float32 [L,D], of their masks.
            y: float64 [L,K].
            unknown: float64 [L,K].
        """
        self._frame += 1
        self._features = np.full((channels, features.shape[1]), np.nan, np.float32)
        self._features[order] = features
        for place, index in enumerate(classes):
            for store, values in ((self._y, y), (self._unknown, unknown)):
                store.pop(index, None)  # so that the oldest come first
                store[index] = np.full(channels, np.nan)
                store[index][order] = values[:, place]
            self._kept[index] = self._frame
        old = [index for index in self._y if self._frame - self._kept[index] > _FRAMES]
        most = list(self._y)[: max(len(self._y) - max(_CLASSES, len(classes)), 0)]
        for index in {*old, *most}:
            del self._y[index], self._unknown[index], self._kept[index]

    def skip(self) -> None:
        """A frame of which nothing can be kept: all that is known is older by one."""
        self._frame += 1


def moved_by(features: NDArray[np.float32], before: NDArray[np.float32], unit: float) -> float:
    """How far the masks have moved, over their distances among each other; infinite where no channel has both.

    Args:
        features: float32 [L,D], of this frame.
        before: float32 [L,D], of the one before; NaN where a channel was flat.
        unit: the median squared distance of two masks of this frame.
    """
    return _median(_apart(features, before, unit))


def _apart(features: NDArray[np.float32], before: NDArray[np.float32], unit: float) -> NDArray[np.float64]:
    """How far each mask has moved, float64 [L]; NaN where it was flat."""
    if features.shape != before.shape:
        return np.full(len(features), np.nan)
    apart: NDArray[np.float64] = ((features - before) ** 2).sum(axis=1) / unit
    return apart


def _median(apart: NDArray[np.float64]) -> float:
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if apart.size else np.inf
