"""What a caller asks for, checked once: classes, method, options, limits. Nothing else checks them again."""

from ortcam.request.request import LIMITS, ExplainRequest, check_batch_size, read_batch_size, read_budget
from ortcam.request.targets import Target, as_targets, as_top_k, class_index, class_indices, most_probable

__all__ = [
    "LIMITS",
    "ExplainRequest",
    "Target",
    "as_targets",
    "as_top_k",
    "check_batch_size",
    "class_index",
    "class_indices",
    "most_probable",
    "read_batch_size",
    "read_budget",
]
