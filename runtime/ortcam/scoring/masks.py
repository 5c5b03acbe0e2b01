"""Masks: the maps of one image as the scorer takes them; which are active, and in what order they are scored."""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle.gates import GATE_FUNCTIONS
from ortcam.methods import Plan
from ortcam.scoring.upsampling import upsampled_range
from ortcam.support.blas import single_threaded

__all__ = ["ZERO_AT_ZERO", "Masks", "gated_masks", "prepare_masks", "summands"]

# Gates with gate(0) = 0: a channel that is zero everywhere masks everything and adds nothing.
ZERO_AT_ZERO: Final = ("tanh", "mish", "swish", "softsign")


@dataclasses.dataclass(frozen=True)
class Masks:
    """The maps of one image as the scorer takes them.

    Attributes:
        features: float32 [C,h,w], the maps before anything was done to them.
        maps: float32 [C,h,w], upsampled and gated inside the scorer; already min-maxed where the plan says so.
        active: bool [C], false where the mask is flat: weight 0 and no forward pass.
        order: intp [L], the active channels by descending energy.
        energy: float64 [C], sum of the positive part of the raw map.
    """

    features: NDArray[np.float32]
    maps: NDArray[np.float32]
    active: NDArray[np.bool_]
    order: NDArray[np.intp]
    energy: NDArray[np.float64]

    def energy_covered(self, scored: NDArray[np.bool_]) -> float:
        """The share of the active channels' energy that the scored ones, bool [C], have; 1 where there is none."""
        energy = self.energy[self.active].sum()
        return float(self.energy[scored].sum() / energy) if energy > 0 else 1.0


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
        active = _gate_is_active(plan.gate, low, high)
    else:
        active = high > low
        if plan.normalize == "after-upsampling":
            low, high = upsampled_range(features, height, width)
            active &= high > low  # bilinear upsampling need not reach the extremes
        span = np.where(active, high - low, 1)
        maps = np.where(active[:, None, None], (features - low[:, None, None]) / span[:, None, None], 0)
    energy = np.maximum(features, 0).sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-energy, kind="stable")
    return Masks(features, maps.astype(np.float32, copy=False), active, order[active[order]], energy)


def _gate_is_active(gate: str | None, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    """False where gate(U(A_k)) is zero everywhere, from the range of A_k (of U(A_k) for the relu): bool [C]."""
    if gate == "relu":
        return np.greater(high, 0)
    if gate in ZERO_AT_ZERO:
        return np.not_equal(low, 0) | np.not_equal(high, 0)
    return np.ones(low.shape, np.bool_)


def summands(masks: Masks, plan: Plan) -> NDArray[np.float32]:
    """What the weights are summed over, at feature resolution: float32 [C,h,w]."""
    if plan.gate_sum and plan.gate is not None:
        return GATE_FUNCTIONS[plan.gate](masks.maps)
    return masks.maps if plan.maps == "normalized" else masks.features


def gated_masks(masks: Masks, plan: Plan) -> NDArray[np.float32]:
    """The masks at feature resolution, as they multiply the image: float32 [C,h,w]."""
    return masks.maps if plan.gate is None else GATE_FUNCTIONS[plan.gate](masks.maps)
