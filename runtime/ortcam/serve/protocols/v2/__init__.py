"""The Open Inference Protocol (v2) over REST, with the extensions for binary tensors and classification."""
