"""Classifiers from `.onnx` files of any make, brought to one form."""
