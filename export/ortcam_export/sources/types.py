"""What the modules of `sources` share: what a user may hand over as a model, and may say about it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.presets import PRESETS
from ortcam_export.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ortcam_export.sources.given.embeddings import ClassEmbeddings

    # What a user may hand over as a classifier.
    Model = str | Path | torch.nn.Module | torch.export.ExportedProgram

__all__ = [
    "COMMON_SIDE",
    "DEFAULT_LOGIT_SCALE",
    "DEFAULT_OPSET",
    "DEFAULT_WEIGHTS",
    "BaselineValue",
    "ChannelOrder",
    "DeclaredPreprocessing",
    "InputLayout",
    "InputSpec",
    "InterpolationName",
    "SaidActivation",
    "order_of",
]

InterpolationName = Literal["bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr", "grey", "grey-opencv", "bands"]
InputLayout = Literal["nchw", "nhwc"]
# What a user may say: how logits become probabilities, that the model's outputs are probabilities already, or values.
SaidActivation = Literal["softmax", "sigmoid", "probabilities", "identity"]
# What masks hide to: the mean, 0, or a value per channel, in units of `mean`.
BaselineValue = Literal["mean", "zero"] | tuple[float, ...]

DEFAULT_WEIGHTS: Final = "DEFAULT"
DEFAULT_OPSET: Final = 20
DEFAULT_LOGIT_SCALE: Final = 100.0  # CLIP's
# Of the input of most classifiers, (H, W), for an inspection where nothing says it.
COMMON_SIDE: Final = 224


def order_of(channels: int) -> ChannelOrder:
    """What so many channels are where nobody says it: RGB of three, grey of one, else bands."""
    return "rgb" if channels == 3 else "grey" if channels == 1 else "bands"


@dataclasses.dataclass(frozen=True)
class DeclaredPreprocessing:
    """A preprocessing that somebody else wrote down, and who, in words."""

    preprocessing: Preprocessing
    source: str


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a user says about a model's input, output and classes; None where nothing was said.

    Attributes:
        input_size: (height, width) of the model's input.
        resize: length of the image's short side before the centre crop.
        mean: of each channel in `channel_order`, or one for all, of pixels in [0, scale].
        std: standard deviation of each channel in `channel_order`, or one for all, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: the labels, one per class.
        channel_order: what the channels are, see `ortcam.Preprocessing`.
        scale: what white becomes before mean and std: 1, or 255 for models that take bytes as they are.
        activation: how logits become probabilities, "softmax" or "sigmoid"; "probabilities": the model gives them.
        output: the model's output to explain: its name in a graph or a dict, its index in a tuple. With "identity"
            several, with commas between.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        declared: a whole preprocessing that somebody wrote down; what is said above overrides it, part by part.
        partial: whether mean and std may stay unsaid, as for an inspection; they are then 0 and 1.
        labels_source: who said the labels where it was not the user.
        channels: of the model's input.
        value_range: (low, high) of samples that keep their depth; None for 8-bit levels.
        display: the bands that are shown, from 0.
        baseline_value: what masks hide to.
        inputs: fixed values of further inputs, as the user gave them: by name a number, a list, an array or a file.
        classes: embeddings of the classes, float [K,D], as the user gave them: a file or an array.
        logit_scale: what cosines with `classes` are multiplied by.
        logit_bias: what is added to them after that.
        preset: its name, where mean and std are those of one.
    """

    input_size: tuple[int, int] | None = None
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: InterpolationName | None = None
    labels: tuple[str, ...] | None = None
    channel_order: ChannelOrder | None = None
    scale: float | None = None
    activation: SaidActivation | None = None
    output: str | None = None
    input_layout: InputLayout | None = None
    declared: DeclaredPreprocessing | None = None
    partial: bool = False
    labels_source: str = ""
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    display: tuple[int, ...] | None = None
    baseline_value: BaselineValue | None = None
    inputs: Mapping[str, object] = dataclasses.field(default_factory=dict)
    classes: "str | Path | NDArray[np.floating] | ClassEmbeddings | None" = None
    logit_scale: float | None = None
    logit_bias: float | None = None
    preset: str | None = None

    @property
    def says_normalisation(self) -> bool:
        """Whether mean and std are known, or need not be."""
        return self.partial or self.declared is not None or (self.mean is not None and self.std is not None)

    @property
    def preset_size(self) -> tuple[int, int] | None:
        """(height, width) that the preset usually goes with, for a model that leaves it open."""
        side = next((preset.side for name, preset in PRESETS.items() if name == self.preset), None)
        return None if side is None else (side, side)

    @property
    def said_channels(self) -> int | None:
        """How many channels the input has by what the user said, in one way or another."""
        if self.channels is not None:
            return self.channels
        for values in (self.mean, self.std, self.baseline_value):
            if isinstance(values, tuple) and len(values) > 1:
                return len(values)
        return None if self.channel_order in (None, "bands") else 3 if self.channel_order in ("rgb", "bgr") else 1

    @property
    def order(self) -> ChannelOrder:
        """What the channels are: as said, or else RGB of three, grey of one, bands of any other number."""
        return self.channel_order or order_of(self.said_channels or 3)

    def for_channels(self, channels: int, model: str) -> "InputSpec":
        """The same for a model whose input has so many channels: one value for all becomes one for each.

        Args:
            channels: of the input.
            model: its name, for messages.

        Raises:
            ExportError: mean, std, baseline or a declared preprocessing of another number.
        """
        if self.channels not in (None, channels):
            raise ExportError(f"{model}: --channels {self.channels}: its input has {channels}")
        changes: dict[str, Any] = {"channels": channels}
        for name in ("mean", "std", "baseline_value"):
            values = getattr(self, name)
            if not isinstance(values, tuple):
                continue
            if len(values) not in (1, channels):
                whose = f"preset {self.preset} has" if self.preset and name != "baseline_value" else f"{name} has"
                raise ExportError(
                    f"{model}: {whose} {len(values)} values, one per channel, and its input has {channels}; accepted "
                    "is one value for all channels, or one for each"
                )
            changes[name] = values * channels if len(values) == 1 else values
        if self.declared is not None:
            changes["declared"] = self._declared_for(channels, model)
        return dataclasses.replace(self, **changes)

    def _declared_for(self, channels: int, model: str) -> DeclaredPreprocessing | None:
        """The declared preprocessing for another number of channels, where all have one mean and one std, or are said.

        Raises:
            ExportError: nobody said them.
        """
        assert self.declared is not None
        made = self.declared.preprocessing
        if made.channels == channels:
            return self.declared
        mean, std = self.mean or made.mean, self.std or made.std
        if any(len(set(given)) > 1 and len(given) != channels for given in (mean, std)):
            if self.partial:
                return None
            values = "V" if channels == 1 else "V[,V...]"
            raise ExportError(
                f"{model}: its input has {channels} channel{'s' * (channels > 1)}, and {self.declared.source} has mean "
                f"and std of {made.channels}; give --mean {values} and --std {values}"
            )
        try:
            fitting = dataclasses.replace(
                made,
                mean=mean if len(mean) == channels else mean[:1] * channels,
                std=std if len(std) == channels else std[:1] * channels,
                channel_order=dataclasses.replace(self, channels=channels).order,
                value_range=self.value_range or made.value_range,
                display=None,
            )
        except OptionError as error:
            raise ExportError(str(error)) from None
        return DeclaredPreprocessing(fitting, f"{self.declared.source}, for {channels} channel{'s' * (channels > 1)}")

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """What the user said, for an input of this size; mean and std have to be among it, unless it is partial.

        Raises:
            ExportError: values that `Preprocessing` does not take.
        """
        assert self.partial or (self.mean is not None and self.std is not None)
        spec = self.for_channels(self.said_channels or 3, "the model")
        assert spec.channels is not None
        try:
            return Preprocessing(
                height,
                width,
                self.resize,
                spec.mean or (0.0,) * spec.channels,
                spec.std or (1.0,) * spec.channels,
                self.interpolation or "bilinear",
                channel_order=spec.order,
                scale=1.0 if self.scale is None else self.scale,
                value_range=self.value_range,
                display=self.display,
            )
        except OptionError as error:
            raise ExportError(str(error)) from None

    def overriding(self, declared: DeclaredPreprocessing) -> DeclaredPreprocessing:
        """A declared preprocessing with what the user said in place of its own.

        Raises:
            ExportError: values that `Preprocessing` does not take, or an input larger than the declared resize.
        """
        fields = ("resize", "mean", "std", "interpolation", "channel_order", "scale", "value_range", "display")
        changes: dict[str, Any] = {name: value for name in fields if (value := getattr(self, name)) is not None}
        base = declared.preprocessing
        if self.input_size not in (None, (base.height, base.width)):
            assert self.input_size is not None
            changes["height"], changes["width"] = self.input_size
            if self.resize is None and base.resize is not None and base.resize < max(self.input_size):
                raise ExportError(
                    f"an input of {changes['height']} x {changes['width']} is larger than the short side of "
                    f"{base.resize} that {declared.source} resizes to; say it with --resize N, too"
                )
        if not changes:
            return declared
        try:
            preprocessing = dataclasses.replace(base, **changes)
        except OptionError as error:
            raise ExportError(str(error)) from None
        return DeclaredPreprocessing(preprocessing, f"{declared.source}, with {', '.join(changes)} as given")
