"""Presets: the usual ways to turn pixels into a model's input, by name."""

import dataclasses
from typing import Final, Literal, get_args

__all__ = ["PRESETS", "Preset", "PresetName", "presets_in_words"]

PresetName = Literal["imagenet", "caffe", "tensorflow", "unit", "bytes", "clip", "mnist", "torchxrayvision"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """Scale, mean and standard deviation per channel, and what the channels are.

    Attributes:
        scale: what white becomes before mean and std.
        mean: per channel, in `channel_order`, of pixels in [0, scale].
        std: per channel, in `channel_order`, of pixels in [0, scale].
        channel_order: of the model's input.
        calls: what users of Keras, Caffe and PyTorch call it.
        interpolation: of the resize, where the preset has its own.
        side: of the model's input, where the preset has its own.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["rgb", "bgr", "grey"]
    calls: str
    interpolation: Literal["bilinear", "bicubic"] | None = None
    side: int | None = None

    @property
    def for_any_channels(self) -> bool:
        """Whether mean and std are one number, which goes with any number of channels."""
        return len(set(self.mean)) == len(set(self.std)) == 1 and self.channel_order == "rgb"


# The numbers are those of torchvision's weights, of keras.applications.imagenet_utils, of OpenAI's CLIP, of PyTorch's
# own example of MNIST, and of `torchxrayvision.datasets.normalize`, whose images go from -1024 to 1024.
PRESETS: Final[dict[PresetName, Preset]] = {
    "imagenet": Preset(
        1.0,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        "rgb",
        "PyTorch Normalize([.485,.456,.406], [.229,.224,.225]); Keras preprocess_input of densenet (mode 'torch')",
    ),
    "caffe": Preset(
        255.0,
        (103.939, 116.779, 123.68),
        (1.0, 1.0, 1.0),
        "bgr",
        "Caffe BGR bytes less the mean; Keras preprocess_input of resnet50, vgg16 (mode 'caffe')",
    ),
    "tensorflow": Preset(
        1.0,
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        "rgb",
        "pixels in [-1,1]: PyTorch Normalize(.5, .5); Keras preprocess_input of mobilenet_v2, xception (mode 'tf')",
    ),
    "unit": Preset(
        1.0,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        "rgb",
        "pixels in [0,1]: PyTorch ToTensor() alone; Keras Rescaling(1/255); Ultralytics",
    ),
    "bytes": Preset(
        255.0,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        "rgb",
        "pixels in [0,255] as they are: Keras preprocess_input of efficientnet, convnext (nothing to do)",
    ),
    "clip": Preset(
        1.0,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        "rgb",
        "CLIP's mean and std: PyTorch open_clip; transformers CLIPImageProcessor",
        "bicubic",
    ),
    "mnist": Preset(
        1.0,
        (0.1307,),
        (0.3081,),
        "grey",
        "grey digits: PyTorch Normalize((0.1307,), (0.3081,)); an input of 28 x 28",
        side=28,
    ),
    "torchxrayvision": Preset(
        1.0,
        (0.5,),
        (1 / 2048,),
        "grey",
        "grey in [-1024,1024]: torchxrayvision.datasets.normalize; an input of 224 x 224",
        side=224,
    ),
}
assert tuple(PRESETS) == get_args(PresetName)


def presets_in_words(channels: int | None = None) -> str:
    """A line per preset: its name, and the calls that it stands for.

    Args:
        channels: of the model, whose presets alone are listed; None lists all.
    """
    fitting = {
        name: preset
        for name, preset in PRESETS.items()
        if channels is None or preset.for_any_channels or len(preset.mean) == channels
    }
    width = max(map(len, fitting))
    return "\n".join(f"  {name:<{width}}  {preset.calls}" for name, preset in fitting.items())
