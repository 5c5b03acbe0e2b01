"""The scoring loop: masked forward passes in chunks of one fixed shape, each a single run of a scorer graph."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.methods import Noise, Plan
from ortcam.session import Bound
from ortcam.upsampling import upsample, upsampled_range

__all__ = ["Masks", "Progress", "Scores", "prepare_masks", "score_channels"]

# Called with (passes made, passes in all) after every chunk.
Progress = Callable[[int, int], None]

# Gates with gate(0) = 0: a channel that is zero everywhere masks everything and adds nothing.
_ZERO_AT_ZERO: Final = ("tanh", "mish", "swish", "softsign")

_CHANNELS_AT_ONCE: Final = 8


@dataclasses.dataclass(frozen=True)
class Masks:
    """The maps of one image as the scorer takes them.

    Attributes:
        maps: float32 [C,h,w], upsampled and gated inside the scorer; already min-maxed where the plan says so.
        live: bool [C], false where the mask is flat: weight 0 and no forward pass.
        order: intp [L], the live channels by descending energy (sum of the positive part of the raw map).
    """

    maps: NDArray[np.float32]
    live: NDArray[np.bool_]
    order: NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the passes gave.

    Attributes:
        weights: float64 [K,C], alpha; zero where a channel was not scored.
        gated_sum: float64 [K,H,W], sum of alpha_k gate(U(A_k)), where the plan sums gated maps.
        passes: forward passes made, padding left out.
        chunks: runs of the scorer graph.
    """

    weights: NDArray[np.float64]
    gated_sum: NDArray[np.float64] | None
    passes: int
    chunks: int


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
        span = np.where(live, high - low, 1)
        maps = np.where(live[:, None, None], (features - low[:, None, None]) / span[:, None, None], 0)
    energy = np.maximum(features, 0).sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-energy, kind="stable")
    return Masks(maps.astype(np.float32, copy=False), live, order[live[order]])


def _gate_is_live(gate: str | None, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    """False where gate(U(A_k)) is zero everywhere, from the range of A_k (of U(A_k) for the relu): bool [C]."""
    if gate == "relu":
        return np.greater(high, 0)
    if gate in _ZERO_AT_ZERO:
        return np.not_equal(low, 0) | np.not_equal(high, 0)
    return np.ones(low.shape, np.bool_)


def score_channels(
    scorer: Bound,
    *,
    image: NDArray[np.float32],
    masks: Masks,
    plan: Plan,
    targets: NDArray[np.int64],
    baseline: NDArray[np.float32],
    batch_size: int,
    progress: Progress | None = None,
) -> Scores:
    """Run the masked forward passes of a plan and turn their scores into the weights of the channels.

    Args:
        scorer: the graph for this plan.
        image: float32 [1,3,H,W], preprocessed.
        masks: of this image.
        plan: of the method.
        targets: int64 [K], classes; the passes are the same for any number of them.
        baseline: float32 [K], subtracted from the probabilities.
        batch_size: B, masked images a run; every run has this shape, the last is padded.
        progress: called after every run.
    """
    scorer.put("image", image)
    scorer.put("maps", masks.maps[np.newaxis])
    scorer.put("targets", targets)
    scorer.put("baseline", baseline)
    scorer.put("logit_softmax", np.array(plan.weighting == "logit-softmax"))
    total = len(masks.order) * plan.samples
    sums = _Sums(plan, channels=len(masks.live), baseline=baseline)
    spread = _noise_spread(image, masks.maps, plan.noise)
    for chunk in _chunks(masks.order, plan, batch_size):
        if chunk.noise_of is not None and plan.noise is not None:
            scorer.put("noise", _draw_noise(image, plan.noise, chunk.noise_of))
        scorer.put("channels", chunk.channels)
        scorer.put("scale", chunk.scale)
        scorer.put("sigma", spread[chunk.channels])
        scorer.put("keep", (np.arange(batch_size) < chunk.size).astype(np.float32))
        sums.add(chunk, *scorer.run())
        if progress is not None:
            progress(sums.passes, total)
    return sums.scores(masks)


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """One run: B channels and factors, of which the first `size` count; `noise_of` is a noise sample to place first."""

    channels: NDArray[np.int64]
    scale: NDArray[np.float32]
    size: int
    noise_of: int | None


def _chunks(order: NDArray[np.intp], plan: Plan, batch_size: int) -> Iterator[_Chunk]:
    """Samples outside, channels by energy inside: a loop that stops early has seen the channels that matter."""
    if plan.noise is None:
        channels = np.tile(order, len(plan.coefficients))
        scale = np.repeat(np.asarray(plan.coefficients, np.float32), len(order))
        yield from _padded(channels, scale, batch_size, None)
    else:
        ones = np.ones(len(order), np.float32)
        for sample in range(plan.noise.samples):
            yield from _padded(order, ones, batch_size, sample)


def _padded(
    channels: NDArray[np.intp], scale: NDArray[np.float32], batch_size: int, noise_of: int | None
) -> Iterator[_Chunk]:
    for start in range(0, len(channels), batch_size):
        part = channels[start : start + batch_size].astype(np.int64)
        padding = (0, batch_size - len(part))
        yield _Chunk(
            np.pad(part, padding, mode="edge"),
            np.pad(scale[start : start + batch_size], padding, mode="edge"),
            len(part),
            noise_of if start == 0 else None,
        )


def _draw_noise(image: NDArray[np.float32], noise: Noise, sample: int) -> NDArray[np.float32]:
    """Sample i of the noise, float32 [1,3,H,W], unit variance for std="authors" (the graph multiplies by sigma_k).

    Noise on the activation is (s(U(A)) + n) * X = s(U(A)) * X + n * X, so it too is added to the masked image.
    """
    generator = np.random.default_rng((noise.seed, sample))
    if noise.on == "activation":
        return generator.standard_normal(image.shape[-2:], np.float32) * image
    return generator.standard_normal(image.shape, np.float32)


def _noise_spread(image: NDArray[np.float32], maps: NDArray[np.float32], noise: Noise | None) -> NDArray[np.float32]:
    """sigma_k, float32 [C]: the given std, or (2 / (max M_k - min M_k))^2 of the masked image M_k = X * s(U(A_k))."""
    if noise is None or noise.std != "authors":
        return np.full(len(maps), noise.std if noise else 0.0, np.float32)
    spread = np.zeros(len(maps), np.float32)
    height, width = image.shape[-2:]
    for start in range(0, len(maps), _CHANNELS_AT_ONCE):
        part = slice(start, start + _CHANNELS_AT_ONCE)
        masked = upsample(maps[part], height, width)[:, None] * image
        span = masked.max(axis=(1, 2, 3)) - masked.min(axis=(1, 2, 3))
        spread[part] = np.divide(2, span, out=np.zeros_like(span), where=span > 0) ** 2
    return spread


class _Sums:
    """Running sums over chunks, in float64."""

    def __init__(self, plan: Plan, *, channels: int, baseline: NDArray[np.float32]) -> None:
        self._plan = plan
        self._baseline = baseline.astype(np.float64)
        self._scores = np.zeros((channels, len(baseline)))
        self._gated: NDArray[np.float64] | None = None
        self._reference = np.full(len(baseline), -np.inf)
        self.passes = 0
        self._chunks = 0

    def add(
        self,
        chunk: _Chunk,
        probabilities: NDArray[np.float32],
        logits: NDArray[np.float32],
        partial_maps: NDArray[np.float32] | None = None,
    ) -> None:
        """Add the outputs of a run: float32 [B,K], [B,K] and, of a gated scorer, [K,H,W]."""
        soft = self._plan.weighting == "logit-softmax"
        scores = logits if soft else probabilities
        np.add.at(self._scores, chunk.channels[: chunk.size], scores[: chunk.size].astype(np.float64))
        if partial_maps is not None and self._plan.gate_sum:
            self._add_gated(partial_maps.astype(np.float64), logits.astype(np.float64) if soft else None)
        self.passes += chunk.size
        self._chunks += 1

    def _add_gated(self, partial: NDArray[np.float64], logits: NDArray[np.float64] | None) -> None:
        if logits is None:
            self._gated = partial if self._gated is None else self._gated + partial
            return
        # The graph weighs by the softmax over its own chunk; sums over chunks are brought to one reference logit.
        chunk_reference = _log_sum_exp(logits)
        reference = np.maximum(self._reference, chunk_reference)
        partial = partial * np.exp(chunk_reference - reference)[:, None, None]
        if self._gated is not None:
            partial = partial + self._gated * np.exp(self._reference - reference)[:, None, None]
        self._gated, self._reference = partial, reference

    def scores(self, masks: Masks) -> Scores:
        """The weights of all channels from what has been added."""
        mean = self._scores / self._plan.samples
        weights = np.zeros_like(mean)
        gated = self._gated
        if self._plan.weighting == "probability":
            weights[masks.live] = mean[masks.live] - self._baseline
        elif masks.live.any():
            total = _log_sum_exp(mean[masks.live])
            weights[masks.live] = np.exp(mean[masks.live] - total)
            if gated is not None:
                gated = gated * np.exp(self._reference - total)[:, None, None]
        return Scores(weights.T, gated, self.passes, self._chunks)


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log sum exp over axis 0, float64 [N,K] -> [K]."""
    top = values.max(axis=0)
    total: NDArray[np.float64] = top + np.log(np.exp(values - top).sum(axis=0))
    return total
