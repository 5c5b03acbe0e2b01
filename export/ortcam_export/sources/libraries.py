"""Preprocessing as other libraries write it down: timm's data configs and transformers' image processors.

Neither library is imported here: a data config is a dict, and an image processor comes with its library.

How exact the translation is: with timm, bit for bit `timm.data.create_transform`. With an image processor of
transformers' PIL backend it is bit for bit, too (EfficientNet's, which divides twice, but for the last bit); its
torchvision backend resamples uint8 tensors with 16-bit weights where Pillow has 22, and so differs by at most 1 of 255,
and folds the scale into mean and std, which rounds the last bit elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.types import ChannelOrder, DeclaredPreprocessing

__all__ = ["from_config", "from_data_config", "from_image_processor", "read_declared"]

_ACCEPTED: Final = "accepted is a timm data config (a dict), a transformers image processor, or an ortcam.Preprocessing"
_DATA_CONFIG_KEYS: Final = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
# What a processor's config may do and `Preprocessing` represents.
_KNOWN_STEPS: Final = (
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
    "do_flip_channel_order",
)
# PIL.Image.Resampling, which transformers stores as a number.
_RESAMPLING: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Images to compare with, in sides of the model's input: landscape, portrait, and nearly square, so that a side that
# is taken wrongly shows.
_PROBE_SIDES: Final = ((1.1, 1.7), (1.6, 1.2), (1.3, 1.35))
# Grey levels of 255 that a smooth image may differ by: 1 from rounding, and a pixel's shift where an image is padded
# by an odd number of pixels, which transformers' two backends split differently.
_PROBE_TOLERANCE: Final = 6.0


def read_declared(declared: object, input_size: tuple[int, int] | None = None) -> DeclaredPreprocessing:
    """Translate what a user hands over as preprocessing.

    Args:
        declared: timm's data config, a transformers image processor (or a processor that holds one), or ortcam's own.
        input_size: (height, width) in place of a data config's own; its crop then scales along, as in timm.

    Raises:
        ExportError: anything else, or something that `Preprocessing` cannot represent.
    """
    if isinstance(declared, Preprocessing):
        return DeclaredPreprocessing(declared, "given by the user")
    if isinstance(declared, Mapping):
        return from_data_config(declared, input_size)
    declared = getattr(declared, "image_processor", declared)  # a multimodal processor holds one
    if isinstance(config := getattr(declared, "data_config", None), Mapping):  # transformers' wrapper of timm
        return from_data_config(config, input_size)
    if hasattr(declared, "do_normalize") and hasattr(declared, "do_resize") and callable(declared):
        return from_image_processor(declared)
    raise ExportError(f"preprocessing: {type(declared).__name__} is not known; {_ACCEPTED}")


def from_data_config(config: Mapping[str, Any], input_size: tuple[int, int] | None = None) -> DeclaredPreprocessing:
    """A timm data config, as `timm.data.resolve_model_data_config(model)` gives it.

    Args:
        config: `input_size` (C,H,W), `interpolation`, `mean`, `std`, `crop_pct` and `crop_mode`.
        input_size: (height, width) in place of the config's.

    Raises:
        ExportError: an entry is missing, or asks for what `Preprocessing` cannot represent.
    """
    if missing := [key for key in _DATA_CONFIG_KEYS if key not in config]:
        raise ExportError(f"preprocessing: a timm data config has {', '.join(missing)}, too; this one lacks it")
    size = config["input_size"]
    if not isinstance(size, Sequence) or len(size) != 3:
        raise _not_represented("timm data config", "input_size", size, "(C, H, W)")
    # Of a model with in_chans, C may still be that of the pretrained weights; mean and std are of as many channels.
    mean, std = (_per_channel(config[key], size[0]) for key in ("mean", "std"))
    order: ChannelOrder = "rgb" if len(mean) == 3 else "grey" if len(mean) == 1 else "bands"
    height, width = input_size or (size[1], size[2])
    for key in ("crop_border_pixels", "naflex", "patchify"):
        if config.get(key):
            raise _not_represented("timm data config", key, config[key], "none")
    mode, share = config["crop_mode"], config["crop_pct"]
    if not isinstance(share, int | float) or not 0 < share < math.inf:
        raise _not_represented("timm data config", "crop_pct", share, "a number above 0")
    before_crop = math.floor(height / share), math.floor(width / share)
    if mode not in ("center", "squash"):
        raise _not_represented("timm data config", "crop_mode", mode, "center or squash")
    if mode == "squash" and before_crop == (height, width):
        resize = None
    elif before_crop[0] == before_crop[1]:
        resize = before_crop[0]
    else:
        raise _not_represented(
            "timm data config", "crop_mode", f"{mode} with an input of {height} x {width}", "a square input"
        )
    interpolation = _interpolation("timm data config", "interpolation", config["interpolation"])
    preprocessing = _build(
        "timm data config",
        height,
        width,
        resize,
        mean,
        std,
        interpolation,
        channel_order=order,
        keep_aspect=mode == "center",
    )
    return DeclaredPreprocessing(preprocessing, "timm data config")


def _per_channel(values: Any, channels: int) -> tuple[Any, ...]:
    """Values of a data config, one for each channel; what is no sequence of them is refused where it is used."""
    if not isinstance(values, Sequence):
        return (values,)
    return tuple(values) * (channels if len(values) == 1 else 1)


def from_image_processor(processor: Any) -> DeclaredPreprocessing:
    """A transformers image processor, by its attributes, checked against the processor itself on three images.

    Raises:
        ExportError: it does something that `Preprocessing` cannot represent.
    """
    name = f"transformers {type(processor).__name__}"
    preprocessing = _by_attributes(name, type(processor).__name__, processor)
    _check_against(processor, preprocessing, name)
    return DeclaredPreprocessing(preprocessing, name)


def from_config(config: Any, kind: str) -> DeclaredPreprocessing:
    """A transformers image processor by what its `preprocessor_config.json` says; it is not run to be compared with.

    Args:
        config: the entries as attributes.
        kind: name of its class.

    Raises:
        ExportError: it does something that `Preprocessing` cannot represent, or leaves something out.
        AttributeError: it leaves something else out.
    """
    others = [key for key, value in vars(config).items() if key.startswith("do_") and value is True]
    if unknown := sorted({*others} - {*_KNOWN_STEPS}):
        raise _not_represented(kind, unknown[0], True, f"any of {', '.join(_KNOWN_STEPS)}")
    said = {"do_rescale": True, "rescale_factor": 1 / 255, **vars(config)}
    for key in ("size", "crop_size"):  # a number, before 2023
        if isinstance(said.get(key), int):
            whole = key == "crop_size" or not (said.get("do_center_crop") or said.get("crop_pct"))
            names = ("height", "width") if whole else ("shortest_edge",)
            said[key] = dict.fromkeys(names, said[key])
    return DeclaredPreprocessing(
        _by_attributes("preprocessor_config.json", kind, SimpleNamespace(**said)), "preprocessor_config.json beside it"
    )


def _by_attributes(name: str, kind: str, processor: Any) -> Preprocessing:
    height, width, resize, keep_aspect = _geometry(name, kind, processor)
    try:
        scale, mean, std = _values(processor)
    except (TypeError, ValueError) as error:
        raise ExportError(f"{name}: rescale_factor, image_mean or image_std: {first_line(error)}") from None
    interpolation = _interpolation(name, "resample", processor.resample)
    return _build(
        name,
        height,
        width,
        resize,
        mean,
        std,
        interpolation,
        channel_order="bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb",
        scale=scale,
        keep_aspect=keep_aspect,
        crop_rounding="down",
    )


def _geometry(name: str, kind: str, processor: Any) -> tuple[int, int, int | None, bool]:
    """(height, width, resize, keep_aspect) of a transformers image processor."""
    if not processor.do_resize:
        raise _not_represented(name, "do_resize", False, "True: the model's input has one size")
    size = processor.size
    short, target = _side(size, "shortest_edge"), _pair(size)
    crop = _pair(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", None) else None
    if short is not None and _side(size, "longest_edge") is None:
        share = getattr(processor, "crop_pct", None)
        if share is not None and crop is None:  # ConvNeXt's: `shortest_edge` is the crop, and squashed from 384 on
            return short, short, (int(short / share) if short < 384 else None), True
        if share is not None:  # PoolFormer's
            short = int(short / share)
        elif kind.startswith("Levit"):  # LeViT's own resize
            short = int(256 / 224 * short)
        if crop is None:
            raise _not_represented(name, "size", f"shortest_edge {short} without a crop", "a crop to one size")
        return *crop, short, True
    if target is None:
        raise _not_represented(name, "size", size, "height and width, or shortest_edge with a crop")
    if crop is None or crop == target:
        return *target, None, True
    if target[0] != target[1]:
        raise _not_represented(name, "size", f"{target[0]} x {target[1]}, cropped after that", "a square before a crop")
    return *crop, target[0], False


def _values(processor: Any) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """(scale, mean, std) of a transformers image processor; mean and std float64 [3]."""
    scale = 255 * float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 255.0
    mean, std = np.zeros(3), np.ones(3)
    if processor.do_normalize:
        mean, std = (np.broadcast_to(values, 3).astype(float) for values in (processor.image_mean, processor.image_std))
    if getattr(processor, "rescale_offset", False):  # EfficientNet's: pixels in [-1,1] before the normalisation
        mean = mean + 1
    if getattr(processor, "include_top", False):  # EfficientNet's: divided by std once more
        std = std * np.broadcast_to(processor.image_std, 3)
    return (1.0 if math.isclose(scale, 1) else scale), mean, std


def _pair(size: Any) -> tuple[int, int] | None:
    height, width = _side(size, "height"), _side(size, "width")
    return None if height is None or width is None else (height, width)


def _side(size: Any, key: str) -> int | None:
    """An entry of a processor's size, a dict or, since transformers 5, an object; None where it is not set."""
    value = size.get(key) if isinstance(size, Mapping) else getattr(size, key, None)
    return None if value is None else int(value)


def _interpolation(name: str, key: str, value: Any) -> Literal["bilinear", "bicubic"]:
    if isinstance(value, int):  # PIL.Image.Resampling is one
        value = _RESAMPLING[value] if 0 <= value < len(_RESAMPLING) else value
    value = getattr(value, "value", value)  # torchvision's InterpolationMode
    if value == "random":  # timm's word for training; its evaluation takes bilinear
        return "bilinear"
    if value in ("bilinear", "bicubic"):
        return "bilinear" if value == "bilinear" else "bicubic"
    raise _not_represented(name, key, value, "bilinear or bicubic")


def _build(
    name: str,
    height: int,
    width: int,
    resize: int | None,
    mean: Any,
    std: Any,
    interpolation: Literal["bilinear", "bicubic"],
    *,
    channel_order: ChannelOrder = "rgb",
    scale: float = 1.0,
    keep_aspect: bool = True,
    crop_rounding: Literal["half-even", "down"] = "half-even",
) -> Preprocessing:
    try:
        return Preprocessing(
            int(height),
            int(width),
            resize,
            tuple(float(value) for value in mean),  # its length is checked there
            tuple(float(value) for value in std),
            interpolation,
            channel_order=channel_order,
            scale=scale,
            keep_aspect=keep_aspect or resize is None,
            crop_rounding=crop_rounding,
        )
    except (OptionError, TypeError, ValueError) as error:
        raise ExportError(f"{name}: {error}") from None


def _check_against(processor: Any, preprocessing: Preprocessing, name: str) -> None:
    """Refuse a processor that does more than its known attributes say: compare on smooth images.

    Raises:
        ExportError: another size, or values that differ by more than rounding and one pixel's shift.
    """
    # What a grey level is worth in the model's input, per channel.
    level = preprocessing.scale / 255 / np.array(preprocessing.std)[:, None, None]
    for rows, columns in _PROBE_SIDES:
        image = _smooth_image(round(rows * preprocessing.height), round(columns * preprocessing.width))
        try:
            theirs = np.asarray(processor(images=image, return_tensors="pt")["pixel_values"], np.float32)
        except Exception as error:
            raise ExportError(f"{name}: cannot be run on a picture: {first_line(error)}") from error
        ours = preprocessing(image)
        if theirs.shape != ours.shape:
            raise ExportError(
                f"{name}: gives {list(theirs.shape)} where its attributes say {list(ours.shape)}; "
                "give input_size, resize, mean and std instead"
            )
        apart = float(np.abs((theirs - ours) / level).max())
        if not apart <= _PROBE_TOLERANCE:
            raise ExportError(
                f"{name}: differs by {apart:.0f} grey levels from what its attributes say; it does something that "
                "cannot be represented. Accepted are resize, centre crop, rescale, normalise and channel flip"
            )


def _smooth_image(height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB [height,width,3], a wave of its own in each channel, at most 2 grey levels from pixel to pixel."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(rows / a) * np.cos(columns / b) for a, b in ((50, 71), (83, 50), (59, 67))]
    image: NDArray[np.uint8] = np.rint(128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return image


def _not_represented(name: str, key: str, value: object, accepted: str) -> ExportError:
    return ExportError(f"{name}: {key} {value} cannot be represented; accepted is {accepted}")
