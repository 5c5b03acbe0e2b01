"""From a photograph to the model's input: what torchvision's classification preset does, without Pillow or torch."""

import functools
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError, OutOfMemoryError
from ortcam.images.resampling.channels import (
    CHANNEL_ORDERS,
    GREYS,
    MOST_CHANNELS,
    PLANES,
    ChannelOrder,
    checked_display,
    checked_moments,
    checked_range,
    is_number,
    stretched,
)
from ortcam.images.resampling.crop import CropGeometry, crop_offset
from ortcam.images.resampling.pillow import (
    FEW,
    SUPPORT,
    Taps,
    convolve,
    convolve_few_both,
    convolve_floats,
    convolve_image,
    taps_of,
)

__all__ = ["CHANNEL_ORDERS", "LARGEST_SIDE", "MOST_CHANNELS", "PLANES", "ChannelOrder", "Preprocessing"]

LARGEST_SIDE = 16_384  # pixels of a side of the model's input, and of what it is cropped from
_CROP_ROUNDINGS = ("half-even", "down")
_LARGEST_INPUT = 2**26  # pixels: 0.8 GB of float32 in three channels
_SAMPLES: Final = (np.uint8, np.uint16, np.int16, np.float32)


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """Resize, centre-crop, scale and normalise, with the defaults bit for bit as torchvision does with a PIL image.

    1. Grey, for models of one channel: "grey" is (19595 R + 38470 G + 7471 B + 32768) >> 16, which is Pillow's
       `convert("L")`; "grey-opencv" is `cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)`. "bands" takes the bands of the file.
    2. Resize: short side to `resize`, long side to int(resize * long / short), or both sides to `resize` where
       `keep_aspect` is False; straight to `height` x `width` where `resize` is None. Pillow's convolution with 22-bit
       weights: along rows, rounded to uint8, then along columns; the other way round where the height shrinks by more
       than twice the pixels that the width does, which Pillow does since 13 (very tall images; the difference from
       Pillow before is 1 of 255 where it is bilinear). With a `value_range` as Pillow resizes its mode F, with sums in
       float64, and nothing is rounded.
    3. Crop: `height` x `width` at the centre; padded with 0 where the image is smaller (with the low end of
       `value_range`, which becomes 0).
    4. Values: (x / 255 * scale - mean) / std in float32, the channels in the model's order. With a `value_range` of
       (low, high): ((x - low) / (high - low) * scale - mean) / std. Nothing is clipped.

    Attributes:
        height: Rows of the model's input.
        width: Columns of the model's input.
        resize: Short side before the crop (both sides without `keep_aspect`), or None for no crop.
        mean: Of each channel in `channel_order`, in units of [0, scale]. Masks hide to it: 0 of the model's input.
        std: Of each channel in `channel_order`, in units of [0, scale].
        interpolation: "bilinear" or "bicubic".
        antialias: Widen the kernel when downsizing, as Pillow always does. False is torchvision's `antialias=False` on
            uint8 tensors, to within 1 of 255, for models that were trained so.
        channel_order: What the channels are. "rgb"; "bgr" for models whose first channel is blue, as Caffe's and
            OpenCV's are; "grey" or "grey-opencv" for one channel; "bands" for those of the file or array in their
            order, 1 to 64 of them.
        scale: What white becomes before mean and std: 1, or 255 for models that take bytes as they are.
        keep_aspect: False where the photograph is squashed to a square of `resize` before the crop, as DeiT's is.
        crop_rounding: Where the crop begins when half of what is cut away is no whole number of pixels: "half-even",
            at the even one of the two next to it, as torchvision; "down", at the smaller one, as transformers.
        value_range: (low, high) where samples keep the depth of the file or array: low becomes 0, high becomes `scale`.
            None: images are 8-bit levels from 0 to 255. "bands" takes (0, 255) instead of None.
        display: Which bands are shown under a map, counted from 0: one as grey, or three as R, G, B. None: the only
            one, the first of two, or the first three. Only where samples keep their depth.

    Raises:
        OptionError: A value that its field does not take.
    """

    height: int
    width: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    channel_order: ChannelOrder = "rgb"
    scale: float = 1.0
    keep_aspect: bool = True
    crop_rounding: Literal["half-even", "down"] = "half-even"
    value_range: tuple[float, float] | None = None
    display: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("height", "width", "resize"):
            value = getattr(self, name)
            if (type(value) is not int or not 1 <= value <= LARGEST_SIDE) and not (name == "resize" and value is None):
                accepted = f"an integer from 1 to {LARGEST_SIDE}" + (" or None" if name == "resize" else "")
                raise OptionError(f"preprocessing {name}={value!r}: expected {accepted}")
        for name, choices in (
            ("interpolation", tuple(SUPPORT)),
            ("channel_order", CHANNEL_ORDERS),
            ("crop_rounding", _CROP_ROUNDINGS),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(f"preprocessing {name}={getattr(self, name)!r}: expected one of {list(choices)}")
        for name in ("antialias", "keep_aspect"):
            if type(getattr(self, name)) is not bool:
                raise OptionError(f"preprocessing {name}={getattr(self, name)!r}: expected True or False")
        for name, value in zip(("mean", "std"), checked_moments(self.channel_order, self.mean, self.std), strict=True):
            object.__setattr__(self, name, value)
        if not is_number(self.scale) or self.scale <= 0:
            raise OptionError(f"preprocessing scale={self.scale!r}: expected a positive number, what 255 becomes")
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "value_range", checked_range(self.channel_order, self.value_range))
        object.__setattr__(self, "display", checked_display(self.display, self.channels, self.value_range))
        if self.height * self.width * max(self.channels, 3) > 3 * _LARGEST_INPUT:
            most = 3 * _LARGEST_INPUT // max(self.channels, 3)
            raise OptionError(f"preprocessing height={self.height}, width={self.width}: expected at most {most} pixels")
        with np.errstate(all="ignore"):
            finite = np.isfinite(self.values()).all()
        if not finite:
            raise OptionError(
                f"preprocessing scale={self.scale}, mean={self.mean}, std={self.std}: the model's input would be "
                "infinite or no number in float32"
            )

    @property
    def channels(self) -> int:
        """How many channels the model's input has."""
        return len(self.mean)

    @property
    def needs_samples(self) -> bool:
        """Whether an image is taken at its own depth: 8-bit RGB does not have what the model needs."""
        return self.value_range is not None

    @property
    def displayed(self) -> tuple[int, ...]:
        """Which bands are shown, counted from 0: one or three."""
        return self.display or ((0, 1, 2) if self.channels > 2 else (0,))

    def __repr__(self) -> str:
        """The call that makes it; values that are the default are left out."""
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return f"Preprocessing({', '.join(f'{name}={value!r}' for name, value, usual in values if value != usual)})"

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Turn a photograph into the model's input.

        Args:
            samples: uint8 [H, W, 3], RGB. Where `needs_samples`: [H, W, C] of uint8, uint16, int16 or float32, finite;
                RGB for "rgb" and "bgr".

        Returns:
            float32 [1, C, height, width].

        Raises:
            ImageError: The image is something else, or its samples are infinite in the model's input.
            OutOfMemoryError: The input or what it is made of does not fit into memory.
        """
        bands = self.channels if self.needs_samples else 3
        if samples.ndim != 3 or samples.shape[2] != bands or samples.size == 0 or not self._takes(samples.dtype):
            kinds = "uint8, uint16, int16 or float32" if self.needs_samples else "uint8"
            raise ImageError(
                f"an image to preprocess is {kinds} [H, W, {bands}], not {samples.dtype} {list(samples.shape)}"
            )
        try:
            return self._apply(samples)
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
                raise
            raise OutOfMemoryError(
                f"out of memory: the model's input is {self.height} x {self.width} pixels, made of "
                f"{samples.shape[0]} x {samples.shape[1]}"
            ) from None

    def _takes(self, dtype: np.dtype[Any]) -> bool:
        return dtype in _SAMPLES if self.needs_samples else dtype == np.uint8

    def _apply(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """The same, of an image that is one."""
        at = self.geometry(*samples.shape[:2])
        top, bottom = max(at.top, 0), min(at.top + self.height, at.resized_height)
        left, right = max(at.left, 0), min(at.left + self.width, at.resized_width)
        rows = self._taps(at.height, at.resized_height, top, bottom)
        columns = self._taps(at.width, at.resized_width, left, right)
        shown = slice(top - at.top, bottom - at.top), slice(left - at.left, right - at.left)
        # Only what the crop shows is computed, and only from the pixels that it needs.
        needed = samples[rows.first : rows.last, columns.first : columns.last]
        if self.needs_samples:
            return self._of_floats(needed, rows, columns, shown)
        if self.channel_order in GREYS:
            needed = GREYS[self.channel_order](needed)
        # Pillow 13's order, which counts because of the rounding in between.
        planes: NDArray[np.uint8] | NDArray[np.float64]
        rows_first = at.height - at.resized_height > max(2 * (at.width - at.resized_width), 0)
        if self.antialias and max(rows.most, columns.most) <= FEW:
            planes = convolve_few_both(needed, rows, columns, rows_first=rows_first)
        elif rows_first:
            planes = convolve_image(needed.swapaxes(0, 1), rows, rounded=self.antialias).swapaxes(1, 2)
            planes = convolve(planes, columns, rounded=self.antialias)
        else:
            planes = convolve_image(needed, columns, rounded=self.antialias).swapaxes(1, 2)
            planes = convolve(planes, rows, rounded=self.antialias).swapaxes(1, 2)
        crop = np.zeros((self.channels, self.height, self.width), np.uint8)
        if planes.dtype != np.uint8:
            planes = np.rint(planes).clip(0, 255)
        crop[:, shown[0], shown[1]] = planes
        return self._look_up(crop)

    def _look_up(self, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The model's input of levels: uint8 [C, H, W], R, G, B for "rgb" and "bgr" -> float32 [1, C, H, W]."""
        model_input = np.empty((1, *planes.shape), np.float32)
        for channel, plane in enumerate(self._planes):
            cv2.LUT(planes[plane], self._table[channel], model_input[0, channel])
        return model_input

    def _of_floats(
        self, samples: NDArray[Any], rows: Taps, columns: Taps, shown: tuple[slice, slice]
    ) -> NDArray[np.float32]:
        """The model's input of samples that keep their depth, of which some of its pixels show some."""
        assert self.value_range is not None
        low, high = self.value_range
        model_input = np.zeros((1, self.channels, self.height, self.width), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for channel, plane in enumerate(self._planes):
                values = convolve_floats(samples[..., plane], rows, columns)
                model_input[0, channel, shown[0], shown[1]] = (values - low) * self.scale / (high - low)
                model_input[0, channel] -= np.float32(self.mean[channel])
                model_input[0, channel] /= np.float32(self.std[channel])
        if not np.isfinite(model_input.sum()) and not np.isfinite(model_input).all():
            raise ImageError(
                "the image has samples that are infinite or not a number in the model's input; accepted are samples "
                f"of the order of {low:g} to {high:g}, the range that the model takes"
            )
        return model_input

    @property
    def _planes(self) -> tuple[int, ...]:
        """Which plane of the image each channel of the model is."""
        return PLANES.get(self.channel_order, tuple(range(self.channels)))

    def values(self) -> NDArray[np.float32]:
        """What the 256 levels from 0 to `scale` become in each channel of the model's input: float32 [C,256].

        One value per level and channel is all there is in an 8-bit image, so the arithmetic is done 256 times and not
        once a pixel. The levels are scaled in float64 and rounded once, so that they are torch's float32 i / 255 where
        the scale is 1, and i where it is 255.
        """
        levels = (np.arange(256) * self.scale / 255).astype(np.float32)
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))
        table: NDArray[np.float32] = (levels - mean) / std
        return table

    @functools.cached_property
    def _table(self) -> NDArray[np.float32]:
        return self.values()

    def of_levels(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn levels at the size of the model's input into it: 0 becomes 0, and 255 becomes `scale`.

        With a `value_range` a level of 255 stands for its high end. Probes are such levels, and drawn test images.

        Args:
            levels: uint8 [height, width, C], in the channels' own order; RGB for "rgb" and "bgr".

        Returns:
            float32 [1, C, height, width].

        Raises:
            ImageError: The levels are something else.
        """
        if levels.dtype != np.uint8 or levels.shape != (self.height, self.width, self.channels):
            raise ImageError(
                f"levels are uint8 [{self.height}, {self.width}, {self.channels}], not {levels.dtype} "
                f"{list(levels.shape)}"
            )
        return self._look_up(np.ascontiguousarray(levels.transpose(2, 0, 1)))

    def to_pixels(self, model_input: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn the model's input back into levels, as `of_levels` takes them: uint8 [H, W, C], RGB for "rgb" and "bgr".

        This undoes mean, std, scale and channel order, and rounds to the nearest of the 256 levels. An input that
        `__call__` made of 8-bit pixels gives back exactly those of its crop. With a `value_range`, what lies outside of
        it is cut off.

        Args:
            model_input: float32 [1, C, H, W], finite.
        """
        levels = np.rint(self._in_units(model_input) * 255).clip(0, 255)
        planes = levels.astype(np.uint8)[list(np.argsort(self._planes))]
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def to_samples(self, model_input: NDArray[np.float32]) -> NDArray[Any]:
        """Find an image that `__call__` would make this input of, if it resized nothing.

        Args:
            model_input: float32 [1, C, H, W], finite.

        Returns:
            uint8 [H, W, 3], to the nearest levels; or float32 [H, W, C] where `needs_samples`.
        """
        if self.value_range is None:
            levels = self.to_pixels(model_input)
            return levels if self.channels == 3 else np.repeat(levels, 3, axis=2)
        low, high = self.value_range
        planes = (self._in_units(model_input) * (high - low) + low)[list(np.argsort(self._planes))]
        most = np.finfo(np.float32).max
        return np.ascontiguousarray(planes.clip(-most, most).astype(np.float32).transpose(1, 2, 0))

    def _in_units(self, model_input: NDArray[np.float32]) -> NDArray[np.float64]:
        """The model's input without mean and std, [C, H, W]: 0 is black and 1 is white."""
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        return np.asarray((model_input[0].astype(np.float64) * std + mean) / self.scale)

    def render(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Show an image, as maps are drawn over it: uint8 [H, W, 3], RGB.

        8-bit RGB is shown as it is, and the grey of a model that takes grey. Samples that keep their depth are shown by
        the bands of `display`: each is stretched so that its 2nd percentile is black and its 98th white.

        Args:
            samples: as `__call__` takes them.
        """
        if self.needs_samples:
            return stretched(samples, self.displayed)
        if self.channel_order in GREYS:
            return np.repeat(GREYS[self.channel_order](samples), 3, axis=2)
        return samples

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
