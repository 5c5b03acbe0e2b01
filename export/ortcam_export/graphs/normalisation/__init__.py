"""The normalisation that a graph begins with: find it by running the front, and move it to the preprocessing."""

from ortcam_export.graphs.normalisation.taking import Taken, take_normalisation

__all__ = ["Taken", "take_normalisation"]
