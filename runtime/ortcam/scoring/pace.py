"""How long pieces of work take, learned from those that were done: what still fits before a deadline."""

import contextlib
import time
from collections.abc import Iterator
from typing import Final, Literal

__all__ = ["Pace", "Paces", "Work"]

Work = Literal["rows", "set up", "predict", "estimate", "gate", "finish"]

# Seconds per unit before anything was measured, on the slow side for a single core: units are masked images, floats of
# the masks, multiplications, multiplications, gated values, and pixels of the finished maps.
_GUESSES: Final[dict[Work, float]] = {
    "rows": 0.0,
    "set up": 1e-7,
    "predict": 5e-10,
    "estimate": 1e-9,
    "gate": 1e-8,
    "finish": 1e-7,
}


class Pace:
    """Seconds per unit of each kind of work, as they were the last times.

    A slower time counts at once and a faster one by half, since what comes out too short breaks a deadline and what
    comes out too long only leaves time. `Paces` keeps them from one explanation to the next; several threads may use
    one, whose times then count in the order in which they come.
    """

    def __init__(self) -> None:
        self._rates = dict(_GUESSES)
        self._known: set[Work] = set()

    def knows(self, work: Work) -> bool:
        """Whether this kind of work was ever done."""
        return work in self._known

    def seconds(self, work: Work, units: float) -> float:
        """How long some work is likely to take."""
        return self._rates[work] * units

    def took(self, work: Work, units: float, seconds: float) -> None:
        """Take in how long some work took."""
        rate = seconds / max(units, 1)
        self._rates[work] = max(rate, (self._rates[work] + rate) / 2) if work in self._known else rate
        self._known.add(work)

    @contextlib.contextmanager
    def timing(self, work: Work, units: float) -> Iterator[None]:
        """Take in how long the work inside takes."""
        clock = time.perf_counter()
        yield
        self.took(work, units, time.perf_counter() - clock)


class Paces:
    """What was learned so far: a pace for each scorer graph and about as many classes. Several threads may use it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Pace] = {}

    def of(self, scorer: str, classes: int) -> Pace:
        """The pace of a kind of scorer for some classes.

        A run for a thousand classes says nothing of one for a few: each has a pace up to a factor of 2.
        """
        return self._known.setdefault((scorer, classes.bit_length()), Pace())
