"""The loop over the copies of an image: how each shares the deadline, and one outcome of all of theirs."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.batching import Progress, Stop
from ortcam.explainer.augmentation.combining import Combiner, Maximum, Mean
from ortcam.explainer.augmentation.fusion import STEPS, TotalVariation
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.explainer.clock import Clock
from ortcam.explainer.outcome import Outcome
from ortcam.methods import Augmentation
from ortcam.results.explanation import Stats
from ortcam.scoring import Limits, finish
from ortcam.scoring.pace import Pace

__all__ = ["Copies", "Explain"]

_NOT_WORTH: Final = 0.8  # of the quickest copy so far: with less time left no other copy is begun

# Explains one copy: the image itself as a copy that nothing moves.
Explain = Callable[[Warp, Limits, Progress | None], Outcome]


@dataclasses.dataclass(frozen=True)
class Copies:
    """What is asked of the copies of one image.

    Attributes:
        augmentation: how many there are, and how they are combined.
        limits: of each copy, except for the deadline, which all share.
        size: height and width of the model's input, pixels.
        clock: of the explanation.
        pace: how long combining takes, from one explanation to the next.
        progress: called as progress(passes made, passes in all) after every run of a graph.
        previews: whether there is an outcome after each copy.
        stop: asked before each copy but the first: whether those that are done are enough.
    """

    augmentation: Augmentation
    limits: Limits
    size: tuple[int, int]
    clock: Clock
    pace: Pace
    progress: Progress | None
    previews: bool
    stop: Stop | None = None

    def outcomes(self, explain: Explain) -> Iterator[Outcome]:
        """Explain one copy after the other. The last outcome is that of all of them.

        On the way the mean stands in for total-variation fusion, which takes longer.

        Raises:
            OrtcamError: as `explain`.
        """
        copies, height, width = self.augmentation.copies, *self.size
        done: list[Outcome] = []
        combiner: Combiner | None = None
        on_the_way: Combiner | None = None
        quickest = math.inf
        for number in range(copies):
            begun = self.clock.since_start()
            reserve = 0.0 if not done else self.pace.seconds("finish", self._work(done[0]))
            if done and (self._stopped() or self._left(begun, reserve) < _NOT_WORTH * quickest):
                break
            warp = draw_warp(self.augmentation, number, height, width)
            outcome = explain(warp, self._limits(begun, reserve, copies - number), self._told(number))
            done.append(outcome)
            if combiner is None:
                finest = max(outcome.layers, key=lambda cut: cut.height * cut.width)
                combiner = self._combiner((finest.height, finest.width))
                on_the_way = Mean() if self.previews and isinstance(combiner, TotalVariation) else combiner
            combiner.add(outcome.raw_maps, warp)
            quickest = min(quickest, self.clock.since_start() - begun)
            if self.previews and on_the_way is not None:
                if on_the_way is not combiner:
                    on_the_way.add(outcome.raw_maps, warp)
                if number < copies - 1:
                    yield self._outcome(done, on_the_way.combined())
        assert combiner is not None  # there is at least one copy
        with self.pace.timing("finish", self._work(done[0])):
            combined = combiner.combined()
            final = self._outcome(done, combined)
        yield final

    def _stopped(self) -> bool:
        return self.stop is not None and self.stop()

    def _combiner(self, cells: tuple[int, int]) -> Combiner:
        if self.augmentation.combine == "tv":
            return TotalVariation(cells)
        return Mean() if self.augmentation.combine == "mean" else Maximum()

    def _work(self, outcome: Outcome) -> float:
        """Pixels that combining computes."""
        steps = STEPS if self.augmentation.combine == "tv" else 1
        return float(steps * outcome.maps.size)

    def _left(self, now: float, reserve: float) -> float:
        """Seconds until the deadline, less those for combining."""
        return math.inf if self.limits.deadline is None else self.limits.deadline / 1000 - reserve - now

    def _limits(self, now: float, reserve: float, copies_left: int) -> Limits:
        """The limits of the next copy, whose deadline is an equal share of the time that is left."""
        if self.limits.deadline is None:
            return self.limits
        due = now + max(self._left(now, reserve), 0.0) / copies_left
        return dataclasses.replace(self.limits, deadline=max(1000 * due, 1.0))

    def _told(self, number: int) -> Progress | None:
        progress, copies = self.progress, self.augmentation.copies
        if progress is None:
            return None
        return lambda made, total: progress(number * total + made, copies * total)

    def _outcome(self, done: Sequence[Outcome], combined: NDArray[np.float64]) -> Outcome:
        """What the copies so far give together; weights and channels are those of the image itself."""
        maps, flat = finish(combined, *self.size)
        self.clock.lap("map")
        stats = self._stats([outcome.stats for outcome in done])
        return dataclasses.replace(done[0], maps=maps, raw_maps=combined, flat=flat, stats=stats)

    def _stats(self, done: Sequence[Stats]) -> Stats:
        simplified = list(dict.fromkeys(sentence for stats in done for sentence in stats.simplified))
        late = 0.0
        if self.limits.deadline is not None:
            late = max(self.clock.since_start() - self.limits.deadline / 1000, 0.0)
        may_end_early = self.limits.deadline is not None or self.stop is not None
        if may_end_early and len(done) < self.augmentation.copies and not self.previews:
            simplified.append(f"{len(done)} of {self.augmentation.copies} copies of the image are explained")
        return dataclasses.replace(
            done[0],
            batch_size=max(stats.batch_size for stats in done),
            passes=sum(stats.passes for stats in done),
            runs=sum(stats.runs for stats in done),
            head_passes=sum(stats.head_passes for stats in done),
            gradient_passes=sum(stats.gradient_passes for stats in done),
            seconds=self.clock.total(),
            seconds_by_stage=dict(self.clock.laps),
            energy_covered=min(stats.energy_covered for stats in done),
            estimated_error=_largest([stats.estimated_error for stats in done]),
            standard_error=_largest([stats.standard_error for stats in done]),
            simplified=tuple(simplified),
            seconds_late=late,
            copies=len(done),
        )


def _largest(errors: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    """Per class the largest error of a copy that has one."""
    known = [error for error in errors if error is not None]
    return tuple(map(max, zip(*known, strict=True))) if known else None
