"""Trends: what is known of the weights before any is scored. Nothing, or what the frame before it gave.

`gaussian_process` models y_k of a channel k as a trend plus a deviation that is smooth over the masks. Of a single
image the trend is one level: y_k = mu + d_k. Of a frame of a stream it follows the frame before (the autoregressive
model of Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast approximations are
available", Biometrika 2000, eq. 1):

    y_k = beta_0 + beta_1 z_k + sqrt(g_k) d_k,   g_k = 1 + w u_k,   d ~ GP(0, s^2 k) + noise,

with z_k what the frame before said of y_k, and u_k how little it knew: the variance that was left of y_k, over s^2. So
u_k = 0 where channel k was scored in that frame, and deviations of channels that were not scored for long are larger.
beta_0 and beta_1 are those of generalised least squares, per class. w is a mean over a grid, as length and noise are.
All three come from the scores of this frame. A frame before that tells nothing gives beta_1 near 0 and a large s^2:
predictions and the estimate of the error are then about those of a single image.

Of frames that are all alike s^2 would be next to nothing, and what is next seen of one channel, rounding even, would
move the others by any factor sqrt(g_k). So s^2 is at least 1e-4 in a frame that follows another.

Divided by sqrt(g_k), everything is what it is without g: that is how it is computed.
"""

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_SPREAD_OF_FRAMES", "Before", "Trend"]

Floats = NDArray[np.floating[Any]]

# w: the s^2 of the frame before over that of this one. It is 1 where frames differ alike. In the second frame it is
# large: its s^2 is that of a change, and the first frame's that of the weights themselves.
_GROWTHS: Final = (0.2, 1.0, 5.0, 25.0, 125.0)
_LEAST_SPREAD: Final = 1e-12
LEAST_SPREAD_OF_FRAMES: Final = 1e-4
_RIDGE: Final = 1e-6  # of the slope, so that z may be the same for all channels


@dataclasses.dataclass(frozen=True)
class Before:
    """What the frame before says of L channels and K classes.

    Attributes:
        y: float64 [L,K], z: as `links` has it.
        unknown: float64 [L,K], u: the variance that was left, over s^2; 0 where scored.
    """

    y: NDArray[np.float64]
    unknown: NDArray[np.float64]


class Trend:
    """What y is without the deviations: a level, or with a frame before it level and slope.

    Channels are places among all L, K is the number of classes.

    Attributes:
        growths: the values of w that are tried.
        least_spread: what s^2 is at least.
    """

    def __init__(self, before: Before | None) -> None:
        self.growths = (1.0,) if before is None else _GROWTHS
        self.least_spread = _LEAST_SPREAD if before is None else LEAST_SPREAD_OF_FRAMES
        self._before = before

    def scale(self, channels: NDArray[np.intp], growth: float) -> Any:
        """sqrt(g) of some channels for a w: float64 [n,K], or 1 for all."""
        return 1.0 if self._before is None else np.sqrt(1 + growth * self._before.unknown[channels])

    def residual(
        self, channels: NDArray[np.intp], growth: float, vectors: Floats, turned: Floats, precision: Floats
    ) -> NDArray[np.float64]:
        """What is left of y of n channels, over sqrt(g), in the basis of eigenvectors: float64 [n,K].

        Args:
            channels: intp [n].
            growth: w.
            vectors: float64 [n,n], columns are eigenvectors of the kernel.
            turned: float64 [n,K], y over sqrt(g) in their basis.
            precision: float64 [n], inverse eigenvalues with noise.
        """
        residual: NDArray[np.float64]
        if self._before is None:
            ones = vectors.sum(axis=0)
            mu = (ones * precision) @ turned / (ones * precision @ ones)
            residual = turned - ones[:, None] * mu
            return residual
        one, z = (vectors.T @ basis for basis in self._bases(self._before, channels, growth))
        weighed = precision[:, None]
        level, slope = _least_squares(one, z, turned, weighed * one, weighed * z)
        residual = turned - one * level - z * slope
        return residual

    def fitted(
        self, channels: NDArray[np.intp], growth: float, inverse: Floats, y: Floats, others: NDArray[np.intp]
    ) -> tuple[Floats, Floats]:
        """The trend at n channels, over sqrt(g), and at others, not divided: [n,K] and [O,K]; a level is [K].

        Args:
            channels: intp [n].
            growth: w.
            inverse: float64 [n,n], of the kernel with noise.
            y: float64 [n,K], over sqrt(g).
            others: intp [O].
        """
        if self._before is None:
            ones = inverse.sum(axis=1)
            mu = ones @ y / ones.sum()
            return mu, mu
        one, z = self._bases(self._before, channels, growth)
        level, slope = _least_squares(one, z, y, inverse @ one, inverse @ z)
        return one * level + z * slope, level + self._before.y[others] * slope

    def _bases(self, before: Before, channels: NDArray[np.intp], growth: float) -> tuple[Floats, Floats]:
        one = 1 / self.scale(channels, growth)
        return one, before.y[channels] * one


def _least_squares(one: Floats, z: Floats, y: Floats, one_weighed: Floats, z_weighed: Floats) -> tuple[Floats, Floats]:
    """beta_0 and beta_1, [K] each, from [n,K] each."""
    a, b, c = (one_weighed * one).sum(axis=0), (one_weighed * z).sum(axis=0), (z_weighed * z).sum(axis=0)
    c = c + _RIDGE * a
    d, e = (one_weighed * y).sum(axis=0), (z_weighed * y).sum(axis=0)
    slope = (a * e - b * d) / (a * c - b * b)
    return (d - b * slope) / a, slope
