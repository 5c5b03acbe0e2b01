"""Small networks of PyTorch, and the `.onnx` files that they are exported to."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

SAID: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": "rgb"}
IMAGE = (2, 3, 64, 96)


def onnx_file(module: nn.Module, folder: Path, size: tuple[int, int]) -> Path:
    """A module as an `.onnx` file by torch's old exporter, which writes a file in a moment."""
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the old one
        torch.onnx.export(
            module.eval(),
            (torch.rand(2, 3, *size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    return path


def trunk(*strides: int | tuple[int, int]) -> nn.Sequential:
    """Convolutions of 3, 16, 24, 32, 32 ... channels, with a ReLU behind each."""
    widths = (3, 16, 24, 32, 32, 32)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers)


def head(module: nn.Module, classes: int = 5) -> nn.Module:
    """Let a last layer have logits of about 1."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


def grid(height: int, width: int) -> np.ndarray:
    """Rows and columns of a grid's cells, [2,h,w]."""
    return np.stack(np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))


class Pooled(nn.Module):
    """Maps of some front, pooled."""

    def __init__(self, front: nn.Module, channels: int) -> None:
        super().__init__()
        self.f, self.l = front, nn.Linear(channels, 5)
        head(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.l(self.f(image).mean((2, 3)))


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = trunk(2, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.f(nn.functional.interpolate(image, (64, 64), mode="bilinear"))


def valid(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride), nn.ELU()]


STRETCHED: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int, int]]] = {
    "text line": (lambda: trunk(2, (2, 1), (2, 1)), (48, 192), (32, 6, 96)),
    "one row": (
        lambda: nn.Sequential(*valid(3, 12, 5, 2), *valid(12, 16, 5, 2), *valid(16, 24, 5, 2), *valid(24, 32, 5)),
        (66, 200),
        (32, 1, 18),
    ),
    "one column": (lambda: trunk((2, 4), (2, 4), (1, 4)), (96, 64), (32, 24, 1)),
    "resized inside": (Resized, (96, 128), (32, 8, 8)),
}
