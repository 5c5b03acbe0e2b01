"""The head-only methods on modules made for it: features that are flat, heads that are no linear layer."""

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import TINY_INPUT

import ortcam

torch = pytest.importorskip("torch")
export = pytest.importorskip("ortcam_export").export
nn = torch.nn


class Flat(nn.Module):
    """Features that are one constant a channel, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 4, 4)
        self.classifier = nn.Linear(4, 3)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.copy_(torch.tensor([0.0, 0.3, 1.1, 0.7]))
            self.classifier.weight.copy_(torch.arange(12.0).reshape(3, 4) / 7 - 0.6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


@pytest.fixture(scope="module")
def flat_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = TINY_INPUT | {"labels": ["a", "b", "c"]}
    return export(Flat().eval(), tmp_path_factory.mktemp("flat") / "b", layer="features", **given).path


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "recipro-cam"},
        {"method": "recipro-cam", "score": "logit"},
        {"method": "ablation-cam"},
        {"method": "eigen-cam"},
        {"method": "eigen-cam", "center": True},
        {"method": "cam"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_features_that_are_the_same_everywhere_give_zeros_and_say_so(
    flat_bundle: Path, picture: np.ndarray, options: dict
) -> None:
    e = ortcam.load(flat_bundle).explain(picture, target=[0, 1, 2], **options)
    assert e.flat.all()
    assert (e.maps == 0).all()
    assert np.isfinite(e.weights).all()
    assert e.stats.live_channels == 3


class Convolved(nn.Module):
    """SqueezeNet's kind of head: 1 x 1 convolution, ReLU, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 8, 8)
        self.classifier = nn.Conv2d(6, 6, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).relu()).relu().mean((2, 3))


class Flattened(nn.Module):
    """VGG's kind of head: pooled to 2 x 2, flattened, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 8, 8)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 6)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image))


@pytest.mark.slow
@pytest.mark.parametrize("module", [Convolved, Flattened])
def test_cam_refuses_a_head_that_is_no_linear_layer_every_time(
    module: type[nn.Module], picture: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    explainer = ortcam.load(export(module().eval(), tmp_path / "b", layer="features", **TINY_INPUT).path)
    for _ in range(2):
        with pytest.raises(
            ortcam.OptionError, match=r"not average pooling and one linear layer.*recipro-cam and ablation"
        ):
            explainer.explain(picture, method="cam")
    assert explainer.explain(picture, method="recipro-cam").stats.head_passes == 24
