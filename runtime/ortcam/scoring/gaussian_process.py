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
estimate; length and noise are means over a grid (of their logarithms), weighed by the marginal likelihood (ibid., eq.
5.8). Classes differ in y, not in masks: they share length and noise, by the sum of their likelihoods. Lengths are
multiples of the median distance between masks. Where most masks are equal, that is rounding; so it counts as 3 % of the
root mean square of |phi| at least.

Scores differ in their last bits from one batch size, thread count or provider to the next. So what is predicted is a
continuous function of them: the likelihood weighs the grid and picks no point of it, and which scored channels are left
out where they are many depends on their numbers alone. In a stream one thing is not continuous: whether earlier frames
count (`prediction.recalled`).

**The prediction.** With m and v the mean and variance of mu + f given the channels scored (ibid., eqs. 2.25 and 2.26),
alpha / t is the fourth power of a Gaussian, whose mean is m^4 + 6 m^2 v + 3 v^2. The last term counts only where m is
near zero, where the Gaussian reaches below zero and y cannot; it is left out: alpha / t = m^4 + 6 m^2 v.

**Scores of either sign** (a difference, a logit, a regression's output) have no root. There y_k = (alpha_k - a) / t,
with a the mean of the weights scored and t the largest distance from it. What is predicted is a + t m. Where the fourth
power has the slope 4 t m^3, the line has t. A score that is the same for every mask so far (t = 0) is predicted to be
the same for all.

**What to score next.** The channels whose weight leaves most open in the map: |A_k - mean A_k|, since a constant does
not change a map that is min-maxed, times the standard deviation of alpha_k; summed over the classes after division by
the energy of each map.

**How wrong the map can be.** To first order an error of y is 4 t m^3 times as large in alpha, and the raw map is linear
in alpha. So the error of the raw map at feature resolution is Gaussian with covariance B' V B, B = diag(4 t m^3) A over
the channels that were not scored, and V is their posterior covariance, noise included, enlarged where the
standardised leave-one-out residuals of the scored channels (ibid., eqs. 5.10 to 5.12) say that it is too small. Maps
drawn from it (by the symmetric root of the covariance, which no rounding turns) are made non-negative and normalised as
the map is; the estimate is a high quantile of their largest difference from the map. Weights that are means over some
of a method's samples add their own variances to the covariance.
"""

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.scoring.prediction.grids import pooling, smoothing
from ortcam.scoring.prediction.links import Line, Power
from ortcam.scoring.prediction.posterior import Posterior, Prediction
from ortcam.scoring.prediction.recalled import Before, recall

__all__ = ["MaskModel", "Prediction", "estimation_work", "prediction_work"]

Floats = NDArray[np.floating[Any]]

_LENGTHS: Final = (0.7, 1.0, 1.4, 2.0)  # times the median distance between masks
_NOISES: Final = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # variances, over s^2
_ERROR_GRID: Final = 7  # the same of the maps drawn for the estimate
_FOR_LIKELIHOOD: Final = 64  # scored channels, about, that say length and noise
_FOR_PREDICTION: Final = 512  # scored channels, about, that the others are predicted from, where those are many
_FOR_FEW: Final = 128  # the same where they are few
_FOR_EACH: Final = 4  # more of them for each of the others
_FOR_COVARIANCE: Final = 384  # channels whose errors are correlated in the estimate; the others are independent
# Factors on the deviations of the estimate, found on real photographs (benchmarks/calibration.py) and on frames that
# follow others (benchmarks/frontier/stream.py).
_SAFETY: Final = 2.0
_SAFETY_OF_FRAMES: Final = 3.0
_DRAWS: Final = 96
_QUANTILE: Final = 0.97
# Over the largest variance, so that the root of a variance that is next to zero is no matter of rounding.
_LEAST_VARIANCE: Final = 1e-4
_LEAST_UNIT: Final = 1e-3  # over the mean of |phi|^2
_LEAST_SPREAD: Final = 1e-12  # s^2
_FEWEST: Final = 8  # scored channels below which nothing is said of the error
_GOLDEN: Final = 0.6180339887498949


def prediction_work(scored: int, channels: int, recalled: int = 0) -> float:
    """Multiplications, about, that `MaskModel.condition` takes."""
    most = _given_for(channels - scored)
    given, own = min(scored + recalled, most), min(scored, most) if recalled else 0
    eigenvalues = 10 * len(_LENGTHS) * min(scored, _FOR_LIKELIHOOD) ** 3
    return eigenvalues + 2 * (given**3 + own**3) + max(channels - scored, 0) * given * (given + 200)


def _given_for(others: int) -> int:
    """About how many of the scored channels that many others are predicted from, so that few cost little."""
    return min(max(_FOR_FEW, _FOR_EACH * others), _FOR_PREDICTION)


def estimation_work(channels: int, classes: int) -> float:
    """Multiplications, about, that `MaskModel.map_error` takes."""
    together = min(channels, _FOR_COVARIANCE)
    cells = _ERROR_GRID**2
    return together**2 * 200 + classes * (together**2 * cells + 20 * cells**3)


class MaskModel:
    """The process over the masks of one image."""

    def __init__(self, masks: NDArray[np.float32]) -> None:
        """Take the masks of the live channels, float32 [C,h,w], as the scorer multiplies with them (gated, scaled)."""
        rows, columns = (smoothing(size) for size in masks.shape[1:])
        rooted = np.sign(masks) * np.sqrt(np.abs(masks))
        self._features = np.ascontiguousarray((rows @ rooted @ columns.T).reshape(len(masks), -1))
        self._squares = np.einsum("kd,kd->k", self._features, self._features)
        self._unit = 1.0
        some = np.linspace(0, len(masks) - 1, min(len(masks), 2 * _FOR_LIKELIHOOD)).astype(np.intp)
        apart = self._squared_distances(some, some)[np.triu_indices(len(some), 1)]
        median = float(np.median(apart)) if apart.size else 0.0
        self._unit = max(median, _LEAST_UNIT * float(self._squares.sum()) / max(len(masks), 1), 1e-12)

    @property
    def features(self) -> NDArray[np.float32]:
        """phi: float32 [C,D]."""
        return self._features

    @property
    def unit(self) -> float:
        """The median of |phi_i - phi_j|^2, and where most masks are equal 0.001 of the mean of |phi|^2."""
        return self._unit

    def condition(
        self,
        scored: NDArray[np.intp],
        weights: NDArray[np.float64],
        *,
        signed: bool = False,
        before: Before | None = None,
        recalls: bool | None = None,
    ) -> Prediction:
        """Predict the weights of all channels from those scored so far.

        Args:
            scored: intp [n], which channels.
            weights: float64 [n,K], positive.
            signed: whether they may have either sign.
            before: what earlier frames say, in a stream: see `prediction.recalled`.
            recalls: whether that counts; None: it is found out here.
        """
        channels, link = len(self._features), Line(weights) if signed else Power(weights)
        modelled = np.zeros((channels, weights.shape[1]))
        modelled[scored] = y = link.y(weights)
        recalled = None if before is None else recall(before, scored, y, signed=signed)
        most = _given_for(channels - len(scored))
        given, y = scored[used := _some(scored, most)], y[used]
        distances = self._squared_distances(given, given)
        length, noise = self._likely(given, distances, y)
        noises = np.full(len(given), noise)
        if recalled is not None and recalls is None:
            recalls = recalled.helps(used, _left_out(_matern(distances, length), noise, y))
        recalled = recalled if recalls else None
        if recalled is not None:
            again = recalled.some(_some(recalled.channels, max(most - len(given), 1)))
            given, noises = np.append(given, again.channels), np.append(noises, noise + again.noise)
            y = np.concatenate([y, link.allowed(again.y)])
            distances = self._squared_distances(given, given)
        kernel = _matern(distances, length).astype(np.float64)
        inverse = np.asarray(np.linalg.inv(kernel + np.diag(noises)), np.float64)
        open_ = np.setdiff1d(np.arange(channels), scored)
        mu = _level(inverse, y)
        pulled = inverse @ (y - mu)
        spread = np.maximum(np.einsum("nk,nk->k", y - mu, pulled) / len(given), _LEAST_SPREAD)
        # Leave-one-out residuals over their own standard deviations: 1 where the variances are right.
        surprise: NDArray[np.float64] = np.sqrt((pulled**2 / np.diag(inverse)[:, None]).mean(axis=0) / spread)
        cross = _matern(self._squared_distances(open_, given), length)
        least = np.zeros(len(open_))
        if recalled is not None:  # what a channel has for itself was seen, too
            own = np.searchsorted(open_, again.channels)
            cross[own, np.arange(len(used), len(given))] += np.float32(noise)
            least[own] = -noise
        mean = link.allowed(mu + cross @ pulled.astype(np.float32)).astype(np.float64)
        explained = np.einsum("cn,cn->c", cross @ inverse.astype(np.float32), cross)
        variance = np.maximum(1 - explained, least).astype(np.float64)
        safety = _SAFETY if before is None else _SAFETY_OF_FRAMES
        posterior = Posterior(
            *(open_, given, scored, length, noise, spread, link.top, *link.slopes(mean)),
            *(mean, variance, cross, inverse, surprise, recalls, recalled, safety),
        )
        return _predicted(posterior, link, weights, modelled)

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
            prediction: of `condition`.
            summands: float32 [C,h,w], what the weights are summed over.
            offset: float [K], subtracted from every weight (the baseline).
            sampling: float64 [n,K], standard errors of the weights given to `condition`; None: they are exact.
        """
        posterior = prediction.posterior
        errors = np.ones(len(posterior.top))
        if len(posterior.scored) < _FEWEST:
            return errors
        rows, columns = (pooling(size, _ERROR_GRID) for size in summands.shape[1:])
        cells = (rows @ summands @ columns.T).reshape(len(summands), -1)
        unscored = self._unscored(posterior, cells)
        standard_normal = np.random.default_rng(0).standard_normal((_DRAWS, cells.shape[1]))
        for k, top in enumerate(posterior.top):
            if top <= np.finfo(np.float32).tiny:
                continue
            covariance = unscored.covariance(k)
            if sampling is not None:
                b = sampling[:, k, None] * cells[posterior.scored]
                covariance += b.T @ b
            raw = (prediction.weights[:, k] - offset[k]) @ cells
            errors[k] = _largest_difference(raw, covariance, standard_normal)
        return errors

    def _unscored(self, posterior: Posterior, cells: Floats) -> "_Unscored":
        """The channels that were not scored, those that matter most with their correlations.

        Args:
            posterior: given the scores.
            cells: float [C,P], what the weights are summed over, on a coarse grid.
        """
        slopes = posterior.slopes  # by place among the open channels
        sizes = np.sqrt(np.einsum("cp,cp->c", cells, cells))[posterior.open]
        by_importance = np.argsort(-(slopes.sum(axis=1) * sizes), kind="stable")
        together, alone = by_importance[:_FOR_COVARIANCE], by_importance[_FOR_COVARIANCE:]
        distances = self._squared_distances(posterior.open[together], posterior.open[together])
        return _Unscored(
            posterior,
            cells[posterior.open],
            slopes,
            together,
            alone,
            _matern(distances, posterior.length).astype(np.float64),
            posterior.cross[together].astype(np.float64),
        )

    def _squared_distances(self, some: Any, others: Any) -> NDArray[np.float32]:
        """|phi_i - phi_j|^2 in units of the median, float32 [len(some), len(others)]."""
        products = self._features[some] @ self._features[others].T
        apart = self._squares[some][:, None] + self._squares[others] - 2 * products
        distances: NDArray[np.float32] = np.maximum(apart, 0) / np.float32(self._unit)
        return distances

    def _likely(
        self, given: NDArray[np.intp], distances: NDArray[np.float32], y: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Length and noise: means of their logarithms over the grid, weighed by the marginal likelihood."""
        some = _some(given, _FOR_LIKELIHOOD)
        y, distances = y[some], distances[np.ix_(some, some)]
        likelihoods = np.empty((len(_LENGTHS), len(_NOISES)))
        for i, length in enumerate(_LENGTHS):
            values, vectors = np.linalg.eigh(_matern(distances, length).astype(np.float64))
            ones, turned = vectors.sum(axis=0), vectors.T @ y
            for j, noise in enumerate(_NOISES):
                precision = 1 / (np.maximum(values, 0) + noise)
                mu = (ones * precision) @ turned / (ones * precision @ ones)
                residual = turned - ones[:, None] * mu
                spread = np.maximum((residual**2 * precision[:, None]).mean(axis=0), _LEAST_SPREAD)
                likelihoods[i, j] = (y.shape[1] * np.log(precision).sum() - len(y) * np.log(spread).sum()) / 2
        shares = np.exp(likelihoods - likelihoods.max())
        shares /= shares.sum()
        length = np.exp(shares.sum(axis=1) @ np.log(_LENGTHS))
        return float(length), float(np.exp(shares.sum(axis=0) @ np.log(_NOISES)))


@dataclasses.dataclass(frozen=True)
class _Unscored:
    """The channels that were not scored, and how their errors go together; O of them, P cells."""

    posterior: Posterior
    cells: Floats  # [O,P]
    slopes: NDArray[np.float64]  # [O,K]
    together: NDArray[np.intp]  # those whose errors are correlated
    alone: NDArray[np.intp]  # the others
    kernel: NDArray[np.float64]  # among those that are
    cross: NDArray[np.float64]  # [.,n], of them and the channels that they are predicted from

    def covariance(self, k: int) -> NDArray[np.float64]:
        """The covariance of the error of the raw map of class k: float64 [P,P]."""
        posterior, together, alone = self.posterior, self.together, self.alone
        slope = posterior.unit[k] * self.slopes[:, k]
        b = slope[together, None] * self.cells[together]
        known = self.cross.T @ b
        covariance: NDArray[np.float64] = b.T @ (self.kernel @ b) + posterior.noise * (b.T @ b)
        covariance -= known.T @ posterior.inverse @ known
        deviation = slope[alone] * np.sqrt(posterior.variance[alone] + posterior.noise)
        b = (deviation[:, None] * self.cells[alone]).astype(np.float32)
        covariance += b.T @ b
        covariance *= posterior.spread[k] * (posterior.safety * max(1.0, posterior.surprise[k])) ** 2
        return covariance


def _predicted(
    posterior: Posterior, link: Power | Line, weights: NDArray[np.float64], modelled: NDArray[np.float64]
) -> Prediction:
    """The weights of all channels.

    Args:
        posterior: the process given the scores.
        link: of these.
        weights: float64 [n,K], those scored.
        modelled: float64 [C,K], y of those scored, which takes in that of the others.
    """
    open_, variance = posterior.open, np.maximum(posterior.variance, 0)[:, None] * posterior.spread
    predicted, deviation = np.zeros(modelled.shape), np.zeros(modelled.shape)
    predicted[open_], deviation[open_] = link.moments(posterior.mean, variance)
    predicted[posterior.scored], modelled[open_] = weights, posterior.mean
    return Prediction(predicted, deviation, modelled, posterior)


def _largest_difference(
    raw: NDArray[np.float64], covariance: NDArray[np.float64], standard_normal: NDArray[np.float64]
) -> float:
    """A high quantile of the largest difference of finished maps from the one of a raw map, in [0,1].

    Args:
        raw: float64 [P].
        covariance: float64 [P,P], of the errors.
        standard_normal: float64 [draws,P].
    """
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(values, 0) + _LEAST_VARIANCE * max(values[-1], 0))
    draws = standard_normal @ (vectors * root) @ vectors.T
    differences = np.abs(_finished(raw + draws) - _finished(raw)).max(axis=1)
    return min(float(np.quantile(differences, _QUANTILE)), 1.0)


def _level(inverse: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """mu, float64 [K]: what y [n,K] is about, by generalised least squares."""
    ones = inverse.sum(axis=1)
    level: NDArray[np.float64] = ones @ y / ones.sum()
    return level


def _left_out(kernel: NDArray[np.float32], noise: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each y differs by from what the others make of it, float64 [n,K] (ibid., eq. 5.12)."""
    inverse = np.asarray(np.linalg.inv(kernel.astype(np.float64) + noise * np.eye(len(kernel))), np.float64)
    left: NDArray[np.float64] = inverse @ (y - _level(inverse, y)) / np.diag(inverse)[:, None]
    return left


def _some(channels: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Places of about as many of the channels as wanted, spread over all, intp [n]; all where they are no more.

    Whether a channel is among them depends on its own number alone, so that another channel in place of one does not
    move the others.
    """
    if len(channels) <= most:
        return np.arange(len(channels))
    chosen = np.flatnonzero((channels * _GOLDEN) % 1 < most / len(channels))
    return chosen if len(chosen) else np.arange(most)


def _matern(squared_distances: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    r = np.sqrt(squared_distances)
    r *= np.float32(np.sqrt(3) / length)
    kernel: NDArray[np.float32] = (1 + r) * np.exp(-r)
    return kernel


def _finished(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """ReLU and min-max over the last axis."""
    positive = np.maximum(raw, 0)
    low = positive.min(axis=-1, keepdims=True)
    finished: NDArray[np.float64] = (positive - low) / np.maximum(np.ptp(positive, axis=-1, keepdims=True), 1e-30)
    return finished
