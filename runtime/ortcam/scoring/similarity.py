"""How alike two maps are, with one rule for maps that are flat."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlation", "pearson", "ranks"]

Values = NDArray[np.floating[Any]]


def pearson(first: Values, second: Values) -> float:
    """Pearson's correlation of two maps that are not flat."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def correlation(first: Values, second: Values, statistic: Callable[[Values, Values], float] = pearson) -> float:
    """The correlation of two maps, in [-1,1]; 0 where one of them is flat, 1 where both are.

    Args:
        first: a map, of any shape.
        second: another one, of the same shape.
        statistic: of two maps that are not flat.

    Example:
        >>> rising, flat = np.arange(6.0), np.ones(6)
        >>> round(correlation(rising, -rising), 6), correlation(rising, flat), correlation(flat, flat)
        (-1.0, 0.0, 1.0)
    """
    flat = [bool(np.ptp(item) == 0) for item in (first, second)]
    return float(all(flat)) if any(flat) else statistic(first, second)


def ranks(values: Values) -> NDArray[np.float64]:
    """Ranks of values [N] from 0; equal values share the mean of theirs. Pearson's of them is Spearman's.

    Example:
        >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return shared
