"""Operators that may stand at the end of a graph, and what a user may say of them."""

from typing import Final, Literal

from ortcam.bundle import Activation

__all__ = ["ACTIVATIONS", "DECLARE", "ONLY_FOR_PROBABILITIES", "PASSING", "Declared"]

# How a user may say that outputs become probabilities, or that they are.
Declared = Activation | Literal["probabilities"]
DECLARE: Final = "where they are probabilities already, say --activation probabilities"

# What may stand between the activation at the end and the output: what only lays out, and what is not for logits.
PASSING: Final = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
ONLY_FOR_PROBABILITIES: Final = ("Clip", "QuantizeLinear", "DequantizeLinear")
ACTIVATIONS: Final[dict[str, Activation]] = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "Sigmoid": "sigmoid",
    "QLinearSoftmax": "softmax",
    "QLinearSigmoid": "sigmoid",
}
