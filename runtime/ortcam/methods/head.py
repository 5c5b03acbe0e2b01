"""The head as a head-only method uses it: altered features in, logits out, in batches.

`HeadInputs` is what such a method gets for one image, `HeadScores` what it returns.
"""

import dataclasses
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation, Cut
from ortcam.engine.batching import Batch, BatchSizer, Progress, run_batches
from ortcam.engine.features import check_finite, exact_probabilities, from_maps
from ortcam.engine.score import ScoreMatrix
from ortcam.methods.derivative import Derivative, one_hot

__all__ = ["LINEAR_TOLERANCE", "Head", "HeadInputs", "HeadScores", "LinearHead", "Score", "score_of"]

# What is read of the logits of altered features.
Score = Literal["probability", "logit"]

_Reduced = TypeVar("_Reduced", np.float32, np.float64)

# A head counts as linear up to this difference, relative to sum |w| |mean A| + |b|. Rounding is below it: 1e-7 in
# float32 (measured: ResNet-18 1.1e-7, MobileNetV2 5e-8), at most 5e-4 in TF32 on CUDA, with 11 bits per factor.
# Anything else is above it: a ReLU, a ceiling, a norm or a hidden layer gives 5e-3 and more at some scale
# (SqueezeNet: 0.3).
LINEAR_TOLERANCE: Final = 1e-3
_SCALES: Final = (0.1, 1.0, 10.0, 100.0)
_SAMPLES_PER_SCALE: Final = 4
# What a channel is set to, so that its weight is not lost beside the bias; a power of two, which divides exactly.
_LOUD: Final = 128


@dataclasses.dataclass
class Head:
    """The head of a classifier, run in batches of one shape. It counts its passes.

    Attributes:
        run: features in the layout of the cut, float32 [B,...] -> logits, float32 [B,classes].
        cut: the layout.
        activation: from logits to probabilities.
        batch_size: the most features per run. It bounds the memory: B C h w numbers and what the head makes of them.
        least: features that every run has, padded: a graph of fixed shapes takes no fewer.
        progress: called as progress(head passes made, head passes in all) after every run.
        passes: head passes made, padding left out.
        runs: runs of the graph.
    """

    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    cut: Cut
    activation: Activation
    batch_size: int
    progress: Progress | None = None
    passes: int = 0
    runs: int = 0
    least: int = 1

    def on(
        self,
        count: int,
        features: Callable[[NDArray[np.intp]], NDArray[np.float32]],
        reduce: Callable[[NDArray[np.float32]], NDArray[_Reduced]],
    ) -> NDArray[_Reduced]:
        """Run the head on `count` features in batches, and keep what `reduce` takes of their logits.

        All runs have one shape: the smallest that needs no more runs than `batch_size` does. The last run is padded. A
        run that does not fit into memory is halved, unless the graph takes no fewer rows.

        Args:
            count: N, at least 1.
            features: makes the features of the indices [B]: float32 [B,...] in the layout of the cut.
            reduce: takes logits, float32 [B,classes], and returns what to keep, [B,...].

        Returns:
            [N,...].

        Raises:
            OutOfMemoryError: not even one row fits.
        """
        size = -(-count // -(-count // self.batch_size))
        sizer = BatchSizer([size], fixed_shape=True, least=self.least)

        def prepare(batch: Batch) -> NDArray[np.float32]:
            indices = np.arange(batch.start, batch.start + batch.size)
            return features(np.pad(indices, (0, batch.padded - batch.size), mode="edge"))

        kept = []
        for done in run_batches(count, sizer, prepare, self.run):
            kept.append(reduce(done.result[: done.batch.size]))
            self.passes += done.batch.size
            self.runs += 1
            if self.progress is not None:
                self.progress(self.passes, self.passes + count - done.batch.start - done.batch.size)
        if sizer.size < size:  # what did not fit into memory is not tried again
            self.batch_size = sizer.size
        return np.concatenate(kept)

    def scores(
        self,
        count: int,
        maps: Callable[[NDArray[np.intp]], NDArray[np.float32]],
        *,
        prefix: NDArray[np.float32],
        targets: NDArray[np.int64],
        score: Score | ScoreMatrix,
    ) -> NDArray[np.float64]:
        """Run the head on N altered maps in batches: the scores of the classes `targets`, float64 [N,K].

        Args:
            count: N.
            maps: makes the maps of the indices [B]: float32 [B,C,h,w].
            prefix: float32 [P,C], prefix tokens.
            targets: int64 [K].
            score: probability or logit of the classes; or K scores, which say what they are of.

        Raises:
            NotFiniteError: a logit of altered features is not finite.
        """

        def reduce(logits: NDArray[np.float32]) -> NDArray[np.float64]:
            check_finite("logits of altered features", logits)
            return score_of(logits, self.activation, score, targets)

        return self.on(count, lambda indices: from_maps(maps(indices), prefix, self.cut), reduce)


@dataclasses.dataclass(frozen=True)
class HeadScores:
    """What a head-only method returns for K classes.

    Attributes:
        raw: float64 [K,h,w], the map before ReLU, at the resolution of its layer.
        weights: float64 [K,C]; zero where a channel has none.
        layer: the layer that they belong to, by its place in `HeadInputs.layers`.
        others: the same of further layers, to be fused into one map (`scoring.maps.fuse`).
    """

    raw: NDArray[np.float64]
    weights: NDArray[np.float64]
    layer: int = 0
    others: tuple["HeadScores", ...] = ()

    @property
    def all(self) -> "tuple[HeadScores, ...]":
        """These and the others."""
        return self, *self.others


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """A head as average pooling and one linear layer: y_c = sum_k w_ck mean A_k + b_c.

    Attributes:
        weights: w, float32 [classes,C].
        bias: b, float32 [classes].
        difference: from the head itself on random features, relative to sum |w| |mean A| + |b|.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    difference: float

    @property
    def is_exact(self) -> bool:
        """Whether the head is this, up to rounding."""
        return self.difference <= LINEAR_TOLERANCE

    @staticmethod
    def recover(head: Head) -> "LinearHead":
        """Find the linear layer of a head from C + 17 head passes.

        Maps that are zero give the bias. Maps that are constant in one channel and zero in the others give a weight
        each. Random features then show whether that is the whole head: of either sign and at four scales, so that
        ceilings and thresholds show, and with random prefix tokens, which must not count.
        """
        cut = head.cut
        nothing = np.zeros((cut.prefix_tokens, cut.channels), np.float32)

        def basis(indices: NDArray[np.intp]) -> NDArray[np.float32]:
            maps = np.zeros((len(indices), cut.channels + 1, cut.height, cut.width), np.float32)
            maps[np.arange(len(indices)), indices] = _LOUD
            return from_maps(maps[:, 1:], nothing, cut)

        logits = head.on(cut.channels + 1, basis, lambda logits: logits)
        bias = logits[0].astype(np.float64)
        weights = (logits[1:].T - bias[:, None]) / _LOUD
        generator = np.random.default_rng(0)
        samples = len(_SCALES) * _SAMPLES_PER_SCALE
        scales = np.repeat(_SCALES, _SAMPLES_PER_SCALE)[:, None, None, None]
        means = generator.standard_normal((samples, cut.channels, 1, 1))
        deviations = generator.standard_normal((samples, cut.channels, cut.height, cut.width))
        maps = (scales * (means + deviations)).astype(np.float32)
        prefix = generator.standard_normal((cut.prefix_tokens, cut.channels)).astype(np.float32)
        found = head.on(samples, lambda indices: from_maps(maps[indices], prefix, cut), lambda logits: logits)
        pooled = maps.mean(axis=(2, 3), dtype=np.float64)
        scale = (np.abs(pooled) @ np.abs(weights.T) + np.abs(bias)).max(axis=1, keepdims=True)
        differences = np.abs(found - (pooled @ weights.T + bias)) / np.where(scale > 0, scale, 1)
        difference = float(differences.max()) if np.isfinite(differences).all() else float("inf")
        return LinearHead(weights.astype(np.float32), bias.astype(np.float32), difference)


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What a head-only method gets: one image as the model sees it, and the head to ask.

    The arrays are read-only: other explanations of the image use them, too.

    Attributes:
        maps: the features A, float32 [C,h,w]; of tokens the patches alone.
        prefix: prefix tokens, float32 [P,C]; P = 0 for layouts that have none.
        logits: of the image as it is, float32 [classes].
        targets: the classes to explain, int64 [K].
        head: runs altered features; it counts the passes and reports progress.
        linear_head: returns the head as average pooling and one linear layer. It costs C + 17 head passes once per
            model; check `is_exact` before you use it.
        derivative: gradients of the logits, for methods with `needs_gradient`; None where the bundle has no gradient.
            Its `layers` are those of the bundle.
        score: K scores to explain in place of the classes; None: what the method takes of a class. A method gets them
            if it says `takes_scores`.
    """

    maps: NDArray[np.float32]
    prefix: NDArray[np.float32]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    head: Head
    linear_head: Callable[[], LinearHead]
    derivative: Derivative | None = None
    score: ScoreMatrix | None = None

    @property
    def seeds(self) -> NDArray[np.float32]:
        """What the gradient is taken of: d score / d logits, float32 [K,classes]; of classes the logits themselves."""
        return self.seeds_at(self.logits)

    def seeds_at(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same at other logits [classes], which count where the score is no linear function of them."""
        if self.score is None:
            return one_hot(self.targets, len(logits))
        return self.score.derivative(logits).astype(np.float32)


def score_of(
    logits: NDArray[np.float32], activation: Activation, score: Score | ScoreMatrix, targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What is read of logits [...,classes], float64 [...,K]: logits or probabilities of the targets, or K scores."""
    if isinstance(score, ScoreMatrix):
        return score.value(logits)
    read = logits.astype(np.float64) if score == "logit" else exact_probabilities(logits, activation)
    return read[..., targets]
