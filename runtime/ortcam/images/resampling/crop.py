"""Where the model's input lies in a photograph, and how a map of it is laid back on the photograph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError

__all__ = ["CropGeometry", "crop_offset"]


@dataclass(frozen=True)
class CropGeometry:
    """Where the model's input lies in a photograph: the photograph is resized, and a window of it is cropped.

    Attributes:
        height: Rows of the photograph.
        width: Columns of the photograph.
        resized_height: Rows after resizing.
        resized_width: Columns after resizing.
        top: First resized row in the crop; negative where the crop begins with padding.
        left: First resized column in the crop; negative where the crop begins with padding.
        crop_height: Rows of the crop, which is the model's input.
        crop_width: Columns of the crop.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    top: int
    left: int
    crop_height: int
    crop_width: int

    def to_original(
        self, saliency: NDArray[np.float32], rows: slice = slice(None)
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Lay a map over the photograph: bilinear, pixel centres at half-integers, edges replicated.

        Args:
            saliency: float32 [h, w], spanning the crop; at its size or at any other.
            rows: Of the photograph, those wanted; H below is their number.

        Returns:
            The map, float32 [H, W], and bool [H, W]: True where the pixel's centre lies in the crop. Outside it the map
            continues its edge and means nothing.

        Raises:
            ImageError: The map is not a matrix.
        """
        if saliency.ndim != 2 or saliency.size == 0:
            raise ImageError(f"a map is float32 [h, w], not {saliency.dtype} {list(saliency.shape)}")
        at, inside = _from_original(self.height, self.resized_height, self.top, self.crop_height)
        at, inside = at[rows], inside[rows]
        columns, columns_in = _from_original(self.width, self.resized_width, self.left, self.crop_width)
        # One axis after the other is exact, where cv2.remap and cv2.warpAffine round positions to 1/32 pixel.
        laid = _sample(_sample(saliency.astype(np.float32), at).T, columns).T
        return np.ascontiguousarray(laid), inside[:, None] & columns_in

    def seen(self) -> tuple[int, int, int, int]:
        """The part of the photograph that the crop shows: first row and column, row and column behind the last."""
        _, rows = _from_original(self.height, self.resized_height, self.top, self.crop_height)
        _, columns = _from_original(self.width, self.resized_width, self.left, self.crop_width)
        (top, bottom), (left, right) = _extent(rows), _extent(columns)
        return top, left, bottom, right


def crop_offset(resized: int, crop: int, *, down: bool) -> int:
    """Where a crop begins along one side, in resized pixels; negative where it begins with padding.

    Args:
        resized: length of the side.
        crop: length of the crop.
        down: round half a pixel down; otherwise to the even one.
    """
    if resized < crop:  # the smaller half of the padding comes first, in torchvision as in transformers
        return -((crop - resized) // 2)
    return (resized - crop) // 2 if down else round((resized - crop) / 2)


def _from_original(size: int, resized: int, offset: int, crop: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Centres of a photograph's pixels as fractions of the crop's side, and whether they lie in the crop."""
    at = ((np.arange(size) + 0.5) * resized / size - offset) / crop
    return at, (at >= 0) & (at < 1)


def _extent(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """The first place that is inside, and the one behind the last."""
    places = np.flatnonzero(inside)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _sample(saliency: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate the first axis of [n, m] at fractions of its length, to [len(at), m]."""
    cells = len(saliency)
    position = np.clip(at * cells - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    fraction = (position - low).astype(np.float32)[:, None]
    # A sum of two products, unlike low + fraction * difference, stays in [0, 1] in float32 if the map does.
    out = saliency[low] * (1 - fraction)
    out += saliency[np.minimum(low + 1, cells - 1)] * fraction
    return out
