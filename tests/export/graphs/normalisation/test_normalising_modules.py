"""Modules of PyTorch that normalise by themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT
from tests.export.graphs.fronts import SAME_MAP, SAME_NUMBER
from tests.export.zoo.graphs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
)
from torch import nn

import ortcam
from ortcam.bundle import read_bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam_export import export


class Normalising(nn.Module):
    """A classifier behind a normalisation of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net = TinyNet()
        self.how = how
        mean, std = (torch.tensor(TINY_INPUT[key]) for key in ("mean", "std"))
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1))
        self.register_buffer("std", std.reshape(1, 3, 1, 1))
        self.norm = nn.BatchNorm2d(3, affine=False, eps=0.0)
        self.norm.running_mean, self.norm.running_var = mean, std**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "division":
            x = (x - self.mean) / self.std
        elif self.how == "batch norm":
            x = self.norm(x)
        elif self.how == "exchanged":
            x = (x.flip(1) - self.mean) / self.std
        elif self.how == "channel by channel":  # GoogLeNet's transform_input
            parts = [
                torch.unsqueeze(x[:, index], 1) * (1 / self.std[0, index, 0, 0])
                + (-self.mean / self.std)[0, index, 0, 0]
                for index in range(3)
            ]
            x = torch.cat(parts, 1)
        elif self.how == "resized":
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = (x - self.mean) / self.std
        elif self.how == "clamped":
            x = (x.clamp(0, 1) - self.mean) / self.std
        logits: torch.Tensor = self.net(x)
        return logits


@pytest.mark.long
@pytest.mark.parametrize("how", ["division", "batch norm", "exchanged", "channel by channel", "clamped"])
def test_a_module_that_normalises_is_as_one_that_does_not(how: str, tiny_bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Normalising(how).eval()
    order = "bgr" if how == "exchanged" else "rgb"
    raw = TINY_INPUT | {"mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": order}
    inside = export(module, tmp_path / "inside.ortcam", **raw)
    outside = read_bundle(tiny_bundle)
    assert inside.manifest.preprocessing == outside.manifest.preprocessing
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    results = [
        ortcam.load(bundle.path).explain(picture, method="scorecam", target=[0, 1]).maps for bundle in (inside, outside)
    ]
    np.testing.assert_allclose(results[0], results[1], atol=SAME_MAP)


@pytest.mark.long
def test_a_module_that_resizes_before_it_normalises_hides_to_the_mean_colour(tmp_path: Path) -> None:
    torch.manual_seed(0)
    raw = TINY_INPUT | {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    prepared = export(Normalising("resized").eval(), tmp_path / "b.ortcam", **raw).manifest.preprocessing
    np.testing.assert_allclose(prepared.mean, TINY_INPUT["mean"], rtol=SAME_NUMBER)
    np.testing.assert_allclose(prepared.std, TINY_INPUT["std"], rtol=SAME_NUMBER)


@pytest.mark.long
def test_googlenet_with_weights_explains_from_the_input_its_network_was_trained_on(tmp_path: Path) -> None:
    """`transform_input` turns ImageNet's mean and std into pixels of [-1,1]: those are the network's own."""
    from torchvision.models import googlenet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = googlenet(weights=None, init_weights=False, aux_logits=False, transform_input=True).eval()
    labels = [str(index) for index in range(1000)]
    said = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input_size": (64, 64), "labels": labels}
    prepared = export(module, tmp_path / "b.ortcam", **said).manifest.preprocessing
    assert isinstance(prepared, Preprocessing)
    np.testing.assert_allclose((prepared.mean, prepared.std), 0.5, rtol=SAME_NUMBER)
