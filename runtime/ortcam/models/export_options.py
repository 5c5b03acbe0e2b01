"""What a caller may say about a model that is no bundle yet: the options of its export."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError
from ortcam.images.presets import PresetName
from ortcam.support.suggestions import did_you_mean

__all__ = ["EXPORT_OPTIONS", "ExportOptions", "check_options", "refuse_with_bundle"]


class ExportOptions(TypedDict, total=False):
    """The options of `ortcam_export.export` that `ortcam.load` takes, too; see there for what they do."""

    labels: str | Path | Sequence[str]
    preset: PresetName
    input_size: int | tuple[int, int]
    resize: int
    channels: int
    mean: float | Sequence[float]
    std: float | Sequence[float]
    scale: float
    value_range: tuple[float, float]
    channel_order: Literal["rgb", "bgr", "grey", "grey-opencv", "bands"]
    display: int | Sequence[int]
    baseline_value: Literal["mean", "zero"] | float | Sequence[float]
    interpolation: Literal["bilinear", "bicubic"]
    preprocessing: object
    checkpoint: str | Path
    weights: str
    layer: str | Sequence[str]
    output: str
    activation: Literal["softmax", "sigmoid", "probabilities", "identity"]
    classes: str | Path | NDArray[np.floating]
    logit_scale: float
    logit_bias: float
    inputs: Mapping[str, object]
    input_layout: Literal["nchw", "nhwc"]
    opset: int
    static_batch: int
    calibration: str | Path


EXPORT_OPTIONS: Final = tuple(ExportOptions.__annotations__)


def check_options(options: ExportOptions, *, of_bundle: str | None = None) -> dict[str, object]:
    """The options as a plain dictionary.

    Args:
        options: as given.
        of_bundle: the path of a bundle, which takes none of them.

    Raises:
        TypeError: there is no option of this name.
        OptionError: they go with a bundle.
    """
    given: dict[str, object] = dict(options)
    if unknown := [name for name in given if name not in EXPORT_OPTIONS]:
        hint = did_you_mean(unknown[0], [*EXPORT_OPTIONS, "providers", "threads", "max_pixels", "precision"])
        raise TypeError(f"load() got an unexpected keyword argument {unknown[0]!r}{hint}")
    if of_bundle is not None:
        refuse_with_bundle(given, of_bundle)
    return given


def refuse_with_bundle(names: Collection[str], bundle: str, *, goes_with: str = "a model to export") -> None:
    """Refuse options that say something about a model, where a bundle is given.

    Args:
        names: of the options that were given, as the caller writes them.
        bundle: as the message names it.
        goes_with: what they go with, in words.

    Raises:
        OptionError: there are any.
    """
    if names:
        raise OptionError(f"{', '.join(names)}: goes with {goes_with}; {bundle} is a bundle, which has its own")
