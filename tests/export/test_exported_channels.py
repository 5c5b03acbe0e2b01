"""Models of 1, 2, 4 and 13 channels as bundles: parity, and every kind of method against PyTorch in float64."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.common.tolerances import EPS
from tests.conftest import REPOSITORY
from tests.parity.cases import BOUND, Case, assert_within_bound, open_case, randomize
from torch import nn

import ortcam
from ortcam.errors import OrtcamError
from ortcam_export import export, inspect_model

pytestmark = pytest.mark.long

SIDE = 32
CLASSES = 5
# Few samples are the same formula as many.
MASKED: dict[str, dict[str, Any]] = {
    "scorecam": {},
    "scorecam++": {},
    "sscam": {"num_samples": 3},
    "iscam": {"num_samples": 3},
}
GRADIENT: dict[str, dict[str, Any]] = {"grad-cam": {}, "layer-cam": {}, "hires-cam": {}, "xgrad-cam": {}}


class Net(nn.Module):
    """Two convolutions, their average and a linear layer: image [N,C,32,32] -> logits [N,5]."""

    def __init__(self, channels: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.classifier = nn.Linear(8, classes)
        randomize(self, 0.4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(image).mean((2, 3)))
        return logits


class Beginning(nn.Module):
    """A module behind an addition to its image, under the module's own paths."""

    def __init__(self, module: nn.Module, offset: NDArray[np.float64]) -> None:
        super().__init__()
        self.features, self.classifier = module.features, module.classifier
        self.offset = nn.Parameter(torch.from_numpy(offset).reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(image + self.offset).mean((2, 3)))
        return logits


def bands(channels: int, dtype: type[Any] = np.uint8, side: int = 40) -> NDArray[Any]:
    """Random blocks of 4 x 4 and fine noise, [side,side,channels], over the whole range of a type."""
    generator = np.random.default_rng(channels)
    coarse = generator.random((side // 4, side // 4, channels)).repeat(4, axis=0).repeat(4, axis=1)
    values = 0.8 * coarse + 0.2 * generator.random((side, side, channels))
    return (values * (np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1)).astype(dtype)


def compare(case: Case, image: Any, targets: list[int], methods: Callable[[str], bool] = lambda _: True) -> None:
    """Masked and gradient methods against the reference in float64, within what docs/explanation/exactness.md says."""
    reference, gradient = case.reference(image), case.gradient_reference(image)
    for method, options in MASKED.items():
        if methods(method):
            explanation = case.explainer.explain(image, method=method, target=targets, **options)
            assert_within_bound(explanation, reference.explain(method, targets, **options), method)
    for method, options in GRADIENT.items():
        if methods(method):
            explanation = case.explainer.explain(image, method=method, target=targets, **options)
            expected = getattr(gradient, method.replace("-", "_"))(targets, **options)
            assert_within_bound(explanation, expected, method)
    explanation = case.explainer.explain(image, method="recipro-cam", target=targets)
    expected = case.head_reference(image).recipro_cam(targets)
    low, high = (torch.stack([values(raw) for raw in expected.raw]) for values in (torch.min, torch.max))
    rounding = float((EPS * high / (high - low)).max())  # of probabilities in float32, once they span 0 to 1
    assert_within_bound(explanation, expected, "recipro-cam", bound=max(BOUND, 2 * rounding))


def exported(module: nn.Module, folder: Path, **said: Any) -> Case:
    bundle = export(module.eval(), folder / "net.ortcam", layer="features", **{"input_size": SIDE} | said)
    return open_case(module, bundle.path, threads=1)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_a_module_of_any_number_of_channels_is_explained_as_in_float64(channels: int, tmp_path: Path) -> None:
    case = exported(Net(channels), tmp_path, mean=0.45, std=0.25)
    image = bands(channels)
    compare(case, image[..., 0] if channels == 1 else image, list(range(CLASSES)))


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    """Samples of 0 to 10000 in four bands, as satellites' reflectances are: what PyTorch gives for them unrounded."""
    said: dict[str, Any] = {"mean": (1200, 1100, 900, 2500), "std": 700, "scale": 10_000, "value_range": (0, 10_000)}
    case = exported(Net(4), tmp_path, display=(2, 1, 0), **said)
    image = (bands(4, np.uint16, SIDE).astype(np.float64) / 65535 * 10_000).astype(np.uint16)
    expected = (image.astype(np.float64) - np.array(said["mean"])) / said["std"]
    np.testing.assert_allclose(case.explainer.preprocess(image)[0], expected.transpose(2, 0, 1), atol=1e-5)
    compare(case, image, [0, 3], lambda method: method in ("scorecam", "grad-cam"))


@pytest.mark.parametrize("said", ["zero", (0.1, 0.5, 0.3, 0.9)])
def test_masks_hide_to_the_baseline_that_was_said(said: Any, tmp_path: Path) -> None:
    """The maps are those of the same module that has its mean moved, and the logits are those it always gives."""
    module, mean, std = Net(4).eval(), np.full(4, 0.45), np.full(4, 0.25)
    values = np.zeros(4) if said == "zero" else np.array(said)
    bundle = export(
        module, tmp_path / "b.ortcam", layer="features", input_size=SIDE, mean=0.45, std=0.25, baseline_value=said
    )
    assert bundle.manifest.preprocessing.mean == tuple(values)
    assert "masks hide to" in bundle.manifest.preprocessing_source
    case = open_case(Beginning(module, (values - mean) / std), bundle.path, threads=1)
    compare(case, bands(4), [1, 4], lambda method: method in ("scorecam", "sscam", "grad-cam"))
    plain = export(module, tmp_path / "plain.ortcam", layer="features", input_size=SIDE, mean=0.45, std=0.25)
    maps = [ortcam.load(made.path).explain(bands(4), method="scorecam", target=1).maps for made in (bundle, plain)]
    assert np.abs(maps[0] - maps[1]).max() > 1e-2  # or the baseline would not count


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 4, 13])
def test_an_onnx_file_of_either_layout_gives_the_maps_of_its_module(channels: int, layout: str, tmp_path: Path) -> None:
    module, path = Net(channels).eval(), tmp_path / "net.onnx"
    whole = module if layout == "nchw" else nn.Sequential(Turned(), module)
    image = torch.zeros(1, channels, SIDE, SIDE) if layout == "nchw" else torch.zeros(1, SIDE, SIDE, channels)
    torch.onnx.export(whole.eval(), (image,), path, input_names=["image"], output_names=["logits"], dynamo=True)
    bundle = export(path, tmp_path / "net.ortcam", mean=0.45, std=0.25)
    assert bundle.manifest.preprocessing.channels == channels
    picture = bands(channels)
    explainer = ortcam.load(bundle.path)
    inputs = torch.from_numpy(explainer.preprocess(picture[..., 0] if channels == 1 else picture))
    with torch.inference_mode():
        expected = module(inputs).softmax(1)[0].numpy()
    found = explainer.predict(picture[..., 0] if channels == 1 else picture)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    explanation = explainer.explain(picture[..., 0] if channels == 1 else picture, method="scorecam", target=0)
    assert explanation.maps.shape == (1, SIDE, SIDE)


class Turned(nn.Module):
    """[N,H,W,C] -> [N,C,H,W]."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.permute(0, 3, 1, 2)


def test_a_program_says_how_many_channels_it_takes(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(Net(4).eval(), (torch.zeros(2, 4, SIDE, SIDE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path := tmp_path / "net.pt2")
    bundle = export(path, tmp_path / "net.ortcam", mean=0.45, std=0.25)
    assert (bundle.manifest.preprocessing.channels, bundle.manifest.preprocessing.height) == (4, SIDE)
    assert inspect_model(path).inputs == (f"image float32 [N,4,{SIDE},{SIDE}]",)


def test_int8_of_bands_is_calibrated_on_files_of_samples(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(3):
        np.save(folder / f"{index}.npy", np.roll(bands(4), index, axis=0))
    bundle = export(
        Net(4).eval(),
        tmp_path / "net.ortcam",
        input_size=SIDE,
        mean=0.45,
        std=0.25,
        precision="int8",
        calibration=folder,
    )
    assert bundle.manifest.variants["int8"].calibration == "3 pictures of samples"
    without = export(Net(4).eval(), tmp_path / "b.ortcam", input_size=SIDE, mean=0.45, std=0.25, precision="int8")
    assert "drawings" in str(without.manifest.variants["int8"].calibration)


# A classifier of one channel that was trained, on scikit-learn's digits.


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, NDArray[np.uint8], NDArray[np.int64]]:
    """A network of one channel for 28 x 28, and 200 digits that it has not seen, uint8 [N,8,8]."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, classes = pixels[order], data.target[order]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )
        floating = torch.from_numpy(pixels[:, None] / 255).float()
        inputs = torch.nn.functional.interpolate(floating, (28, 28), mode="bilinear")
        inputs = (inputs - 0.1307) / 0.3081
        targets = torch.from_numpy(classes)
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        for epoch in range(12):
            for start in range(0, len(pixels) - 200, 100):
                chosen = (torch.arange(start, start + 100) + 7 * epoch) % (len(pixels) - 200)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(inputs[chosen]), targets[chosen]).backward()
                optimizer.step()
    return module.eval(), pixels[-200:], classes[-200:]


def test_a_trained_classifier_of_digits_is_explained_as_in_float64(digits: Any, tmp_path: Path) -> None:
    module, pixels, classes = digits
    bundle = export(module, tmp_path / "digits.ortcam", layer="0", preset="mnist", labels=list("0123456789"))
    preprocessing = bundle.manifest.preprocessing
    assert (preprocessing.channel_order, preprocessing.height, preprocessing.mean) == ("grey", 28, (0.1307,))
    case = open_case(module, bundle.path, threads=1)
    found = [int(case.explainer.predict(picture).argmax()) for picture in pixels]
    assert (np.array(found) == classes).mean() > 0.9  # it reads them: the channel is the one it was trained on
    for picture in pixels[:2]:
        top = np.argsort(-case.explainer.predict(picture))[:3].tolist()
        compare(case, picture, top)


# Models as their libraries make them.


@pytest.mark.parametrize("channels", [1, 4])
def test_a_model_of_timm_with_in_chans_needs_a_mean_and_keeps_its_geometry(channels: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("resnet10t", pretrained=False, in_chans=channels, num_classes=CLASSES).eval()
    with pytest.raises(OrtcamError, match=f"its input has {channels} channel.*--mean V"):
        export(module, tmp_path / "none.ortcam")
    size = module.pretrained_cfg["input_size"][1]
    bundle = export(module, tmp_path / "net.ortcam", mean=0.45, std=0.25)
    preprocessing = bundle.manifest.preprocessing
    assert (preprocessing.channels, preprocessing.height) == (channels, size)
    assert "timm data config" in bundle.manifest.preprocessing_source
    case = open_case(module, bundle.path, threads=1)
    image = bands(channels, side=64)
    compare(case, image[..., 0] if channels == 1 else image, [0], lambda method: method in ("scorecam", "grad-cam"))


def test_a_model_of_torchxrayvision_goes_with_its_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real architecture, without its weights: 1 x 224 x 224 in [-1024,1024], 18 findings that may come together."""
    if (wheels := Path(os.environ.get("ORTCAM_WHEELS", REPOSITORY / ".wheels"))).is_dir():
        monkeypatch.syspath_prepend(wheels)
    try:
        library: Any = importlib.import_module("torchxrayvision")
    except ImportError:
        pytest.skip("torchxrayvision is not installed: `make wheels` fetches it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = library.models.DenseNet(weights=None, block_config=(2, 2, 2, 2)).eval()
    said: dict[str, Any] = {"preset": "torchxrayvision", "activation": "sigmoid", "labels": list(module.targets)}
    bundle = export(module, tmp_path / "xray.ortcam", layer="features", **said)
    image = bands(1, side=224)[..., 0]
    case = open_case(module, bundle.path, threads=1, activation="sigmoid")
    normalized = library.datasets.normalize(image, 255)[None, None]
    np.testing.assert_allclose(case.explainer.preprocess(image), normalized, atol=1024 * 2**-20)
    with torch.inference_mode():
        expected = module(torch.from_numpy(normalized).float()).sigmoid()[0].numpy()
    np.testing.assert_allclose(case.explainer.predict(image), expected, atol=1e-4)
    assert case.explainer.explain(image, method="grad-cam", target=0).maps.shape == (1, 224, 224)


def test_a_checkpoint_of_one_channel_for_torchvisions_model_is_refused_with_a_reason(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    module = torchvision.models.squeezenet1_1(weights=None)
    module.features[0] = nn.Conv2d(1, 64, 3, 2)
    torch.save(module.state_dict(), path := tmp_path / "grey.pth")
    with pytest.raises(OrtcamError, match=r"first convolution features.0 takes images of 1 channel.*SqueezeNet 3"):
        export("squeezenet1_1", tmp_path / "b.ortcam", checkpoint=path)
    with pytest.raises(OrtcamError, match="squeezenet1_1: --channels 1: its input has 3"):
        export("squeezenet1_1", tmp_path / "b.ortcam", channels=1)
