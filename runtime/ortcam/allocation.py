"""Which channels to score, in what order, and when to stop: budget, deadline, tolerance."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ortcam.blas import single_threaded
from ortcam.completion import MaskModel, Prediction
from ortcam.errors import OptionError
from ortcam.scoring import Progress, Scores, Scoring

__all__ = ["Completion", "Limits", "check_positive", "score"]

Completion = Literal["gaussian-process", "none"]

# The channels scored before the process is asked for the first time: a share of a budget, or of all live channels.
_FIRST_OF_BUDGET: Final = 0.4
_FIRST_OF_ALL: Final = 0.04
_FEWEST: Final = 16
# How many times as many channels are scored before it is asked again.
_GROWTH: Final = 1.5
# Kept free before a deadline for what comes after the last pass, in seconds.
_RESERVE: Final = 0.005


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a loop may stop before all channels are scored.

    Attributes:
        budget: channels to score: a number of them, or a share in (0,1] of those that are not flat; None: all.
        deadline: milliseconds from the call of `explain`, or from when the first map of `explain_iter` is asked for;
            None: no hurry. At least one run of the graph is made.
        tolerance: stop when the largest error of the finished map is estimated to be below this, in (0,1).
        completion: "gaussian-process" predicts the weights of the channels not scored, "none" leaves them out.
    """

    budget: float | int | None = None
    deadline: float | None = None
    tolerance: float | None = None
    completion: Completion = "gaussian-process"

    def __post_init__(self) -> None:
        """Raises OptionError for a value that is not accepted."""
        check_positive("deadline", self.deadline, "milliseconds above 0")
        check_positive("tolerance", self.tolerance, "a number between 0 and 1", below=1)
        if isinstance(self.budget, bool) or not isinstance(self.budget, (int, float, np.number, type(None))):
            raise OptionError(_budget_message(self.budget))
        if isinstance(self.budget, (int, np.integer)):
            accepted = self.budget >= 1
        else:
            accepted = self.budget is None or 0 < self.budget <= 1
        if not accepted:
            raise OptionError(_budget_message(self.budget))
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # a manifest holds Python's own types
                object.__setattr__(self, field.name, value.item())
        if self.completion not in get_args(Completion):
            raise OptionError(f"completion={self.completion!r}: accepted is {' or '.join(get_args(Completion))}")
        if self.tolerance is not None and self.completion == "none":
            raise OptionError("tolerance with completion='none': without completion no error can be estimated")

    @property
    def early(self) -> bool:
        """Whether the loop may stop early at all."""
        return self.budget is not None or self.deadline is not None or self.tolerance is not None

    def channels(self, live: int) -> int:
        """How many of the live channels the budget pays for."""
        if self.budget is None:
            return live
        if isinstance(self.budget, int):
            return min(self.budget, live)
        return min(math.ceil(self.budget * live), live)


def _budget_message(value: object) -> str:
    return f"budget={value!r}: accepted is a share of the channels in (0,1], or a whole number of them from 1"


def check_positive(name: str, value: object, accepted: str, *, below: float = math.inf) -> None:
    """Refuse a value that is neither None nor a number between 0 and a limit, both excluded.

    Raises:
        OptionError: with the value and what is accepted.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < below:
        raise OptionError(f"{name}={value!r}: accepted is {accepted}")


def score(
    scoring: Scoring,
    limits: Limits,
    *,
    started: float,
    progress: Progress | None = None,
    previews: bool = False,
) -> Iterator[Scores]:
    """Score channels until the limits or the channels are reached; the last scores are the result.

    All channels are scored in the order of their energy, unless a limit or `previews` has the process choose.

    Args:
        scoring: of one image.
        limits: when to stop.
        started: what `time.perf_counter` was when the explanation began.
        progress: called after every run of the graph.
        previews: also yield what is known each time the process has been asked, with at least one run in between.
    """
    order = scoring.masks.order
    limit = limits.channels(len(order))
    total = limit * scoring.plan.samples
    deadline = math.inf if limits.deadline is None else started + limits.deadline / 1000
    completing = limits.completion == "gaussian-process" and (limits.early or previews) and limit > 0

    def run(channels: NDArray[np.intp], reserve: float) -> bool:
        """Score some channels; false when time is up before they are."""
        for seconds in scoring.run(channels):
            if progress is not None:
                progress(scoring.passes, total)
            if time.perf_counter() + seconds * scoring.next_rows + reserve > deadline:
                return False
        return True

    if not completing:
        yield from _in_order_of_energy(scoring, order[:limit], run, previews=previews)
        return
    first = _FIRST_OF_BUDGET * limit if limits.budget is not None else _FIRST_OF_ALL * len(order)
    process = _Process(scoring)
    finishing = 0.0 if limits.deadline is None else scoring.finishing_seconds()
    group = order[: scoring.whole_chunks(max(_FEWEST, first), limit)]
    given = len(group)
    while True:
        in_time = run(group, _RESERVE + finishing + 2 * process.seconds)
        if scoring.complete:
            yield scoring.scores()
            return
        scored = scoring.scored[order]
        done = int(scored.sum())
        prediction = process.ask(scored)
        last = not in_time or done >= limit
        error = None
        if last or previews or limits.tolerance is not None:
            # Channels of much energy are alike: from them alone the others seem better known than they are.
            error = process.error(prediction) if done >= 2 * given else np.ones(prediction.weights.shape[1])
        if error is not None and limits.tolerance is not None:
            last = last or bool((error <= limits.tolerance).all())
        if last or previews:
            yield scoring.scores(prediction.weights, error)
        if last:
            return
        wanted = scoring.whole_chunks((_GROWTH - 1) * done, limit - done)
        group = order[process.most_wanted(prediction, wanted)]


def _in_order_of_energy(
    scoring: Scoring, order: NDArray[np.intp], run: Callable[[NDArray[np.intp], float], bool], *, previews: bool
) -> Iterator[Scores]:
    """Without the process: by descending energy, in parts that grow where previews are wanted."""
    start = 0
    while True:
        size = max(_FEWEST, math.ceil((_GROWTH - 1) * start)) if previews else len(order)
        in_time = run(order[start : start + size], _RESERVE)
        start += size
        if not in_time or start >= len(order):
            break
        yield scoring.scores()
    yield scoring.scores()


class _Process:
    """The Gaussian process over the live channels of an image, and how long it takes."""

    @single_threaded
    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        masks = scoring.masks
        clock = time.perf_counter()
        self._model = MaskModel(scoring.gated_masks()[masks.order])
        self._energy = masks.energy[masks.order]
        self._summands = scoring.summands()[masks.order]
        flattened = self._summands.reshape(len(masks.order), -1)
        # What is the same everywhere does not change a map that is min-maxed.
        self._size = np.linalg.norm(flattened - flattened.mean(axis=1, keepdims=True), axis=1).astype(np.float64)
        self._scored: NDArray[np.bool_] = np.zeros(len(masks.order), np.bool_)
        self._place = np.zeros(len(masks.order), np.intp)  # of a channel among those scored
        self.seconds = time.perf_counter() - clock

    @single_threaded
    def ask(self, scored: NDArray[np.bool_]) -> Prediction:
        """Predict the weights of the channels from those scored, bool [L] in the order of energy."""
        clock = time.perf_counter()
        self._scored = scored
        channels, weights = self._scoring.positive_weights()
        place = np.zeros(len(self._scoring.masks.live), np.intp)
        place[channels] = np.arange(len(channels))
        self._place = place[self._scoring.masks.order]
        given = np.flatnonzero(scored)
        prediction = self._model.condition(given, weights[self._place[given]])
        self.seconds = time.perf_counter() - clock
        return prediction

    @single_threaded
    def error(self, prediction: Prediction) -> NDArray[np.float64]:
        """The estimate of the largest error of the finished maps: float64 [K]."""
        clock = time.perf_counter()
        sampling = self._scoring.sampling_errors()[self._place[np.flatnonzero(self._scored)]]
        error = self._model.map_error(prediction, self._summands, self._scoring.offset, sampling)
        self.seconds += time.perf_counter() - clock
        return error

    def most_wanted(self, prediction: Prediction, count: int) -> NDArray[np.intp]:
        """The channels, as places in the order of energy, whose weights leave most open in the maps."""
        known = np.maximum(self._energy @ prediction.weights, np.finfo(np.float64).tiny)
        open_ = np.nan_to_num(self._size * (prediction.deviation / known).sum(axis=1), nan=np.inf)
        open_[self._scored] = -1
        return np.argsort(-open_, kind="stable")[:count]
