"""Layers: a property of the graph, found in every kind of network, with the cost of what lies behind them."""

import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import REPOSITORY, TINY_INPUT
from tests.export.rounding import logit_error, rounding_error, roundings
from torch import nn

import ortcam
from ortcam.cli import main
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.graphs.batch_axis import batch_axis_after_reshape

# One of each kind of graph: NHWC inside, windows, auxiliary heads, gates, grouped convolutions. Tokens are tested with
# real weights, every family by `make sweep`.
DEFAULT_LAYERS = {
    "convnext_tiny": ("features", "nchw", (768, 7, 7)),
    "efficientnet_b0": ("features", "nchw", (1280, 7, 7)),
    "googlenet": ("inception5b", "nchw", (1024, 7, 7)),
    "regnet_y_400mf": ("trunk_output", "nchw", (440, 7, 7)),
    "swin_t": ("norm", "nhwc", (768, 7, 7)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", DEFAULT_LAYERS)
def test_a_network_of_every_family_is_cut_at_its_last_features(name: str, tmp_path: Path) -> None:
    bundle = export(name, tmp_path / "m.ortcam", weights="none")
    cut = bundle.manifest.cut
    assert (cut.module, cut.layout, (cut.channels, cut.height, cut.width)) == DEFAULT_LAYERS[name]
    assert bundle.manifest.parity.logits <= 1e-4
    assert bundle.manifest.parity.scorer <= 1e-4


class Residual(nn.Module):
    """A block with a skip connection: what is inside the block is no dominator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.block = nn.ModuleDict({"first": nn.Conv2d(8, 12, 3, padding=1), "second": nn.Conv2d(12, 8, 1)})
        self.head = nn.Linear(8, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = x + self.block["second"](torch.relu(self.block["first"](x)))
        return self.head(torch.relu(x).mean((2, 3)))


@pytest.mark.long
def test_only_tensors_that_every_path_passes_are_listed() -> None:
    modules = {layer.cut.module for layer in inspect_model(Residual(), input_size=(32, 48)).layers}
    assert "stem" in modules
    assert not {"block.first", "block.second"} & modules


@pytest.mark.long
def test_a_layer_inside_a_branch_explains_with_the_whole_model(tmp_path: Path, picture: np.ndarray) -> None:
    said: list[str] = []
    module = Residual().eval()
    bundle = export(module, tmp_path / "a.ortcam", layer="block.first", report=said.append, **TINY_INPUT)
    assert any("inside a branch" in sentence for sentence in said)
    graphs = bundle.manifest.graphs
    assert (graphs.head, graphs.classifier) == (None, "classifier.onnx")
    images = torch.randn(2, 3, 32, 48)
    session = ort.InferenceSession(bundle.file(graphs.features))
    (features,) = session.run(["features"], {"image": images.numpy()})
    with torch.inference_mode():
        expected = module.block["first"](module.stem(images)).numpy()
        logits = module(images).numpy()
    bound = rounding_error(roundings(module), float(np.abs(expected).max()))
    np.testing.assert_allclose(features, expected, atol=bound)
    (computed,) = ort.InferenceSession(bundle.file("classifier.onnx")).run(["logits"], {"image": images.numpy()})
    np.testing.assert_allclose(computed, logits, atol=logit_error(module, images))
    for method in ("scorecam", "scorecam++", "sscam", "iscam"):
        explanation = ortcam.load(bundle.path).explain(picture, method=method, top_k=2)
        assert explanation.maps.shape == (2, 32, 48)
        assert explanation.stats.channels == 12


@pytest.mark.long
def test_a_branch_is_named_in_the_suggestions(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=re.escape("did you mean 'block.first'")):
        export(Residual(), tmp_path / "a.ortcam", layer="block.frist", **TINY_INPUT)
    with pytest.raises(ExportError, match=r"layer 'head' gives \[1, 6\] for an image, which has no spatial"):
        export(Residual(), tmp_path / "a.ortcam", layer="head", **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_cost_behind_a_layer_counts_the_multiplications() -> None:
    inspection = inspect_model(TinyNet(), input_size=(32, 48))
    first, second, third = 16 * 24 * 8 * 3 * 9, 8 * 12 * 12 * 8 * 9, 8 * 12 * 10 * 12
    head = 10 * 6
    assert inspection.macs == first + second + third + head
    behind = {layer.cut.module: layer.macs_behind for layer in inspection.layers}
    assert behind["features.0"] == second + third + head
    assert behind["features.2"] == third + head
    assert behind["features"] == head


@pytest.mark.slow
def test_inspect_prints_index_module_shape_layout_cost_and_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert main(["inspect", "tests.common.tiny:TinyNet", "--input-size", "32", "48"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.split()[:1] == ["*"])
    assert row.split() == ["*", "5", "features", "relu_2", "nchw", "[10,8,12]", "0.0", "M"]


class Unpatched(nn.Module):
    """Tokens of which only the class token reaches the logits, from the first block on: nothing spatial counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        token = self.token + patches.mean(1, keepdim=True)
        tokens = self.mix(torch.cat([token.expand(len(image), -1, -1), patches], 1))
        return self.head(tokens[:, 0])


@pytest.mark.long
def test_a_layer_whose_patches_do_not_count_is_not_the_default() -> None:
    inspection = inspect_model(Unpatched(), input_size=(32, 32))
    assert inspection.default is not None
    assert inspection.default.cut.module == "patches"
    assert inspection.default != inspection.layers[-1]


@pytest.mark.parametrize(
    ("before", "axis", "inner", "after", "expected"),
    [
        ((1, 197, 192), 0, 1, (1, 14, 14, 192), None),  # 197 is no 14 x 14
        ((1, 196, 192), 0, 1, (1, 14, 14, 192), (0, 1)),
        ((1, 64, 7, 7), 0, 1, (64, 49), (0, 64)),  # heads and batch in one, batch first
        ((197, 1, 192), 1, 1, (197, 3, 64), (1, 3)),  # torch's attention: [T, N * heads, d]
        ((197, 3, 64), 1, 3, (197, 192), (0, 1)),  # and back, to rows of features
        ((197, 192), 0, 1, (197, 1, 192), (1, 1)),
        ((64, 49, 96), 0, 64, (1, 8, 8, 7, 7, 96), (0, 1)),  # windows
        ((1, 512), 0, 1, (512,), (0, 512)),
        ((1, 512), 0, 1, (1, 512, 1, 1), (0, 1)),
    ],
)
def test_a_reshape_recorded_for_one_image_says_where_a_batch_goes(
    before: tuple[int, ...],
    axis: int,
    inner: int,
    after: tuple[int, ...],
    expected: tuple[int, int] | None,
) -> None:
    if expected is None:
        assert np.prod(before) != np.prod(after)
        return
    assert batch_axis_after_reshape(before, axis, inner, after) == expected
