"""Maps at the resolution of the layer that they come from: a few hundred bytes instead of hundreds of kilobytes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.results.explanation import Explanation
from ortcam.scoring.maps import relu_min_max

__all__ = ["averaged", "low_resolution"]


def low_resolution(explanation: Explanation) -> NDArray[np.float32]:
    """The maps at the resolution of the layer that they come from: float32 [K,h,w] in [0,1].

    Where the method sums maps of the layer this is ReLU and min-max of the sum before it is upsampled. Where it sums
    maps at image size (gates, several layers, copies of the image) it is the mean of the finished map in each cell.

    Example:
        >>> low_resolution(explainer.explain("cat.jpg")).shape  # doctest: +SKIP
        (1, 7, 7)
    """
    cells = explanation.cells
    if explanation.raw_maps.shape[1:] == cells:
        maps, _ = relu_min_max(explanation.raw_maps.astype(np.float64))
        maps[explanation.flat] = 0
        return maps.astype(np.float32)
    return np.stack([averaged(saliency, *cells) for saliency in explanation.maps])


def averaged(saliency: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A map with the mean of each of `height` times `width` cells: float32 [height,width] in [0,1].

    Args:
        saliency: float32 [H,W] in [0,1], not smaller.
        height: in cells.
        width: in cells.
    """
    means = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(means, 0, 1).astype(np.float32)
