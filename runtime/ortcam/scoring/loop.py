"""The scoring loop: masked forward passes in chunks, each a single run of a scorer graph, summed into weights."""

import sys
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.base import BoundSession
from ortcam.engine.batching import Batch, BatchSizer, pad_rows, run_batches
from ortcam.engine.features import check_rows
from ortcam.errors import NotFiniteError
from ortcam.methods import Plan
from ortcam.scoring.maps import gated_sum
from ortcam.scoring.masks import Masks
from ortcam.scoring.noise import noise_of, noise_spread
from ortcam.scoring.pace import Pace
from ortcam.scoring.scores import Scores, weigh
from ortcam.scoring.tally import Tally, fade
from ortcam.support.blas import single_threaded

__all__ = ["Scoring"]

# Samples of a channel before its mean may be called well enough known.
_FEWEST_SAMPLES: Final = 5
# From this much above the sampling error that is accepted the next sample counts fully.
_CLEARLY: Final = 0.1


class Scoring:
    """The masked passes of one image, made a group of channels at a time, and the weights that they give.

    Attributes:
        masks: of the image.
        plan: of the method.
        pace: how long runs and the rest take.
        tally: what the passes have given.
        offset: float64 [K], what is subtracted from the positive weights.
        classes: K of them, or other columns of the scorer's outputs.
        pixels: H W, of the image and the finished map.
        most_rows: masked images of the next run at most; may change between runs.
    """

    def __init__(
        self,
        scorer: BoundSession,
        *,
        image: NDArray[np.float32],
        masks: Masks,
        plan: Plan,
        targets: NDArray[np.int64],
        baseline: NDArray[np.float32],
        sizer: BatchSizer,
        sampling_error: float | None = None,
        pace: Pace | None = None,
        score: NDArray[np.float32] | None = None,
        signed: bool = False,
    ) -> None:
        """Put on the device what stays the same for all passes.

        Args:
            scorer: the graph for this plan, for as long as the passes take.
            image: float32 [1,3,H,W], preprocessed.
            masks: of this image.
            plan: of the method.
            targets: int64 [K], classes, or other columns of the scorer's outputs; the passes are the same for any
                number of them.
            baseline: float32 [K], subtracted from the probabilities, or from the scores in their place.
            sizer: decides how many masked images each run has.
            sampling_error: of a method that takes the mean over samples: a channel has enough of them when the standard
                error of its mean is below this share of its weight or of the mean weight; None takes all samples.
            pace: what is known about the time that runs and the rest take; None: nothing.
            score: float32 [S,U], the weights of scores, for scorers with an input of this name; None: there is none.
            signed: whether what is scored may be negative, as no probability is.
        """
        self._height, self._width = (int(size) for size in image.shape[-2:])
        self.masks = masks
        self.plan = plan
        self.pace = pace or Pace()
        soft = plan.weighting == "logit-softmax"
        self.offset = np.zeros(len(targets)) if soft else baseline.astype(np.float64)
        shape = len(targets), self._height, self._width
        self.tally = Tally(len(masks.active), shape, plan, self.offset if signed else None)
        self.classes = tuple(int(index) for index in targets)
        self.pixels = self._height * self._width
        self.most_rows = sys.maxsize
        self._scorer = scorer
        self._image = image
        self._sizer = sizer
        self._sampling_error = sampling_error
        self._spread = noise_spread(image, masks.maps, plan.noise)
        for name, value in (
            ("image", image),
            ("maps", masks.maps[np.newaxis]),
            ("targets", targets),
            ("baseline", baseline),
            ("logit_softmax", np.array(self.tally.soft)),
            *(() if score is None else (("score", score),)),
        ):
            scorer.put(name, value)

    @property
    def complete(self) -> bool:
        """Whether all active channels have all their samples."""
        return self.tally.is_complete(self.masks.active)

    @property
    def next_rows(self) -> int:
        """Masked images of the next full run of the graph, padding included."""
        return self._sizer.next(sys.maxsize)[1]

    @property
    def fixed_shape(self) -> bool:
        """Whether shorter runs are padded to full ones, so that they take no less time."""
        return bool(self._scorer.fixed_shape)

    def gating_work(self, channels: int, step: int) -> float:
        """How many values are gated for some channels that were not scored; none where gated maps are not summed."""
        return float(channels * self.pixels / step**2) if self.plan.gate_sum else 0.0

    def run(self, channels: NDArray[np.intp]) -> Iterator[float]:
        """Make the passes of some channels that have none yet; after each run of the graph, yield its seconds a row.

        Samples outside, channels inside: whoever stops in between has seen all of these channels, and the samples are
        random ones. So the steps of a path come in random order.

        Where a channel has enough samples is a decision by scores, whose last bits differ between batch sizes. The
        samples after one that was needed by a hair count in part only, so that they change little.

        A run has at most `most_rows` rows, which may change between runs.
        """
        coefficients = np.random.default_rng(0).permutation(np.asarray(self.plan.coefficients, np.float32))
        if self.plan.noise is None and self._sampling_error is None:
            scale = np.repeat(coefficients, len(channels))
            yield from self._rows(np.tile(channels, self.plan.samples), scale, np.ones(len(scale)))
            return
        active, worth = channels, np.ones(len(channels))
        for sample in range(self.plan.samples):
            if self.plan.noise is not None:
                self._scorer.put("noise", noise_of(self._image, self.plan.noise, sample))
                scale = np.ones(len(active), np.float32)
            else:
                scale = np.full(len(active), coefficients[sample])
            yield from self._rows(active, scale, worth)
            if self._sampling_error is not None and sample + 1 >= _FEWEST_SAMPLES:
                worth *= fade(self.tally.relative_error(active).max(axis=1), self._sampling_error, _CLEARLY)
                active, worth = active[worth > 0], worth[worth > 0]
            if not active.size:
                return

    def _rows(
        self, channels: NDArray[np.intp], scale: NDArray[np.float32], worth: NDArray[np.float64]
    ) -> Iterator[float]:
        """One pass a row; after each run of the graph, yield its seconds a row."""

        def run(batch: Batch) -> None:
            self._run_batch(channels[batch.rows].astype(np.int64), scale[batch.rows], worth[batch.rows], batch.padded)

        # What a run needs is put on the device inside it: that, too, takes memory and time.
        for done in run_batches(len(channels), self._sizer, lambda batch: batch, run, most_rows=lambda: self.most_rows):
            self.pace.took("rows", done.batch.padded, done.seconds)
            yield done.seconds / done.batch.padded

    def _run_batch(
        self, channels: NDArray[np.int64], scale: NDArray[np.float32], worth: NDArray[np.float64], padded: int
    ) -> None:
        size = len(channels)
        channels, scale = pad_rows(channels, padded), pad_rows(scale, padded)
        self._scorer.put("channels", channels)
        self._scorer.put("scale", scale)
        self._scorer.put("sigma", self._spread[channels])
        self._scorer.put("keep", (np.arange(padded) < size).astype(np.float32))
        probabilities, logits, *partial = self._scorer.run()
        for name, value in (("probabilities", probabilities), ("logits", logits)):
            check_rows(f"{name} of masked images", value, padded, len(self.offset))
        if not (np.isfinite(probabilities[:size]).all() and np.isfinite(logits[:size]).all()):
            raise NotFiniteError(
                "the score of a masked image is not a number, or infinite: the model's values go beyond what its "
                "precision holds; float32 scorers hold more than those in float16"
            )
        values = logits if self.tally.soft else probabilities
        self.tally.add(channels[:size], values[:size].astype(np.float64), worth)
        if partial and self.plan.gate_sum:
            self.tally.add_gated(partial[0], logits)

    @single_threaded
    def scores(
        self,
        predicted: NDArray[np.float64] | None = None,
        error: NDArray[np.float64] | None = None,
        *,
        step: int = 1,
        simplified: tuple[str, ...] = (),
    ) -> Scores:
        """The weights from what has been scored, and from what was predicted for the rest.

        Args:
            predicted: float64 [L,K], weights before the offset is subtracted, of the active channels in the order of
                `masks.order`; where a channel was scored they are not looked at. None gives the others no weight.
            error: float64 [K], estimated from the prediction.
            step: maps whose weights were predicted are gated at every pixel, or at one in so many of both axes.
            simplified: what was done in a simpler way to meet the deadline.
        """
        tally, masks = self.tally, self.masks
        weights = weigh(tally, masks, self.offset, predicted)
        gated = tally.gated_sum(None if predicted is None else self._gate_unscored(weights, step))
        if gated is not None and tally.offset is not None:
            gated = gated * (weights != 0).any(axis=0)[:, None, None]
        if tally.soft and weights.any():
            total = weights.sum(axis=0)
            weights /= total
            if gated is not None:
                gated = gated * tally.softmax_scale(total)[:, None, None]
        return Scores(
            weights=weights.T,
            gated_sum=gated,
            scored=tally.scored,
            passes=tally.passes,
            chunks=tally.runs,
            batch_size=self._sizer.size,
            energy_covered=masks.energy_covered(tally.scored),
            error=np.zeros(len(self.offset)) if self.complete else error,
            standard_error=tally.standard_error(),
            simplified=simplified,
        )

    def _gate_unscored(self, weights: NDArray[np.float64], step: int) -> NDArray[np.float64] | None:
        """The gated sum of the channels that were not scored: float64 [K,H,W]; None where there is none.

        Args:
            weights: float64 [C,K].
            step: in pixels, at which their maps are gated.
        """
        if not self.plan.gate_sum or self.plan.gate is None:
            return None
        channels = np.flatnonzero(self.masks.active & ~self.tally.scored & (weights != 0).any(axis=1))
        if not channels.size:
            return None
        with self.pace.timing("gate", self.gating_work(len(channels), step)):
            return gated_sum(
                self.masks.maps[channels],
                weights[channels],
                self.plan.gate,
                height=self._height,
                width=self._width,
                step=step,
            )
