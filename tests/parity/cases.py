"""What the comparisons share: a classifier exported and opened, the reference beside it, and how far apart the two are."""

import dataclasses
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

import ortcam
from ortcam import Explainer, Explanation
from ortcam_export import export
from tests.reference import Classifier, Reference, Result, at_cut, numpy_noise

# METHODS.md, "Parity targets".
BOUND = 1e-4
CLOSE = 1e-5
SHARE_CLOSE = 0.95


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier in PyTorch, the same in a bundle, and the same in float64."""

    module: nn.Module
    explainer: Explainer
    classifier: Classifier

    def reference(self, image: Any) -> Reference:
        """The reference on what the model sees of an image."""
        return Reference(self.classifier, torch.from_numpy(self.explainer.preprocess(image)), numpy_noise)


def open_case(module: nn.Module, bundle: Path) -> Case:
    explainer = ortcam.load(bundle)
    return Case(module, explainer, at_cut(module, explainer.bundle.manifest.cut))


def small_case(module: nn.Module, folder: Path, *, size: tuple[int, int], layer: str | None = "features") -> Case:
    """A small random classifier of five classes, cut at `layer`."""
    spec = {"input_size": size, "mean": (0.4, 0.5, 0.6), "std": (0.25, 0.2, 0.3), "labels": list("abcde")}
    export(module.eval(), folder / "bundle", layer=layer, **spec)
    return open_case(module, folder / "bundle")


def real_case(name: str, data: Path, folder: Path, *, size: int = 224) -> Case:
    """A torchvision classifier with its real weights."""
    checkpoint = data / "weights" / f"{name}.pth.xz"
    with lzma.open(checkpoint) as file:
        state = torch.load(file, weights_only=True)
    module = torchvision.models.get_model(name, weights=None)
    module.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    export(name, folder / "bundle", checkpoint=checkpoint, input_size=(size, size))
    return open_case(module.eval(), folder / "bundle")


class SmallNet(nn.Module):
    """Image [N,3,H,W] -> features [N,8,H/4,W/4] -> logits [N,5], random.

    Args:
        signed: leave out the ReLU behind the features.
        flat: constants that the first channels are everywhere.
    """

    def __init__(self, *, signed: bool = False, flat: tuple[float, ...] = ()) -> None:
        super().__init__()
        last = nn.Conv2d(6, 8, 3, 2, 1)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), last, *([] if signed else [nn.ReLU()]))
        self.head = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(8, 5)
        randomize(self, 0.4)
        with torch.no_grad():
            for channel, constant in enumerate(flat):
                last.weight[channel] = 0
                last.bias[channel] = constant

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(self.features(image)))

    def permuted(self, order: list[int]) -> "SmallNet":
        """The same function of the image, its features in another order."""
        other = SmallNet()
        other.load_state_dict(self.state_dict())
        with torch.no_grad():
            other.features[2].weight.copy_(self.features[2].weight[order])
            other.features[2].bias.copy_(self.features[2].bias[order])
            other.head[0].weight.copy_(self.head[0].weight[:, order])
        return other


def randomize(module: nn.Module, std: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, std, generator=generator)


def small_image(height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB [height,width,3]: coarse and fine random structure."""
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 200, (height // 8, width // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return (coarse + generator.integers(0, 56, (height, width, 3))).astype(np.uint8)


def assert_within_bound(explanation: Explanation, result: Result, what: str) -> NDArray[np.float64]:
    """Maps, weights (of the largest of their class) and flags of the product against the reference.

    Returns:
        max |difference| of the map of each target, float64 [K].
    """
    assert explanation.stats.live_channels == int(result.live.sum()), what
    assert explanation.flat.tolist() == result.flat.tolist(), what
    scale = result.weights.abs().amax(dim=1, keepdim=True).numpy()
    weights = np.abs(explanation.weights - result.weights.numpy()) / np.where(scale > 0, scale, 1)
    maps = np.abs(explanation.maps - result.maps.numpy()).max(axis=(1, 2))
    assert maps.max() <= BOUND, f"{what}: maps differ by {maps}"
    assert weights.max() <= BOUND, f"{what}: weights differ by {weights.max(axis=1)}"
    return maps


def assert_mostly_close(differences: list[NDArray[np.float64]]) -> None:
    """At least 95 % of all (image, target) pairs within 1e-5."""
    pairs = np.concatenate(differences)
    share = (pairs <= CLOSE).mean()
    assert share >= SHARE_CLOSE, f"{share:.1%} of {len(pairs)} pairs within {CLOSE}; the others: {pairs[pairs > CLOSE]}"
