"""How a graph ends: activations and rankings are taken out, so that what a bundle calls logits are logits."""

from ortcam_export.graphs.endings.activation import Ending, check_ending, take_ending
from ortcam_export.graphs.endings.bounds import Bounds, bounds_of
from ortcam_export.graphs.endings.probabilities import gives_probabilities, refuse_infinite
from ortcam_export.graphs.endings.ranking import refuse_ranks, take_unranked
from ortcam_export.graphs.endings.similarity import append_similarity

__all__ = [
    "Bounds",
    "Ending",
    "append_similarity",
    "bounds_of",
    "check_ending",
    "gives_probabilities",
    "refuse_infinite",
    "refuse_ranks",
    "take_ending",
    "take_unranked",
]
