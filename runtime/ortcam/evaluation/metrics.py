"""Metrics of faithfulness and localisation as functions of arrays, and how to read their values.

Notation: X is the preprocessed image [C,H,W], M its map in [0,1], and c the class that the model gives the clean image.
Y is the confidence in c on X, O the confidence in c on M * X. All values are percentages, apart from areas under curves
of values that are no probabilities (a score, a regression): these are means of the values, in their own unit.

- Average Drop: max(0, Y - O) / Y. Increase in Confidence: [O > Y]. Both Chattopadhay et al., "Grad-CAM++", WACV 2018.
- Average Gain: max(0, O - Y) / (1 - Y). Zhang et al., "Opti-CAM", 2023.
- Win: the method with the highest O on an image; methods that tie share it (Grad-CAM++).
- Insertion and deletion: area under the confidence while pixels appear or vanish in the order of the map (Petsiuk et
  al., "RISE", BMVC 2018). Missing pixels are zeros (the mean colour), or those of a blurred image.
- Coherency: (Pearson(M(X), M(M * X)) + 1) / 2; Complexity: mean of M; ADCC: 3 / (1 / Coherency + 1 / (1 - Complexity) +
  1 / (1 - Average Drop)). Poppi et al., "Revisiting the Evaluation of Class Activation Mapping", CVPR workshops 2021.
- Energy pointing game: sum of M in the boxes by the sum of M (Wang et al., "Score-CAM", CVPR workshops 2020). Pointing
  game: whether the largest value of M lies in a box (Zhang et al., "Top-down Neural Attention", ECCV 2016; no margin).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ortcam.errors import OptionError
from ortcam.scoring.similarity import correlation

__all__ = [
    "FILLS",
    "METRICS",
    "Fill",
    "Metric",
    "adcc",
    "area_under",
    "average_drop",
    "average_gain",
    "blurred",
    "chosen",
    "coherency",
    "energy_in",
    "hits",
    "pixel_ranks",
    "share_changed",
    "shares",
    "top_half",
]

Fill = Literal["zero", "blur"]
FILLS: Final[tuple[Fill, ...]] = ("zero", "blur")

# RISE's kernel: a point in 11 x 11 pixels, blurred with sigma 5 and reflected at their edges. It is separable.
_BLUR: Final = gaussian_filter1d(np.eye(11)[5], 5.0)


_OF_CURVES: Final = ("insertion", "deletion")  # groups whose values are areas under curves


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is named and read.

    Attributes:
        name: in files, and in `--metrics`.
        title: for tables.
        better: which side is better; None if the metric is only context.
        group: metrics that are asked for and computed together.
        help: one line about what it says.
        unit: "percent"; or "value": that of the score.
    """

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    group: str
    help: str
    unit: Literal["percent", "value"] = "percent"

    def of_values(self) -> "Metric":
        """The same where values stand in the place of probabilities."""
        if self.group not in _OF_CURVES:
            return self
        help_ = self.help.replace("area under the confidence", "mean of the score", 1)
        return dataclasses.replace(self, unit="value", help=help_)


METRICS: Final = (
    Metric("average-drop", "Average Drop", "lower", "confidence", "confidence lost where the map is weak"),
    Metric("increase", "Increase in Confidence", "higher", "confidence", "images whose confidence rises under the map"),
    Metric("average-gain", "Average Gain", "higher", "confidence", "share of the possible confidence that is gained"),
    Metric("win", "Win", "higher", "confidence", "images on which this method keeps the most confidence"),
    Metric(
        "insertion-zero",
        "Insertion (zeros)",
        "higher",
        "insertion",
        "area under the confidence while pixels appear on the mean colour",
    ),
    Metric(
        "insertion-blur",
        "Insertion (blur)",
        "higher",
        "insertion",
        "area under the confidence while pixels appear on a blurred image",
    ),
    Metric(
        "deletion-zero",
        "Deletion (zeros)",
        "lower",
        "deletion",
        "area under the confidence while pixels turn to the mean colour",
    ),
    Metric(
        "deletion-blur",
        "Deletion (blur)",
        "lower",
        "deletion",
        "area under the confidence while pixels turn to a blurred image",
    ),
    Metric("coherency", "Coherency", "higher", "adcc", "how far the map of the masked image is the same map"),
    Metric("complexity", "Complexity", "lower", "adcc", "mean of the map: how much of the image it covers"),
    Metric("adcc", "ADCC", "higher", "adcc", "harmonic mean of coherency, 1 - complexity and 1 - Average Drop"),
    Metric("energy-pointing", "Energy pointing game", "higher", "pointing", "share of the map inside the boxes"),
    Metric("pointing", "Pointing game", "higher", "pointing", "images whose map has its largest value inside a box"),
    Metric(
        "box-area", "Box area", None, "pointing", "share of the image inside the boxes: what chance gives in both games"
    ),
)


def average_drop(clean: float, masked: float) -> float:
    """Compute max(0, Y - O) / Y in percent; 0 if Y is not positive, because nothing can be lost."""
    return 100 * max(0.0, clean - masked) / clean if clean > 0 else 0.0


def average_gain(clean: float, masked: float) -> float:
    """Compute max(0, O - Y) / (1 - Y) of probabilities, in percent; 0 if Y is 1, because nothing can be gained."""
    return 100 * max(0.0, masked - clean) / (1 - clean) if clean < 1 else 0.0


def coherency(saliency: NDArray[np.float32], again: NDArray[np.float32]) -> float:
    """Compute (Pearson(M(X), M(M * X)) + 1) / 2 in percent; 50 if one of the maps is flat, 100 if both are.

    Args:
        saliency: float32 [H,W], M(X).
        again: float32 [H,W], M(M * X), of the same method and class.
    """
    return 50 * (correlation(saliency.astype(np.float64), again.astype(np.float64)) + 1)


def adcc(coherency: float, complexity: float, drop: float) -> float:
    """Compute the harmonic mean of Coherency, 1 - Complexity and 1 - Average Drop, in percent; 0 if one is 0."""
    parts = coherency, 100 - complexity, 100 - drop
    return 3 / sum(1 / part for part in parts) if all(part > 0 for part in parts) else 0.0


def top_half(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Set the lower half of the pixels of a map to zero, float32 [H,W]; of pixels that tie, the earlier ones stay."""
    return np.where(pixel_ranks(saliency) < saliency.size / 2, saliency, np.float32(0))


def pixel_ranks(saliency: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank the pixels in the descending order of the map: int64 [H,W]; ties in reading order."""
    order = np.argsort(-saliency, axis=None, kind="stable")
    ranks = np.empty(saliency.size, np.int64)
    ranks[order] = np.arange(saliency.size)
    return ranks.reshape(saliency.shape)


def shares(pixels: int, step: int | None) -> NDArray[np.int64]:
    """Count the pixels that have changed after each step: int64 [n + 1], from 0 to all of them.

    Args:
        pixels: of the image.
        step: pixels per step; None takes a hundredth of the image, rounded up. The last step takes the rest.

    Example:
        >>> shares(10, 4).tolist()
        [0, 4, 8, 10]
    """
    size = math.ceil(pixels / 100) if step is None else step
    return np.append(np.arange(0, pixels, size), pixels)


def share_changed(pixels: int, step: int | None) -> NDArray[np.float64]:
    """Share of the pixels that have changed after each step: float64 [n + 1], from 0 to 1.

    Args:
        pixels: of the image.
        step: as `shares` takes it.

    Raises:
        OptionError: a step has more pixels than the image.
    """
    if step is not None and step > pixels:
        raise OptionError(f"step={step}: accepted is a number of pixels up to {pixels}, those of the model's input")
    counts = shares(pixels, step)
    share: NDArray[np.float64] = counts / counts[-1]
    return share


def area_under(curve: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Compute the area under a curve by the trapezoid rule, in percent of the unit square.

    Args:
        curve: float64 [n], confidences.
        counts: int64 [n], pixels changed, from `shares`.
    """
    return 100 * float((curve[1:] + curve[:-1]) / 2 @ np.diff(counts / counts[-1]))


def blurred(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur the image as RISE does, with zeros beyond the border: float32 [C,H,W]."""
    planes = [cv2.sepFilter2D(plane, -1, _BLUR, _BLUR, borderType=cv2.BORDER_CONSTANT) for plane in image]
    return np.stack(planes).astype(np.float32, copy=False)


def energy_in(saliency: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Divide the sum of the map inside the boxes by the sum of the map, in percent; 0 for a flat map."""
    total = float(saliency.sum(dtype=np.float64))
    return 100 * float(saliency[inside].sum(dtype=np.float64)) / total if total > 0 else 0.0


def hits(saliency: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Return 100 if the (first) largest value of the map lies inside the boxes, else 0; 0 for a flat map."""
    return 100.0 * bool(np.ptp(saliency) > 0 and inside.ravel()[int(np.argmax(saliency))])


def chosen(names: Sequence[str]) -> tuple[Metric, ...]:
    """Choose metrics by their names or groups, in the order of `METRICS`."""
    return tuple(metric for metric in METRICS if metric.name in names or metric.group in names)
