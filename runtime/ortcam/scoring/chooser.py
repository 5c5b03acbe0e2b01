"""The chooser: which channels to score next, as the Gaussian process wants, and whether there is time for it.

**Ties.** Scores differ in their last bits between batch sizes, thread counts and providers. Channels that the process
wants equally up to a thousandth are taken by energy, so that twins are taken in one order everywhere.

**Deadlines.** What comes after the last pass takes time, too: the prediction, the estimate of the error, the gating of
channels that were not scored. `pace` knows how long. That time is kept free. If it turns out too short, the
prediction becomes the mean of the scores, the estimate is left out, the gating gets coarser, and the result says so.
"""

import math
import sys
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.gaussian_process import MaskModel, Prediction, estimation_work, prediction_work
from ortcam.scoring.loop import Scoring
from ortcam.scoring.masks import gated_masks, summands
from ortcam.scoring.pace import Work
from ortcam.scoring.prediction.links import Line, Power
from ortcam.scoring.prediction.memory import Memory
from ortcam.scoring.prediction.recalled import FIRST_CHANGE, Before
from ortcam.scoring.scores import Scores
from ortcam.support.blas import single_threaded

__all__ = ["Chooser", "are_most"]

# A budget for more of the channels than this leaves out those of the least energy.
_MOST: Final = 0.875
# Over the number of channels that were scored at first, those that have to be scored before the error is estimated.
_TELLING: Final = 2.0
_TELLING_OF_FRAMES: Final = 1.5
# Variance of y, whatever it is: the channels that were scored are told apart by their weights alone.
_SAME: Final = 1e-4
# Steps per doubling to which the benefit of scoring a channel is rounded.
_STEPS: Final = 1024
# Runs are not cut shorter than this to meet a deadline, since a short run takes more time per row; the first run has
# more, for without scores there is no map.
_FEWEST_ROWS: Final = 4
_FIRST_ROWS: Final = 8
# The largest step, in pixels, at which maps whose weights were predicted are gated where time is short.
_COARSEST: Final = 8
# Pixels from one gated one to the next, where time is short.
_STEPS_OF_GATING: Final = (1, 2, 4, _COARSEST)
# No more of the time before a deadline is kept free for the estimate, or for the gating; passes tell more.
_LARGEST_SHARE: Final = 0.25
# Kept free before a deadline for what nobody measures, in seconds.
_RESERVE: Final = 0.003


def are_most(some: int, channels: int) -> bool:
    """Whether those of the highest energy are so many that what is said of the others matters little."""
    return some > _MOST * channels


class Chooser:
    """The Gaussian process over the active channels of an image, what it is to score, and the time that all this takes.

    Channels are places in the order of energy, 0 to L - 1.
    """

    def __init__(self, scoring: Scoring, end: float, *, predicts: bool, memory: Memory | None = None) -> None:
        """Nothing is computed before it is asked for.

        Args:
            scoring: of the image.
            end: what `time.perf_counter` may not exceed; infinite without a deadline.
            predicts: whether the weights of channels that are not scored will be predicted, which takes time.
            memory: of the frames before, of a stream. What it says is looked up now, which takes time, too.
        """
        self._scoring = scoring
        self._end = end
        self._predicts = predicts
        self._most = _LARGEST_SHARE * self._left()
        self._order = scoring.masks.order
        self._model: MaskModel | None = None
        self._summands: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)
        self._size: NDArray[np.float64] = np.zeros(0)
        self._prediction: Prediction | None = None
        self._memory = memory
        self._before: Before | None = None
        self._recalled = 0  # channels, about
        # Found out once for a frame, since the channels are chosen by it.
        self._recalls: bool | None = None
        self._first = np.arange(len(self._order))
        if memory is not None and not memory.empty and predicts and self._order.size:
            self._look_back(memory)

    @property
    def warm(self) -> bool:
        """Whether the frames before say something."""
        return self._before is not None

    @property
    def scored(self) -> int:
        """How many channels are."""
        return int(self._scoring.tally.scored.sum())

    def brightest(self, count: int) -> NDArray[np.intp]:
        """The channels that were not scored of the highest energy, or of what matters most by the frame before."""
        return self._first[~self._scoring.tally.scored[self._order[self._first]]][:count]

    @single_threaded
    def most_wanted(self, prediction: Prediction, count: int) -> NDArray[np.intp]:
        """The channels that were not scored whose weights leave most open in the maps."""
        energy = self._scoring.masks.energy[self._order]
        weights = prediction.weights
        if self._scoring.tally.offset is not None:
            weights = np.abs(weights - self._scoring.tally.offset)
        known = np.maximum(energy @ weights, np.finfo(np.float64).tiny)
        wanted = np.nan_to_num(self._size * (prediction.deviation / known).sum(axis=1), nan=np.inf)
        steps = np.round(_STEPS * np.log2(np.maximum(wanted, np.finfo(np.float64).tiny)))
        steps[self._scoring.tally.scored[self._order]] = -np.inf
        return np.argsort(-steps, kind="stable")[:count]

    @single_threaded
    def ask(self) -> Prediction:
        """Predict the weights of the channels from those scored."""
        pace, units = self._scoring.pace, self._units()
        if self._model is None:
            with pace.timing("set up", units["set up"]):
                self._set_up()
        assert self._model is not None
        given = np.flatnonzero(self._scoring.tally.scored[self._order])
        weights = self._scored_values(self._scoring.tally.positive_weights()[1])[given]
        signed = self._scoring.tally.offset is not None
        clock = time.perf_counter()
        self._prediction = self._model.condition(
            given, weights, signed=signed, before=self._before, recalls=self._recalls
        )
        seconds, posterior = time.perf_counter() - clock, self._prediction.posterior
        recalled = 0 if posterior.recalled is None else self._recalled
        pace.took("predict", prediction_work(len(given), len(self._order), recalled), seconds)
        self._recalls = posterior.recalls
        return self._prediction

    @single_threaded
    def error(self, prediction: Prediction, first: int) -> NDArray[np.float64]:
        """The estimate of the largest error of the finished maps: float64 [K].

        Channels of much energy are alike: from them alone the others seem better known than they are. So it is 1 until
        as many were chosen by the process as the `first` ones, or most of all are scored. Where the frame before says
        which channels matter, half as many are enough.
        """
        if not self.tells_error(first):
            return np.ones(prediction.weights.shape[1])
        assert self._model is not None
        given = np.flatnonzero(self._scoring.tally.scored[self._order])
        sampling = self._scored_values(self._scoring.tally.sampling_errors())[given]
        with self._scoring.pace.timing("estimate", self._units()["estimate"]):
            return self._model.map_error(prediction, self._summands, self._scoring.offset, sampling)

    def tells_error(self, first: int) -> bool:
        """Whether the error can be estimated, when that many channels were scored by their energy at first."""
        enough = _TELLING_OF_FRAMES if self.warm else _TELLING
        return self.scored >= enough * first or are_most(self.scored, len(self._order))

    def result(self, first: int) -> Scores:
        """The scores with what is predicted for the others, as well as the time left allows."""
        units = self._units()
        finish = self._seconds(units, "finish")
        ending = finish + self._gating(_COARSEST)
        nothing_known = np.ones(len(self._scoring.offset))
        if self._left() < self._asking(units) + ending:
            taken = "the mean of those scored" if self._before is None else "those of the frame before"
            simplified = [f"weights that were not scored: {taken}, not predicted"]
            weights = self._roughly()
            error = nothing_known
        else:
            simplified = []
            prediction = self.ask()
            weights = prediction.weights
            if not self.tells_error(first) or self._left() >= self._seconds(units, "estimate") + ending:
                error = self.error(prediction, first)
            else:
                simplified.append("error of the map: not estimated")
                error = nothing_known
        left = max(self._left() - finish, 0)
        step = next((step for step in _STEPS_OF_GATING if self._gating(step) <= left), _COARSEST)
        if step > 1:
            simplified.append(f"maps that were not scored: gated at one in {step} pixels of a row, not at each")
        return self._scoring.scores(weights, error, step=step, simplified=tuple(simplified))

    def _roughly(self) -> NDArray[np.float64]:
        """Weights at once, float64 [L,K]: the mean of those scored, or those of the frame before, scaled."""
        weights, before = self._scoring.tally.positive_weights()[1], self._before
        if before is None:
            return np.tile(weights.mean(axis=0), (len(self._order), 1))
        link = Power(weights) if self._scoring.tally.offset is None else Line(weights)
        y, z = self._scored_values(link.y(weights)), before.y * self._scoring.tally.scored[self._order, None]
        slope = (y * z).sum(axis=0) / np.maximum((z * z).sum(axis=0), np.finfo(np.float64).tiny)
        return link.moments(np.asarray(link.allowed(slope * before.y)), np.zeros_like(before.y))[0]

    def rows_in_time(self) -> int:
        """The most masked images that the next run may have for the result to come in time; 0: none."""
        if self._end == math.inf or not self._scoring.pace.knows("rows"):
            return sys.maxsize
        next_rows, started = self._scoring.next_rows, self._scoring.tally.passes > 0
        units = self._units()
        ending = self._asking(units) + self._ending(units) if self._predicts else self._seconds(units, "finish")
        rows = int(max(self._left() - ending, 0) / max(self._scoring.pace.seconds("rows", 1), 1e-9))
        if self._scoring.fixed_shape:
            return next_rows if rows >= next_rows or not started else 0
        if not started:
            rows = max(rows, _FIRST_ROWS)
        return min(rows, next_rows) if rows >= min(_FEWEST_ROWS, next_rows) else 0

    def may_ask(self) -> bool:
        """Whether there is time to ask the process, to score some channels that it wants, and to ask it again."""
        if self._end == math.inf:
            return True
        units = self._units()
        rows = self._scoring.pace.seconds("rows", _FIRST_ROWS)
        asking = self._asking(units) + self._seconds(units, "predict")
        return self._left() >= asking + rows + self._ending(units)

    def in_time_for(self, channels: int) -> bool:
        """Whether there is a deadline, and so many more channels can be scored before it."""
        if self._end == math.inf:
            return False
        seconds = self._scoring.pace.seconds("rows", channels * self._scoring.plan.samples)
        return self._left() >= 1.2 * seconds + self._seconds(self._units(), "finish")

    @single_threaded
    def remember(self) -> None:
        """Keep what is known of this frame for the next one."""
        memory, tally = self._memory, self._scoring.tally
        if memory is None:
            return
        prediction, given = self._prediction, int(tally.scored[self._order].sum())
        if self._order.size and given == len(self._order):
            if self._model is None:  # nobody has looked back, who would have seen a cut
                model = self._set_up()
                memory.before(self._scoring.classes, self._order, model.features, model.unit)
            weights = self._scored_values(tally.positive_weights()[1])
            y = (Power(weights) if tally.offset is None else Line(weights)).y(weights)
            change = FIRST_CHANGE * y.var(axis=0) if self._before is None else self._before.change
            known = Before(y, np.zeros(len(y)), np.zeros(y.shape), change)
        elif prediction is not None and len(prediction.posterior.scored) == given:
            known = prediction.known(self._before)
        else:
            memory.skip()
            return
        assert self._model is not None
        memory.keep(self._scoring.classes, len(tally.scored), self._order, self._model.features, known)

    @single_threaded
    def _look_back(self, memory: Memory) -> None:
        """Look up what the frames before say, and order the channels by it.

        In turn comes one that matters most by its weight in the frame before, which tells how this frame differs, and
        one that matters most by what is not known of it. So what enters a scene is found by however few passes.
        """
        with self._scoring.pace.timing("set up", self._units()["set up"]):
            self._set_up()
        assert self._model is not None
        before = memory.before(self._scoring.classes, self._order, self._model.features, self._model.unit)
        if before is None:
            return
        self._before, self._recalled = before, int(np.isfinite(before.age).sum())
        link = Power if self._scoring.tally.offset is None else Line
        y = np.maximum(before.y, 0) if link is Power else before.y
        once = np.isfinite(before.age)[:, None]
        known = self._ranks(link.deviation(y, np.full_like(y, _SAME)) * once)
        open_ = self._ranks(link.deviation(y, before.open))
        self._first = np.argsort(np.minimum(2 * known, 2 * open_ + 1), kind="stable")

    def _ranks(self, deviation: NDArray[np.float64]) -> NDArray[np.intp]:
        """Of every channel its place in the order of what an error of its weight makes of the maps: intp [L].

        Args:
            deviation: float64 [L,K], the size of the error.
        """
        tiny = np.finfo(np.float64).tiny
        matters = self._size * (deviation / np.maximum(self._size @ deviation, tiny)).sum(axis=1)
        steps = np.round(_STEPS * np.log2(np.maximum(matters, tiny)))
        ranks = np.empty(len(steps), np.intp)
        ranks[np.argsort(-steps, kind="stable")] = np.arange(len(steps))
        return ranks

    def _set_up(self) -> MaskModel:
        self._model = model = MaskModel(gated_masks(self._scoring.masks, self._scoring.plan)[self._order])
        self._summands = summands(self._scoring.masks, self._scoring.plan)[self._order]
        flattened = self._summands.reshape(len(self._order), -1)
        # What is the same everywhere does not change a map that is min-maxed.
        self._size = np.linalg.norm(flattened - flattened.mean(axis=1, keepdims=True), axis=1).astype(np.float64)
        return model

    def _scored_values(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `Scoring` gives for the scored channels, [n,K], by place in the order of energy: [L,K]."""
        everywhere = np.zeros((len(self._scoring.tally.scored), values.shape[1]))
        everywhere[self._scoring.tally.scored] = values
        return everywhere[self._order]

    def _left(self) -> float:
        """Seconds to the deadline."""
        return self._end - time.perf_counter() - _RESERVE

    def _units(self) -> dict[Work, float]:
        """How much work each step is, once as many channels are scored as now: see `pace`."""
        active, classes = len(self._order), len(self._scoring.offset)
        recalled = 0 if self._recalls is False else self._recalled
        height, width = self._scoring.masks.maps.shape[1:]
        return {
            "set up": active * height * width,
            "predict": prediction_work(self.scored, active, recalled),
            "estimate": estimation_work(active, classes),
            "finish": self._scoring.pixels * classes,
        }

    def _seconds(self, units: dict[Work, float], *works: Work) -> float:
        return sum(self._scoring.pace.seconds(work, units[work]) for work in works)

    def _asking(self, units: dict[Work, float]) -> float:
        """Seconds that a question takes."""
        seconds = self._seconds(units, "predict")
        return seconds if self._model is not None else seconds + self._seconds(units, "set up")

    def _ending(self, units: dict[Work, float]) -> float:
        """Seconds to keep free for what follows the prediction; what would take most of the time is simplified."""
        estimate = self._seconds(units, "estimate")
        steps = [step for step in _STEPS_OF_GATING if self._gating(step) <= self._most]
        gating = self._gating(steps[0] if steps else _COARSEST)
        return self._seconds(units, "finish") + gating + (estimate if estimate <= self._most else 0.0)

    def _gating(self, step: int) -> float:
        """Seconds that it takes to gate all channels that were not scored."""
        return self._scoring.pace.seconds("gate", self._scoring.gating_work(len(self._order) - self.scored, step))
