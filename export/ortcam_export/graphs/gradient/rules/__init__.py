"""Rules of reverse mode, one per operator; importing this package fills the table."""

from ortcam_export.graphs.gradient.rules import (
    activations,
    arithmetic,
    convolutions,
    layouts,
    normalisations,
    pooling,
    products,
    reductions,
    selections,
    separable,
)
from ortcam_export.graphs.gradient.rules.registry import is_thin, rule_of

__all__ = [
    "activations",
    "arithmetic",
    "convolutions",
    "is_thin",
    "layouts",
    "normalisations",
    "pooling",
    "products",
    "reductions",
    "rule_of",
    "selections",
    "separable",
]
