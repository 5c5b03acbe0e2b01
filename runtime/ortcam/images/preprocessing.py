"""From a photograph to the model's input: what torchvision's classification preset does, without Pillow or torch."""

import functools
import math
from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError, OutOfMemoryError
from ortcam.images.crop import CropGeometry, crop_offset
from ortcam.images.resampling import FEW, SUPPORT, Taps, convolve, convolve_few, convolve_image, taps_of

__all__ = ["LARGEST_SIDE", "PLANES", "Preprocessing"]

_CROP_ROUNDINGS = ("half-even", "down")
PLANES = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}  # which plane of an RGB image each channel of the model is
LARGEST_SIDE = 16_384  # pixels of a side of the model's input, and of what it is cropped from
_LARGEST_INPUT = 2**26  # pixels: 0.8 GB of float32


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """Resize, centre-crop, scale and normalise, with the defaults bit for bit as torchvision does with a PIL image.

    1. Resize: short side to `resize`, long side to int(resize * long / short), or both sides to `resize` where
       `keep_aspect` is False; straight to `height` x `width` where `resize` is None. Pillow's convolution with 22-bit
       weights: along rows, rounded to uint8, then along columns; the other way round where the height shrinks by more
       than twice the pixels that the width does, which Pillow does since 13 (very tall images; the difference from
       Pillow before is 1 of 255 where it is bilinear).
    2. Crop: `height` x `width` at the centre; padded with 0 where the image is smaller.
    3. Values: (x / 255 * scale - mean) / std in float32, the channels in the model's order.

    Attributes:
        height: Rows of the model's input.
        width: Columns of the model's input.
        resize: Short side before the crop (both sides without `keep_aspect`), or None for no crop.
        mean: Of the three channels in `channel_order`, in units of [0, scale].
        std: Of the three channels in `channel_order`, in units of [0, scale].
        interpolation: "bilinear" or "bicubic".
        antialias: Widen the kernel when downsizing, as Pillow always does. False is torchvision's `antialias=False` on
            uint8 tensors, to within 1 of 255, for models that were trained so.
        channel_order: "rgb", or "bgr" for models whose first channel is blue, as Caffe's and OpenCV's are.
        scale: What white becomes before mean and std: 1, or 255 for models that take bytes as they are.
        keep_aspect: False where the photograph is squashed to a square of `resize` before the crop, as DeiT's is.
        crop_rounding: Where the crop begins when half of what is cut away is no whole number of pixels: "half-even",
            at the even one of the two next to it, as torchvision; "down", at the smaller one, as transformers.

    Raises:
        OptionError: A value that its field does not take.
    """

    height: int
    width: int
    resize: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0
    keep_aspect: bool = True
    crop_rounding: Literal["half-even", "down"] = "half-even"

    def __post_init__(self) -> None:
        for name in ("height", "width", "resize"):
            value = getattr(self, name)
            if (type(value) is not int or not 1 <= value <= LARGEST_SIDE) and not (name == "resize" and value is None):
                accepted = f"an integer from 1 to {LARGEST_SIDE}" + (" or None" if name == "resize" else "")
                raise OptionError(f"preprocessing {name}={value!r}: expected {accepted}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not _is_triple(value) or (name == "std" and min(value) <= 0):
                sign = "positive" if name == "std" else "finite"
                raise OptionError(f"preprocessing {name}={value!r}: expected three {sign} numbers, one per channel")
            object.__setattr__(self, name, tuple(float(v) for v in value))  # JSON gives lists
        if self.interpolation not in tuple(SUPPORT):
            raise OptionError(f"preprocessing interpolation={self.interpolation!r}: expected one of {list(SUPPORT)}")
        for name in ("antialias", "keep_aspect"):
            if type(getattr(self, name)) is not bool:
                raise OptionError(f"preprocessing {name}={getattr(self, name)!r}: expected True or False")
        for name, choices in (("channel_order", tuple(PLANES)), ("crop_rounding", _CROP_ROUNDINGS)):
            if getattr(self, name) not in choices:
                raise OptionError(f"preprocessing {name}={getattr(self, name)!r}: expected one of {list(choices)}")
        if not _is_number(self.scale) or self.scale <= 0:
            raise OptionError(f"preprocessing scale={self.scale!r}: expected a positive number, what 255 becomes")
        object.__setattr__(self, "scale", float(self.scale))
        if self.height * self.width > _LARGEST_INPUT:
            raise OptionError(
                f"preprocessing height={self.height}, width={self.width}: expected at most {_LARGEST_INPUT} pixels"
            )
        with np.errstate(all="ignore"):
            finite = np.isfinite(self.values()).all()
        if not finite:
            raise OptionError(
                f"preprocessing scale={self.scale}, mean={self.mean}, std={self.std}: the model's input would be "
                "infinite or no number in float32"
            )

    def __repr__(self) -> str:
        """The call that makes it; values that are the default are left out."""
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return f"Preprocessing({', '.join(f'{name}={value!r}' for name, value, usual in values if value != usual)})"

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn a photograph into the model's input.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns:
            float32 [1, 3, height, width].

        Raises:
            ImageError: The image is not uint8 [H, W, 3].
            OutOfMemoryError: The input or what it is made of does not fit into memory.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ImageError(f"an image to preprocess is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        try:
            return self._apply(image)
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
                raise
            raise OutOfMemoryError(
                f"out of memory: the model's input is {self.height} x {self.width} pixels, made of "
                f"{image.shape[0]} x {image.shape[1]}"
            ) from None

    def _apply(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same, of an image that is one."""
        at = self.geometry(*image.shape[:2])
        top, bottom = max(at.top, 0), min(at.top + self.height, at.resized_height)
        left, right = max(at.left, 0), min(at.left + self.width, at.resized_width)
        rows = self._taps(at.height, at.resized_height, top, bottom)
        columns = self._taps(at.width, at.resized_width, left, right)
        # Only what the crop shows is computed, and only from the pixels that it needs.
        needed = image[rows.first : rows.last, columns.first : columns.last]
        # Pillow 13's order, which counts because of the rounding in between.
        planes: NDArray[np.uint8] | NDArray[np.float64]
        rows_first = at.height - at.resized_height > max(2 * (at.width - at.resized_width), 0)
        if self.antialias and max(rows.most, columns.most) <= FEW:
            planes = _few(needed, rows, columns, rows_first=rows_first)
        elif rows_first:
            planes = convolve_image(needed.swapaxes(0, 1), rows, rounded=self.antialias).swapaxes(1, 2)
            planes = convolve(planes, columns, rounded=self.antialias)
        else:
            planes = convolve_image(needed, columns, rounded=self.antialias).swapaxes(1, 2)
            planes = convolve(planes, rows, rounded=self.antialias).swapaxes(1, 2)
        crop = np.zeros((3, self.height, self.width), np.uint8)
        if planes.dtype != np.uint8:
            planes = np.rint(planes).clip(0, 255)
        crop[:, top - at.top : bottom - at.top, left - at.left : right - at.left] = planes
        model_input = np.empty((1, *crop.shape), np.float32)
        for channel, plane in enumerate(PLANES[self.channel_order]):
            cv2.LUT(crop[plane], self._table[channel], model_input[0, channel])
        return model_input

    def values(self) -> NDArray[np.float32]:
        """What the 256 grey levels become in each channel of the model's input: float32 [3,256].

        One value per level and channel is all there is, so the arithmetic is done 768 times and not once a pixel. The
        levels are scaled in float64 and rounded once, so that they are torch's float32 i / 255 where the scale is 1,
        and i where it is 255.
        """
        levels = (np.arange(256) * self.scale / 255).astype(np.float32)
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))
        table: NDArray[np.float32] = (levels - mean) / std
        return table

    @functools.cached_property
    def _table(self) -> NDArray[np.float32]:
        return self.values()

    def to_pixels(self, model_input: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn the model's input back into pixels, to show it: uint8 [H, W, 3], RGB.

        This undoes mean, std, scale and channel order, and rounds to the nearest of the 256 levels. An input that
        `__call__` made gives back exactly the pixels of its crop.

        Args:
            model_input: float32 [1, 3, H, W], finite.
        """
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        levels = np.rint((model_input[0].astype(np.float64) * std + mean) / self.scale * 255).clip(0, 255)
        planes = levels.astype(np.uint8)[list(np.argsort(PLANES[self.channel_order]))]
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def geometry(self, height: int, width: int) -> CropGeometry:
        """Where the crop lies in a photograph of this size (pixels)."""
        if self.resize is None:
            resized = self.height, self.width
        elif not self.keep_aspect:
            resized = self.resize, self.resize
        elif height <= width:
            resized = self.resize, int(self.resize * width / height)
        else:
            resized = int(self.resize * height / width), self.resize
        top, left = (
            crop_offset(*sides, down=self.crop_rounding == "down")
            for sides in zip(resized, (self.height, self.width), strict=True)
        )
        return CropGeometry(height, width, *resized, top, left, self.height, self.width)

    def _taps(self, size: int, resized: int, begin: int, end: int) -> Taps:
        return taps_of(size, resized, begin, end, interpolation=self.interpolation, antialias=self.antialias)


def _few(image: NDArray[np.uint8], rows: Taps, columns: Taps, *, rows_first: bool) -> NDArray[np.uint8]:
    """Resample [H, W, 3] to [3, h, w], where few pixels make one: along the columns first, unless `rows_first`."""
    if rows_first:
        image = convolve_few(image, rows)
    if columns.most > 1:  # a transposed copy, which OpenCV makes many times as fast
        turned = cv2.transpose(image).astype(np.uint8, copy=False)
        image = cv2.transpose(convolve_few(turned, columns)).astype(np.uint8, copy=False)
    else:
        image = convolve_few(image.swapaxes(0, 1), columns).swapaxes(0, 1)
    return (image if rows_first else convolve_few(image, rows)).transpose(2, 0, 1)


def _is_triple(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 3 and all(_is_number(v) for v in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
