"""The scoring loop: masked forward passes in chunks, each a single run of a scorer graph, summed into weights."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.engine.batching import ChunkSizes
from ortcam.engine.blas import single_threaded
from ortcam.engine.model import check_rows
from ortcam.engine.session import Bound
from ortcam.errors import BundleError, NotFiniteError, OutOfMemoryError
from ortcam.methods import Noise, Plan
from ortcam.scoring.noise import draw_noise
from ortcam.scoring.pace import Pace
from ortcam.scoring.upsampling import bilinear_matrix, taps, upsample, upsampled_range

__all__ = ["COARSEST", "ZERO_AT_ZERO", "Masks", "Progress", "Scores", "Scoring", "fade", "prepare_masks"]

# Called with (passes made, passes in all) after every chunk.
Progress = Callable[[int, int], None]

# Gates with gate(0) = 0: a channel that is zero everywhere masks everything and adds nothing.
ZERO_AT_ZERO: Final = ("tanh", "mish", "swish", "softsign")

_CHANNELS_AT_ONCE: Final = 8

# The largest step, in pixels, at which maps whose weights were predicted are gated where time is short.
COARSEST: Final = 8
_GATED_AT_ONCE: Final = 1 << 16  # values, which fit into a core's cache

# Samples of a channel before its mean may be called well enough known.
_FEWEST_SAMPLES: Final = 5
# From this much above the sampling error that is accepted the next sample counts fully.
_CLEARLY: Final = 0.1


@dataclasses.dataclass(frozen=True)
class Masks:
    """The maps of one image as the scorer takes them.

    Attributes:
        maps: float32 [C,h,w], upsampled and gated inside the scorer; already min-maxed where the plan says so.
        live: bool [C], false where the mask is flat: weight 0 and no forward pass.
        order: intp [L], the live channels by descending energy.
        energy: float64 [C], sum of the positive part of the raw map.
    """

    maps: NDArray[np.float32]
    live: NDArray[np.bool_]
    order: NDArray[np.intp]
    energy: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the passes gave.

    Attributes:
        weights: float64 [K,C], alpha; where a channel was not scored what was predicted for it, or zero.
        gated_sum: float64 [K,H,W], sum of alpha_k gate(U(A_k)), where the plan sums gated maps.
        scored: bool [C], the channels whose weights come from passes.
        passes: forward passes made, padding left out.
        chunks: runs of the scorer graph.
        batch_size: masked images of a full run; during the search: the best size so far.
        energy_covered: share of the live channels' energy that the scored ones have, in [0,1].
        error: float64 [K], the estimate of the largest error of the finished maps; 0 where every channel was scored
            with all samples, 1 where it is not known yet, None where nothing was predicted.
        standard_error: float64 [K], of the weights that are means of fewer samples than the method has: the largest
            over channels, relative to the weight or the mean weight; None where all samples were made.
        simplified: what was done in a simpler way to meet the deadline, in words.
    """

    weights: NDArray[np.float64]
    gated_sum: NDArray[np.float64] | None
    scored: NDArray[np.bool_]
    passes: int
    chunks: int
    batch_size: int
    energy_covered: float
    error: NDArray[np.float64] | None
    standard_error: NDArray[np.float64] | None
    simplified: tuple[str, ...] = ()


@single_threaded
def prepare_masks(features: NDArray[np.float32], plan: Plan, *, height: int, width: int) -> Masks:
    """Min-max the maps (before they are upsampled: U preserves constants), find the flat ones, order the others.

    s(U(A)) = (U(A) - min U(A)) / (max U(A) - min U(A)) = U((A - min U(A)) / (max U(A) - min U(A))), so the scorer needs
    no reduction over the image, and the upsampled maps never exist outside it.

    Args:
        features: float32 [C,h,w].
        plan: of the method.
        height: of the model's input.
        width: of the model's input.
    """
    low = features.min(axis=(1, 2))
    high = features.max(axis=(1, 2))
    maps = features
    if plan.normalize is None:
        if plan.gate == "relu":
            low, high = upsampled_range(features, height, width)
        live = _gate_is_live(plan.gate, low, high)
    else:
        live = high > low
        if plan.normalize == "after-upsampling":
            low, high = upsampled_range(features, height, width)
            live &= high > low  # bilinear upsampling need not reach the extremes
        span = np.where(live, high - low, 1)
        maps = np.where(live[:, None, None], (features - low[:, None, None]) / span[:, None, None], 0)
    energy = np.maximum(features, 0).sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-energy, kind="stable")
    return Masks(maps.astype(np.float32, copy=False), live, order[live[order]], energy)


def _gate_is_live(gate: str | None, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    """False where gate(U(A_k)) is zero everywhere, from the range of A_k (of U(A_k) for the relu): bool [C]."""
    if gate == "relu":
        return np.greater(high, 0)
    if gate in ZERO_AT_ZERO:
        return np.not_equal(low, 0) | np.not_equal(high, 0)
    return np.ones(low.shape, np.bool_)


class Scoring:
    """The masked passes of one image, made a group of channels at a time, and the weights that they give."""

    def __init__(
        self,
        scorer: Bound,
        *,
        image: NDArray[np.float32],
        masks: Masks,
        features: NDArray[np.float32],
        plan: Plan,
        targets: NDArray[np.int64],
        baseline: NDArray[np.float32],
        sizes: ChunkSizes,
        sampling_error: float | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Put on the device what stays the same for all passes.

        Args:
            scorer: the graph for this plan.
            image: float32 [1,3,H,W], preprocessed.
            masks: of this image.
            features: float32 [C,h,w], the raw maps.
            plan: of the method.
            targets: int64 [K], classes; the passes are the same for any number of them.
            baseline: float32 [K], subtracted from the probabilities.
            sizes: decides how many masked images each run has.
            sampling_error: of a method that takes the mean over samples: a channel has enough of them when the standard
                error of its mean is below this share of its weight or of the mean weight; None takes all samples.
            pace: what is known about the time that runs and the rest take; None: nothing.
        """
        self.masks = masks
        self.plan = plan
        self.pace = pace or Pace()
        self.most_rows = sys.maxsize
        self._scorer = scorer
        self._image = image
        self._features = features
        self._baseline = baseline.astype(np.float64)
        self._sizes = sizes
        self._sampling_error = sampling_error
        channels, classes = len(masks.live), len(targets)
        self._sum = np.zeros((channels, classes))
        self._squares = np.zeros((channels, classes))
        self._count = np.zeros(channels)
        self._gated: NDArray[np.float64] | None = None
        self._reference = np.full(classes, -np.inf)
        self.passes = 0
        self._chunks = 0
        self._spread = _noise_spread(image, masks.maps, plan.noise)
        for name, value in (
            ("image", image),
            ("maps", masks.maps[np.newaxis]),
            ("targets", targets),
            ("baseline", baseline),
            ("logit_softmax", np.array(self._soft)),
        ):
            scorer.put(name, value)

    @property
    def _soft(self) -> bool:
        return self.plan.weighting == "logit-softmax"

    @property
    def complete(self) -> bool:
        """Whether all live channels have all their samples."""
        return bool((self._count[self.masks.live] == self.plan.samples).all())

    @property
    def scored(self) -> NDArray[np.bool_]:
        """The channels with at least one pass: bool [C]."""
        scored: NDArray[np.bool_] = self._count > 0
        return scored

    @property
    def next_rows(self) -> int:
        """Masked images of the next full run of the graph, padding included."""
        return self._sizes.next(sys.maxsize)[1]

    @property
    def fixed_shape(self) -> bool:
        """Whether shorter runs are padded to full ones, so that they take no less time."""
        return bool(self._scorer.fixed_shape)

    @property
    def pixels(self) -> int:
        """H W, of the image and the finished map."""
        height, width = self._image.shape[-2:]
        return int(height * width)

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
                self._scorer.put("noise", _draw_noise(self._image, self.plan.noise, sample))
                scale = np.ones(len(active), np.float32)
            else:
                scale = np.full(len(active), coefficients[sample])
            yield from self._rows(active, scale, worth)
            if self._sampling_error is not None and sample + 1 >= _FEWEST_SAMPLES:
                worth *= fade(self._relative_error(active).max(axis=1), self._sampling_error, _CLEARLY)
                active, worth = active[worth > 0], worth[worth > 0]
            if not active.size:
                return

    def _rows(
        self, channels: NDArray[np.intp], scale: NDArray[np.float32], worth: NDArray[np.float64]
    ) -> Iterator[float]:
        """One pass a row, in chunks; a chunk that does not fit into memory is halved, and so are those after it."""
        start = 0
        while start < len(channels):
            size, padded = self._sizes.next(min(len(channels) - start, self.most_rows))
            rows = slice(start, start + size)
            clock = time.perf_counter()
            try:
                self._run_chunk(channels[rows].astype(np.int64), scale[rows], worth[rows], padded - size)
            except OutOfMemoryError:
                self._sizes.halve(padded)
                continue
            seconds = time.perf_counter() - clock
            self._sizes.record(padded, seconds)
            self.pace.took("rows", padded, seconds)
            start += size
            yield seconds / padded

    def _run_chunk(
        self, channels: NDArray[np.int64], scale: NDArray[np.float32], worth: NDArray[np.float64], padding: int
    ) -> None:
        size = len(channels)
        if padding:
            channels = np.pad(channels, (0, padding), mode="edge")
            scale = np.pad(scale, (0, padding), mode="edge")
        self._scorer.put("channels", channels)
        self._scorer.put("scale", scale)
        self._scorer.put("sigma", self._spread[channels])
        self._scorer.put("keep", (np.arange(len(channels)) < size).astype(np.float32))
        probabilities, logits, *partial = self._scorer.run()
        for name, value in (("probabilities", probabilities), ("logits", logits)):
            check_rows(f"{name} of masked images", value, len(channels), self._sum.shape[1])
        if not (np.isfinite(probabilities[:size]).all() and np.isfinite(logits[:size]).all()):
            raise NotFiniteError(
                "the score of a masked image is not a number, or infinite: the model's values go beyond what its "
                "precision holds; float32 scorers hold more than those in float16"
            )
        rows = channels[:size]
        values = (logits if self._soft else probabilities)[:size].astype(np.float64)
        np.add.at(self._sum, rows, worth[:, None] * values)
        np.add.at(self._count, rows, worth)
        if self.plan.samples > 1:
            np.add.at(self._squares, rows, worth[:, None] * values**2)
        if partial and self.plan.gate_sum:
            self._add_gated(partial[0], logits.astype(np.float64) if self._soft else None)
        self.passes += size
        self._chunks += 1

    def _add_gated(self, partial: NDArray[np.float32], logits: NDArray[np.float64] | None) -> None:
        expected = (len(self._baseline), *self._image.shape[-2:])
        if partial.dtype != np.float32 or partial.shape != expected:
            raise BundleError(f"partial_maps are {partial.dtype} {list(partial.shape)}; accepted is float32 {expected}")
        if self._gated is None:
            self._gated = np.zeros(partial.shape)
        if logits is None:
            self._gated += partial
            return
        # The graph weighs by the softmax over its own chunk; sums over chunks are brought to one reference logit.
        chunk_reference = _log_sum_exp(logits)
        reference = np.maximum(self._reference, chunk_reference)
        self._gated *= np.exp(self._reference - reference)[:, None, None]
        self._gated += partial * np.exp(chunk_reference - reference)[:, None, None]
        self._reference = reference

    def _mean_error(self, channels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Standard error of the mean scores (logits, where they weigh) of some channels: float64 [n,K].

        The samples are drawn without replacement from the N that the method has, whose mean is what is wanted: the
        error is that of a finite population and vanishes with the last of them (Cochran, "Sampling Techniques", 1977,
        eq. 2.20). After a single sample it is taken to be the score, of a logit 1.
        """
        count = self._count[channels, None].astype(np.float64)
        mean = self._sum[channels] / count
        variance = np.maximum(self._squares[channels] / count - mean**2, 0) * count / np.maximum(count - 1, 1)
        single = (count == 1) & (self.plan.samples > 1)
        error: NDArray[np.float64] = np.where(
            single, 1.0 if self._soft else mean, np.sqrt(variance / count * (1 - count / self.plan.samples))
        )
        return error

    def _relative_error(self, channels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Standard error of the weights of some channels, over the larger of a weight and the mean weight: [n,K].

        The absolute error of a logit is that of its exponential, relative to it.
        """
        error = self._mean_error(channels)
        if self._soft:
            return error
        mean = self._sum[channels] / self._count[channels, None]
        everywhere = (self._sum[self.scored] / self._count[self.scored, None]).mean(axis=0)
        relative: NDArray[np.float64] = error / np.maximum(np.maximum(mean, everywhere), np.finfo(np.float64).tiny)
        return relative

    def sampling_errors(self) -> NDArray[np.float64]:
        """Standard errors of the positive weights of the scored channels: float64 [n,K], as `positive_weights`.

        Zero where all samples were made.
        """
        channels, weights = self.positive_weights()
        error = self._mean_error(channels)
        return error * weights if self._soft else error

    def positive_weights(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The channels scored, intp [n], and their weights before the baseline is subtracted, float64 [n,K].

        Of a softmax over channels the numerator, divided by the largest of them.
        """
        channels = np.flatnonzero(self._count)
        mean = self._sum[channels] / self._count[channels, None]
        if self._soft:
            mean = np.exp(mean - mean.max(axis=0, initial=-np.inf))
        return channels, np.maximum(mean, np.finfo(np.float32).tiny)

    @property
    def offset(self) -> NDArray[np.float64]:
        """What is subtracted from the positive weights: float64 [K]."""
        return np.zeros_like(self._baseline) if self._soft else self._baseline

    def summands(self) -> NDArray[np.float32]:
        """What the weights are summed over, at feature resolution, float32 [C,h,w]."""
        if self.plan.gate_sum and self.plan.gate is not None:
            return GATE_FUNCTIONS[self.plan.gate](self.masks.maps)
        return self.masks.maps if self.plan.maps == "normalized" else self._features

    def gated_masks(self) -> NDArray[np.float32]:
        """The masks at feature resolution, as they multiply the image: float32 [C,h,w]."""
        return self.masks.maps if self.plan.gate is None else GATE_FUNCTIONS[self.plan.gate](self.masks.maps)

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
            predicted: float64 [L,K], positive weights of the live channels in the order of `masks.order`; where a
                channel was scored they are not looked at. None gives the others no weight.
            error: float64 [K], estimated from the prediction.
            step: maps whose weights were predicted are gated at every pixel, or at one in so many of both axes.
            simplified: what was done in a simpler way to meet the deadline.
        """
        masks, scored, live = self.masks, self.scored, self.masks.live
        channels, given = self.positive_weights()
        positive = np.zeros_like(self._sum)
        if predicted is not None:
            positive[masks.order] = predicted
        positive[channels] = given if self._soft else self._sum[channels] / self._count[channels, None]
        weighed = live if predicted is not None else scored
        weights = np.zeros_like(positive)
        weights[weighed] = positive[weighed] - self.offset
        gated = self._gated
        if predicted is not None and self.plan.gate_sum:
            gated = self._with_predicted(weights, live & ~scored, step)
        if self._soft and weighed.any():
            total = weights.sum(axis=0)
            weights /= total
            if gated is not None:
                # From the reference logit of the sum, by way of the largest logit, to the sum of all.
                largest = (self._sum[channels] / self._count[channels, None]).max(axis=0)
                gated = gated * (np.exp(self._reference - largest) / total)[:, None, None]
        energy = masks.energy[live].sum()
        return Scores(
            weights=weights.T,
            gated_sum=gated,
            scored=scored,
            passes=self.passes,
            chunks=self._chunks,
            batch_size=self._sizes.size,
            energy_covered=float(masks.energy[scored].sum() / energy) if energy > 0 else 1.0,
            error=np.zeros(len(self._baseline)) if self.complete else error,
            standard_error=self._standard_error(),
            simplified=simplified,
        )

    def _standard_error(self) -> NDArray[np.float64] | None:
        if not self.scored.any() or (self._count[self.scored] == self.plan.samples).all():
            return None
        largest: NDArray[np.float64] = self._relative_error(np.flatnonzero(self.scored)).max(axis=0)
        return largest

    def _with_predicted(
        self, weights: NDArray[np.float64], missing: NDArray[np.bool_], step: int
    ) -> NDArray[np.float64] | None:
        """The gated sum with that of channels not scored: float64 [K,H,W]; None where there is neither.

        Args:
            weights: float64 [C,K].
            missing: bool [C], the channels not scored.
            step: in pixels, at which their maps are gated.
        """
        channels = np.flatnonzero(missing & (weights != 0).any(axis=1))
        if not channels.size:
            return self._gated
        with self.pace.timing("gate", self.gating_work(len(channels), step)):
            added = self._gated_sum(weights, channels, step)
        if self._gated is None:
            return added
        if self._soft:
            largest = (self._sum[self.scored] / self._count[self.scored, None]).max(axis=0)
            added *= np.exp(largest - self._reference)[:, None, None]
        return self._gated + added

    def _gated_sum(self, weights: NDArray[np.float64], channels: NDArray[np.intp], step: int) -> NDArray[np.float64]:
        """Sum alpha_k gate(U(A_k)) of some channels, gated at every pixel or at one in `step`: float64 [K,H,W].

        A row of pixels at a time, of as many channels as fit into a core's cache: maps that are brought to the width of
        the image once are interpolated between their rows, gated, and summed by a single product.
        """
        assert self.plan.gate is not None
        gate = GATE_FUNCTIONS[self.plan.gate]
        height, width = (-(-size // step) for size in self._image.shape[-2:])
        upper, share = taps(self.masks.maps.shape[-2], height)
        columns = bilinear_matrix(self.masks.maps.shape[-1], width)
        factors = weights.T.astype(np.float32)
        summed = np.zeros((len(factors), height, width), np.float32)
        for part in np.array_split(channels, -(-len(channels) * width // _GATED_AT_ONCE)):
            rows = np.ascontiguousarray(np.matmul(self.masks.maps[part], columns.T).transpose(1, 0, 2))  # [h,n,width]
            down = np.diff(rows, axis=0, append=rows[-1:])
            factor = np.ascontiguousarray(factors[:, part])
            for row in range(height):
                line = down[upper[row]] * np.float32(share[row])
                line += rows[upper[row]]
                summed[:, row] += factor @ gate(line)
        return (summed if step == 1 else upsample(summed, *self._image.shape[-2:])).astype(np.float64)


def fade(values: NDArray[np.float64], threshold: float, width: float) -> NDArray[np.float64]:
    """0 up to a threshold, 1 from (1 + width) times it on, linear between: a decision that no rounding turns round."""
    if threshold <= 0:
        return np.ones_like(values)
    with np.errstate(invalid="ignore"):
        faded: NDArray[np.float64] = np.clip((values / threshold - 1) / width, 0, 1)
    faded[np.isnan(faded)] = 1
    return faded


def _draw_noise(image: NDArray[np.float32], noise: Noise, sample: int) -> NDArray[np.float32]:
    """Sample i of the noise, float32 [1,3,H,W], unit variance for std="authors" (the graph multiplies by sigma_k).

    Noise on the activation is (s(U(A)) + n) * X = s(U(A)) * X + n * X, so it too is added to the masked image.
    """
    if noise.on == "activation":
        return draw_noise(noise.seed, sample, image.shape[-2:]) * image
    return draw_noise(noise.seed, sample, image.shape)


@single_threaded
def _noise_spread(image: NDArray[np.float32], maps: NDArray[np.float32], noise: Noise | None) -> NDArray[np.float32]:
    """sigma_k, float32 [C]: the given std, or (2 / (max M_k - min M_k))^2 of the masked image M_k = X * s(U(A_k))."""
    if noise is None or noise.std != "authors":
        return np.full(len(maps), noise.std if noise else 0.0, np.float32)
    spread = np.zeros(len(maps), np.float32)
    height, width = image.shape[-2:]
    # A mask is nowhere negative, so the largest value of M_k is that of the mask times the largest colour of X.
    low, high = image[0].min(axis=0), image[0].max(axis=0)
    for start in range(0, len(maps), _CHANNELS_AT_ONCE):
        part = slice(start, start + _CHANNELS_AT_ONCE)
        mask = upsample(maps[part], height, width)
        span = (mask * high).max(axis=(1, 2)) - (mask * low).min(axis=(1, 2))
        spread[part] = np.divide(2, span, out=np.zeros_like(span), where=span > 0) ** 2
    return spread


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log sum exp over axis 0, float64 [N,K] -> [K]."""
    top = values.max(axis=0)
    total: NDArray[np.float64] = top + np.log(np.exp(values - top).sum(axis=0))
    return total
