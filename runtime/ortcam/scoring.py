"""The scoring loop: masked forward passes in chunks, each a single run of a scorer graph, summed into weights."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.blas import single_threaded
from ortcam.errors import NotFiniteError, OutOfMemoryError
from ortcam.gates import GATE_FUNCTIONS
from ortcam.methods import Noise, Plan
from ortcam.noise import draw_noise
from ortcam.session import Bound
from ortcam.tuning import ChunkSizes
from ortcam.upsampling import upsample, upsampled_range

__all__ = ["ZERO_AT_ZERO", "Masks", "Progress", "Scores", "Scoring", "prepare_masks"]

# Called with (passes made, passes in all) after every chunk.
Progress = Callable[[int, int], None]

# Gates with gate(0) = 0: a channel that is zero everywhere masks everything and adds nothing.
ZERO_AT_ZERO: Final = ("tanh", "mish", "swish", "softsign")

_CHANNELS_AT_ONCE: Final = 8

# Samples of a channel before its mean may be called well enough known.
_FEWEST_SAMPLES: Final = 5


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
        batch_size: masked images of a full run; of a search the best so far.
        energy_covered: share of the live channels' energy that the scored ones have, in [0,1].
        error: float64 [K], the estimate of the largest error of the finished maps; 0 where every channel was scored
            with all samples, None where nothing was estimated.
        standard_error: float64 [K], of the weights that are means of fewer samples than the method has: the largest
            over channels, relative to the weight or the mean weight; None where all samples were made.
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
            sizes: says how many masked images a run takes.
            sampling_error: of a method that takes the mean over samples: a channel has enough of them when the standard
                error of its mean is below this share of its weight or of the mean weight; None takes all samples.
        """
        self.masks = masks
        self.plan = plan
        self._scorer = scorer
        self._image = image
        self._features = features
        self._baseline = baseline.astype(np.float64)
        self._sizes = sizes
        self._sampling_error = sampling_error
        channels, classes = len(masks.live), len(targets)
        self._sum = np.zeros((channels, classes))
        self._squares = np.zeros((channels, classes))
        self._count = np.zeros(channels, np.int64)
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

    def finishing_seconds(self) -> float:
        """About how long it takes to put predicted channels into a gated sum, from a few of them."""
        if not self.plan.gate_sum:
            return 0.0
        some = self.masks.order[:_CHANNELS_AT_ONCE]
        height, width = self._image.shape[-2:]
        clock = time.perf_counter()
        self._gated_sum(np.ones((len(self._count), 1)), some, height, width)
        seconds = time.perf_counter() - clock
        # A fifth of the channels or so at every pixel, the others at a quarter of them.
        return 0.4 * seconds * len(self.masks.order) / max(len(some), 1)

    def whole_chunks(self, wanted: float, most: int) -> int:
        """About as many channels as wanted that fill whole chunks, or all there are if few would be left."""
        size = self._sizes.size
        channels = max(round(wanted / size), 1) * size
        return most if channels + size // 2 >= most else channels

    def run(self, channels: NDArray[np.intp]) -> Iterator[float]:
        """Make the passes of some channels that have none yet; after each run of the graph, yield its seconds a row.

        Samples outside, channels inside: whoever stops in between has seen all of these channels, and the samples are
        random ones. So the steps of a path come in random order.
        """
        coefficients = np.random.default_rng(0).permutation(np.asarray(self.plan.coefficients, np.float32))
        if self.plan.noise is None and self._sampling_error is None:
            yield from self._rows(np.tile(channels, self.plan.samples), np.repeat(coefficients, len(channels)))
            return
        active = channels
        for sample in range(self.plan.samples):
            if self.plan.noise is not None:
                self._scorer.put("noise", _draw_noise(self._image, self.plan.noise, sample))
                scale = np.ones(len(active), np.float32)
            else:
                scale = np.full(len(active), coefficients[sample])
            yield from self._rows(active, scale)
            if self._sampling_error is not None and sample + 1 >= _FEWEST_SAMPLES:
                active = active[(self._relative_error(active) > self._sampling_error).any(axis=1)]
            if not active.size:
                return

    def _rows(self, channels: NDArray[np.intp], scale: NDArray[np.float32]) -> Iterator[float]:
        """One pass a row, in chunks; a chunk that does not fit into memory is halved, and so are those after it."""
        start = 0
        while start < len(channels):
            size, padded = self._sizes.next(len(channels) - start)
            rows = slice(start, start + size)
            clock = time.perf_counter()
            try:
                self._run_chunk(channels[rows].astype(np.int64), scale[rows], padded - size)
            except OutOfMemoryError:
                self._sizes.halve(padded)
                continue
            seconds = time.perf_counter() - clock
            self._sizes.record(padded, seconds)
            start += size
            yield seconds / padded

    def _run_chunk(self, channels: NDArray[np.int64], scale: NDArray[np.float32], padding: int) -> None:
        size = len(channels)
        if padding:
            channels = np.pad(channels, (0, padding), mode="edge")
            scale = np.pad(scale, (0, padding), mode="edge")
        self._scorer.put("channels", channels)
        self._scorer.put("scale", scale)
        self._scorer.put("sigma", self._spread[channels])
        self._scorer.put("keep", (np.arange(len(channels)) < size).astype(np.float32))
        probabilities, logits, *partial = self._scorer.run()
        if not (np.isfinite(probabilities[:size]).all() and np.isfinite(logits[:size]).all()):
            raise NotFiniteError(
                "the score of a masked image is not a number, or infinite: the model's values go beyond what its "
                "precision holds; float32 scorers hold more than those in float16"
            )
        rows = channels[:size]
        values = (logits if self._soft else probabilities)[:size].astype(np.float64)
        np.add.at(self._sum, rows, values)
        np.add.at(self._count, rows, 1)
        if self.plan.samples > 1:
            np.add.at(self._squares, rows, values**2)
        if partial and self.plan.gate_sum:
            self._add_gated(partial[0], logits.astype(np.float64) if self._soft else None)
        self.passes += size
        self._chunks += 1

    def _add_gated(self, partial: NDArray[np.float32], logits: NDArray[np.float64] | None) -> None:
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

    def scores(self, predicted: NDArray[np.float64] | None = None, error: NDArray[np.float64] | None = None) -> Scores:
        """The weights from what has been scored, and from what was predicted for the rest.

        Args:
            predicted: float64 [L,K], positive weights of the live channels in the order of `masks.order`; where a
                channel was scored they are not looked at. None gives the others no weight.
            error: float64 [K], estimated from the prediction.
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
        if predicted is not None and self.plan.gate_sum and not scored[live].all():
            gated = self._with_predicted(weights, live & ~scored)
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
        )

    def _standard_error(self) -> NDArray[np.float64] | None:
        if not self.scored.any() or (self._count[self.scored] == self.plan.samples).all():
            return None
        largest: NDArray[np.float64] = self._relative_error(np.flatnonzero(self.scored)).max(axis=0)
        return largest

    def _with_predicted(self, weights: NDArray[np.float64], channels: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The gated sum with that of channels not scored: float64 [K,H,W].

        Those that make nine tenths of it are gated at every pixel, the many others at every other one, at a quarter of
        the cost; what the upsampling from there adds is far below the prediction's error.
        """
        height, width = self._image.shape[-2:]
        chosen = np.flatnonzero(channels)
        sizes = np.abs(weights[chosen]).sum(axis=1) * np.abs(self.summands()[chosen]).sum(axis=(1, 2))
        order = np.argsort(-sizes, kind="stable")
        sums = np.cumsum(sizes[order])
        large = int(np.searchsorted(sums, 0.9 * sums[-1])) + 1
        added = self._gated_sum(weights, chosen[order[:large]], height, width)
        added += self._gated_sum(weights, chosen[order[large:]], -(-height // 2), -(-width // 2))
        if self._soft and self._gated is not None:
            largest = (self._sum[self.scored] / self._count[self.scored, None]).max(axis=0)
            added *= np.exp(largest - self._reference)[:, None, None]
        return added if self._gated is None else self._gated + added

    def _gated_sum(
        self, weights: NDArray[np.float64], channels: NDArray[np.intp], rows: int, columns: int
    ) -> NDArray[np.float64]:
        """Sum alpha_k gate(U(A_k)) of some channels, gated at rows x columns and brought to size: float64 [K,H,W]."""
        assert self.plan.gate is not None
        gate = GATE_FUNCTIONS[self.plan.gate]
        added = np.zeros((weights.shape[1], rows * columns), np.float32)
        for start in range(0, len(channels), _CHANNELS_AT_ONCE):
            part = channels[start : start + _CHANNELS_AT_ONCE]
            gated = gate(upsample(self.masks.maps[part], rows, columns)).reshape(len(part), -1)
            added += weights[part].T.astype(np.float32) @ gated
        size = self._image.shape[-2:]
        full = added.reshape(-1, rows, columns)
        return (full if (rows, columns) == size else upsample(full, *size)).astype(np.float64)


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
