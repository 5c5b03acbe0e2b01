"""What float32 sums may differ by between two processors: the tolerances of comparisons, from sizes and magnitudes."""

import math
from typing import Final

import numpy as np
import torch
from tests.common.tiny import TinyNet
from torch import nn

__all__ = ["TINY_MAPS", "logit_error", "rounding_error", "roundings"]

_EPS: Final = float(np.finfo(np.float32).eps)
# Higham and Mary (SIAM J. Sci. Comput. 41, 2019): n roundings add up to at most l sqrt(n) units of u = eps / 2 with a
# probability of 1 - 2 exp(-l^2 / 2), whatever the order of the sum; with l = 8 it fails once in 4e13 times.
_LAMBDA: Final = 8


def rounding_error(terms: int, magnitude: float = 1.0) -> float:
    """How far two results of the same float32 sums may be apart, each of them rounded in an order of its own.

    Args:
        terms: how many roundings a result goes through: the lengths of the sums from the input to it, added up.
        magnitude: of the numbers that are added.
    """
    return 2 * _LAMBDA * math.sqrt(terms) * _EPS / 2 * magnitude


def roundings(module: nn.Module) -> int:
    """How many roundings a module's outputs go through: products and the bias of each layer, one after another."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            total += layer.weight[0].numel() + 1
        elif isinstance(layer, (nn.LayerNorm, nn.BatchNorm2d)):
            total += layer.weight.numel() + 1 if isinstance(layer, nn.LayerNorm) else 4
    return total


def _of_tiny_maps() -> float:
    """Of the tests' tiny classifier: its layers, clean and masked, pooling, two upsamplings, channels, softmax."""
    network, cells, channels, classes, upsamplings = TinyNet(), 8 * 12, 10, 6, 2 * (8 + 12)
    return rounding_error(2 * (roundings(network) + cells) + upsamplings + channels + classes)


# Of a map of the tests' tiny classifier, which lies in [0,1].
TINY_MAPS: Final = _of_tiny_maps()


def logit_error(module: nn.Module, images: torch.Tensor) -> float:
    """How far a module's logits may be from the same ones computed elsewhere."""
    with torch.inference_mode():
        magnitude = float(module(images).abs().max())
    return rounding_error(roundings(module), max(magnitude, 1.0))
