"""The methods as plain loops in float64 PyTorch, to compare the product with; they import nothing of it.

The formulas are those of docs/reference/methods.md and of the papers that it names.
"""

from tests.parity.reference.classifier import Classifier, Result, at_cut, at_layer, maps_of, token_maps
from tests.parity.reference.gradient import GradientReference
from tests.parity.reference.head_only import HeadReference
from tests.parity.reference.masked import DEFAULTS, GATES, Reference, promised_noise

__all__ = [
    "DEFAULTS",
    "GATES",
    "Classifier",
    "GradientReference",
    "HeadReference",
    "Reference",
    "Result",
    "at_cut",
    "at_layer",
    "maps_of",
    "promised_noise",
    "token_maps",
]
