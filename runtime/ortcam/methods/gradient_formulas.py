"""The formulas of the gradient methods, Grad-CAM and its relatives, as pure functions of features and gradients.

A are the features of a layer, A_k a channel of them, y_c the logit of class c before softmax or sigmoid, and
g_k = d y_c / d A_k, of the shape of A_k. Sums without a name run over the positions of a channel. Where the features
are tokens, only the patches count.

====================  ====================================================================  ===================
method                map before ReLU                                                       backward passes
====================  ====================================================================  ===================
``grad-cam``          sum_k mean(g_k) A_k                                                   1 per class
``grad-cam++``        sum_k sum(a_k relu(g_k)) A_k, a_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3)  1 per class
``xgrad-cam``         sum_k (sum(g_k A_k) / sum(A_k)) A_k                                   1 per class
``layer-cam``         sum_k relu(g_k) A_k                                                   1 per class
``hires-cam``         sum_k g_k A_k                                                         1 per class
``smooth-grad-cam++``  as grad-cam++ with the means of g_k, g_k^2 and g_k^3 over noisy images  1 per class, sample
``finer-cam``         as grad-cam with y_c less the logits of similar classes               1 per class
====================  ====================================================================  ===================

Where the head is average pooling and one linear layer, g_k = w_ck / (h w) at every position. Then ``grad-cam``,
``xgrad-cam`` and ``hires-cam`` are ``cam`` but for the factor h w.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.methods.derivative import one_hot

__all__ = [
    "CANCELLED",
    "Gradients",
    "Maps",
    "SmoothGradCamPlusPlus",
    "Weighed",
    "finer_seeds",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "xgrad_cam",
]

# What is left of sums that cancel in exact arithmetic, relative to the sum of their absolute values: the rounding of
# gradients in float32, with a margin. Behind a LayerNorm without anything else g_k A_k sums to zero at each token.
CANCELLED: Final = 1e-5

# The map before ReLU, float64 [K,h,w], and the weights of the channels, float64 [K,C]; zeros where there are none.
Weighed = tuple[NDArray[np.float64], NDArray[np.float64]]

Maps = NDArray[np.float32]  # A, [C,h,w]
Gradients = NDArray[np.float32]  # g, [K,C,h,w]


def grad_cam(maps: Maps, gradients: Gradients) -> Weighed:
    """Grad-CAM (Selvaraju et al., ICCV 2017): sum_k w_k A_k, w_k = mean(g_k).

    Args:
        maps: A, float32 [C,h,w].
        gradients: g, float32 [K,C,h,w].
    """
    return _summed(gradients.mean(axis=(2, 3), dtype=np.float64), maps)


def grad_cam_plus_plus(maps: Maps, gradients: Gradients, *, epsilon: float = 0) -> Weighed:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, eq. 19): sum_k w_k A_k, w_k = sum(a_k relu(g_k)).

    a_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3), and 0 where g_k = 0. The paper's class score is exp(y_c). The factor that
    this puts before g_k is the same for all channels, and min-max takes it out again.

    The denominator of signed features may vanish: with sum(A_k) g_k = -2 the weight is infinite, and beside it of
    either sign. There a_k = 0 where the denominator is exactly 0, and else what the formula says.

    torch-cam 0.5 computes the denominator and never divides by it, so its map is another one.

    Args:
        maps: A, float32 [C,h,w].
        gradients: g, float32 [K,C,h,w].
        epsilon: added to the denominator; 0 is the paper, 1e-6 is pytorch-grad-cam.
    """
    first = gradients.astype(np.float64)
    square = first * first
    return _plus_plus(maps, first, square, square * first, epsilon)


def xgrad_cam(maps: Maps, gradients: Gradients, *, epsilon: float = 0) -> Weighed:
    """XGrad-CAM (Fu et al., "Axiom-based Grad-CAM", BMVC 2020): sum_k w_k A_k, w_k = sum(g_k A_k) / sum(A_k).

    A channel whose features sum to zero has no weight.

    Args:
        maps: A, float32 [C,h,w].
        gradients: g, float32 [K,C,h,w].
        epsilon: added to sum(A_k); 0 is the paper, 1e-7 is pytorch-grad-cam, 1e-8 is torch-cam.
    """
    products = np.einsum("kchw,chw->kc", gradients, maps, dtype=np.float64, optimize=False)
    sums = maps.sum(axis=(1, 2), dtype=np.float64) + epsilon
    return _summed(np.divide(products, sums, out=np.zeros_like(products), where=sums != 0), maps)


def layer_cam(maps: Maps, gradients: Gradients) -> Weighed:
    """LayerCAM (Jiang et al., IEEE TIP 2021, eq. 6 and 7): sum_k relu(g_k) A_k, a weight per position.

    There are no weights of channels: they are zeros.

    Args:
        maps: A, float32 [C,h,w].
        gradients: g, float32 [K,C,h,w].
    """
    return _by_position(maps, np.maximum(gradients, 0))


def hires_cam(maps: Maps, gradients: Gradients) -> Weighed:
    """HiResCAM (Draelos & Carin, arXiv 2011.08891): sum_k g_k A_k, a weight per position.

    There are no weights of channels: they are zeros. Where tokens reach the logits through a LayerNorm alone, the sum
    is zero at each of them, since scaling a token changes nothing. What is left is rounding, and the map is set to 0.

    Args:
        maps: A, float32 [C,h,w].
        gradients: g, float32 [K,C,h,w].
    """
    raw, weights = _by_position(maps, gradients)
    total, _ = _by_position(np.abs(maps), np.abs(gradients))
    left = np.abs(raw).max(axis=(1, 2)) > CANCELLED * total.max(axis=(1, 2))
    return raw * left[:, None, None], weights


class SmoothGradCamPlusPlus:
    """Smooth Grad-CAM++ (Omeiza et al., arXiv 1908.01224): Grad-CAM++ with means over noisy images in place of g_k.

    g_k, g_k^2 and g_k^3 become their means over the images; A_k is that of the image without noise. torch-cam 0.5 takes
    relu(g_k) and the A_k that is summed from the last noisy image instead, and n = 4, std = 0.3 as here. The images
    come one after the other, so that their gradients are never in memory together.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: tuple[NDArray[np.float64], ...] = ()

    def add(self, gradients: Gradients) -> None:
        """Take in g at one more noisy image, float32 [K,C,h,w]."""
        first = gradients.astype(np.float64)
        powers = first, first * first, first * first * first
        self._sums = powers if not self._sums else tuple(map(np.add, self._sums, powers))
        self._count += 1

    def weighed(self, maps: Maps, *, epsilon: float = 0) -> Weighed:
        """The map of the images so far, one at least.

        Args:
            maps: A, float32 [C,h,w].
            epsilon: added to the denominator.
        """
        first, second, third = (total / self._count for total in self._sums)
        return _plus_plus(maps, first, second, third, epsilon)


def finer_seeds(
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    *,
    strength: float,
    references: int,
    weighting: Literal["mean", "probability"],
) -> NDArray[np.float32]:
    """The seeds of Finer-CAM (Zhang et al., CVPR 2025): what y_c - strength y_d rises with, over similar classes d.

    The similar classes are those whose logits are closest to y_c.

    - ``weighting="mean"``: the mean of y_c - strength y_d over them, as the authors' aggregate of three classes.
    - ``weighting="probability"``: their mean weighed by the probability of d, as pytorch-grad-cam's FinerCAM; these
      weights are functions of the logits, too, and are differentiated with them.

    Args:
        logits: float32 [classes], of the image.
        targets: int64 [K].
        strength: how much of y_d is subtracted; 0 gives plain Grad-CAM with ``weighting="mean"``.
        references: how many similar classes; all others if the model has fewer.
        weighting: of the similar classes.

    Returns:
        float32 [K,classes].
    """
    exact = logits.astype(np.float64)
    seeds = one_hot(targets, len(logits)).astype(np.float64)
    for seed, target in zip(seeds, targets, strict=True):
        order = np.argsort(np.abs(exact - exact[target]), kind="stable")
        similar = order[order != target][:references]
        if not len(similar):
            continue
        if weighting == "mean":
            seed[similar] -= strength / len(similar)
            continue
        share = np.exp(exact[similar] - exact[similar].max())
        share /= share.sum()
        score = exact[target] - strength * exact[similar]
        seed[similar] += share * (score - share @ score - strength)
    return seeds.astype(np.float32)


def _plus_plus(
    maps: Maps,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
    epsilon: float,
) -> Weighed:
    """Grad-CAM++ from what stands for g, g^2 and g^3, float64 [K,C,h,w]."""
    denominator = 2 * second
    denominator += maps.sum(axis=(1, 2), dtype=np.float64)[:, None, None] * third
    denominator += epsilon
    denominator[denominator == 0] = np.inf
    shares = np.maximum(first, 0)
    shares *= second
    shares /= denominator
    return _summed(shares.sum(axis=(2, 3)), maps)


def _summed(weights: NDArray[np.float64], maps: Maps) -> Weighed:
    raw: NDArray[np.float64] = np.tensordot(weights, maps.astype(np.float64), axes=1)
    return raw, weights


def _by_position(maps: Maps, weights: Gradients) -> Weighed:
    raw = np.einsum("kchw,chw->khw", weights, maps, dtype=np.float64, optimize=False)
    return raw, np.zeros(weights.shape[:2])
