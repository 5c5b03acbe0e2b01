"""The methods that mask no image: they alter the features and ask the head, or take the features as they are.

Pure functions of the features of one image, A, float32 [C,h,w], and of a `Head`; `methods.py` has the formulas.
Where the features are tokens, only the patches are altered: prefix tokens (the class token) stay as they are.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation, Cut
from ortcam.engine.model import check_finite, exact_probabilities, from_maps
from ortcam.methods.registry import Kernel, Score
from ortcam.scoring.loop import Progress

__all__ = ["Head", "HeadScores", "LinearHead", "ablation_cam", "cam", "eigen_cam", "live_channels", "recipro_cam"]

_Reduced = TypeVar("_Reduced", np.float32, np.float64)

# The binomial kernel of the authors' code and of openvino_xai.
_GAUSSIAN: Final = np.outer((0.25, 0.5, 0.25), (0.25, 0.5, 0.25))
_SINGLE: Final = np.pad([[1.0]], 1)

# A head is taken for linear up to this difference, relative to sum |w| |mean A| + |b|. Rounding is below it: 1e-7 in
# float32 (measured: ResNet-18 1.1e-7, MobileNetV2 5e-8), at most 5e-4 in TF32 on CUDA, with 11 bits a factor. Anything
# else is above it: a ReLU, a ceiling, a norm or a hidden layer gives 5e-3 and more at some scale (SqueezeNet: 0.3).
LINEAR_TOLERANCE: Final = 1e-3
_SCALES: Final = (0.1, 1.0, 10.0, 100.0)
_SAMPLES_A_SCALE: Final = 4
# What a channel is set to, so that its weight is not lost beside the bias; a power of two, which divides exactly.
_LOUD: Final = 128


@dataclasses.dataclass
class Head:
    """The head of a classifier, run in chunks of one shape; it counts what it does.

    Attributes:
        run: features in the layout of the cut, float32 [B,...] -> logits, float32 [B,classes].
        cut: the layout.
        activation: from logits to probabilities.
        batch_size: the most features a run, which bounds the memory: B C h w numbers and what the head makes of them.
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

    def on(
        self,
        count: int,
        features: Callable[[NDArray[np.intp]], NDArray[np.float32]],
        reduce: Callable[[NDArray[np.float32]], NDArray[_Reduced]],
    ) -> NDArray[_Reduced]:
        """What is wanted of the logits of `count` features, made a chunk at a time.

        All runs have one shape, the smallest that needs no more runs than `batch_size` does; the last is padded.

        Args:
            count: N, at least 1.
            features: of the indices [B]: float32 [B,...] in the layout of the cut.
            reduce: logits, float32 [B,classes] -> what is kept of them, [B,...].

        Returns:
            [N,...].
        """
        size = -(-count // -(-count // self.batch_size))
        kept = []
        for start in range(0, count, size):
            indices = np.arange(start, min(start + size, count))
            padded = np.pad(indices, (0, size - len(indices)), mode="edge")
            kept.append(reduce(self.run(features(padded))[: len(indices)]))
            self.passes += len(indices)
            self.runs += 1
            if self.progress is not None:
                self.progress(self.passes, self.passes + count - start - len(indices))
        return np.concatenate(kept)

    def scores(
        self,
        count: int,
        maps: Callable[[NDArray[np.intp]], NDArray[np.float32]],
        *,
        prefix: NDArray[np.float32],
        targets: NDArray[np.int64],
        score: Score,
    ) -> NDArray[np.float64]:
        """Scores of the classes `targets`, float64 [N,K], for N altered maps, made a chunk at a time.

        Args:
            count: N.
            maps: of the indices [B]: float32 [B,C,h,w].
            prefix: float32 [P,C], prefix tokens.
            targets: int64 [K].
            score: probability or logit.

        Raises:
            NotFiniteError: a logit of altered features is not finite.
        """

        def reduce(logits: NDArray[np.float32]) -> NDArray[np.float64]:
            check_finite("logits of altered features", logits)
            return _score(logits, self.activation, score)[:, targets]

        return self.on(count, lambda indices: from_maps(maps(indices), prefix, self.cut), reduce)


@dataclasses.dataclass(frozen=True)
class HeadScores:
    """What a method gives for K classes.

    Attributes:
        raw: float64 [K,h,w], the map before ReLU, at feature resolution.
        weights: float64 [K,C]; zero where a channel has none.
    """

    raw: NDArray[np.float64]
    weights: NDArray[np.float64]


def live_channels(maps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Channels that are not zero everywhere, bool [C]: the others change nothing when they are altered."""
    live: NDArray[np.bool_] = (maps != 0).any(axis=(1, 2))
    return live


def recipro_cam(
    maps: NDArray[np.float32],
    prefix: NDArray[np.float32],
    head: Head,
    *,
    targets: NDArray[np.int64],
    kernel: Kernel,
    score: Score,
) -> HeadScores:
    """Recipro-CAM (Byun & Lee, arXiv 2209.14074): M_ij is the score of a class when only position i, j is left.

    - ``kernel="single"``: A * k_ij with k_ij = 1 at i, j and 0 elsewhere; the authors' published code
      (github.com/sybyun/ReciproCAM) and openvino_xai's ReciproCAM.
    - ``kernel="gaussian"``: k_ij is the 3 x 3 binomial kernel [1 2 1] x [1 2 1] / 16 around i, j, cut at the border;
      openvino_xai's ViTReciproCAM.
    - ``kernel="gaussian-spread"``: the features of position i, j itself, times that kernel, are put around it; the
      authors' code with `is_gaussian`. Where the head pools, this is "single" but for darker borders.

    The authors and openvino_xai end with min-max, without ReLU. Probabilities are positive, so ReLU does nothing to
    them; of logits, whose zero is arbitrary, the smallest is taken off first, to the same end.

    There are no weights of channels: they are zeros. Takes h w head passes for any number of classes.

    Args:
        maps: A, float32 [C,h,w].
        prefix: float32 [P,C], prefix tokens; they stay as they are (openvino_xai: `cls_token=True`).
        head: of the classifier.
        targets: int64 [K].
        kernel: what is left of the features.
        score: probability or logit of the class.
    """
    channels, height, width = maps.shape
    offsets = list(itertools.product(range(3), range(3)))
    around = _SINGLE if kernel == "single" else _GAUSSIAN
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))

    def left(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        rows, columns = np.divmod(indices, width)
        each = np.arange(len(indices))
        # A border of one, so that the kernel need not be cut.
        altered = np.zeros((len(indices), channels, height + 2, width + 2), np.float32)
        for down, right in offsets:
            if around[down, right] == 0:
                continue
            i, j = rows + down, columns + right
            source = maps[:, rows, columns] if kernel == "gaussian-spread" else padded[:, i, j]
            altered[each, :, i, j] = np.float32(around[down, right]) * source.T
        return np.ascontiguousarray(altered[:, :, 1:-1, 1:-1])

    scores = head.scores(height * width, left, prefix=prefix, targets=targets, score=score)
    raw = scores.T.reshape(len(targets), height, width)
    if score == "logit":
        raw = raw - raw.min(axis=(1, 2), keepdims=True)
    return HeadScores(raw, np.zeros((len(targets), channels)))


def ablation_cam(
    maps: NDArray[np.float32],
    prefix: NDArray[np.float32],
    head: Head,
    *,
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    score: Score,
) -> HeadScores:
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020): sum alpha_k A_k, alpha_k = (y - y_k) / |y|, y_k with A_k = 0.

    The paper divides by y; for y > 0 that is the same. The logit of a less probable class may be negative, and y in
    place of |y| would then turn the map upside down: what speaks for the class would be cut by the ReLU.
    pytorch-grad-cam does so, and puts min A - 1e7 in place of 0 where the features are signed; here it is 0, as in the
    paper.

    A channel that is zero everywhere changes nothing when it is ablated, so it costs no pass. Takes one head pass for
    each of the others, for any number of classes.

    Args:
        maps: A, float32 [C,h,w].
        prefix: float32 [P,C], prefix tokens; they are not ablated.
        head: of the classifier.
        logits: float32 [classes], of the clean image.
        targets: int64 [K].
        score: what y is: logit or probability.
    """
    live = np.flatnonzero(live_channels(maps))
    weights = np.zeros((len(targets), len(maps)))

    def ablated(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        altered = np.repeat(maps[np.newaxis], len(indices), axis=0)
        altered[np.arange(len(indices)), live[indices]] = 0
        return altered

    if len(live):
        clean = _score(logits, head.activation, score)[targets]
        scores = head.scores(len(live), ablated, prefix=prefix, targets=targets, score=score)
        weights[:, live] = ((clean - scores) / np.where(clean == 0, 1, np.abs(clean))).T
    return HeadScores(_weighted(weights, maps), weights)


def eigen_cam(maps: NDArray[np.float32], *, classes: int, center: bool) -> HeadScores:
    """Eigen-CAM (Muhammad & Yeasin, arXiv 2008.00299): the features projected on their first right singular vector.

    O, [h w, C], holds the features of each position in a row, O = U S V^T, and the map is O v with v the first column
    of V. It knows no class: all K maps are the same, and so are their weights, v.

    A singular vector has no sign of its own. It is given the one with which the map rises with the strength of the
    features: sum over positions of (O v)(p) |O(p)| is positive. Features that are nowhere negative give a map that is
    nowhere negative. Where both signs do equally well, the largest entry of v is positive.

    Args:
        maps: A, float32 [C,h,w].
        classes: K.
        center: take the mean of each column off O, as pytorch-grad-cam does: principal component analysis. The map is
            then about zero, so that the ReLU cuts much of it. pytorch-grad-cam's sign is LAPACK's.
    """
    rows = maps.reshape(len(maps), -1).T.astype(np.float64)
    strength = np.linalg.norm(rows, axis=1)
    decomposed = rows - rows.mean(axis=0) if center else rows
    vector = _first_singular_vector(decomposed)
    # Rounding is all that is left of constants when their mean is taken off.
    if np.linalg.norm(decomposed @ vector) <= np.finfo(np.float32).eps * np.linalg.norm(rows):
        vector = np.zeros_like(vector)
    projected = decomposed @ vector
    agreement = float(projected @ strength) or float(vector[np.abs(vector).argmax()])
    sign = -1.0 if agreement < 0 else 1.0
    return HeadScores(
        np.broadcast_to(sign * projected.reshape(maps.shape[1:]), (classes, *maps.shape[1:])).copy(),
        np.broadcast_to(sign * vector, (classes, len(vector))).copy(),
    )


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
        """The linear layer, if the head has one, from head passes alone: C + 17 of them.

        The weights come from the logits of maps that are constant in one channel and zero in the others, less those of
        maps that are all zero, the bias. Whether that is the whole head is then tried on random features of either
        sign, at four scales, so that ceilings and thresholds show, and with random prefix tokens, which must not count.
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
        samples = len(_SCALES) * _SAMPLES_A_SCALE
        scales = np.repeat(_SCALES, _SAMPLES_A_SCALE)[:, None, None, None]
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


def cam(maps: NDArray[np.float32], linear: LinearHead, *, targets: NDArray[np.int64]) -> HeadScores:
    """CAM (Zhou et al., CVPR 2016): sum w_ck A_k, w the weights of the linear layer behind the pooling; no bias.

    The paper and torch-cam end with min-max alone; here as everywhere the ReLU comes before it, and leaves what speaks
    for the class.

    Args:
        maps: A, float32 [C,h,w].
        linear: the head; that it is exact is the caller's to check.
        targets: int64 [K].
    """
    weights = linear.weights[targets].astype(np.float64)
    return HeadScores(_weighted(weights, maps), weights)


def _first_singular_vector(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first right singular vector of [M,N], float64 [N], from the smaller of its Gram matrices; zeros for zeros."""
    transposed = rows.shape[0] < rows.shape[1]
    _, vectors = np.linalg.eigh(rows @ rows.T if transposed else rows.T @ rows)
    vector: NDArray[np.float64] = rows.T @ vectors[:, -1] if transposed else vectors[:, -1]
    return vector / (np.linalg.norm(vector) or 1.0)


def _weighted(weights: NDArray[np.float64], maps: NDArray[np.float32]) -> NDArray[np.float64]:
    summed: NDArray[np.float64] = np.tensordot(weights, maps.astype(np.float64), axes=1)
    return summed


def _score(logits: NDArray[np.float32], activation: Activation, score: Score) -> NDArray[np.float64]:
    return logits.astype(np.float64) if score == "logit" else exact_probabilities(logits, activation)
