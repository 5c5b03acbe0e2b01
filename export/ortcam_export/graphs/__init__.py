"""ONNX graphs: reading their data flow, changing them, running them, and making new ones."""
