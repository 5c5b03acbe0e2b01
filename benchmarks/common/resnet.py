"""ResNet (He et al., arXiv 1512.03385) with bottlenecks, for machines that have PyTorch but not torchvision."""

from collections.abc import Sequence

import torch
from torch import nn


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(channels, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1),
        )
        same = stride == 1 and channels == 4 * width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels, 4 * width, 1, stride))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N,C,h,w] to features [N,4 width,h/stride,w/stride]."""
        total: torch.Tensor = self.branch(features) + self.shortcut(features)
        return total.relu()


class ResNet(nn.Module):
    """Image [N,3,H,W] to logits [N,1000], random from a seed.

    Args:
        blocks: bottlenecks of each of the four stages; (3, 4, 6, 3) is ResNet-50.
        width: of the first stage; 64 is ResNet-50. The last stage has 32 times as many channels.
        seed: of the weights.
    """

    def __init__(self, blocks: Sequence[int] = (3, 4, 6, 3), *, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(*_convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            layers = []
            for block in range(count):
                layers.append(Bottleneck(channels, inner, 2 if stage > 0 and block == 0 else 1))
                channels = 4 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.classifier = nn.Linear(channels, 1000)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [N,3,H,W] to logits [N,1000]."""
        features = self.stem(image)
        for stage in range(self.stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits


def _convolution(channels: int, width: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution and its normalisation; He's initialisation keeps the activations of random weights in bounds."""
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(width)
