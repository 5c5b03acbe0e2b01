"""What a fused explainer is to do: which classes of which image, and by masked passes or by gradients."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut, Manifest
from ortcam.engine.score import ScoreMatrix
from ortcam.methods import Plan
from ortcam.methods.gradient import PRIMARY_LAYER, layer_places

__all__ = ["ExplainerSpec", "Gradients", "Masking", "explained_layers", "finest"]


@dataclasses.dataclass(frozen=True)
class Masking:
    """Explain by masked passes.

    Attributes:
        plan: of the method.
        budget: channels to score: a share in (0,1] of those that are not flat, or a number of them; None: all.
        precision: of the scorer.
        batch_size: masked images per turn of the loop.
        baseline: float32 [outputs], what the blank image gives for each class where the plan subtracts it, or float32
            [1] for an expression; else None.
        rows: float32 [S,U], the scorers' input `score`; None where they have none.
        column: of the scorers' outputs, added to the index of a class; of an expression its own.
        signed: whether a score may be negative, as no probability is.
    """

    plan: Plan
    budget: float | int | None
    precision: str
    batch_size: int
    baseline: NDArray[np.float32] | None
    rows: NDArray[np.float32] | None = None
    column: int = 0
    signed: bool = False


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Explain by the gradients of the head.

    Attributes:
        method: its name, in the table of `ortcam.methods.METHODS`.
        options: every option of the method.
        by_probability: whether the probability of a class is differentiated in place of its logit.
    """

    method: str
    options: Mapping[str, Any]
    by_probability: bool = False


@dataclasses.dataclass(frozen=True)
class ExplainerSpec:
    """What a fused explainer is to do.

    Attributes:
        how: by masked passes or by gradients.
        top_k: how many of the most probable classes are explained; None where the classes are an input.
        uint8_input: whether the input is an image as it was decoded.
        score: an expression that is explained in place of classes.
    """

    how: Masking | Gradients
    top_k: int | None
    uint8_input: bool
    score: ScoreMatrix | None = None


def explained_layers(manifest: Manifest, how: Masking | Gradients) -> dict[str, Cut]:
    """The layers that maps are made of, by their names in `manifest.cuts`."""
    names = tuple(manifest.cuts)
    layer = PRIMARY_LAYER if isinstance(how, Masking) else how.options.get("layer", PRIMARY_LAYER)
    chosen = layer_places(layer, tuple(manifest.cuts.values()))
    return {names[place]: manifest.cuts[names[place]] for place in chosen}


def finest(cuts: Iterable[Cut]) -> Cut:
    """The layer of the most positions, the first of several."""
    return max(cuts, key=lambda cut: cut.height * cut.width)
