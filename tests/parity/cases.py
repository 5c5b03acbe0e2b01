"""What the comparisons share: a classifier exported and opened, its reference, and how far apart the two may be."""

import dataclasses
import json
import lzma
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

import ortcam
from ortcam import Explainer, Explanation
from tests.common.sharing import export_once
from tests.parity.reference import (
    Classifier,
    GradientReference,
    HeadReference,
    Reference,
    Result,
    at_cut,
    maps_of,
    promised_noise,
)

# What docs/explanation/exactness.md promises.
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
        return Reference(self.classifier, torch.from_numpy(self.explainer.preprocess(image)), promised_noise)

    def gradient_reference(self, image: Any, dtype: torch.dtype = torch.float64) -> GradientReference:
        """The same for the methods that take derivatives, at every layer of the bundle."""
        layers = [(str(cut.module), maps_of(cut)) for cut in self.explainer.bundle.manifest.cuts.values()]
        X = torch.from_numpy(self.explainer.preprocess(image))
        return GradientReference(self.module, layers, X, promised_noise, dtype)

    def head_reference(self, image: Any) -> HeadReference:
        """The same for the methods that alter the features."""
        return HeadReference(self.classifier, torch.from_numpy(self.explainer.preprocess(image)))


def open_case(
    module: nn.Module,
    bundle: Path,
    *,
    threads: int | None = None,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Case:
    explainer = ortcam.load(bundle, threads=threads)
    return Case(module, explainer, at_cut(module, explainer.bundle.manifest.cut, activation=activation))


def small_case(
    module: nn.Module,
    folder: Path,
    *,
    size: tuple[int, int],
    layer: str | None = "features",
    labels: str = "abcde",
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Case:
    """A small random classifier, cut at `layer`; of five classes, unless there are more or fewer labels.

    A bundle that lies in the folder already is taken for its own.
    """
    folder.mkdir(exist_ok=True)
    export_once(
        module.eval(),
        folder / "bundle",
        layer=layer,
        input_size=size,
        mean=(0.4, 0.5, 0.6),
        std=(0.25, 0.2, 0.3),
        labels=list(labels),
        activation=activation,
    )
    return open_case(module, folder / "bundle", threads=1, activation=activation)


def real_case(name: str, data: Path, folder: Path, *, size: int = 224) -> Case:
    """A classifier of the data folder with its real weights.

    Args:
        name: "squeezenet1_1", "mobilenet_v2", "resnet18" or "deit_tiny".
        data: the folder of real weights.
        folder: for the bundle; one that lies there already is taken.
        size: side of the input.
    """
    folder.mkdir(exist_ok=True)
    checkpoint = data / "weights" / f"{name}.pth.xz"
    with lzma.open(checkpoint) as file:
        state = torch.load(file, weights_only=True)
    module = _deit_tiny() if name == "deit_tiny" else torchvision.models.get_model(name, weights=None)
    missing, unexpected = module.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    spec: dict[str, Any] = {"input_size": (size, size)}
    if name == "deit_tiny":
        labels = json.loads((data / "imagenet_classes.json").read_text("utf-8"))
        spec |= {"resize": 256, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "labels": labels}
        export_once(module.eval(), folder / "bundle", **spec)
    else:
        export_once(name, folder / "bundle", checkpoint=checkpoint, **spec)
    return open_case(module.eval(), folder / "bundle")


def _deit_tiny() -> nn.Module:
    module: nn.Module = torchvision.models.VisionTransformer(
        image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=1000
    )
    return module


class SmallNet(nn.Module):
    """Image [N,3,H,W] -> features [N,8,H/4,W/4] -> logits [N,classes], random.

    Args:
        signed: leave out the ReLU behind the features.
        flat: constants that the first channels are everywhere.
        classes: number of logits.
    """

    def __init__(self, *, signed: bool = False, flat: tuple[float, ...] = (), classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.last = nn.Conv2d(6, 8, 3, 2, 1)
        self.features = nn.Identity() if signed else nn.ReLU()
        self.behind = nn.Conv2d(8, 8, 3, 2, 1)
        self.classifier = nn.Linear(8, classes)
        randomize(self, 0.4)
        last_bias = self.last.bias
        assert last_bias is not None
        with torch.no_grad():
            for channel, constant in enumerate(flat):
                self.last.weight[channel] = 0
                last_bias[channel] = constant

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.features(self.last(self.first(image).relu()))
        logits: torch.Tensor = self.classifier(self.behind(features).relu().mean((2, 3)))
        return logits

    def permuted(self, order: list[int]) -> "SmallNet":
        """The same function of the image, its features in another order."""
        other = SmallNet()
        state = self.state_dict()
        state |= {"last.weight": state["last.weight"][order], "last.bias": state["last.bias"][order]}
        state |= {"behind.weight": state["behind.weight"][:, order]}
        other.load_state_dict(state)
        return other


class BranchNet(nn.Module):
    """Image [N,3,H,W] -> logits [N,5] with one skip connection, which goes around the layers `inner` and `outer`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.inner = nn.Conv2d(8, 8, 3, 2, 1)
        self.outer = nn.Conv2d(8, 8, 3, 1, 1)
        self.skip = nn.MaxPool2d(2)
        self.classifier = nn.Linear(8, 5)
        randomize(self, 0.4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.stem(image).relu()
        features = self.skip(features) + self.outer(self.inner(features).relu())
        logits: torch.Tensor = self.classifier(features.relu().mean((2, 3)))
        return logits


class PooledNet(nn.Module):
    """Image [N,3,H,W] -> features of H/8 x W/8 in some layout -> average pooling and one linear layer -> logits [N,5].

    Args:
        layout: of the features: "nchw", "nhwc" or "tokens".
        hidden: whether a ReLU comes between the pooling and the linear layer.
    """

    def __init__(self, layout: str, *, hidden: bool = False) -> None:
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.features = nn.Conv2d(8, 8, 1) if layout == "nchw" else nn.LayerNorm(8)
        self.hidden = hidden
        self.classifier = nn.Linear(8, 5)
        randomize(self, 0.4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = self.stem(image)
        if self.layout == "nhwc":
            stem = stem.permute(0, 2, 3, 1)
        elif self.layout == "tokens":
            stem = stem.flatten(2).transpose(1, 2)
        axes = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[self.layout]
        pooled = self.features(stem).mean(axes)
        logits: torch.Tensor = self.classifier(pooled.relu() if self.hidden else pooled)
        return logits


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


def map_differences(explanation: Explanation, result: Result) -> NDArray[np.float64]:
    """Largest |difference| of the map of each target, float64 [K]."""
    differences: NDArray[np.float64] = np.abs(explanation.maps - result.maps.numpy()).max(axis=(1, 2))
    return differences


def assert_within_bound(
    explanation: Explanation, result: Result, what: str, *, bound: float = BOUND
) -> NDArray[np.float64]:
    """Maps, weights (of the largest of their class) and flags of the product against the reference.

    Args:
        explanation: of the product.
        result: of the reference.
        what: is compared, in words.
        bound: for maps and weights.

    Returns:
        Largest |difference| of the map of each target, float64 [K].
    """
    assert explanation.stats.live_channels == int(result.live.sum()), what
    assert explanation.flat.tolist() == result.flat.tolist(), what
    scale = result.weights.abs().amax(dim=1, keepdim=True).numpy()
    weights = np.abs(explanation.weights - result.weights.numpy()) / np.where(scale > 0, scale, 1)
    maps = map_differences(explanation, result)
    assert maps.max() <= bound, f"{what}: maps differ by {maps}"
    assert weights.max() <= bound, f"{what}: weights differ by {weights.max(axis=1)}"
    return maps


def assert_mostly_close(differences: list[NDArray[np.float64]]) -> None:
    """At least 95 % of all (image, target) pairs within 1e-5."""
    pairs = np.concatenate(differences)
    share = (pairs <= CLOSE).mean()
    assert share >= SHARE_CLOSE, f"{share:.1%} of {len(pairs)} pairs within {CLOSE}; the others: {pairs[pairs > CLOSE]}"
