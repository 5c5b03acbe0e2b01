"""What checks have in common: their form, and how far maps are apart."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.gpu.bench import Bench

__all__ = ["Case", "Check", "apart", "close"]

# Name, what of the bench it needs, and what raises where it does not hold and else says what was seen.
Case = tuple[str, str | None, Callable[[Bench], str]]


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that has to hold.

    Attributes:
        name: what.
        outcome: "passed", "failed" or "skipped".
        detail: what was seen.
        seconds: that it took.
    """

    name: str
    outcome: str
    detail: str
    seconds: float = 0.0


def close(explanation: Any, reference: Any, *, pearson: float) -> str:
    """How far two maps are from each other, in words."""
    first, second = explanation.maps[0].ravel(), reference.maps[0].ravel()
    correlation = float(np.corrcoef(first, second)[0, 1])
    words = f"Pearson {correlation:.6f}, at most {np.abs(first - second).max():.1e} apart"
    assert correlation >= pearson, words
    return words


def apart(maps: Any, reference: Any) -> float:
    """The largest difference of any pixel of any map."""
    return float(np.abs(np.asarray(maps, np.float64) - np.asarray(reference, np.float64)).max())
