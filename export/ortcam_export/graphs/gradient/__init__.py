"""The derivative of a classifier's logits by its features, as an ONNX graph."""

from ortcam_export.graphs.gradient.differentiation import differentiate
from ortcam_export.graphs.gradient.float64 import Float64Graph
from ortcam_export.graphs.gradient.refusals import NoDerivativeError

__all__ = ["Float64Graph", "NoDerivativeError", "differentiate"]
