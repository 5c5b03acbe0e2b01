"""Memory: what a stream of frames remembers from one frame to the next, and when it forgets.

After a frame, `keep` takes for every class and channel what is known of y (`recalled.Before`): what it was when the
channel was last scored, brought to the scale of this frame, how many frames ago that was, u, and what variance is left.
Channels that no frame scored have the y that was predicted, and an infinite u. A frame that recalls nothing
(`recalled`) forgets what the frames before it scored. Before the next frame, `before` gives
all of it for the channels that are active now, one frame older.

**Movement.** The masks cost nothing, so what changes is seen before anything is scored. With phi_k the features of a
mask (`gaussian_process`), the mask of channel k has moved by

    m_k = |phi_k(now) - phi_k(before)|^2 / median_(i,j) |phi_i(now) - phi_j(now)|^2.

It is about 1 where a channel's mask is as far from what it was as from the mask of another channel. A weight is a
smooth function of the mask, so what has moved more than the median m, as where a thing enters a still scene, is known
less: u_k grows by m_k / m where that is more than 1, and else by 1. m_k is cut to 1 and m is 0.001 at least, so a frame
counts as 1000 at most. A channel that was flat counts as never scored.

**Cuts.** Where the median m is above `CUT` the frames have nothing in common: the memory is cleared, and the frame is
explained like a single image. So is a frame with a class that is not remembered, and one of whose active channels fewer
than `FEWEST` were scored before.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.prediction.recalled import FEWEST, Before

__all__ = ["CUT", "Memory"]

# How far masks may have moved, over their distances among each other.
CUT: Final = 0.5
# Frames for which a class is remembered that is not explained, and classes.
_FRAMES: Final = 16
_CLASSES: Final = 64
_LEAST_MOVED: Final = 1e-3


class Memory:
    """What one stream remembers. One thread at a time may use it."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}  # by class
        self._features: NDArray[np.float32] | None = None  # [C,D]; NaN where flat
        self._frame = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered, as before the first frame."""
        return self._features is None

    def clear(self) -> None:
        """Forget everything."""
        self._known, self._features = {}, None

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
        if any(index not in self._known for index in classes):
            return None
        moved = np.where(apart < 1, apart, 1) / max(typical, _LEAST_MOVED)
        found = [self._known[index] for index in classes]
        frames = np.array([self._frame - one.frame for one in found])[:, None] + np.maximum(moved, 1)  # [K,L]
        y = np.stack([one.y[order] for one in found], axis=1)
        age = (np.stack([one.age[order] for one in found]) + frames).max(axis=0)
        change = np.array([one.change for one in found])
        open_ = np.stack([one.open[order] for one in found], axis=1) + frames.T * change
        new = ~np.isfinite(y).all(axis=1) | np.isnan(apart)
        age[new] = np.inf
        if np.isfinite(age).sum() < FEWEST:
            return None
        y[new], open_[new] = y[~new].mean(axis=0), open_[~new].max(axis=0)
        return Before(y, age, open_, change)

    def keep(
        self,
        classes: Sequence[int],
        channels: int,
        order: NDArray[np.intp],
        features: NDArray[np.float32],
        known: Before,
    ) -> None:
        """Take in what is known of a frame.

        Args:
            classes: as `before` takes them.
            channels: C.
            order: intp [L], the active channels.
            features: float32 [L,D], of their masks.
            known: of these channels.
        """
        self._frame += 1
        self._features = np.full((channels, features.shape[1]), np.nan, np.float32)
        self._features[order] = features
        for place, index in enumerate(classes):
            self._known.pop(index, None)  # so that the oldest come first
            y, age, open_ = np.full((3, channels), np.nan)
            y[order], age[order], open_[order] = known.y[:, place], known.age, known.open[:, place]
            self._known[index] = _Known(y, age, open_, float(known.change[place]), self._frame)
        old = [index for index, one in self._known.items() if self._frame - one.frame > _FRAMES]
        most = list(self._known)[: max(len(self._known) - max(_CLASSES, len(classes)), 0)]
        for index in {*old, *most}:
            del self._known[index]

    def skip(self) -> None:
        """A frame of which nothing can be kept: all that is known is older by one."""
        self._frame += 1


@dataclasses.dataclass(frozen=True)
class _Known:
    """What is remembered of a class, [C], as in `Before`; NaN where a channel was flat."""

    y: NDArray[np.float64]
    age: NDArray[np.float64]
    open: NDArray[np.float64]
    change: float
    frame: int  # the number of the one that it was kept after


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
    apart: NDArray[np.float32] = ((features - before) ** 2).sum(axis=1) / unit
    return apart.astype(np.float64)


def _median(apart: NDArray[np.float64]) -> float:
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if apart.size else np.inf
