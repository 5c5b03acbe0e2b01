"""What a caller may say about a model that is no bundle yet: the options of its export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict

from ortcam.presets import PresetName

__all__ = ["EXPORT_OPTIONS", "ExportOptions"]


class ExportOptions(TypedDict, total=False):
    """The options of `ortcam_export.export` that `ortcam.load` takes, too; see there for what they do."""

    labels: str | Path | Sequence[str]
    preset: PresetName
    input_size: int | tuple[int, int]
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float
    channel_order: Literal["rgb", "bgr"]
    interpolation: Literal["bilinear", "bicubic"]
    preprocessing: object
    checkpoint: str | Path
    weights: str
    layer: str
    output: str
    activation: Literal["softmax", "sigmoid", "probabilities"]
    input_layout: Literal["nchw", "nhwc"]
    opset: int
    calibration: str | Path


EXPORT_OPTIONS: Final = tuple(ExportOptions.__annotations__)
