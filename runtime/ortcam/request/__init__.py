"""What a caller asks for, checked once: classes, method, options, limits. Nothing else checks them again."""

from ortcam.request.entries import MethodEntry, parse_entry
from ortcam.request.fusing import for_fused_file, fusible, resolve_fusible
from ortcam.request.outputs import first_output, output_example, outputs_in_words, part_example
from ortcam.request.request import (
    LIMITS,
    ExplainRequest,
    check_batch_size,
    check_classes,
    read_batch_size,
    read_budget,
)
from ortcam.request.score import Score
from ortcam.request.targets import Target, as_targets, as_top_k, class_index, class_indices, most_probable

__all__ = [
    "LIMITS",
    "ExplainRequest",
    "MethodEntry",
    "Score",
    "Target",
    "as_targets",
    "as_top_k",
    "check_batch_size",
    "check_classes",
    "class_index",
    "class_indices",
    "first_output",
    "for_fused_file",
    "fusible",
    "most_probable",
    "output_example",
    "outputs_in_words",
    "parse_entry",
    "part_example",
    "read_batch_size",
    "read_budget",
    "resolve_fusible",
]
