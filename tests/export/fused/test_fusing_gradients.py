"""Gradient methods as one file: the runtime's maps, a graph without loops and open shapes, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, reseal
from tests.export.rounding import TINY_MAPS
from tests.export.zoo.graphs import ZooFile
from tests.export.zoo.integers import int8_qdq_per_channel, int8_qoperator_per_channel

import ortcam
from ortcam.bundle import MANIFEST_NAME
from ortcam.cli import main
from ortcam.errors import OrtcamError
from ortcam.methods import GRADIENT_METHODS, METHODS
from ortcam.methods.auto import row_of
from ortcam_export import export, fuse

NAMES = [method.name for method in GRADIENT_METHODS]
METHODS_BY_NAME = {method.name: method for method in METHODS}
AT_RUN_TIME = {"Loop", "If", "Scan", "SequenceMap", "Shape", "NonZero"}


class DeepNet(TinyNet):
    """The tiny classifier with a hidden layer in its head, so that the gradients depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Conv2d(10, 10, 3, 1, 1)
        with torch.no_grad():
            for parameter in self.hidden.parameters():
                parameter.normal_(0, 0.4, generator=torch.Generator().manual_seed(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.hidden(self.features(image)).relu().mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "deep.ortcam"
    return export(DeepNet().eval(), path, layer="features", **TINY_INPUT).path


@pytest.fixture(scope="module")
def layered_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers: 12 channels of 8 x 12 behind 8 channels of 16 x 24."""
    path = tmp_path_factory.mktemp("bundles") / "layered.ortcam"
    return export(DeepNet().eval(), path, layer="features.1,features", **TINY_INPUT).path


def run(file: Path, **inputs: Any) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", NAMES)
def test_it_has_the_outputs_of_every_fused_file(
    deep_bundle: Path, photograph: Path, tmp_path: Path, method: str
) -> None:
    explainer = ortcam.load(deep_bundle, threads=1)
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method=method, top_k=2)
    found = run(fused.path, image=explainer.preprocess(photograph))
    expected = explainer.explain(photograph, method=method, top_k=2)
    assert {name: (value.dtype, value.shape) for name, value in found.items()} == {
        "logits": (np.float32, (1, 6)),
        "targets": (np.int64, (2,)),
        "saliency": (np.float32, (2, 32, 48)),
        "low_resolution": (np.float32, (2, 8, 12)),
        "flat": (np.bool_, (2,)),
    }
    assert tuple(found["targets"]) == expected.targets
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    np.testing.assert_allclose(
        found["low_resolution"], expected.raw_maps, atol=TINY_MAPS * np.abs(expected.raw_maps).max()
    )
    np.testing.assert_array_equal(found["flat"], expected.flat)
    assert not found["flat"].all()
    assert fused.difference is not None
    assert fused.difference < TINY_MAPS


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad-cam++", "smooth-grad-cam++", "finer-cam"])
def test_classes_chosen_at_run_time_are_clamped_and_flagged(
    deep_bundle: Path, photograph: Path, tmp_path: Path, method: str
) -> None:
    explainer = ortcam.load(deep_bundle, threads=1)
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method=method, runtime_targets=True)
    image = explainer.preprocess(photograph)
    found = run(fused.path, image=image, classes=np.array([4, -1, 6, 1]))
    np.testing.assert_array_equal(found["targets"], [4, 0, 5, 1])
    np.testing.assert_array_equal(found["clamped"], [False, True, True, False])
    expected = explainer.explain(photograph, method=method, target=[4, 0, 5, 1])
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    assert len(run(fused.path, image=image, classes=np.array([3]))["saliency"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 120), (31, 33)])
def test_a_picture_of_any_size_goes_in_as_it_was_decoded(
    deep_bundle: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method="grad-cam", uint8_input=True)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = ortcam.load(deep_bundle, threads=1).explain(picture, method="grad-cam")
    np.testing.assert_allclose(run(fused.path, image=picture)["saliency"], expected.maps, atol=TINY_MAPS)


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("method", NAMES)
def test_it_has_no_loop_and_every_dimension_is_fixed(deep_bundle: Path, tmp_path: Path, method: str) -> None:
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method=method, top_k=2, verify=False)
    graph = onnx.load(fused.path).graph
    assert not AT_RUN_TIME & {node.op_type for node in graph.node}
    assert not [node.op_type for node in graph.node if node.domain not in ("", "ai.onnx")]
    told = {value.name: value.type.tensor_type.shape for value in (*graph.input, *graph.value_info, *graph.output)}
    for node in graph.node:
        for name in filter(None, node.output):
            assert all(side.HasField("dim_value") for side in told[name].dim), (node.op_type, name)


@pytest.mark.slow
def test_the_head_runs_once(deep_bundle: Path, tmp_path: Path) -> None:
    """The forward part of the gradient graph is that of the head, whose logits choose the class."""
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method="grad-cam", verify=False)
    graph = onnx.load(fused.path).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    sides = [list(weights[node.input[1]]) for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]
    assert sides.count([10, 10, 3, 3]) == 1


@pytest.mark.slow
def test_several_layers_are_fused_as_in_the_runtime(layered_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(layered_bundle, threads=1)
    for options, size in (
        ({"method": "layer-cam"}, (16, 24)),
        ({"method": "grad-cam", "layer": "all"}, (16, 24)),
        ({"method": "grad-cam++", "layer": "features.1"}, (16, 24)),
        ({"method": "smooth-grad-cam++", "layer": "features"}, (8, 12)),
        ({"method": "grad-cam"}, (8, 12)),
    ):
        fused = fuse(layered_bundle, tmp_path / "e.onnx", top_k=2, force=True, **options)
        found = run(fused.path, image=explainer.preprocess(photograph))
        expected = explainer.explain(photograph, top_k=2, **options)
        np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
        assert found["low_resolution"].shape == (2, *size)
        cut = json.loads(fused.metadata["ortcam.cut"])
        assert (cut["height"], cut["width"]) == size
        assert json.loads(fused.metadata["ortcam.layers"]) == expected.provenance["layers"]


def test_the_layers_differ(layered_bundle: Path, photograph: Path) -> None:
    explainer = ortcam.load(layered_bundle, threads=1)
    first, last = (
        explainer.explain(photograph, method="grad-cam", layer=layer).maps for layer in ("features.1", "features")
    )
    assert np.abs(first - last).max() > 0.01


@pytest.mark.slow
def test_noise_comes_of_its_seed_and_standard_deviation(deep_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(deep_bundle, threads=1)
    image, maps = explainer.preprocess(photograph), []
    for options in ({}, {"seed": 1}, {"std": 1.5}, {"num_samples": 2}):
        fused = fuse(deep_bundle, tmp_path / "e.onnx", method="smooth-grad-cam++", force=True, **options)
        maps.append(run(fused.path, image=image)["saliency"])
        expected = explainer.explain(photograph, method="smooth-grad-cam++", **options).maps
        np.testing.assert_allclose(maps[-1], expected, atol=TINY_MAPS)
    for other in maps[1:]:
        assert np.abs(other - maps[0]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"references": 1}, {"references": 1000}, {"weighting": "probability", "strength": 1}, {"strength": 0}],
    ids=str,
)
def test_similar_classes_are_those_of_the_runtime(
    deep_bundle: Path, photograph: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    explainer = ortcam.load(deep_bundle, threads=1)
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method="finer-cam", top_k=3, **options)
    found = run(fused.path, image=explainer.preprocess(photograph))["saliency"]
    expected = explainer.explain(photograph, method="finer-cam", top_k=3, **options).maps
    np.testing.assert_allclose(found, expected, atol=TINY_MAPS)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "xgrad-cam", "smooth-grad-cam++"])
def test_a_class_that_nothing_speaks_for_is_flat(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, method: str
) -> None:
    black = np.zeros((1, 3, 32, 48), np.float32)
    module = TinyNet()
    with torch.no_grad():
        module.features[4].weight.zero_()
        module.features[4].bias.fill_(-1)
    bundle = export(module.eval(), tmp_path / "dead.ortcam", layer="features", **TINY_INPUT).path
    found = run(fuse(bundle, tmp_path / "e.onnx", method=method, top_k=2).path, image=black)
    np.testing.assert_array_equal(found["flat"], [True, True])
    np.testing.assert_array_equal(found["saliency"], 0)


@pytest.mark.slow
@pytest.mark.parametrize("build", [int8_qdq_per_channel, int8_qoperator_per_channel])
def test_a_graph_of_8_bit_integers_has_the_runtimes_map(
    build: Callable[[Path], ZooFile], photograph: Path, tmp_path: Path
) -> None:
    file = build(tmp_path)
    bundle = export(file.path, tmp_path / "int8.ortcam", **file.arguments)
    explainer = ortcam.load(bundle.path, threads=1)
    fused = fuse(bundle, tmp_path / "e.onnx", method="layer-cam", top_k=2)
    found = run(fused.path, image=explainer.preprocess(photograph))
    expected = explainer.explain(photograph, method="layer-cam", top_k=2)
    np.testing.assert_array_equal(found["targets"], expected.targets)
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)


@pytest.mark.slow
def test_weights_are_once_in_the_file(tmp_path: Path, photograph: Path) -> None:
    shapes = Path(__file__).parents[3] / "models" / "shapes.ortcam"
    weights = (shapes / "weights.bin").stat().st_size
    inside = fuse(shapes, tmp_path / "inside.onnx", method="grad-cam++")
    beside = fuse(shapes, tmp_path / "beside.onnx", method="grad-cam++", external=True)
    assert inside.size < 1.1 * weights
    assert beside.external is not None
    image = ortcam.load(shapes).preprocess(photograph)
    np.testing.assert_array_equal(*(run(file.path, image=image)["saliency"] for file in (inside, beside)))


def test_it_says_what_it_is(deep_bundle: Path, tmp_path: Path) -> None:
    fused = fuse(deep_bundle, tmp_path / "e.onnx", method="gradcampp", epsilon=1e-6, verify=False)
    found = {entry.key: entry.value for entry in onnx.load(fused.path).metadata_props}
    assert found == fused.metadata
    assert found["ortcam.method"] == "grad-cam++"
    assert json.loads(found["ortcam.options"])["epsilon"] == 1e-6
    assert json.loads(found["ortcam.layers"]) == ["features"]
    assert found["ortcam.precision"] == "float32"
    assert (found["ortcam.budget"], found["ortcam.batch_size"]) == ("null", "null")


def test_the_same_bundle_gives_the_same_bytes(deep_bundle: Path, tmp_path: Path) -> None:
    first, second = (
        fuse(deep_bundle, tmp_path / f"{name}.onnx", method="smooth-grad-cam++").path.read_bytes() for name in "ab"
    )
    assert first == second


REFUSALS: dict[str, tuple[list[str], str]] = {
    "a budget": (
        ["-m", "grad-cam", "--budget", "25%"],
        "budget with grad-cam: goes with methods that mask the image, such as scorecam++",
    ),
    "a precision": (
        ["-m", "layer-cam", "--precision", "fp32"],
        "precision with layer-cam: goes with methods that mask",
    ),
    "no such layer": (["-m", "grad-cam", "--option", "layer=layer9"], "is no layer of this bundle; accepted: primary"),
    "no such option": (["-m", "grad-cam", "--option", "epsilon=1"], "unknown option 'epsilon'"),
    "copies": (["-m", "grad-cam", "--option", "augment=4"], "augment=4: a fused file explains the image alone"),
    "no such method": (["-m", "foo"], "accepted: auto, scorecam, scorecam++, sscam, iscam, grad-cam"),
    "a method of the head alone": (["-m", "eigen-cam"], "cannot be fused; accepted is scorecam, scorecam++"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_one_line_and_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["fuse", str(tiny_bundle), "-o", str(tmp_path / "e.onnx"), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert sum(line.startswith("ortcam: ") for line in lines) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "what"), [(".onnx", "of `ortcam fuse` explains by itself"), (".ort", "in ORT format only runs")]
)
def test_a_fused_file_is_refused_as_a_model_by_what_it_is(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, what: str
) -> None:
    path = fuse(tiny_bundle, tmp_path / "e.onnx", method="grad-cam", verify=False).path
    ort = path.rename(tmp_path / "e.ort") if form == ".ort" else path
    for command in (
        ["inspect"],
        ["export", "-o", str(tmp_path / "b.ortcam")],
        ["fuse", "-o", str(tmp_path / "f.onnx")],
    ):
        assert main([*command, str(ort)]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{ort}: a file {what}" in line
        assert "give the model or bundle that it was made from" in line
    assert list(tmp_path.iterdir()) == [ort]


@pytest.fixture
def without_gradient(bundle_copy: Path) -> Path:
    manifest = json.loads((bundle_copy / MANIFEST_NAME).read_text("utf-8"))
    (bundle_copy / manifest["gradient"]["graph"]).unlink()
    manifest["probe"]["gradient"] = None
    manifest |= {"gradient": None, "no_gradient": "its operator ArgMax has no derivative"}
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    reseal(bundle_copy)
    return bundle_copy


def test_a_bundle_without_a_gradient_is_refused(without_gradient: Path, tmp_path: Path) -> None:
    with pytest.raises(OrtcamError, match=r"grad-cam: needs the gradient .* ArgMax has no derivative; .*scorecam"):
        fuse(without_gradient, tmp_path / "e.onnx", method="grad-cam")
    assert fuse(without_gradient, tmp_path / "e.onnx", method="scorecam").path.is_file()


@pytest.mark.slow
def test_auto_is_the_method_of_the_bundle_or_one_that_can_be_fused(
    tiny_bundle: Path, without_gradient: Path, tmp_path: Path
) -> None:
    row = row_of(ortcam.read_bundle(tiny_bundle).manifest)
    fused = fuse(tiny_bundle, tmp_path / "e.onnx")
    assert fused.metadata["ortcam.method"] == row.method
    assert fused.metadata["ortcam.chosen"] == row.line
    assert fused.metadata == fuse(tiny_bundle, tmp_path / "same.onnx", method="auto").metadata
    for bundle, options in ((tiny_bundle, {"budget": 4}), (tiny_bundle, {"precision": "fp32"}), (without_gradient, {})):
        masked = fuse(bundle, tmp_path / "e.onnx", force=True, **options)
        assert METHODS_BY_NAME[masked.metadata["ortcam.method"]].masks_image
        assert masked.metadata["ortcam.chosen"].startswith(masked.metadata["ortcam.method"])
    assert masked.metadata["ortcam.chosen"] == "scorecam++, because recipro-cam cannot be fused"
    named = fuse(tiny_bundle, tmp_path / "e.onnx", method=row.method, force=True)
    assert named.metadata["ortcam.chosen"] == ""


def test_a_map_that_is_not_the_runtimes_is_not_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortcam_export.fused.explainer_graph.maps.LEAST_RANGE", 2.0)  # every map is flat
    with pytest.raises(OrtcamError, match=r"differ from the runtime's by 1\.0e"):
        fuse(tiny_bundle, tmp_path / "e.onnx", method="grad-cam")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.onnx"
    assert main(["fuse", str(tiny_bundle), "-m", "gradcam", "-o", str(path), "--top-k", "2"]) == 0
    said = capsys.readouterr().out
    assert "saliency: float32 [2,32,48]" in said
    assert "maps differ from the runtime's by" in said
