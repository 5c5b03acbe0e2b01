"""What an export writes of gradients: the graph, its parity, several layers, and the reason where there is none."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, reseal
from tests.export.graphs.networks import onnx_file
from tests.export.zoo.graphs import LABELS, GraphBuilder, classes_info, image_info
from torch import nn

import ortcam
from ortcam.bundle import MANIFEST_NAME, Bundle, read_bundle
from ortcam.cli import main
from ortcam.parity import verify_gradient
from ortcam_export import ExportError, export
from ortcam_export.gradients import writing

INPUT = {**TINY_INPUT, "labels": [f"c{i}" for i in range(6)]}


class Blocks(nn.Module):
    """Two layers of different sizes, a residual branch, a maximum, and a head with a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.inner = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.Hardswish())
        self.second = nn.Sequential(nn.Conv2d(6, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.hidden, self.last = nn.Linear(10 * 4 * 6, 16), nn.Linear(16, 6)

    def behind_first(self, maps: torch.Tensor) -> torch.Tensor:
        return self.behind_second(self.second(maps + self.inner(maps)))

    def behind_second(self, maps: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.hidden(self.pool(maps).flatten(1))))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.behind_first(self.first(image))


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    return Blocks().eval()


@pytest.fixture(scope="module")
def layered(blocks: Blocks, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two layers; the deeper one is named first."""
    return export(blocks, tmp_path_factory.mktemp("layers") / "b.ortcam", layer="second, first", **INPUT)


def run(bundle: Bundle, file: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(bundle.file(file), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    feeds = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(None, feeds), strict=True))


def images(bundle: Bundle) -> np.ndarray:
    sides = bundle.manifest.preprocessing
    return np.random.default_rng(0).standard_normal((2, 3, sides.height, sides.width)).astype(np.float32)


@pytest.mark.slow
def test_an_affine_head_has_one_gradient_for_all_images(tmp_path: Path) -> None:
    net = TinyNet().eval()
    bundle = export(net, tmp_path / "b.ortcam", **TINY_INPUT)
    gradient = bundle.manifest.gradient
    assert gradient is not None
    assert gradient.inputs == ()
    seeds = np.eye(6, dtype=np.float32)[:4]
    found = run(bundle, gradient.graph, {"seed": seeds})["gradient"]
    weights = net.classifier.weight.detach().numpy()[:4] / (8 * 12)
    np.testing.assert_allclose(found, np.broadcast_to(weights[:, :, None, None], found.shape), rtol=1e-6)


@pytest.mark.slow
def test_parity_is_measured_against_differences_and_autograd(layered: Bundle) -> None:
    gradient = layered.manifest.gradient
    assert gradient is not None
    assert gradient.parity.inputs == 2
    assert gradient.parity.autograd is not None
    assert 0 <= max(gradient.parity.differences, gradient.parity.autograd) <= gradient.parity.tolerance == 1e-4


@pytest.mark.slow
def test_several_layers_have_features_and_gradients_each(layered: Bundle, blocks: Blocks) -> None:
    manifest = layered.manifest
    assert (manifest.cut.module, [cut.module for cut in manifest.layers]) == ("second", ["first"])
    assert [*manifest.cuts] == ["features", "features_1"]
    image = images(layered)[:1]
    maps = run(layered, "features.onnx", {"image": image})
    leaf = torch.from_numpy(maps["features_1"]).requires_grad_()
    second = blocks.second(leaf + blocks.inner(leaf))
    second.retain_grad()
    seeds = np.eye(6, dtype=np.float32)[[4, 1]]
    assert manifest.gradient is not None
    found = run(layered, manifest.gradient.graph, {**maps, "image": image, "seed": seeds})
    logits = blocks.behind_second(second)
    for row, seed in enumerate(seeds):
        shallow, deep = torch.autograd.grad(logits[0], (leaf, second), torch.from_numpy(seed), retain_graph=True)
        for name, expected in (("gradient", deep), ("gradient_1", shallow)):
            wanted = expected[0].numpy()
            np.testing.assert_allclose(found[name][row], wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_the_features_may_be_one_row_for_all_seeds_or_a_row_for_each(layered: Bundle) -> None:
    both, gradient = images(layered), layered.manifest.gradient
    assert gradient is not None
    seeds = np.eye(6, dtype=np.float32)[[3, 0]]
    maps = run(layered, "features.onnx", {"image": both})
    together = run(layered, gradient.graph, {**maps, "seed": seeds})
    for row in range(2):
        of_one = {name: value[row : row + 1] for name, value in maps.items()}
        alone = run(layered, gradient.graph, {**of_one, "seed": seeds})
        for name, values in alone.items():
            np.testing.assert_allclose(values[row], together[name][row], rtol=1e-4, atol=1e-5 * np.abs(values).max())


@pytest.mark.slow
def test_weights_are_stored_once(layered: Bundle) -> None:
    sizes = {name: record.size for name, record in layered.manifest.files.items()}
    weights = sum(parameter.numel() * 4 for parameter in Blocks().parameters())
    assert sizes["weights.bin"] < 1.5 * weights + 16_384  # the interpolation and padding
    assert layered.weights["gradient.onnx"] == ("weights.bin",)


@pytest.mark.slow
def test_a_cut_inside_a_branch_takes_the_image_too(blocks: Blocks, tmp_path: Path) -> None:
    bundle = export(blocks, tmp_path / "b.ortcam", layer="inner", **INPUT)
    manifest = bundle.manifest
    assert manifest.graphs.head is None
    assert manifest.gradient is not None
    assert manifest.gradient.inputs[-1] == "image"
    image = images(bundle)[:1]
    maps = run(bundle, "features.onnx", {"image": image})
    seeds = np.eye(6, dtype=np.float32)[[2]]
    found = run(bundle, manifest.gradient.graph, {**maps, "image": image, "seed": seeds})["gradient"]
    first = blocks.first(torch.from_numpy(image)).detach()
    leaf = torch.from_numpy(maps["features"]).requires_grad_()
    logits = blocks.behind_second(blocks.second(first + leaf))
    (expected,) = torch.autograd.grad(logits[0, 2], leaf)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5 * float(expected.abs().max()))


def ranked(folder: Path, operator: str) -> Path:
    """A classifier whose scores count the channels in which a class is the greatest: ArgMax has no derivative."""
    g = GraphBuilder()
    maps = g.features("image")
    pooled = g.op("Reshape", g.op("GlobalAveragePool", maps), g.constant(np.array([0, -1])))
    votes = g.op("Add", g.dense(pooled, 16, len(LABELS)), g.random(4, 1, len(LABELS), scale=0.05))
    if operator == "ArgMax":
        chosen = g.op("ArgMax", votes, axis=2, keepdims=0)
        one = g.op("OneHot", chosen, g.constant(np.array(len(LABELS))), g.constant(np.array([0.0, 1.0], np.float32)))
    else:
        one = g.op("Round", g.op("Mul", votes, g.constant(np.array(5.0, np.float32))))
    g.op("ReduceSum", one, g.constant(np.array([0])), keepdims=0, out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")])


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["ArgMax", "Round"])
def test_a_head_without_a_derivative_names_the_operator_and_all_else_works(
    operator: str, tmp_path: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    path = tmp_path / "b.ortcam"
    bundle = export(ranked(tmp_path, operator), path, preset="unit", labels=LABELS, report=said.append)
    assert bundle.manifest.gradient is None
    assert bundle.manifest.no_gradient is not None
    assert operator in bundle.manifest.no_gradient
    assert any(line.startswith("no gradient: ") and operator in line for line in said)
    assert "gradient.onnx" not in bundle.manifest.files
    assert main(["inspect", str(path), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert f"gradient       none: {bundle.manifest.no_gradient}" in printed
    assert "verdict        sound" in printed
    explainer = ortcam.load(path)
    assert np.isfinite(explainer.explain(photograph, method="scorecam").maps).all()
    with pytest.raises(ortcam.OptionError, match=operator):
        explainer.explain(photograph, method="grad-cam")


@pytest.mark.slow
def test_a_wrong_gradient_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = writing.differentiate_with_attention

    def wrong(*arguments: object, **options: object) -> object:
        model = right(*arguments, **options)
        for value in model.graph.initializers.values():
            array = value.const_value.numpy()
            if array.dtype == np.float32 and array.size > 1:
                value.const_value = ir.tensor(array * np.float32(1.001), name=value.name)
        return model

    good = export(Blocks().eval(), tmp_path / "good.ortcam", **INPUT)
    monkeypatch.setattr(writing, "differentiate_with_attention", wrong)
    bundle = export(Blocks().eval(), tmp_path / "b.ortcam", **INPUT)
    assert bundle.manifest.gradient is None
    assert bundle.manifest.no_gradient is not None
    assert "differs from" in bundle.manifest.no_gradient
    assert "gradient.onnx" not in bundle.manifest.files
    assert bundle.manifest.files["weights.bin"].size <= good.manifest.files["weights.bin"].size  # none are left behind


@pytest.mark.slow
def test_what_stops_the_differentiation_stops_no_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*arguments: object, **options: object) -> object:
        raise ValueError("no such operator\nsecond line")

    monkeypatch.setattr(writing, "differentiate_with_attention", broken)
    bundle = export(TinyNet().eval(), tmp_path / "b.ortcam", **TINY_INPUT)
    assert bundle.manifest.no_gradient == "its derivative could not be built: no such operator"


class Deviations(TinyNet):
    """Roots of means of channels, one of which is 0 everywhere; PyTorch's gradient is not a number there."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        means = self.features(image).relu().mean((2, 3))
        logits: torch.Tensor = self.classifier(self.function(means * (torch.arange(means.shape[1]) > 0)))
        return logits

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function


@pytest.mark.slow
def test_a_root_of_a_dead_channel_is_measured_by_differences_alone(tmp_path: Path) -> None:
    bundle = export(Deviations(torch.sqrt).eval(), tmp_path / "b.ortcam", layer="features", **TINY_INPUT)
    gradient = bundle.manifest.gradient
    assert gradient is not None
    assert gradient.parity.differences <= 1e-4
    assert gradient.parity.autograd is None


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    net = Deviations(lambda means: means.log().exp())
    bundle = export(net.eval(), tmp_path / "b.ortcam", layer="features", **TINY_INPUT)
    assert bundle.manifest.no_gradient is not None
    assert "infinite or not a number at the features of the probe" in bundle.manifest.no_gradient
    assert "gradient.onnx" not in bundle.manifest.files


@pytest.mark.slow
def test_a_bundle_measures_its_gradient_again(layered: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_gradient(layered) == 0  # the same machine, session and numbers
    assert main(["inspect", str(layered.path), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "further        first (" in printed
    assert "from central differences" in printed
    assert "  gradient     0.0e+00 from the one at export" in printed
    assert main(["inspect", str(layered.path), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"]["gradient"] == 0


def test_another_gradient_than_at_export_is_not_sound(
    layered: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "copy.ortcam"
    path.mkdir()
    layered.copy_to(path)
    recorded = np.load(path / "probe-gradient.npy")
    np.save(path / "probe-gradient.npy", recorded * np.float32(1.001))
    reseal(path)
    assert main(["inspect", str(path), "--verify"]) == 2
    assert "not sound: the gradient differs from the one at export by" in capsys.readouterr().err
    np.save(path / "probe-gradient.npy", recorded[:1])
    reseal(path)
    with pytest.raises(ortcam.BundleError, match=r"accepted is float32 \[2, 2, 256\]"):
        verify_gradient(read_bundle(path))


def test_a_gradient_without_a_record_cannot_be_measured_again(layered: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "copy.ortcam"
    path.mkdir()
    layered.copy_to(path)
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    manifest["probe"]["gradient"] = None
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ortcam.BundleError, match="no gradient was recorded"):
        verify_gradient(read_bundle(path))


@pytest.mark.parametrize("layer", ["", "second,", ["second", 3], []])
def test_layers_that_are_no_names_are_refused(layer: object, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="accepted is the name of a layer, or several"):
        export(Blocks().eval(), tmp_path / "b.ortcam", layer=layer, **INPUT)


@pytest.mark.slow
def test_the_same_layer_twice_is_one(blocks: Blocks, tmp_path: Path) -> None:
    bundle = export(blocks, tmp_path / "b.ortcam", layer=["second", "second.2", "second"], **INPUT)
    assert (bundle.manifest.cut.module, bundle.manifest.layers) == ("second", ())


@pytest.mark.slow
def test_an_onnx_file_has_no_autograd(blocks: Blocks, tmp_path: Path) -> None:
    path = onnx_file(blocks, tmp_path, (32, 48))
    flags = ["-o", str(tmp_path / "b.ortcam"), "--preset", "unit", "--layer", "first,second"]
    assert main(["export", str(path), *flags]) == 0
    bundle = read_bundle(tmp_path / "b.ortcam")
    assert [cut.module for cut in bundle.manifest.cuts.values()] == ["second", "first"]
    gradient = bundle.manifest.gradient
    assert gradient is not None
    assert gradient.parity.autograd is None
    assert gradient.parity.differences <= 1e-4
    assert dataclasses.asdict(gradient)["inputs"]
