"""The engine: graphs run through ONNX Runtime, on the providers that were asked for, in batches that fit."""
