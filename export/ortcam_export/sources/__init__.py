"""Where a classifier comes from: PyTorch or an `.onnx` file, read and converted to one graph."""
