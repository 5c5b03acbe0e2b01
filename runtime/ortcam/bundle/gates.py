"""The gates of ScoreCAM++ as functions of arrays, the same as those inside the scorer graphs."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GATES", "GATE_FUNCTIONS"]

Maps = NDArray[np.float32]


def _sigmoid(x: Maps) -> Maps:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)


def _mish(x: Maps) -> Maps:
    """Return x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); from 20 on the fraction is 1 in float32."""
    exponential = np.exp(np.minimum(x, np.float32(20)))
    n = exponential * (exponential + 2)
    return np.asarray(x * (n / (n + 2)), np.float32)


GATE_FUNCTIONS: Final[dict[str, Callable[[Maps], Maps]]] = {
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sigmoid-relu": lambda x: _sigmoid(np.maximum(x / 2, 0)),
    "relu": lambda x: np.maximum(x, 0),
    "mish": _mish,
    "swish": lambda x: x * _sigmoid(x),
    "softsign": lambda x: x / (1 + np.abs(x)),
}

# The gates of ScoreCAM++ that have a scorer graph of their own; "minmax" is the plain scorer on normalised maps.
GATES: Final = tuple(GATE_FUNCTIONS)
