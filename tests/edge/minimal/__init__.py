"""A small build of ONNX Runtime, with the operators of fused files alone, and what it does with them."""
