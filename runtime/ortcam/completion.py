"""The weights of channels that were not scored: a Gaussian process over masks predicts them, and says how well.

A channel's weight alpha_k = p(M_k)[c] is a smooth function of its mask, and all masks are at hand before a single one
is scored. So the weights that were scored tell about the others.

**The features of a mask.** phi_k = G (sign(s_k) sqrt|s_k|), with s_k the mask at feature resolution and G a Gaussian
blur of 0.7 cells. The root keeps a few bright cells from deciding the distance; the blur forgives a shift by a cell.

**The process.** For every class c, with t the largest weight scored so far, y_k = (alpha_k / t)^(1/4) is modelled as

    y = mu + f + noise,   f ~ GP(0, s^2 k),   k(i, j) = (1 + sqrt(3) r) exp(-sqrt(3) r),   r = |phi_i - phi_j| / length,

the Matern kernel of order 3/2 (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, eq. 4.17). The
fourth root lies between the weight, whose few large values would drown the others, and its logarithm, which tells 1e-9
from 1e-12 though no map shows either. mu is the mean of generalised least squares and s^2 its maximum-likelihood
estimate; length and noise maximise the marginal likelihood (ibid., eq. 5.8) on a grid. Classes differ in y, not in
masks: they share length and noise, by the sum of their likelihoods.

**The prediction.** With m and v the mean and variance of mu + f given the channels scored (ibid., eqs. 2.25 and 2.26),
alpha / t is the fourth power of a Gaussian, whose mean is m^4 + 6 m^2 v + 3 v^2. The last term counts only where m is
near zero, where the Gaussian reaches below zero and y cannot; it is left out: alpha / t = m^4 + 6 m^2 v.

**What to score next.** The channels whose weight leaves most open in the map: |A_k - mean A_k|, since a constant does
not change a map that is min-maxed, times the standard deviation of alpha_k; summed over the classes after division by
the energy of each map.

**How wrong the map can be.** To first order an error of y is 4 t m^3 times as large in alpha, and the raw map is linear
in alpha. So the error of the raw map at feature resolution is Gaussian with covariance B' V B, B = diag(4 t m^3) A over
the channels that were not scored, and V is their posterior covariance, noise included, enlarged where the
standardised leave-one-out residuals of the scored channels (ibid., eqs. 5.10 to 5.12) say that it is too small. Maps
drawn from it are made non-negative and normalised as the map is; the estimate is a high quantile of their largest
difference from the map. Weights that are means over some of a method's samples add their own variances to the
covariance.
"""

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskModel", "Prediction"]

Floats = NDArray[np.floating[Any]]

_BLUR: Final = 0.7
_BLUR_ENDS: Final = 1e-4
_LENGTHS: Final = (0.7, 1.0, 1.4, 2.0)  # times the median distance between masks
_NOISES: Final = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # variances, over s^2
_MASK_GRID: Final = 14  # cells a side; finer masks are averaged down to it
_ERROR_GRID: Final = 7  # the same of the maps drawn for the estimate
_FOR_LIKELIHOOD: Final = 64  # scored channels that choose length and noise
_FOR_COVARIANCE: Final = 384  # channels whose errors are correlated in the estimate; the others are independent
_SAFETY: Final = 2.0  # factor on the deviations of the estimate, found on real photographs (benchmarks/calibration.py)
_DRAWS: Final = 96
_QUANTILE: Final = 0.97
_ROOT: Final = 4
_FEWEST: Final = 8  # scored channels below which nothing is said of the error


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The weights of all channels, given those scored.

    Attributes:
        weights: float64 [C,K]; those scored as they are.
        deviation: float64 [C,K], standard deviation of the others; 0 where scored.
    """

    weights: NDArray[np.float64]
    deviation: NDArray[np.float64]


class MaskModel:
    """The process over the masks of one image."""

    def __init__(self, masks: NDArray[np.float32]) -> None:
        """Take the masks of the live channels, float32 [C,h,w], as the scorer multiplies with them (gated, scaled)."""
        rows, columns = (_smoothing(size) for size in masks.shape[1:])
        rooted = np.sign(masks) * np.sqrt(np.abs(masks))
        self._features = np.ascontiguousarray((rows @ rooted @ columns.T).reshape(len(masks), -1))
        self._squares = np.einsum("kd,kd->k", self._features, self._features)
        self._unit = 1.0
        some = np.linspace(0, len(masks) - 1, min(len(masks), 2 * _FOR_LIKELIHOOD)).astype(np.intp)
        apart = self._squared_distances(some, some)[np.triu_indices(len(some), 1)]
        self._unit = max(float(np.median(apart)) if apart.size else 0.0, 1e-12)
        self._given: _Given | None = None

    def condition(self, scored: NDArray[np.intp], weights: NDArray[np.float64]) -> Prediction:
        """Take in the weights scored so far and predict the others.

        Args:
            scored: intp [n], which channels.
            weights: float64 [n,K], positive.
        """
        top = weights.max(axis=0)
        underflown = top <= np.finfo(np.float32).tiny  # a class without a score: nothing to predict from
        y = (weights / top) ** (1 / _ROOT)
        distances = self._squared_distances(scored, scored)
        length, noise = self._most_likely(distances, y)
        kernel = _matern(distances, length).astype(np.float64)
        inverse = np.linalg.inv(kernel + noise * np.eye(len(scored)))
        ones = inverse.sum(axis=1)
        mu = ones @ y / ones.sum()
        pulled = inverse @ (y - mu)
        spread = np.maximum(np.einsum("nk,nk->k", y - mu, pulled) / len(scored), 1e-12)
        cross = _matern(self._squared_distances(slice(None), scored), length)
        mean = np.maximum(mu + cross @ pulled.astype(np.float32), 0).astype(np.float64)
        explained = np.einsum("cn,cn->c", cross @ inverse.astype(np.float32), cross)
        variance = np.maximum(1 - explained, 0).astype(np.float64)
        # Leave-one-out residuals over their own standard deviations: 1 where the variances are right.
        surprise = np.sqrt((pulled**2 / np.diag(inverse)[:, None]).mean(axis=0) / spread)
        self._given = _Given(
            scored, length, noise, spread, top, mean, variance, cross, inverse.astype(np.float64), surprise
        )
        v = variance[:, None] * spread
        predicted = top * (mean**4 + 6 * mean**2 * v)
        deviation = top * _deviation_of_power(mean, v)
        predicted[:, underflown] = 0
        deviation[:, underflown] = 0
        predicted[scored] = weights
        deviation[scored] = 0
        return Prediction(predicted, deviation)

    def map_error(
        self,
        prediction: Prediction,
        summands: NDArray[np.float32],
        offset: Floats,
        sampling: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Largest difference that the finished map is likely to have from the exact one: float64 [K], in [0,1].

        It is 1 where nothing can be said: with fewer than 8 channels scored, and for a class whose scores underflow.

        Args:
            prediction: what `condition` returned last.
            summands: float32 [C,h,w], what the weights are summed over.
            offset: float [K], subtracted from every weight (the baseline).
            sampling: float64 [n,K], standard errors of the weights given to `condition`; None: they are exact.
        """
        given = self._given
        assert given is not None
        rows, columns = (_pooling(size, _ERROR_GRID) for size in summands.shape[1:])
        cells = (rows @ summands @ columns.T).reshape(len(summands), -1)
        open_channels = np.setdiff1d(np.arange(len(cells)), given.scored)
        generator = np.random.default_rng(0)
        errors = np.ones(len(given.top))
        if len(given.scored) < _FEWEST:
            return errors
        sizes = np.sqrt(np.einsum("cp,cp->c", cells, cells))
        for k, top in enumerate(given.top):
            if top <= np.finfo(np.float32).tiny:
                continue
            slope = _ROOT * top * given.mean[:, k] ** (_ROOT - 1)
            by_importance = open_channels[np.argsort(-(slope * sizes)[open_channels], kind="stable")]
            together, alone = by_importance[:_FOR_COVARIANCE], by_importance[_FOR_COVARIANCE:]
            b = (slope[together, None] * cells[together]).astype(np.float32)
            kernel = _matern(self._squared_distances(together, together), given.length)
            known = given.cross[together].T @ b
            covariance = (b.T @ (kernel @ b) + given.noise * (b.T @ b)).astype(np.float64)
            covariance -= known.T @ given.inverse @ known
            spread = slope[alone] * np.sqrt(given.variance[alone] + given.noise)
            b = (spread[:, None] * cells[alone]).astype(np.float32)
            covariance += b.T @ b
            covariance *= given.spread[k] * (_SAFETY * max(1.0, given.surprise[k])) ** 2
            if sampling is not None:
                b = sampling[:, k, None] * cells[given.scored]
                covariance += b.T @ b
            values, vectors = np.linalg.eigh(covariance)
            raw = (prediction.weights[:, k] - offset[k]) @ cells
            draws = generator.standard_normal((_DRAWS, len(raw))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
            differences = np.abs(_finished(raw + draws) - _finished(raw)).max(axis=1)
            errors[k] = min(float(np.quantile(differences, _QUANTILE)), 1.0)
        return errors

    def _squared_distances(self, some: Any, others: Any) -> NDArray[np.float32]:
        """|phi_i - phi_j|^2 in units of the median, float32 [len(some), len(others)]."""
        products = self._features[some] @ self._features[others].T
        apart = self._squares[some][:, None] + self._squares[others] - 2 * products
        distances: NDArray[np.float32] = np.maximum(apart, 0) / np.float32(self._unit)
        return distances

    def _most_likely(self, distances: NDArray[np.float32], y: NDArray[np.float64]) -> tuple[float, float]:
        """Length and noise of the largest marginal likelihood, over at most `_FOR_LIKELIHOOD` of the channels."""
        some = np.linspace(0, len(y) - 1, min(len(y), _FOR_LIKELIHOOD)).astype(np.intp)
        y, distances = y[some], distances[np.ix_(some, some)]
        best = (-np.inf, _LENGTHS[0], _NOISES[0])
        for length in _LENGTHS:
            values, vectors = np.linalg.eigh(_matern(distances, length).astype(np.float64))
            turned, ones = vectors.T @ y, vectors.sum(axis=0)
            for noise in _NOISES:
                precision = 1 / (np.maximum(values, 0) + noise)
                mu = (ones * precision) @ turned / (ones * precision @ ones)
                residual = turned - ones[:, None] * mu
                spread = np.maximum((residual**2 * precision[:, None]).mean(axis=0), 1e-12)
                likelihood = y.shape[1] * np.log(precision).sum() - len(y) * np.log(spread).sum()
                best = max(best, (float(likelihood), length, noise))
        return best[1:]


@dataclasses.dataclass(frozen=True)
class _Given:
    """The process given the channels `scored`; C channels, n of them scored, K classes."""

    scored: NDArray[np.intp]
    length: float
    noise: float
    spread: NDArray[np.float64]  # [K], s^2
    top: NDArray[np.float64]  # [K], t
    mean: NDArray[np.float64]  # [C,K]
    variance: NDArray[np.float64]  # [C], over s^2
    cross: NDArray[np.float32]  # [C,n], kernel between all and those scored
    inverse: NDArray[np.float64]  # [n,n]
    surprise: NDArray[np.float64]  # [K]


def _matern(squared_distances: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    r = np.sqrt(squared_distances)
    r *= np.float32(np.sqrt(3) / length)
    kernel: NDArray[np.float32] = (1 + r) * np.exp(-r)
    return kernel


def _deviation_of_power(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the fourth power of a Gaussian."""
    m2, v = mean**2, variance
    deviation: NDArray[np.float64] = np.sqrt(v * (16 * m2**3 + v * (168 * m2**2 + v * (384 * m2 + 96 * v))))
    return deviation


def _smoothing(size: int) -> NDArray[np.float32]:
    """Blur by 0.7 cells, of the coarser grid where there is one: float32 [min(size, 14), size]."""
    pooling = _pooling(size, _MASK_GRID)
    centre = np.arange(len(pooling))
    blur = np.exp(-((centre[:, None] - centre) ** 2) / (2 * _BLUR**2))
    blur[blur < _BLUR_ENDS] = 0  # beyond, products would be denormal numbers, which take a CPU twenty times as long
    smoothing: NDArray[np.float32] = (blur / blur.sum(axis=1, keepdims=True)).astype(np.float32) @ pooling
    return smoothing


def _pooling(size: int, largest: int) -> NDArray[np.float32]:
    """Averages over equal parts of an axis, float32 [min(size, largest), size]; the identity where they are cells."""
    parts = min(size, largest)
    edges = np.linspace(0, size, parts + 1)
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    pooling: NDArray[np.float32] = (np.maximum(overlap, 0) * (parts / size)).astype(np.float32)
    return pooling


def _finished(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """ReLU and min-max over the last axis."""
    positive = np.maximum(raw, 0)
    low = positive.min(axis=-1, keepdims=True)
    finished: NDArray[np.float64] = (positive - low) / np.maximum(np.ptp(positive, axis=-1, keepdims=True), 1e-30)
    return finished
