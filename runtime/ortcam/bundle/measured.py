"""What an export measures of a bundle, as bundle.json records it: parity, and how a lower precision changes maps."""

import dataclasses

__all__ = ["Fidelity", "GradientParity", "Likeness", "Parity"]


@dataclasses.dataclass(frozen=True)
class GradientParity:
    """The check of the gradient graph, made at export.

    Attributes:
        inputs: number of feature tensors that it was measured on.
        differences: max |g - d| / max |d|, d by central differences of the head in float64.
        autograd: the same with d from PyTorch's autograd; None if the model did not come from PyTorch.
        tolerance: bound for both.
    """

    inputs: int
    differences: float
    autograd: float | None
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Parity:
    """The check made at export: the graphs against the model that they came from.

    Attributes:
        reference: what the graphs were compared with.
        inputs: number of probe images.
        logits: max |graphs(x) - model(x)| / max |model(x)|, graphs(x) = head(features(x)) or classifier(x).
        scorer: the same for the masked logits of the scorer against graphs(mask * x).
        tolerance: bound for the logits.
        scorer_tolerance: bound for the scorers. It is wider for a graph of 8-bit integers, because a masked pixel that
            falls between two of them may be rounded either way.
    """

    reference: str
    inputs: int
    logits: float
    scorer: float
    tolerance: float
    scorer_tolerance: float


@dataclasses.dataclass(frozen=True)
class Likeness:
    """How similar the maps of a variant are to those in float32, over the images measured.

    Attributes:
        pearson_mean: mean of Pearson's correlation over the pixels of the two maps.
        pearson_min: the lowest of them.
        spearman_mean: mean of Spearman's rank correlation over the pixels of the two maps.
        spearman_min: the lowest of them.
    """

    pearson_mean: float
    pearson_min: float
    spearman_mean: float
    spearman_min: float


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How a lower precision changes explanations, measured at export against float32.

    Attributes:
        images: number of images.
        held_out: whether they were kept out of calibration.
        channels: the most channels scored per map, those of the highest energy.
        top1: share of the passes, clean and masked, that have the same most probable class as in float32.
        maps: method -> similarity of its maps, for the most probable class of the clean image.
    """

    images: int
    held_out: bool
    channels: int
    top1: float
    maps: dict[str, Likeness]
