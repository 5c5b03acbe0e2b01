"""Means with bootstrap intervals, and paired differences between methods."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ortcam.evaluation.metrics import Metric

__all__ = ["Difference", "Interval", "adcc_intervals", "differences", "intervals"]

Floats = NDArray[np.float64]

RESAMPLES: Final = 5000
LEVEL: Final = 0.95
# With fewer images a bootstrap interval would exclude zero by chance far too often.
FEWEST: Final = 10
_EXACT: Final = 50  # pairs up to which p is exact without ties
_EXACT_WITH_TIES: Final = 13  # and with ties: all 2^13 signs are tried
# Numbers that a bootstrap may have in memory at once.
_AT_ONCE: Final = 4_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval (percentiles, over images); None with fewer than 10 images."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two methods on the same images, first minus second.

    Attributes:
        first: name of an entry.
        second: name of the other.
        interval: of the mean difference.
        p: of Wilcoxon's signed-rank test, two-sided; 1 if all differences are zero.
        p_adjusted: adjusted over all pairs of this metric (Benjamini and Hochberg 1995).
        effect: matched-pairs rank-biserial correlation in [-1,1]: the share of the ranks in favour of the first, minus
            the share in favour of the second (Kerby 2014).
        better: the entry that is better; None unless the interval excludes zero, `p_adjusted` is below 0.05, and both
            point the same way.
        disagrees: whether only one of the two, interval or test, finds a better entry, or each finds another.
    """

    first: str
    second: str
    interval: Interval
    p: float
    p_adjusted: float
    effect: float
    better: str | None
    disagrees: bool

    @property
    def worse(self) -> str | None:
        """The entry that the better one is better than; None without a better one."""
        if self.better is None:
            return None
        return self.second if self.better == self.first else self.first


def intervals(values: Mapping[str, Floats], *, seed: int) -> dict[str, Interval]:
    """Compute the mean of each entry, with its interval.

    Args:
        values: float64 [n] by entry, the same images in the same order.
        seed: of the resampling, which draws the same images for all entries.
    """
    names = list(values)
    stacked = np.stack([values[name] for name in names])
    return dict(zip(names, _bootstrap([stacked], np.mean, seed), strict=True))


def adcc_intervals(parts: Mapping[str, Floats], *, seed: int) -> dict[str, Interval]:
    """Compute the ADCC of the means, as it was published, with its interval.

    Args:
        parts: float64 [3,n] by entry: coherency, complexity and Average Drop in percent.
        seed: of the resampling.
    """
    stacked = np.stack(list(parts.values()), axis=1)
    return dict(zip(parts, _bootstrap(list(stacked), _adcc_of_means, seed), strict=True))


def differences(
    values: Mapping[str, Floats], metric: Metric, *, seed: int, adcc_parts: Mapping[str, Floats] | None = None
) -> list[Difference]:
    """Compare each pair of entries.

    Args:
        values: float64 [n] by entry, the same images in the same order.
        metric: says which side is better.
        seed: of the resampling.
        adcc_parts: as `adcc_intervals` takes them. The interval is then that of the difference in ADCC of the means.
    """
    pairs = list(itertools.combinations(values, 2))
    if not pairs:
        return []
    apart = np.stack([values[first] - values[second] for first, second in pairs])
    if adcc_parts is None:
        found = _bootstrap([apart], np.mean, seed)
    else:
        stacked = np.stack([np.concatenate([adcc_parts[first], adcc_parts[second]]) for first, second in pairs], axis=1)
        found = _bootstrap(list(stacked), _adcc_apart, seed)
    tests = [_wilcoxon(row) for row in apart]
    adjusted = stats.false_discovery_control([p for p, _ in tests])
    return [
        Difference(first, second, interval, p, float(q), effect, *_judged(first, second, interval, q, effect, metric))
        for (first, second), interval, (p, effect), q in zip(pairs, found, tests, adjusted, strict=True)
    ]


def _judged(
    first: str, second: str, interval: Interval, p_adjusted: float, effect: float, metric: Metric
) -> tuple[str | None, bool]:
    """The better entry, if interval and test agree on it, and whether they disagree."""
    if metric.better is None or interval.low is None or interval.high is None:
        return None, False
    # The side whose values are larger, 1 for the first: by the mean, and by the ranks. 0: not decided.
    by_interval = int(interval.low > 0) - int(interval.high < 0)
    by_test = int(np.sign(effect)) if p_adjusted < 1 - LEVEL else 0
    if by_interval != by_test or by_interval == 0:
        return None, by_interval != by_test
    return (first if (by_interval > 0) == (metric.better == "higher") else second), False


def _bootstrap(samples: Sequence[Floats], statistic: Any, seed: int) -> list[Interval]:
    """Resample a statistic of m rows [m,n] over n images. All rows get the same images."""
    rows, count = samples[0].shape
    means = statistic(*samples, axis=-1)
    if count < FEWEST:
        return [Interval(float(mean), None, None, count) for mean in means]
    found = stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        batch=max(1, _AT_ONCE // (rows * count * len(samples))),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [
        Interval(float(mean), float(low), float(high), count)
        for mean, low, high in zip(means, found.low, found.high, strict=True)
    ]


def _adcc_of_means(coherency: Floats, complexity: Floats, drop: Floats, *, axis: int) -> Floats:
    parts = np.stack([coherency.mean(axis=axis), 100 - complexity.mean(axis=axis), 100 - drop.mean(axis=axis)])
    harmonic: Floats = np.where((parts > 0).all(axis=0), 3 / (1 / np.maximum(parts, 1e-300)).sum(axis=0), 0.0)
    return harmonic


def _adcc_apart(*parts: Floats, axis: int) -> Floats:
    apart: Floats = _adcc_of_means(*parts[:3], axis=axis) - _adcc_of_means(*parts[3:], axis=axis)
    return apart


def _wilcoxon(apart: Floats) -> tuple[float, float]:
    """Compute p and the rank-biserial correlation of paired differences; zero differences are left out."""
    kept = apart[apart != 0]
    if not kept.size:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(kept))
    effect = float((np.sign(kept) * ranks).sum() / ranks.sum())
    ties = len(np.unique(np.abs(kept))) < kept.size
    method: Any = "exact" if kept.size <= _EXACT and not ties else "asymptotic"
    if ties and kept.size <= _EXACT_WITH_TIES:
        method = stats.PermutationMethod()  # as few are all tried
    return float(stats.wilcoxon(kept, method=method).pvalue), effect
