"""A whole explanation as one ONNX graph around the scorers of a bundle."""

from ortcam_export.fused.explainer_graph.explainer import ExplainerSpec, build_explainer
from ortcam_export.fused.explainer_graph.preprocessing import build_preprocessing

__all__ = ["ExplainerSpec", "build_explainer", "build_preprocessing"]
