"""A whole explanation as one ONNX graph around the graphs of a bundle."""

from ortcam_export.fused.explainer_graph.explainer import build_explainer
from ortcam_export.fused.explainer_graph.preprocessing import build_preprocessing
from ortcam_export.fused.explainer_graph.spec import ExplainerSpec, Gradients, Masking, explained_layers, finest

__all__ = [
    "ExplainerSpec",
    "Gradients",
    "Masking",
    "build_explainer",
    "build_preprocessing",
    "explained_layers",
    "finest",
]
