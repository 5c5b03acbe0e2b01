"""Budget, deadline and tolerance: how many channels to score, in what rounds, and when to stop.

**Rounds.** Channels are scored in rounds: the first by energy, the others as the Gaussian process of
`gaussian_process` wants. How many channels a round has follows from the numbers of channels alone, and the batch size
only cuts the runs inside a round. So a budget or a tolerance gives the same map at any batch size. A deadline cannot:
how much is scored in time depends on the machine and its load.

**Streams.** A frame that follows another begins with channels that matter most by what that frame gave and with those
it left unknown, in turn, and its first round is half as large: see `prediction.recalled` and `prediction.memory`.

Where every channel will be scored anyway, and nobody looks at previews, the process is never set up. If such a run is
stopped, the process predicts the rest from the channels of the highest energy.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.batching import Progress, Stop
from ortcam.scoring.chooser import Chooser, are_most
from ortcam.scoring.gaussian_process import Prediction
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.prediction.memory import Memory
from ortcam.scoring.scores import Scores

__all__ = ["parts_of", "rounds_of", "score"]

# The channels scored before the process is asked for the first time: a share of a budget, or of all active channels.
_FIRST_OF_BUDGET: Final = 0.4
_FIRST_OF_ALL: Final = 0.04
_FEWEST: Final = 16
# Masked images of the one run that is made where scoring is stopped before it began.
_ROWS_AT_LEAST: Final = 8
# How many times as many channels are scored before it is asked again.
_GROWTH: Final = 1.5

# Scores some channels; false when time is up before they are.
_Run = Callable[[NDArray[np.intp]], bool]


def score(
    scoring: Scoring,
    limits: Limits,
    *,
    started: float,
    progress: Progress | None = None,
    stop: Stop | None = None,
    previews: bool = False,
    memory: Memory | None = None,
) -> Iterator[Scores]:
    """Score channels until the limits or the channels are reached; the last scores are the result.

    All channels are scored in the order of their energy, unless a limit or `previews` has the process choose. A budget
    that pays for all of them is no limit.

    Args:
        scoring: of one image.
        limits: when to stop.
        started: what `time.perf_counter` was when the explanation began.
        progress: called after every run of the graph.
        stop: asked after every run of the graph: whether to end as at a deadline. At least one run is made.
        previews: also yield what is known each time the process has been asked, with at least one run in between.
        memory: of a stream: what it says of the frames before is made use of where the process chooses, and what
            becomes known of this one is added to it.
    """
    order = scoring.masks.order
    limit = limits.channels(len(order))
    choosing = limit < len(order) or limits.deadline is not None or limits.tolerance is not None or previews
    choosing = choosing and limits.completion != "none" and limit > 0
    end = math.inf if limits.deadline is None else started + limits.deadline / 1000
    memory = memory if limits.given and limits.completion != "none" else None
    chooser = Chooser(scoring, end, predicts=choosing, memory=memory)

    stopped = False

    def in_time() -> bool:
        nonlocal stopped
        scoring.most_rows = chooser.rows_in_time()
        stopped = stopped or (stop is not None and stop())
        if stopped:
            scoring.most_rows = 0 if scoring.tally.runs else min(scoring.most_rows, _ROWS_AT_LEAST)
        return scoring.most_rows > 0

    def run(channels: NDArray[np.intp]) -> bool:
        if not in_time():  # the process took longer than it was likely to
            return False
        for _ in scoring.run(channels):
            if progress is not None:
                progress(scoring.tally.passes, limit * scoring.plan.samples)
            if not in_time():
                return False
        return True

    if choosing:
        steps = _as_chosen(scoring, limits, chooser, run, previews=previews)
    else:
        completing = None if limits.completion == "none" else chooser
        steps = _in_order_of_energy(scoring, order[:limit], run, completing, previews=previews)
    for scores in steps:
        yield _told(scores, limit * scoring.plan.samples) if stopped else scores
    chooser.remember()


def _told(scores: Scores, wanted: int) -> Scores:
    """Scores that say that they were stopped, unless all passes had been made by then."""
    if scores.passes >= wanted:
        return scores
    sentence = f"stopped after {scores.passes} of {wanted} forward passes"
    return dataclasses.replace(scores, simplified=(*scores.simplified, sentence))


def _as_chosen(scoring: Scoring, limits: Limits, chooser: Chooser, run: _Run, *, previews: bool) -> Iterator[Scores]:
    """In rounds: the first by energy, the others as the process wants."""
    order = scoring.masks.order
    limit = limits.channels(len(order))
    rounds = rounds_of(limits, len(order), warm=chooser.warm)
    prediction: Prediction | None = None
    for number, size in enumerate(rounds):
        if number and chooser.in_time_for(left := limit - chooser.scored):
            group = chooser.brightest(left)  # a deadline that all of them meet
        elif prediction is None:
            group = chooser.brightest(size)
        else:
            group = chooser.most_wanted(prediction, size)
        parts = parts_of(group, sum(rounds[:number])) if previews else [group]
        for part in parts:
            in_time = run(order[part])
            round_is_over = part is parts[-1]
            if scoring.complete:
                yield scoring.scores()
                return
            if not in_time or chooser.scored >= limit or (round_is_over and number == len(rounds) - 1):
                yield chooser.result(rounds[0])
                return
            if not (previews or _may_ask(chooser, limits, limit - chooser.scored)):
                prediction = None  # the next channels by energy: that takes no time
                continue
            prediction = chooser.ask()
            error = None
            if previews or limits.tolerance is not None:
                error = chooser.error(prediction, rounds[0])
            met = error is not None and limits.tolerance is not None and bool((error <= limits.tolerance).all())
            if previews or (met and round_is_over):
                yield scoring.scores(prediction.weights, error)
            if met and round_is_over:
                return


def _may_ask(chooser: Chooser, limits: Limits, left: int) -> bool:
    """Whether there is time to ask the process, and something to ask: not where all that are left are in time."""
    if limits.tolerance is None and chooser.in_time_for(left):
        return False
    return chooser.may_ask()


def _in_order_of_energy(
    scoring: Scoring, order: NDArray[np.intp], run: _Run, completing: Chooser | None, *, previews: bool
) -> Iterator[Scores]:
    """Without the process: by descending energy, in parts that grow where previews are wanted.

    Args:
        scoring: of one image.
        order: the channels to score.
        run: scores them.
        completing: predicts the weights of those that are left out if time is up; None gives them none.
        previews: whether to yield after each part.
    """
    start = 0
    while True:
        size = max(_FEWEST, math.ceil((_GROWTH - 1) * start)) if previews else len(order)
        in_time = run(order[start : start + size])
        start += size
        if not in_time or start >= len(order):
            break
        yield scoring.scores()
    if not in_time and completing is not None and not scoring.complete:
        yield completing.result(completing.scored)  # nothing was chosen, so the error is not known
    else:
        yield scoring.scores()


def rounds_of(limits: Limits, channels: int, *, warm: bool = False) -> list[int]:
    """How many of the active channels each round scores, by their number and the limits alone.

    Their sum is what the budget pays for.

    Args:
        limits: when to stop.
        channels: how many are active.
        warm: whether a frame before says which channels matter: the first round is then smaller.
    """
    limit = limits.channels(channels)
    if limit < channels and are_most(limit, channels) and limits.tolerance is None:
        return [limit]  # which few are left out matters little, and to ask would take longer than they do
    first = _FIRST_OF_ALL * channels if limits.budget is None else _FIRST_OF_BUDGET * limit
    fewest = min(_FEWEST, math.ceil(limit / 2)) if warm else _FEWEST
    first = first / 2 if warm else first
    rounds = [min(max(fewest, math.ceil(first)), limit)]
    while (rest := limit - sum(rounds)) > 0:
        size = math.ceil((_GROWTH - 1) * sum(rounds))
        rounds.append(rest if rest < 1.5 * size else size)
    return rounds


def parts_of(group: NDArray[np.intp], done: int) -> list[NDArray[np.intp]]:
    """A round cut for previews, each part half as large as all before it.

    Args:
        group: the channels of the round.
        done: how many channels were scored before.
    """
    cuts: list[int] = []
    while (size := math.ceil((_GROWTH - 1) * (done + sum(cuts)))) and sum(cuts) + 1.5 * size < len(group):
        cuts.append(size)
    return np.split(group, np.cumsum(cuts))
