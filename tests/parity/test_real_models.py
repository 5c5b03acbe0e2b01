"""Real weights on real photographs: exports classify as the original models do, and overlays land where they should."""

import csv
import lzma
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torchvision.models import VisionTransformer

import ortcam
from ortcam_export import export
from tests.common.sharing import export_once

# Top-1 and top-5 hits among the 300 photographs, as measured with Pillow preprocessing in PyTorch.
HITS = {
    "squeezenet1_1": (57.7, 78.7),
    "mobilenet_v2": (67.3, 88.7),
    "resnet18": (65.3, 84.3),
    "deit_tiny": (68.7, 90.7),
}


def deit_tiny() -> VisionTransformer:
    return VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=1000)


def export_real(name: str, data: Path, folder: Path) -> Path:
    """The bundle of real weights; one that lies in the folder already is taken."""
    checkpoint = data / "weights" / f"{name}.pth.xz"
    if name != "deit_tiny":
        return export_once(name, folder / f"real-{name}", checkpoint=checkpoint)
    return export_once(
        f"{__name__}:deit_tiny",
        folder / f"real-{name}",
        checkpoint=checkpoint,
        input_size=(224, 224),
        resize=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        labels=data / "imagenet_classes.json",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", HITS)
def test_a_bundle_classifies_300_photographs_as_its_model_does(name: str, data: Path, shared: Path) -> None:
    explainer = ortcam.load(export_real(name, data, shared))
    with (data / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    hits = np.zeros(2)
    for row in rows:
        best = np.argsort(-explainer.predict(data / "images" / row["file"]))[:5]
        hits += (best[0] == int(row["class_index"]), int(row["class_index"]) in best)
    for hit, percent in zip(hits, HITS[name], strict=True):
        assert abs(hit - percent / 100 * len(rows)) <= 1.15  # within one image; the percentages are rounded to 0.1


@pytest.mark.long
def test_a_transformer_is_cut_before_its_last_block_and_its_patches_make_the_maps(data: Path, shared: Path) -> None:
    explainer = ortcam.load(export_real("deit_tiny", data, shared))
    cut = explainer.bundle.manifest.cut
    assert (cut.module, cut.layout, cut.prefix_tokens) == ("encoder.layers.encoder_layer_10", "tokens", 1)
    assert (cut.channels, cut.height, cut.width) == (192, 14, 14)
    e = explainer.explain(data / "two_class" / "dog_cat.png", method="scorecam")
    assert e.maps.shape == (1, 224, 224)
    assert e.maps.max() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("method", "apart"), [("scorecam", 5), ("scorecam++", 15)])
def test_the_maps_of_two_classes_follow_their_animals(method: str, apart: int, data: Path, shared: Path) -> None:
    """The dog stands above the cat: the map of the cat's class has its centre of mass lower, by rows of 224.

    Score-CAM separates the two less (11 rows) than ScoreCAM++ (32): its masks keep more of the dog for the cat's class.
    """
    explainer = ortcam.load(export_real("squeezenet1_1", data, shared))
    e = explainer.explain(data / "two_class" / "dog_cat.png", method=method, target=["bull mastiff", "tiger cat"])
    rows = np.arange(224)
    dog, cat = ((m.sum(axis=1) * rows).sum() / m.sum() for m in e.maps)
    assert cat > dog + apart
    overlay = e.overlay(1)
    assert overlay.shape == e.image.shape
    _, covered = e.on_photograph(1)
    inner = ~cv2.dilate(covered.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)  # without the frame
    assert overlay[inner].mean() < 0.65 * e.image[inner].mean(), "what the model did not see is dimmed"
    former = e.overlay(1, colormap="jet", blend="flat")
    np.testing.assert_array_equal(former[~covered], e.image[~covered])
    assert 0 < covered.mean() < 1


@pytest.mark.long
def test_photographs_as_released_are_explained_at_their_own_size(data: Path, shared: Path) -> None:
    explainer = ortcam.load(export_real("squeezenet1_1", data, shared))
    for path in sorted((data / "originals").iterdir())[:3]:
        e = explainer.explain(path, method="scorecam++")
        assert e.overlay().shape == e.image.shape


def squeezenet_file(data: Path, folder: Path) -> Path:
    """Real weights through torch's old exporter, for one image at a time."""
    module = torchvision.models.squeezenet1_1().eval()
    with lzma.open(data / "weights" / "squeezenet1_1.pth.xz") as file:
        state = torch.load(file, weights_only=True)
    module.load_state_dict({key: value.float() for key, value in state.items()})
    path = folder / "squeezenet.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(1, 3, 224, 224),), path, input_names=["image"], dynamo=False, opset_version=13
        )
    return path


def export_file(path: Path, data: Path) -> ortcam.Explainer:
    bundle = export(
        path,
        path.with_suffix(".ortcam"),
        resize=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        channel_order="rgb",
        labels=data / "imagenet_classes.json",
    )
    return ortcam.load(bundle.path)


@pytest.mark.long
def test_a_file_for_one_image_explains_as_the_module_it_came_from(data: Path, shared: Path, tmp_path: Path) -> None:
    from_file = export_file(squeezenet_file(data, tmp_path), data)
    from_module = ortcam.load(export_real("squeezenet1_1", data, shared))
    assert from_file.bundle.manifest.cut.module == from_module.bundle.manifest.cut.module == "features"
    for photograph in sorted((data / "images").iterdir())[:20]:
        np.testing.assert_allclose(from_file.predict(photograph), from_module.predict(photograph), atol=1e-5)
    picture = data / "two_class" / "dog_cat.png"
    maps = [explainer.explain(picture, method="scorecam", top_k=2).maps for explainer in (from_file, from_module)]
    np.testing.assert_allclose(*maps, atol=1e-4)


class Photographs(CalibrationDataReader):
    """Preprocessed photographs to quantize with."""

    def __init__(self, explainer: ortcam.Explainer, photographs: list[Path], image: str) -> None:
        self.feeds: Iterator[dict[str, np.ndarray]] = iter([{image: explainer.preprocess(p)} for p in photographs])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


@pytest.mark.long
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(QuantFormat.QDQ, id="qdq"),
        pytest.param(QuantFormat.QOperator, id="qoperator"),
    ],
)
def test_an_8_bit_file_is_exact_and_its_maps_look_like_those_in_float32(
    form: QuantFormat, data: Path, tmp_path: Path
) -> None:
    path = squeezenet_file(data, tmp_path)
    floating = export_file(path, data)
    photographs = sorted((data / "images").iterdir())
    quant_pre_process(str(path), str(tmp_path / "ready.onnx"))
    reader = Photographs(floating, photographs[-16:], "image")
    quantize_static(
        str(tmp_path / "ready.onnx"), str(tmp_path / "int8.onnx"), reader, quant_format=form, per_channel=True
    )
    integers = export_file(tmp_path / "int8.onnx", data)
    manifest = integers.bundle.manifest
    assert (manifest.precision, manifest.cut.module) == ("int8", "features")
    assert manifest.parity.logits <= 1e-4, "head(features(x)) keeps the integer kernels"
    for photograph in photographs[:3]:
        target = floating.explain(photograph, method="scorecam")
        other = integers.explain(photograph, method="scorecam", target=target.targets)
        assert np.corrcoef(target.maps.ravel(), other.maps.ravel())[0, 1] > 0.95
