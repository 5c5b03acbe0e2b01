"""Frames whose every weight is known, explained one after the other with a memory."""

import time
from typing import Any

import numpy as np

from ortcam.engine.batching import BatchSizer
from ortcam.methods import resolve_method
from ortcam.scoring.budget import score
from ortcam.scoring.limits import Limits
from ortcam.scoring.loop import Scoring
from ortcam.scoring.maps import finish, raw_maps
from ortcam.scoring.masks import prepare_masks
from ortcam.scoring.prediction.memory import Memory
from ortcam.scoring.scores import Scores

SIDE = 28
PLAN = resolve_method("scorecam", {}).plan
assert PLAN is not None


class Scorer:
    """A scorer that knows every weight, [K,C]."""

    fixed_shape = on_gpu = False
    providers = ()

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights.astype(np.float32)
        self._channels = np.zeros(0, np.int64)

    def put(self, name: str, value: np.ndarray) -> None:
        if name == "channels":
            self._channels = value

    def run(self) -> tuple[np.ndarray, ...]:
        probabilities = self._weights[:, self._channels].T
        return probabilities, np.zeros_like(probabilities)


def explained(
    features: np.ndarray, weights: np.ndarray, limits: Limits, memory: Memory | None, target: int = 0
) -> tuple[Scores, float]:
    """The scores of a frame, and the largest error of its map.

    Args:
        features: float32 [C,h,w].
        weights: float64 [1,C], of all channels.
        limits: when to stop.
        memory: of the frames before; None: the frame stands alone.
        target: class index.
    """
    masks = prepare_masks(features, PLAN, height=SIDE, width=SIDE)
    scorer: Any = Scorer(weights)
    scoring = Scoring(
        scorer,
        image=np.zeros((1, 3, SIDE, SIDE), np.float32),
        masks=masks,
        plan=PLAN,
        targets=np.array([target]),
        baseline=np.zeros(1, np.float32),
        sizer=BatchSizer((8,), fixed_shape=False),
    )
    *_, scores = score(scoring, limits, started=time.perf_counter(), memory=memory)
    raw = np.tensordot(weights, masks.features.astype(np.float64), axes=1)
    maps = [finish(values, SIDE, SIDE)[0] for values in (raw_maps(masks, PLAN, scores), raw)]
    return scores, float(np.abs(maps[0] - maps[1]).max())
