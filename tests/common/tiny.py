"""The tiny classifier of the tests as a module of PyTorch, and how its bundle in tests/data was made.

`python -m tests.common.tiny` exports it again, after a change of the export that changes its bytes.
"""

import shutil

import torch
from torch import nn

from ortcam_export import export
from tests.conftest import TINY_BUNDLE, TINY_INPUT, TINY_LABELS


class TinyNet(nn.Module):
    """Three convolutions and a linear head: image [N,3,32,48] -> maps [N,channels,8,12] -> logits [N,6]."""

    def __init__(self, channels: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, channels, 1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(channels, len(TINY_LABELS))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.6, generator=generator)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


def main() -> None:
    from tests.common.tiny import TinyNet  # by its name, which the bundle records

    shutil.rmtree(TINY_BUNDLE, ignore_errors=True)
    export(TinyNet().eval(), TINY_BUNDLE, **TINY_INPUT)


if __name__ == "__main__":
    main()
