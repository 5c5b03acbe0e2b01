"""One file that explains: a bundle and a method fused into one ONNX graph."""
