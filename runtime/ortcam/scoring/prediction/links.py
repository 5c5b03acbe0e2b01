"""Links: between the weights of channels and what the Gaussian process of `gaussian_process` models."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROUNDING", "Line", "Power"]

ROUNDING: Final = 8 * np.finfo(np.float32).eps  # of scores, over the largest of them
_ROOT: Final = 4


class Power:
    """The link of weights that are positive: y = (alpha / t)^(1/4)."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.top = weights.max(axis=0)
        self._underflown = self.top <= np.finfo(np.float32).tiny  # a class without a score: nothing to predict from

    def y(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is modelled, float64 [n,K], of weights."""
        y: NDArray[np.float64] = (weights / self.top) ** (1 / _ROOT)
        return y

    def allowed(self, mean: NDArray[Any]) -> NDArray[Any]:
        """A predicted mean of y, cut to what y can be."""
        allowed: NDArray[Any] = np.maximum(mean, 0)
        return allowed

    def slopes(self, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The derivative of alpha with respect to y, as [O,K] times [K]."""
        return mean ** (_ROOT - 1), _ROOT * self.top

    @staticmethod
    def deviation(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
        """The standard deviation of alpha / t, float64 [O,K], of mean and variance of y."""
        return _deviation_of_power(mean, variance)

    def moments(
        self, mean: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of alpha, float64 [O,K] each, of those of y."""
        predicted = self.top * (mean**4 + 6 * mean**2 * variance)
        deviation = self.top * _deviation_of_power(mean, variance)
        predicted[:, self._underflown] = 0
        deviation[:, self._underflown] = 0
        return predicted, deviation


class Line:
    """The link of weights of either sign: y = (alpha - a) / t."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self._middle = weights.mean(axis=0)
        apart = np.abs(weights - self._middle).max(axis=0)
        self.top = np.where(apart > ROUNDING * np.abs(weights).max(axis=0), apart, 0)

    def y(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is modelled, float64 [n,K], of weights."""
        y: NDArray[np.float64] = np.where(self.top > 0, weights - self._middle, 0) / np.where(self.top > 0, self.top, 1)
        return y

    def allowed(self, mean: NDArray[Any]) -> NDArray[Any]:
        """A predicted mean of y, cut to what y can be."""
        return mean

    def slopes(self, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The derivative of alpha with respect to y, as [O,K] times [K]."""
        return np.ones_like(mean), self.top

    @staticmethod
    def deviation(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
        """The standard deviation of alpha / t, float64 [O,K], of mean and variance of y."""
        deviation: NDArray[np.float64] = np.sqrt(variance) + np.zeros_like(mean)
        return deviation

    def moments(
        self, mean: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of alpha, float64 [O,K] each, of those of y."""
        return self._middle + self.top * mean, self.top * np.sqrt(variance)


def _deviation_of_power(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the fourth power of a Gaussian."""
    m2, v = mean**2, variance
    deviation: NDArray[np.float64] = np.sqrt(v * (16 * m2**3 + v * (168 * m2**2 + v * (384 * m2 + 96 * v))))
    return deviation
