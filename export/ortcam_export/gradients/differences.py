"""Central differences in float64: what a gradient graph is compared with, whatever the model was made with."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Difference", "relative_gap", "sample_differences"]

Array = NDArray[np.float64]
# Features [B,...] -> logits [B,classes], both float64.
Difference = Callable[[Array], Array]

# Of the root mean square of the features. Rounding costs 1e-16 / step of a logit, curvature the square of the step.
_STEP: Final = 2e-6
# Elements are moved a few at once, so that no large batch is in memory.
_AT_ONCE: Final = 8
# Where the slopes on both sides differ by more, relative to the largest slope, the function may have a kink, as at the
# zero of a ReLU or between two equal maxima. Any number between the two slopes is a derivative there. What curvature
# makes of a difference falls with the step, and what a kink makes of it stays.
_KINK: Final = 2e-5
_SHORTER: Final = 0.25
_STAYS: Final = 0.5
_LEAST_COMPARED: Final = 0.25
_STRONGEST: Final = 3  # strongest elements per random one, over all seeds


def sample_differences(
    logits: Difference,
    features: NDArray[np.float32],
    gradients: Sequence[NDArray[np.float32]],
    seeds: Array,
    count: int,
) -> float:
    """Compare gradients with central differences at some elements: those of the largest gradient, and random ones.

    Elements at which the function has a kink are left out.

    Args:
        logits: of features.
        features: float32 [1,...], where the gradient was taken.
        gradients: float32 [...], one per seed.
        seeds: float64 [K,classes].
        count: of elements.

    Returns:
        max |gradient - difference| / max |gradient|, over all seeds and elements; 0 if both are zero everywhere, and
        infinite if hardly any element is without a kink.
    """
    point = features.astype(np.float64)
    step = _STEP * max(float(np.sqrt(np.mean(point**2))), 1e-3)
    flat = np.stack([gradient.reshape(-1) for gradient in gradients]).astype(np.float64)
    clean = seeds @ logits(point)[0]
    worst, compared, total = 0.0, 0, 0
    largest = np.maximum(np.abs(flat).max(axis=1), 1e-30)[:, None]
    for chosen in _in_parts(_elements(flat, count)):
        above, below = _slopes(logits, point, chosen, seeds, clean, step)
        apart = np.abs(above - below)
        smooth = apart <= _KINK * largest
        if not smooth.all():
            near = _slopes(logits, point, chosen, seeds, clean, _SHORTER * step)
            smooth |= np.abs(near[0] - near[1]) <= _STAYS * apart
        gaps = np.abs(flat[:, chosen] - (above + below) / 2) / largest
        worst = max(worst, float(np.where(smooth, gaps, 0).max()))
        compared, total = compared + int(smooth.sum()), total + smooth.size
    return worst if compared >= _LEAST_COMPARED * total else float("inf")


def relative_gap(found: NDArray[np.float32], expected: NDArray[np.float32], share: float = 1.0) -> float:
    """Compute max |found - expected| / max |expected| of each row, and return the largest of them.

    Args:
        found: float32 [K,...].
        expected: float32 [K,...]; a row of zeros has to be found as zeros.
        share: of the elements of a row, those with the smallest differences, that count.
    """
    gaps = []
    for row, wanted in zip(found, expected, strict=True):
        gap = float(np.quantile(np.abs(row - wanted), share, method="lower"))
        gaps.append(gap / max(float(np.abs(wanted).max()), 1e-30))
    return float(np.max(gaps))


def _slopes(
    logits: Difference, point: Array, chosen: NDArray[np.int64], seeds: Array, clean: Array, step: float
) -> tuple[Array, Array]:
    """The slopes above and below a point along some of its elements, each float64 [K,elements]."""
    moved = np.repeat(point, 2 * len(chosen), axis=0)
    rows = np.arange(len(chosen))
    moved.reshape(len(moved), -1)[2 * rows, chosen] += step
    moved.reshape(len(moved), -1)[2 * rows + 1, chosen] -= step
    values = seeds @ logits(moved).T
    return (values[:, ::2] - clean[:, None]) / step, (clean[:, None] - values[:, 1::2]) / step


def _elements(flat: Array, count: int) -> NDArray[np.int64]:
    """Indices of the elements to move: the strongest of each seed, and random ones."""
    each = max(1, count * _STRONGEST // (_STRONGEST + 1) // len(flat))
    strongest = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :each].reshape(-1)
    others = np.random.default_rng(0).integers(flat.shape[1], size=max(1, count // (_STRONGEST + 1)))
    return np.unique(np.concatenate([strongest, others])).astype(np.int64)


def _in_parts(elements: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [elements[start : start + _AT_ONCE] for start in range(0, len(elements), _AT_ONCE)]
