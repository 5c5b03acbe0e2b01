"""Tiny models that are no RGB classifiers, and how their bundles in tests/data were made.

`python -m tests.common.other_models` exports them again, after a change of the export that changes their bytes.
"""

import shutil

import torch
from torch import nn

from ortcam_export import export
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, VALUES_BUNDLE


class BandsNet(nn.Module):
    """A classifier of four bands: image [N,4,32,48] -> maps [N,8,8,12] -> logits [N,3]."""

    def __init__(self, channels: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, outputs)
        _fill(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3)))


class TensorNet(nn.Module):
    """What a segmentation gives: image [N,3,32,48] -> maps [N,8,8,12] -> [N,2,4,6]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 3, 2, 1)
        _fill(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image))


def _fill(net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.6, generator=generator)


def main() -> None:
    from tests.common import other_models  # by its name, which the bundles record

    size = {"input_size": (32, 48)}
    rgb = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    for folder in (BANDS_BUNDLE, VALUES_BUNDLE, TENSOR_BUNDLE):
        shutil.rmtree(folder, ignore_errors=True)
    export(
        other_models.BandsNet().eval(),
        BANDS_BUNDLE,
        **size,
        channels=4,
        channel_order="bands",
        mean=(0.2, 0.25, 0.3, 0.4),
        std=(0.2, 0.2, 0.2, 0.2),
        value_range=(0, 10_000),
        display=(2, 1, 0),
        labels=("water", "forest", "field"),
    )
    export(
        other_models.BandsNet(3, 2).eval(),
        VALUES_BUNDLE,
        **size,
        **rgb,
        activation="identity",
        labels=("age", "weight"),
    )
    export(other_models.TensorNet().eval(), TENSOR_BUNDLE, **size, **rgb, activation="identity")


if __name__ == "__main__":
    main()
