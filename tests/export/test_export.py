"""Exporting: the split model is the model, the default layer is the right one, and nothing is ever half written."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torchvision
from tests.common.tiny import TinyNet
from tests.conftest import REPOSITORY, TINY_INPUT, TINY_LABELS
from tests.export.rounding import TINY_MAPS
from torch import nn

import ortcam
from ortcam.bundle import MANIFEST_NAME, SCHEMA_VERSION, read_bundle
from ortcam.cli import main
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.graphs.layers import Layer

DEFAULT_LAYERS = {
    "resnet18": ("layer4", (512, 7, 7)),
    "resnet50": ("layer4", (2048, 7, 7)),
    "squeezenet1_1": ("features", (512, 13, 13)),
    "mobilenet_v2": ("features", (1280, 7, 7)),
    "mobilenet_v3_small": ("features", (576, 7, 7)),
    "vgg16": ("features.29", (512, 14, 14)),
    "densenet121": (None, (1024, 7, 7)),
    "shufflenet_v2_x0_5": ("conv5", (1024, 7, 7)),
}


def logits_of(bundle: Path, images: np.ndarray) -> np.ndarray:
    features = ort.InferenceSession(bundle / "features.onnx").run(["features"], {"image": images})[0]
    return ort.InferenceSession(bundle / "head.onnx").run(["logits"], {"features": features})[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT_LAYERS)
def test_a_torchvision_model_splits_at_its_last_spatial_layer_and_stays_itself(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = torchvision.models.get_model(name, weights=None).eval()
    checkpoint = tmp_path / "weights.pth"
    torch.save(module.state_dict(), checkpoint)
    bundle = export(name, tmp_path / "m.ortcam", checkpoint=checkpoint)
    cut = bundle.manifest.cut
    assert (cut.module, (cut.channels, cut.height, cut.width)) == DEFAULT_LAYERS[name]
    for count in (1, 3):
        images = torch.randn(count, 3, 224, 224)
        with torch.inference_mode():
            expected = module(images).numpy()
        logits = logits_of(bundle.path, images.numpy())
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert bundle.manifest.parity.logits <= bundle.manifest.parity.tolerance == 1e-4
    weights = torchvision.models.get_model_weights(name)
    assert bundle.manifest.labels == tuple(next(iter(weights)).meta["categories"])
    parameters = sum(value.numel() for value in module.parameters()) * 4
    stored = bundle.manifest.files["weights.bin"].size
    graphs = sum(record.size for file, record in bundle.manifest.files.items() if file.endswith(".onnx"))
    assert stored <= 1.02 * parameters + 100_000, "weights are stored once"
    assert graphs < 3_000_000


@pytest.mark.long
def test_preprocessing_comes_from_the_weights_metadata(tmp_path: Path) -> None:
    state = tmp_path / "state.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), state)
    original = export("mobilenet_v2", tmp_path / "a.ortcam", checkpoint=state).manifest
    assert original.preprocessing.resize == 256
    assert original.preprocessing_source == "torchvision MobileNet_V2_Weights.IMAGENET1K_V1"
    newer = export("mobilenet_v2", tmp_path / "b.ortcam", checkpoint=state, weights="IMAGENET1K_V2").manifest
    assert newer.preprocessing.resize == 232
    own = export("mobilenet_v2", tmp_path / "c.ortcam", checkpoint=state, resize=240, input_size=(192, 192)).manifest
    assert (own.preprocessing.resize, own.preprocessing.height, own.cut.height) == (240, 192, 6)
    assert "as given" in own.preprocessing_source


@pytest.mark.long
def test_a_checkpoint_of_another_number_of_classes_is_its_own_model(tmp_path: Path) -> None:
    state = tmp_path / "state.pth"
    torch.save(torchvision.models.squeezenet1_1(num_classes=4).state_dict(), state)
    bundle = export("squeezenet1_1", tmp_path / "a.ortcam", checkpoint=state, labels=["a", "b", "c", "d"])
    assert bundle.manifest.labels == ("a", "b", "c", "d")
    said: list[str] = []
    bundle = export("squeezenet1_1", tmp_path / "b.ortcam", checkpoint=state, report=said.append)
    assert bundle.manifest.labels == ("class 0", "class 1", "class 2", "class 3")
    assumed = "\n".join(line for line in said if line.startswith("assumed: "))
    assert "short side to 256, centre crop 224 x 224" in assumed
    assert "are not for its 4 classes" in assumed
    assert "logits of a softmax" in assumed
    assert "the layer features" in assumed


@pytest.fixture(scope="module")
def layers() -> tuple[Layer, ...]:
    return inspect_model(TinyNet(), input_size=(32, 48)).layers


@pytest.mark.long
def test_inspect_lists_every_layer_with_its_shape_and_marks_the_default(layers: tuple[Layer, ...]) -> None:
    assert [(layer.cut.module, layer.cut.channels, layer.cut.height, layer.cut.width) for layer in layers] == [
        ("features.0", 8, 16, 24),
        ("features.1", 8, 16, 24),
        ("features.2", 12, 8, 12),
        ("features.3", 12, 8, 12),
        ("features.4", 10, 8, 12),
        ("features", 10, 8, 12),
    ]
    assert inspect_model(TinyNet(), input_size=(32, 48)).default == layers[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features.3", "3", "tensor"])
def test_a_layer_is_named_by_module_index_or_tensor(name: str, layers: tuple[Layer, ...], tmp_path: Path) -> None:
    name = layers[3].cut.tensor if name == "tensor" else name
    bundle = export(TinyNet(), tmp_path / "a.ortcam", layer=name, **TINY_INPUT)
    assert bundle.manifest.cut == layers[3].cut


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("feature.3", "did you mean 'features.3'"),
        ("classifier", r"'classifier' gives \[1, 6\] .*no spatial or token layout"),
        ("77", "77"),
    ],
)
def test_a_layer_that_is_not_there_gets_suggestions(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(TinyNet(), tmp_path / "a.ortcam", layer=name, **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_transformer_is_cut_where_its_patches_still_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    nn.init.normal_(module.heads.head.weight)
    bundle = export(
        module, tmp_path / "v.ortcam", input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), labels=list("abcde")
    )
    cut = bundle.manifest.cut
    assert cut.module == "encoder.layers.encoder_layer_1", "the last block passes only the class token on"
    assert (cut.layout, cut.prefix_tokens, cut.channels, cut.height, cut.width) == ("tokens", 1, 16, 4, 4)
    features = ort.InferenceSession(bundle.path / "features.onnx")
    assert features.get_outputs()[0].shape[1:] == [17, 16]
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    explanation = ortcam.load(bundle.path).explain(image, top_k=5)
    assert explanation.maps.shape == (5, 32, 32)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bundle(tmp_path: Path) -> None:
    first = export(TinyNet(), tmp_path / "a.ortcam", **TINY_INPUT)
    second = export(TinyNet(), tmp_path / "b.ortcam", **TINY_INPUT)
    assert first.sha256 == second.sha256


def test_a_bundle_names_no_path_of_this_machine(tiny_bundle: Path) -> None:
    for path in tiny_bundle.iterdir():
        content = path.read_bytes()
        for place in (REPOSITORY, Path.home(), Path(torch.__file__).parent):
            assert str(place).encode() not in content, path.name


@pytest.mark.slow
def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    export(TinyNet(), tmp_path / "a.ortcam", **TINY_INPUT)
    before = read_bundle(tmp_path / "a.ortcam").sha256
    with pytest.raises(ExportError, match="--force replaces it"):
        export(TinyNet(4), tmp_path / "a.ortcam", **TINY_INPUT)
    assert read_bundle(tmp_path / "a.ortcam").sha256 == before
    export(TinyNet(4), tmp_path / "a.ortcam", force=True, **TINY_INPUT)
    assert read_bundle(tmp_path / "a.ortcam").manifest.cut.channels == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.ortcam"]


def test_what_is_not_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("x")
    with pytest.raises(ExportError, match="exists and is not a bundle"):
        export(TinyNet(), tmp_path / "photos", force=True, **TINY_INPUT)
    assert (tmp_path / "photos" / "mine.jpg").is_file()
    with pytest.raises(ExportError, match="does not exist"):
        export(TinyNet(), tmp_path / "no" / "a.ortcam", **TINY_INPUT)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["choosing the layer", "measuring parity", "writing the bundle"])
def test_an_export_that_stops_leaves_nothing_behind(tmp_path: Path, stage: str) -> None:
    def stop(said: str) -> None:
        if said == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(TinyNet(), tmp_path / "a.ortcam", report=stop, **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_killed_export_leaves_no_bundle_and_keeps_the_old_one(tmp_path: Path) -> None:
    old = export(TinyNet(), tmp_path / "a.ortcam", **TINY_INPUT)
    script = (
        "import sys, time; from ortcam_export import export\n"
        "from tests.conftest import TINY_INPUT; from tests.common.tiny import TinyNet\n"
        "def report(said):\n"
        "    print(said, flush=True)\n"
        "    if said == 'writing the bundle': time.sleep(60)\n"
        "export(TinyNet(4), sys.argv[1], force=True, report=report, **TINY_INPUT)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a.ortcam")], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stdout is not None
    started = time.monotonic()
    while "writing the bundle" not in process.stdout.readline():
        assert time.monotonic() - started < 120
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert read_bundle(tmp_path / "a.ortcam").sha256 == old.sha256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet81"], "unknown model 'resnet81'.*did you mean"),
        (["fasterrcnn_resnet50_fpn"], "is a detection model; accepted is a classifier"),
        (["resnet18", "--weights", "IMAGENET9"], "unknown weights 'IMAGENET9'; accepted: none, IMAGENET1K_V1, DEFAULT"),
        (["tests.conftest:nothing"], "accepted is package.module:callable"),
        (["no.such.module:model"], "accepted is package.module:callable"),
        (["tests.common.tiny:TinyNet"], "give --preset NAME, or .*, and --input-size 224"),
        (["tests.common.tiny:TinyNet", "--input-size", "32", "48"], "--preset NAME, or --mean R,G,B and --std R,G,B$"),
        (["missing.onnx", "--mean", "0", "0", "0", "--std", "1", "1", "1"], "missing.onnx: no such file"),
    ],
)
def test_a_wrong_model_gets_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments, "-o", str(tmp_path / "a.ortcam")]) == 2
    complaint = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ortcam: ")]
    assert len(complaint) == 1
    assert re.search(message, complaint[0]), complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_callable_exports_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(TINY_LABELS))
    arguments = ["--input-size", "32", "48", "--resize", "40", "--mean", ".5", ".5", ".5", "--std", ".2", ".2", ".2"]
    command = ["export", "tests.common.tiny:TinyNet", "-o", str(tmp_path / "t.ortcam"), *arguments]
    assert main([*command, "--interpolation", "bicubic", "--labels", str(tmp_path / "labels.txt")]) == 0
    manifest = json.loads((tmp_path / "t.ortcam" / MANIFEST_NAME).read_text())
    assert manifest["preprocessing"]["interpolation"] == "bicubic"
    assert manifest["preprocessing"]["resize"] == 40
    assert tuple(manifest["labels"]) == TINY_LABELS


@pytest.mark.slow
def test_what_is_said_of_input_and_activation_is_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(TINY_LABELS))
    said = ["--channel-order", "bgr", "--scale", "255", "--mean", "104", "117", "123", "--std", "1", "1", "1"]
    bundle = str(tmp_path / "t.ortcam")
    command = ["export", "tests.common.tiny:TinyNet", "--bundle", bundle, "--input-size", "32", "48"]
    assert main([*command, *said, "--activation", "sigmoid", "--labels", str(tmp_path / "labels.txt")]) == 0
    manifest = read_bundle(tmp_path / "t.ortcam").manifest
    assert (manifest.preprocessing.channel_order, manifest.preprocessing.scale) == ("bgr", 255)
    assert manifest.preprocessing.mean == (104, 117, 123)
    assert manifest.activation == "sigmoid"
    assert manifest.schema == SCHEMA_VERSION


class OneLogit(TinyNet):
    """A binary head."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image)[:, :1]


@pytest.mark.long
def test_one_logit_is_refused_as_softmax_and_taken_as_sigmoid(tmp_path: Path, picture: np.ndarray) -> None:
    said = TINY_INPUT | {"labels": ["cat"]}
    for activation in (None, "softmax"):
        with pytest.raises(ExportError, match="one logit, whose softmax is 1 for every image; --activation sigmoid"):
            export(OneLogit(), tmp_path / "a.ortcam", activation=activation, **said)
    assert list(tmp_path.iterdir()) == []
    export(OneLogit(), tmp_path / "a.ortcam", activation="sigmoid", **said)
    explanation = ortcam.load(tmp_path / "a.ortcam").explain(picture)
    assert explanation.labels == ("cat",)
    assert 0 < explanation.probabilities[0] < 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"activation": "tanh"}, "activation='tanh': accepted is 'softmax' or 'sigmoid'"),
        ({"input_layout": "nhc"}, "input_layout='nhc': accepted is 'nchw' or 'nhwc'"),
        ({"channel_order": "gbr"}, r"channel_order='gbr': expected one of \['rgb', 'bgr', 'grey'"),
        ({"scale": 0.0}, "scale=0.0: expected a positive number"),
    ],
)
def test_a_word_that_is_not_accepted_is_refused(said: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ortcam.OrtcamError, match=message):
        export(TinyNet(), tmp_path / "a.ortcam", **TINY_INPUT | said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_onnx_file_explains_like_the_module_it_came_from(tmp_path: Path, picture: np.ndarray) -> None:
    module = TinyNet().eval()
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, 32, 48),),
        tmp_path / "tiny.onnx",
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["pixels"],
        output_names=["scores"],
        verbose=False,
    )
    said = TINY_INPUT | {"channel_order": "rgb"}
    from_file = export(tmp_path / "tiny.onnx", tmp_path / "f.ortcam", **said)
    from_module = export(module, tmp_path / "m.ortcam", **TINY_INPUT)
    assert from_file.manifest.cut.channels == from_module.manifest.cut.channels
    maps = [ortcam.load(bundle.path).explain(picture, top_k=3).maps for bundle in (from_file, from_module)]
    np.testing.assert_allclose(*maps, atol=TINY_MAPS)
    with pytest.raises(ExportError, match="--checkpoint goes with a PyTorch model"):
        export(tmp_path / "tiny.onnx", tmp_path / "x.ortcam", checkpoint="w.pth", **said)
    with pytest.raises(ExportError, match="the graph takes"):
        export(tmp_path / "tiny.onnx", tmp_path / "x.ortcam", **said | {"input_size": (64, 64)})
    (tmp_path / "broken.onnx").write_bytes(b"not onnx")
    with pytest.raises(ExportError, match="cannot be read as ONNX"):
        export(tmp_path / "broken.onnx", tmp_path / "x.ortcam", **said)
