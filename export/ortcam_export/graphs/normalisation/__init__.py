"""The normalisation that a graph begins with: found by running the graph's front, and moved into the preprocessing."""

from ortcam_export.graphs.normalisation.taking import Taken, take_normalisation

__all__ = ["Taken", "take_normalisation"]
