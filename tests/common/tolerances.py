"""Where the tolerances of the tests come from: how far apart two float32 results may be on any processor.

A processor, an instruction set, a batch size or a number of threads decides in which order sums are made, whether a
product is rounded before it is added, and which polynomial stands for exp. It decides nothing else, so the results
differ by rounding. One rounding errs by at most u = eps / 2 = 2^-24 of the result.

**Plain sums** have a bound that always holds. A sum of n products errs by at most gamma_n sum |x_i|, where
gamma_n = n u / (1 - n u), in whatever order it is made, with or without fused multiply-add (Higham, "Accuracy and
Stability of Numerical Algorithms", 2002, sections 3.1 and 4.2). Two such sums differ by at most twice that:
`sums_apart`.

**Logits** have no useful bound of that kind. Carried from layer to layer it is 0.015 for `SmallNet`, whose logits reach
19, where 1e-6 is seen. But the errors are thousands of roundings of either sign. Taken as independent, their variances
add: v_out = W^2 v_in + u^2 n / 3 sum (w x)^2 for a layer that sums n products. For `SmallNet` that gives a standard
deviation of 2.0e-6 for the largest logit, about eps times its size (2.3e-6), and less for the others. Four of those are
`logits_apart`.

**Weights and maps.** For a probability p = sigmoid(y) dp = p (1 - p) dy: at most a quarter of the difference of the
logits. In a softmax all logits move: at most a half. A map is a sum of channels whose errors are independent, so
relative to the sum they are no larger than those of one weight, and what they have in common does not survive min-max.
With the rounding of the sum itself that is `maps_apart`.

What docs/explanation/exactness.md promises against float64, 1e-4 and 1e-5, stands as it is in the tests. No
tolerance here for maps goes beyond 1e-5, which is promised for any batch size, thread count and provider.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["EPS", "PROMISED", "logits_apart", "maps_apart", "sums_apart"]

EPS: Final = float(np.finfo(np.float32).eps)
PROMISED: Final = 1e-5
_UNIT: Final = EPS / 2
_DEVIATIONS: Final = 4


def sums_apart(count: int, magnitude: Any) -> float:
    """The most that two float32 sums of the same products can differ by.

    Args:
        count: of the products.
        magnitude: the sum of their absolute values; of an array the largest counts.
    """
    gamma = count * _UNIT / (1 - count * _UNIT)
    return 2 * gamma * float(np.max(magnitude))


def logits_apart(logits: ArrayLike) -> float:
    """How far apart the logits of two runs may be; half of it is enough for probabilities."""
    return _DEVIATIONS * EPS * float(np.abs(logits).max())


def maps_apart(logits: ArrayLike, channels: int) -> float:
    """How far apart the finished maps, and the weights, of two explanations may be.

    Args:
        logits: of the image.
        channels: that are summed.
    """
    return min(logits_apart(logits) + sums_apart(channels, 1), PROMISED)
