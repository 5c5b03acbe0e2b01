"""The tally: what the masked passes of one image have given so far, as sums per channel."""

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import BundleError
from ortcam.methods import Plan

__all__ = ["Tally", "fade"]


class Tally:
    """Sums of the scores of each channel, and the sum of the gated maps, with what follows from them.

    C is the number of channels, K that of classes. With `weighting="logit-softmax"` the scores are logits, else they
    are probabilities, or with an `offset` any numbers.

    Attributes:
        count: float64 [C], samples of each channel; a sample may count in part.
        passes: forward passes made, padding left out.
        runs: runs of the scorer graph.
    """

    def __init__(
        self, channels: int, shape: tuple[int, int, int], plan: Plan, offset: NDArray[np.float64] | None = None
    ) -> None:
        """Begin with nothing.

        Args:
            channels: C.
            shape: K, H, W: of the gated sum.
            plan: of the method.
            offset: float64 [K], what is subtracted from scores that may have either sign, to give a weight; None: no
                score is negative. Where a softmax weighs, scores may have either sign anyway.
        """
        self.soft = plan.weighting == "logit-softmax"
        self.offset = None if self.soft else offset
        self._samples = plan.samples
        self._shape = shape
        self.count = np.zeros(channels)
        self.passes = 0
        self.runs = 0
        self._sum = np.zeros((channels, shape[0]))
        self._squares = np.zeros((channels, shape[0]))
        self._gated: NDArray[np.float64] | None = None
        self._reference = np.full(shape[0], -np.inf)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """The channels with at least one pass: bool [C]."""
        scored: NDArray[np.bool_] = self.count > 0
        return scored

    def is_complete(self, active: NDArray[np.bool_]) -> bool:
        """Whether all active channels, bool [C], have all their samples."""
        return bool((self.count[active] == self._samples).all())

    def add(self, channels: NDArray[np.int64], values: NDArray[np.float64], worth: NDArray[np.float64]) -> None:
        """Add the scores of one run of the graph.

        Args:
            channels: int64 [n], of each masked image; a channel may be there several times.
            values: float64 [n,K], probabilities or logits.
            worth: float64 [n], how much each of them counts, in [0,1].
        """
        np.add.at(self._sum, channels, worth[:, None] * values)
        np.add.at(self.count, channels, worth)
        if self._samples > 1:
            np.add.at(self._squares, channels, worth[:, None] * values**2)
        self.passes += len(channels)
        self.runs += 1

    def add_gated(self, partial: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Add the gated maps of one run, each weighed by its score.

        The graph weighs by the softmax over its own chunk where logits weigh. Sums over chunks are brought to one
        reference logit.

        Args:
            partial: float32 [K,H,W].
            logits: float32 [B,K], of the run, padding included; only looked at where logits weigh.

        Raises:
            BundleError: the graph gave something else.
        """
        if partial.dtype != np.float32 or partial.shape != self._shape:
            raise BundleError(
                f"partial_maps are {partial.dtype} {list(partial.shape)}; accepted is float32 {self._shape}"
            )
        if self._gated is None:
            self._gated = np.zeros(partial.shape)
        if not self.soft:
            self._gated += partial
            return
        chunk_reference = _log_sum_exp(logits.astype(np.float64))
        reference = np.maximum(self._reference, chunk_reference)
        self._gated *= np.exp(self._reference - reference)[:, None, None]
        self._gated += partial * np.exp(chunk_reference - reference)[:, None, None]
        self._reference = reference

    def means(self, channels: NDArray[np.intp] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean scores of some scored channels: float64 [n,K]."""
        return self._sum[channels] / self.count[channels, None]

    def positive_weights(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The channels scored, intp [n], and their weights before the baseline is subtracted, float64 [n,K].

        They are positive, unless scores may have either sign. Of a softmax over channels the numerator, divided by the
        largest of them.
        """
        channels = np.flatnonzero(self.count)
        mean = self.means(channels)
        if self.offset is not None:
            return channels, mean
        if self.soft:
            mean = np.exp(mean - mean.max(axis=0, initial=-np.inf))
        return channels, np.maximum(mean, np.finfo(np.float32).tiny)

    def sampling_errors(self) -> NDArray[np.float64]:
        """Standard errors of the positive weights of the scored channels: float64 [n,K], as `positive_weights`.

        Zero where all samples were made.
        """
        channels, weights = self.positive_weights()
        error = self._mean_error(channels)
        return error * weights if self.soft else error

    def relative_error(self, channels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Standard error of the weights of some channels, over the larger of a weight and the mean weight: [n,K].

        The absolute error of a logit is that of its exponential, relative to it.
        """
        error = self._mean_error(channels)
        if self.soft:
            return error
        of_channels, everywhere = self._sizes(channels), self._sizes(self.scored).mean(axis=0)
        relative: NDArray[np.float64] = error / np.maximum(
            np.maximum(of_channels, everywhere), np.finfo(np.float64).tiny
        )
        return relative

    def _sizes(self, channels: NDArray[np.intp] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """How large the weights of some scored channels are, float64 [n,K]: the mean scores, where none is negative."""
        return self.means(channels) if self.offset is None else np.abs(self.means(channels) - self.offset)

    def standard_error(self) -> NDArray[np.float64] | None:
        """The largest relative error over channels, float64 [K]; None where all samples were made."""
        if not self.scored.any() or (self.count[self.scored] == self._samples).all():
            return None
        largest: NDArray[np.float64] = self.relative_error(np.flatnonzero(self.scored)).max(axis=0)
        return largest

    def _mean_error(self, channels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Standard error of the mean scores of some channels: float64 [n,K].

        The samples are drawn without replacement from the N that the method has, whose mean is what is wanted: the
        error is that of a finite population and vanishes with the last of them (Cochran, "Sampling Techniques", 1977,
        eq. 2.20). After a single sample it is taken to be as large as the weight, of a logit 1.
        """
        count = self.count[channels, None].astype(np.float64)
        mean = self._sum[channels] / count
        variance = np.maximum(self._squares[channels] / count - mean**2, 0) * count / np.maximum(count - 1, 1)
        single = (count == 1) & (self._samples > 1)
        error: NDArray[np.float64] = np.where(
            single, 1.0 if self.soft else self._sizes(channels), np.sqrt(variance / count * (1 - count / self._samples))
        )
        return error

    def gated_sum(self, predicted: NDArray[np.float64] | None = None) -> NDArray[np.float64] | None:
        """The sum of the gated maps, float64 [K,H,W]; None where there is none.

        Where logits weigh it is in units of exp(reference logit): `softmax_scale` brings it to the sum of all.

        Args:
            predicted: the same of channels that were not scored, weighed by positive weights.
        """
        if predicted is None or self._gated is None:
            return self._gated if predicted is None else predicted
        if self.soft:
            predicted *= np.exp(self._largest() - self._reference)[:, None, None]
        return self._gated + predicted

    def softmax_scale(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        """What brings the gated sum from the reference logit, by way of the largest logit, to the sum of all: [K].

        Args:
            total: float64 [K], sum of the positive weights.
        """
        scale: NDArray[np.float64] = np.exp(self._reference - self._largest()) / total
        return scale

    def _largest(self) -> NDArray[np.float64]:
        largest: NDArray[np.float64] = self.means(self.scored).max(axis=0)
        return largest


def fade(values: NDArray[np.float64], threshold: float, width: float) -> NDArray[np.float64]:
    """0 up to a threshold, 1 from (1 + width) times it on, linear between: a decision that no rounding turns round."""
    if threshold <= 0:
        return np.ones_like(values)
    with np.errstate(invalid="ignore"):
        faded: NDArray[np.float64] = np.clip((values / threshold - 1) / width, 0, 1)
    faded[np.isnan(faded)] = 1
    return faded


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log sum exp over axis 0, float64 [N,K] -> [K]."""
    top = values.max(axis=0)
    total: NDArray[np.float64] = top + np.log(np.exp(values - top).sum(axis=0))
    return total
