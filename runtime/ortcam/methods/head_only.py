"""The methods that mask no image: they alter the features and ask the head, or take the features as they are.

A are the features, A_k a channel of them, c the class, y the logits of A, y_k those of features with A_k = 0, and p(.)
what the head gives for altered features. Each method is a pure function of arrays and a `Head`, and a row below them.
Where the features are tokens, only the patches are altered: prefix tokens (the class token) stay as they are.

================  ==============================================  ========================  ===============
method            altered features                                map before ReLU           head passes
================  ==============================================  ========================  ===============
``recipro-cam``   A * k_ij, k_ij = 1 at i, j, else 0              M_ij = p(A * k_ij)[c]     h w
``ablation-cam``  A with A_k = 0                                  sum (y - y_k)/abs(y) A_k  active channels
``eigen-cam``     none; v is the first right singular vector      sum v_k A_k               0
``cam``           none; y_c = sum w_kc mean A_k + b_c             sum w_kc A_k              C + 17, once
================  ==============================================  ========================  ===============

- ``recipro-cam``: Byun & Lee, arXiv 2209.14074 (CVPR workshops 2024), as in the authors' code.
- ``ablation-cam``: Desai & Ramaswamy, WACV 2020, but for the sign where y is negative.
- ``eigen-cam``: Muhammad & Yeasin, arXiv 2008.00299; the same map for every class.
- ``cam``: Zhou et al., CVPR 2016; for heads that are average pooling and one linear layer.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.score import ScoreMatrix
from ortcam.errors import OptionError
from ortcam.methods.head import Head, HeadInputs, HeadScores, LinearHead, Score, score_of
from ortcam.methods.method import Method, Option

__all__ = ["HEAD_METHODS", "Kernel", "ablation_cam", "active_channels", "cam", "eigen_cam", "recipro_cam"]

Kernel = Literal["single", "gaussian", "gaussian-spread"]

# The binomial kernel of the authors' code and of openvino_xai.
_GAUSSIAN: Final = np.outer((0.25, 0.5, 0.25), (0.25, 0.5, 0.25))
_SINGLE: Final = np.pad([[1.0]], 1)


def active_channels(maps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Channels that are not zero everywhere, bool [C]: the others change nothing when they are altered."""
    active: NDArray[np.bool_] = (maps != 0).any(axis=(1, 2))
    return active


def recipro_cam(
    maps: NDArray[np.float32],
    prefix: NDArray[np.float32],
    head: Head,
    *,
    targets: NDArray[np.int64],
    kernel: Kernel,
    score: Score | ScoreMatrix,
) -> HeadScores:
    """Recipro-CAM (Byun & Lee, arXiv 2209.14074): M_ij is the score of a class when only position i, j is left.

    - ``kernel="single"``: A * k_ij with k_ij = 1 at i, j and 0 elsewhere; the authors' published code
      (github.com/sybyun/ReciproCAM) and openvino_xai's ReciproCAM.
    - ``kernel="gaussian"``: k_ij is the 3 x 3 binomial kernel [1 2 1] x [1 2 1] / 16 around i, j, cut at the border;
      openvino_xai's ViTReciproCAM.
    - ``kernel="gaussian-spread"``: the features of position i, j itself, times that kernel, are put around it; the
      authors' code with `is_gaussian`. Where the head pools, this is "single" but for darker borders.

    The authors and openvino_xai end with min-max, without ReLU. Probabilities are positive, so ReLU does nothing to
    them; of logits and other scores, whose zero is arbitrary, the smallest is taken off first, to the same end.

    There are no weights of channels: they are zeros. Takes h w head passes for any number of classes.

    Args:
        maps: A, float32 [C,h,w].
        prefix: float32 [P,C], prefix tokens; they stay as they are (openvino_xai: `cls_token=True`).
        head: of the classifier.
        targets: int64 [K].
        kernel: what is left of the features.
        score: probability or logit of the class, or K scores.
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
    if score == "logit" or (isinstance(score, ScoreMatrix) and not score.is_positive):
        raw = raw - raw.min(axis=(1, 2), keepdims=True)
    return HeadScores(raw, np.zeros((len(targets), channels)))


def ablation_cam(
    maps: NDArray[np.float32],
    prefix: NDArray[np.float32],
    head: Head,
    *,
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    score: Score | ScoreMatrix,
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
        score: what y is: logit or probability, or K scores.
    """
    active = np.flatnonzero(active_channels(maps))
    weights = np.zeros((len(targets), len(maps)))

    def ablated(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        altered = np.repeat(maps[np.newaxis], len(indices), axis=0)
        altered[np.arange(len(indices)), active[indices]] = 0
        return altered

    if len(active):
        clean = score_of(logits, head.activation, score, targets)
        scores = head.scores(len(active), ablated, prefix=prefix, targets=targets, score=score)
        weights[:, active] = ((clean - scores) / np.where(clean == 0, 1, np.abs(clean))).T
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


def cam(
    maps: NDArray[np.float32],
    linear: LinearHead,
    *,
    targets: NDArray[np.int64],
    seeds: NDArray[np.float32] | None = None,
) -> HeadScores:
    """CAM (Zhou et al., CVPR 2016): sum w_ck A_k, w the weights of the linear layer behind the pooling; no bias.

    The paper and torch-cam end with min-max alone; here as everywhere the ReLU comes before it, and leaves what speaks
    for the class.

    Args:
        maps: A, float32 [C,h,w].
        linear: the head; that it is exact is the caller's to check.
        targets: int64 [K].
        seeds: float32 [K,classes], d score / d logits where scores are explained: w = sum_c seed_c w_c.
    """
    if seeds is None:
        weights = linear.weights[targets].astype(np.float64)
    else:
        weights = seeds.astype(np.float64) @ linear.weights.astype(np.float64)
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


def _scored(inputs: HeadInputs, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the score that was asked for in place of that of a class."""
    return {**options} if inputs.score is None else {**options, "score": inputs.score}


def _compute_recipro_cam(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    return recipro_cam(inputs.maps, inputs.prefix, inputs.head, targets=inputs.targets, **_scored(inputs, options))


def _compute_ablation_cam(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    return ablation_cam(
        inputs.maps,
        inputs.prefix,
        inputs.head,
        logits=inputs.logits,
        targets=inputs.targets,
        **_scored(inputs, options),
    )


def _compute_eigen_cam(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    return eigen_cam(inputs.maps, classes=len(inputs.targets), **options)


def _compute_cam(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:  # noqa: ARG001 - it has no options
    linear = inputs.linear_head()
    if not linear.is_exact:
        raise OptionError(
            "cam: the head of this classifier is not average pooling and one linear layer (as such it would be off "
            f"by {linear.difference:.1e}, relative), so there are no weights to take; recipro-cam and "
            "ablation-cam work with any head"
        )
    return cam(inputs.maps, linear, targets=inputs.targets, seeds=None if inputs.score is None else inputs.seeds)


HEAD_METHODS: Final = (
    Method(
        name="recipro-cam",
        title="Recipro-CAM",
        aliases=("reciprocam",),
        options=(
            Option.choice(
                "kernel",
                "single",
                "gaussian",
                "gaussian-spread",
                help="features that are kept: one position (authors' code); a 3 x 3 Gaussian around it (openvino_xai "
                "for transformers); or one position spread by that Gaussian (the authors' is_gaussian)",
            ),
            Option.choice(
                "score",
                "probability",
                "logit",
                help="what a position is worth: the class probability (the authors), or the class logit",
            ),
        ),
        compute=_compute_recipro_cam,
        summary="Keeps one position of the features at a time. A position is worth the class probability it leaves.",
        formula="p(A * k_ij)[c] at each position i, j",
        cost="1 of the head per position",
        source="Byun & Lee, arXiv 2209.14074, CVPR workshops 2024; as in the authors' code",
        use="Choose it for speed: it takes an eighth of the time of scorecam or less, and works with any head.",
        needs_head=True,
        takes_scores=True,
    ),
    Method(
        name="ablation-cam",
        title="Ablation-CAM",
        aliases=("ablationcam",),
        options=(
            Option.choice(
                "score", "logit", "probability", help="score of the class, whose relative drop is the channel's weight"
            ),
        ),
        compute=_compute_ablation_cam,
        summary="Sets one channel to zero at a time. A channel weighs as much as the class score drops.",
        formula="sum_k (y - y_k) / |y| A_k",
        cost="1 of the head per channel",
        source="Desai & Ramaswamy, Ablation-CAM, WACV 2020; but for the sign where y is negative",
        use="Choose it for speed where each channel should be tested, as Score-CAM does.",
        needs_head=True,
        takes_scores=True,
    ),
    Method(
        name="eigen-cam",
        title="Eigen-CAM",
        aliases=("eigencam",),
        options=(
            Option.flag(
                "center", False, help="subtract the mean of each channel first (pytorch-grad-cam), or not (the paper)"
            ),
        ),
        compute=_compute_eigen_cam,
        summary="Projects the features on their first principal component. The map is the same for every class.",
        formula="sum_k v_k A_k",
        cost="none",
        source="Muhammad & Yeasin, Eigen-CAM, arXiv 2008.00299",
        use="Choose it to see where the features are active. It cannot say what speaks for a class.",
        takes_scores=True,
    ),
    Method(
        name="cam",
        title="CAM",
        compute=_compute_cam,
        summary="Weighs the channels by the classifier's last layer.",
        formula="sum_k w_kc A_k",
        cost="none per image; 1 of the head per channel, once",
        source="Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
        use="The quickest, for models that end in average pooling and one linear layer, such as ResNets.",
        needs_head=True,
        takes_scores=True,
    ),
)
