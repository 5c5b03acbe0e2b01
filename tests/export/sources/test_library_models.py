"""Models of timm and transformers: their preprocessing, their labels and outputs, a bundle of each kind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.common.tiny import TinyNet
from tests.conftest import REPOSITORY, TINY_LABELS
from tests.export.rounding import rounding_error, roundings
from torch import nn

import ortcam
from ortcam.bundle import Bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.types import InputSpec

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

LABELS = {index: f"kind {index}" for index in range(5)}
TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
SMALL = {"image_size": 32, "patch_size": 8, "id2label": LABELS}


# --- models --------------------------------------------------------------------------------------------------------


def check(bundle: Bundle, picture: np.ndarray) -> None:
    """Parity was reached, the layer has a grid, and the maps of two classes differ."""
    manifest = bundle.manifest
    assert manifest.parity.logits <= manifest.parity.tolerance == 1e-4
    assert min(manifest.cut.height, manifest.cut.width) >= 2
    explanation = ortcam.load(bundle.path).explain(picture, method="scorecam++", top_k=2)
    assert explanation.maps.shape == (2, manifest.preprocessing.height, manifest.preprocessing.width)
    assert not explanation.flat.any()
    assert np.abs(explanation.weights[0] - explanation.weights[1]).max() > 0


TIMM = {
    "test_resnet": ("layer4", "nchw"),
    "test_vit": ("blocks.4", "tokens"),
    "test_convnext": ("stages", "nchw"),
    "test_efficientnet": ("bn2", "nchw"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_a_timm_model_says_all_that_an_export_needs(name: str, tmp_path: Path, picture: np.ndarray) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    bundle = export(module, tmp_path / "a.ortcam", input_size=(96, 96) if name != "test_vit" else None)
    manifest = bundle.manifest
    assert (manifest.cut.module, manifest.cut.layout) == TIMM[name]
    config = timm.data.resolve_model_data_config(module)
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == (config["mean"], config["std"])
    assert manifest.preprocessing_source == "timm data config"
    assert len(manifest.labels) == 1000
    assert manifest.labels[1] == "goldfish, Carassius auratus"
    check(bundle, picture)
    with torch.inference_mode():
        logits = module(torch.from_numpy(ortcam.load(bundle.path).preprocess(picture)))
    bound = rounding_error(roundings(module), max(1.0, float(logits.abs().max())))
    np.testing.assert_allclose(ortcam.load(bundle.path).predict(picture), logits.softmax(1)[0].numpy(), atol=bound)


@pytest.mark.long
def test_what_a_user_says_comes_before_what_a_timm_model_says(tmp_path: Path) -> None:
    module = timm.create_model("test_resnet", num_classes=3)
    said: list[str] = []
    assert export(module, tmp_path / "b.ortcam", report=said.append).manifest.labels[2] == "class 2"
    assert any(line.startswith("assumed: classes go by their index, as nothing names them") for line in said)
    manifest = export(
        module, tmp_path / "a.ortcam", labels=["a", "b", "c"], input_size=(64, 64), mean=(0, 0, 0), channel_order="bgr"
    ).manifest
    assert manifest.labels == ("a", "b", "c")
    assert manifest.preprocessing == Preprocessing(
        64, 64, 67, (0, 0, 0), (0.5, 0.5, 0.5), "bilinear", channel_order="bgr"
    )
    assert manifest.preprocessing_source == "timm data config, with mean, channel_order as given"


@pytest.mark.long
def test_a_timm_model_exports_from_the_command_line_with_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = tmp_path / "weights.safetensors"
    pytest.importorskip("safetensors.torch").save_file(timm.create_model("test_resnet").state_dict(), weights)
    bundle = export("timm.models:test_resnet", tmp_path / "a.ortcam", checkpoint=weights, input_size=(64, 64))
    assert bundle.manifest.model.weights == "weights.safetensors"
    assert bundle.manifest.model.name == "timm.models:test_resnet"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_timm_checkpoint_brings_its_own_number_of_classes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = timm.create_model(name, num_classes=5).eval()
    half = {
        f"module.{key}": value.half() if value.is_floating_point() else value
        for key, value in trained.state_dict().items()
    }
    torch.save({"epoch": 3, "model_state_dict": half}, tmp_path / "c.pth")
    source = open_source(
        f"timm.models:{name}", checkpoint=tmp_path / "c.pth", spec=InputSpec(labels=["a", "b", "c", "d", "e"])
    )
    assert source.classes == 5
    size = source.preprocessing.height, source.preprocessing.width
    images = torch.rand(1, 3, *size)
    with torch.inference_mode():
        assert torch.equal(source.classifier(images), trained.half().float()(images))
    assert open_source(f"timm.models:{name}", checkpoint=tmp_path / "c.pth").labels is None


def vit() -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**TOKENS, **SMALL))


def deit() -> nn.Module:
    return transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**TOKENS, **SMALL))


def beit() -> nn.Module:
    return transformers.BeitForImageClassification(transformers.BeitConfig(**TOKENS, **SMALL))


def convnext() -> nn.Module:
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
    return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes, id2label=LABELS))


def swin() -> nn.Module:
    sizes = {
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
    }
    return transformers.SwinForImageClassification(transformers.SwinConfig(**sizes, id2label=LABELS))


TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, Any], str]] = {
    "vit": (vit, "ViTImageProcessor", {"size": {"height": 32, "width": 32}}, "vit.layers.1"),
    "deit": (
        deit,
        "DeiTImageProcessor",
        {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}},
        "deit.layers.1",
    ),
    "beit": (beit, "BeitImageProcessor", {"size": {"height": 32, "width": 32}}, ""),
    "convnext": (convnext, "ConvNextImageProcessor", {"size": {"shortest_edge": 64}}, "convnext.encoder"),
    "swin": (swin, "ViTImageProcessor", {"size": {"height": 64, "width": 64}}, "swin.layernorm"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformers_model_exports_with_its_image_processor(name: str, tmp_path: Path, picture: np.ndarray) -> None:
    build, processor, settings, layer = TRANSFORMERS[name]
    torch.manual_seed(0)
    module = build().eval()
    attention = module.config._attn_implementation
    preprocessing = getattr(transformers, processor + "Pil")(**settings)
    bundle = export(module, tmp_path / "a.ortcam", preprocessing=preprocessing)
    assert bundle.manifest.labels == tuple(LABELS.values())
    assert bundle.manifest.preprocessing_source == f"transformers {processor}Pil"
    assert bundle.manifest.cut.module == (layer or None)
    assert module.config._attn_implementation == attention, "the user's module is left as it was"
    check(bundle, picture)
    inputs = preprocessing(images=Image.fromarray(picture), return_tensors="pt")
    with torch.inference_mode():
        logits = module(**inputs).logits
    bound = rounding_error(roundings(module), max(1.0, float(logits.abs().max())))
    np.testing.assert_allclose(ortcam.load(bundle.path).predict(picture), logits.softmax(1)[0].numpy(), atol=bound)


@pytest.mark.slow
def test_placeholders_are_no_labels(tmp_path: Path) -> None:
    module = transformers.ViTForImageClassification(transformers.ViTConfig(**TOKENS, image_size=32, patch_size=8))
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    assert export(module, tmp_path / "a.ortcam", preprocessing=processor).manifest.labels == ("class 0", "class 1")


@pytest.mark.long
def test_inspecting_a_transformers_model_needs_no_size() -> None:
    assert inspect_model(vit()).default.cut.module == "vit.layers.1"


def pair() -> tuple[nn.Module, object]:
    """A module and its preprocessing, as a user's own file may return them."""
    torch.manual_seed(0)
    return vit(), transformers.ViTImageProcessor(size={"height": 32, "width": 32})


@pytest.mark.long
def test_a_callable_may_return_a_preprocessing_with_its_module(tmp_path: Path) -> None:
    bundle = export(f"{__name__}:pair", tmp_path / "a.ortcam", mean=(0.4, 0.4, 0.4))
    assert bundle.manifest.preprocessing.mean == (0.4, 0.4, 0.4)
    assert bundle.manifest.preprocessing_source == "transformers ViTImageProcessor, with mean as given"
    other = Preprocessing(32, 32, 40, (0, 0, 0), (1, 1, 1))
    given = export(f"{__name__}:pair", tmp_path / "b.ortcam", preprocessing=other)
    assert given.manifest.preprocessing == other


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**TOKENS, vocab_size=20)),
            "BertForSequenceClassification is a text model whose input is 'input_ids'; accepted is an image classifier",
        ),
        (
            lambda: transformers.ViTModel(transformers.ViTConfig(**TOKENS, image_size=32, patch_size=8)),
            r"BaseModelOutputWithPooling of last_hidden_state: \[N,17,32\], pooler_output: \[N,32\]; accepted is a",
        ),
    ],
)
def test_a_model_of_transformers_that_is_no_image_classifier_is_named(
    build: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    given = {"input_size": (32, 32), "mean": (0, 0, 0), "std": (1, 1, 1), "labels": ["a"]}
    with pytest.raises(ExportError, match=message) as caught:
        export(build(), tmp_path / "a.ortcam", **given)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_onnx_file_takes_a_preprocessing_object_too(tmp_path: Path, picture: np.ndarray) -> None:
    torch.onnx.export(
        TinyNet().eval(),
        (torch.zeros(1, 3, 32, 48),),
        tmp_path / "tiny.onnx",
        dynamo=True,
        input_names=["pixels"],
        output_names=["scores"],
        verbose=False,
    )
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 48})
    bundle = export(tmp_path / "tiny.onnx", tmp_path / "a.ortcam", preprocessing=processor, labels=TINY_LABELS)
    assert bundle.manifest.preprocessing_source == "transformers ViTImageProcessorPil"
    theirs = processor(images=Image.fromarray(picture), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ortcam.load(bundle.path).preprocess(picture), theirs)
    wrong = transformers.ViTImageProcessor(size={"height": 64, "width": 48})
    with pytest.raises(ExportError, match="the graph takes 32 x 48"):
        export(tmp_path / "tiny.onnx", tmp_path / "b.ortcam", preprocessing=wrong, labels=TINY_LABELS)


@pytest.mark.long
def test_neither_library_is_needed_for_other_models() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(timm=None, transformers=None)\n"  # importing either raises
        "from ortcam_export.sources.opening import open_source\n"
        "from ortcam_export.sources.types import InputSpec\n"
        "from tests.conftest import TINY_INPUT; from tests.common.tiny import TinyNet\n"
        "open_source(TinyNet(), spec=InputSpec(**TINY_INPUT)); open_source('squeezenet1_1', weights='none')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
