"""Real weights on real photographs: exports classify as the original models do, and overlays land where they should."""

import csv
from pathlib import Path

import numpy as np
import pytest
from torchvision.models import VisionTransformer

import ortcam
from ortcam_export import export

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
    checkpoint = data / "weights" / f"{name}.pth.xz"
    if name != "deit_tiny":
        return export(name, folder / name, checkpoint=checkpoint).path
    return export(
        f"{__name__}:deit_tiny",
        folder / name,
        checkpoint=checkpoint,
        input_size=(224, 224),
        resize=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        labels=data / "imagenet_classes.json",
    ).path


@pytest.mark.parametrize("name", HITS)
def test_a_bundle_classifies_300_photographs_as_its_model_does(name: str, data: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(export_real(name, data, tmp_path))
    with (data / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    hits = np.zeros(2)
    for row in rows:
        best = np.argsort(-explainer.predict(data / "images" / row["file"]))[:5]
        hits += (best[0] == int(row["class_index"]), int(row["class_index"]) in best)
    for hit, percent in zip(hits, HITS[name], strict=True):
        assert abs(hit - percent / 100 * len(rows)) <= 1.15  # within one image; the percentages are rounded to 0.1


def test_a_transformer_is_cut_before_its_last_block_and_its_patches_make_the_maps(data: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(export_real("deit_tiny", data, tmp_path))
    cut = explainer.bundle.manifest.cut
    assert (cut.module, cut.layout, cut.prefix_tokens) == ("encoder.layers.encoder_layer_10", "tokens", 1)
    assert (cut.channels, cut.height, cut.width) == (192, 14, 14)
    e = explainer.explain(data / "two_class" / "dog_cat.png", method="scorecam")
    assert e.maps.shape == (1, 224, 224)
    assert e.maps.max() == 1


@pytest.mark.parametrize(("method", "apart"), [("scorecam", 5), ("scorecam++", 15)])
def test_the_maps_of_two_classes_follow_their_animals(method: str, apart: int, data: Path, tmp_path: Path) -> None:
    """The dog stands above the cat: the map of the cat's class has its centre of mass lower, by rows of 224.

    Score-CAM separates the two less (11 rows) than ScoreCAM++ (32): its masks keep more of the dog for the cat's class.
    """
    explainer = ortcam.load(export_real("squeezenet1_1", data, tmp_path))
    e = explainer.explain(data / "two_class" / "dog_cat.png", method=method, target=["bull mastiff", "tiger cat"])
    rows = np.arange(224)
    dog, cat = ((m.sum(axis=1) * rows).sum() / m.sum() for m in e.maps)
    assert cat > dog + apart
    overlay = e.overlay(1)
    assert overlay.shape == e.image.shape
    _, covered = e.on_photograph(1)
    np.testing.assert_array_equal(overlay[~covered], e.image[~covered])
    assert 0 < covered.mean() < 1


def test_photographs_as_released_are_explained_at_their_own_size(data: Path, tmp_path: Path) -> None:
    explainer = ortcam.load(export_real("squeezenet1_1", data, tmp_path))
    for path in sorted((data / "originals").iterdir())[:3]:
        e = explainer.explain(path, method="scorecam++")
        assert e.overlay().shape == e.image.shape
