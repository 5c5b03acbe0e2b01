"""Saliency maps: from the weights of the channels to the weighted sum, and from the sum to a finished map in [0,1]."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.engine.features import check_finite
from ortcam.methods import Plan
from ortcam.scoring.masks import Masks
from ortcam.scoring.scores import Scores
from ortcam.scoring.upsampling import bilinear_matrix, taps, upsample
from ortcam.support.blas import single_threaded

__all__ = ["FUSED_SLOPE", "LEAST_RANGE", "finish", "fuse", "gated_sum", "raw_maps", "relu_min_max"]

# gamma of LayerCAM, equation 9.
FUSED_SLOPE: Final = 2

# Of a map that is not flat, by its largest absolute value: the rounding of the sum in float32.
LEAST_RANGE: Final = 8 * np.finfo(np.float32).eps

_GATED_AT_ONCE: Final = 1 << 16  # values, which fit into a core's cache


@single_threaded
def raw_maps(masks: Masks, plan: Plan, scores: Scores) -> NDArray[np.float64]:
    """The weighted sum before ReLU: float64 [K,H,W] where gated maps are summed, else [K,h,w] since U is linear."""
    if plan.gate_sum:
        if scores.gated_sum is None:
            shape = (len(scores.weights), *masks.maps.shape[1:])
            return np.zeros(shape)
        return scores.gated_sum
    summed = masks.maps if plan.maps == "normalized" else masks.features
    raw: NDArray[np.float64] = np.tensordot(scores.weights, summed.astype(np.float64), axes=1)
    return raw


@single_threaded
def finish(raw: NDArray[np.float64], height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """ReLU at image size and min-max: float32 [K,H,W] in [0,1], and bool [K] for the maps that are flat.

    Flat means no range beyond the rounding of the sum in float32.

    Args:
        raw: float64 [K,h,w], or [K,H,W] already.
        height: H.
        width: W.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    check_finite("values of the map", raw)
    maps, flat = relu_min_max(raw if raw.shape[1:] == (height, width) else upsample(raw, height, width))
    return maps.astype(np.float32), flat


@single_threaded
def fuse(raws: Sequence[NDArray[np.float64]], height: int, width: int) -> NDArray[np.float64]:
    """One map of those of several layers (LayerCAM, eq. 8 and 9): the largest of tanh(2 M / max M), M = ReLU(raw).

    The paper scales the maps of the shallow layers so, whose values are small; here, as in torch-cam, those of all
    layers. A layer whose map is nowhere positive adds nothing. The maps are scaled at the resolution of their layers,
    and then brought to image size.

    Args:
        raws: per layer, float64 [K,h,w].
        height: H.
        width: W.

    Returns:
        float64 [K,H,W], nowhere negative.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    check_finite("values of the map", *raws)
    fused = np.zeros((len(raws[0]), height, width))
    for raw in raws:
        positive = np.maximum(raw, 0)
        largest = positive.max(axis=(1, 2), keepdims=True)
        scaled = np.tanh(FUSED_SLOPE * positive / np.where(largest > 0, largest, 1))
        np.maximum(fused, upsample(scaled, height, width), out=fused)
    return fused


def relu_min_max(raw: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """ReLU and min-max of each map: float64 [K,H,W] in [0,1], and bool [K] for those that are flat, which become 0."""
    least, most = (extreme(axis=(1, 2), keepdims=True) for extreme in (raw.min, raw.max))
    low = np.maximum(least, 0)
    span = np.maximum(most, 0) - low
    flat = span <= LEAST_RANGE * np.maximum(-least, most)
    maps: NDArray[np.float64] = np.maximum(raw, 0)
    maps -= low
    maps /= np.where(flat, 1, span)
    maps[flat[:, 0, 0]] = 0
    return maps, flat[:, 0, 0]


def gated_sum(
    maps: NDArray[np.float32],
    weights: NDArray[np.float64],
    gate: str,
    *,
    height: int,
    width: int,
    step: int = 1,
) -> NDArray[np.float64]:
    """Sum alpha_k gate(U(A_k)), gated at every pixel or at one in `step`: float64 [K,H,W].

    A row of pixels at a time, of as many channels as fit into a core's cache: maps that are brought to the width of
    the image once are interpolated between their rows, gated, and summed by a single product.

    Args:
        maps: float32 [n,h,w].
        weights: float64 [n,K], alpha.
        gate: its name.
        height: H.
        width: W.
        step: in pixels, along both axes.
    """
    function = GATE_FUNCTIONS[gate]
    rows_out, columns_out = -(-height // step), -(-width // step)
    upper, share = taps(maps.shape[-2], rows_out)
    columns = bilinear_matrix(maps.shape[-1], columns_out)
    factors = weights.T.astype(np.float32)
    summed = np.zeros((len(factors), rows_out, columns_out), np.float32)
    for places in np.array_split(np.arange(len(maps)), -(-len(maps) * columns_out // _GATED_AT_ONCE)):
        part = slice(places[0], places[-1] + 1)
        rows = np.ascontiguousarray(np.matmul(maps[part], columns.T).transpose(1, 0, 2))  # [h,n,width]
        down = np.diff(rows, axis=0, append=rows[-1:])
        factor = np.ascontiguousarray(factors[:, part])
        for row in range(rows_out):
            line = down[upper[row]] * np.float32(share[row])
            line += rows[upper[row]]
            summed[:, row] += factor @ function(line)
    return (summed if step == 1 else upsample(summed, height, width)).astype(np.float64)
