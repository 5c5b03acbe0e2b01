"""Gradients: the graph of a head's derivative in a bundle, and the measurements that it has to pass."""

from ortcam_export.gradients.originals import autograd_of
from ortcam_export.gradients.trial import Trial, try_gradient
from ortcam_export.gradients.writing import Opened, write_gradient

__all__ = ["Opened", "Trial", "autograd_of", "try_gradient", "write_gradient"]
