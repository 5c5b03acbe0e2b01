"""What an execution provider would take of a bundle's graphs, by the documents of ONNX Runtime."""

from ortcam_export.providers.support import GraphSupport, ProviderSupport, inspect_provider

__all__ = ["GraphSupport", "ProviderSupport", "inspect_provider"]
