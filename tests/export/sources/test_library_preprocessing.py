"""Preprocessing of timm and transformers: the same tensors through ortcam, to the bit; or a refusal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.common.tiny import TinyNet
from tests.conftest import TINY_LABELS

from ortcam_export import ExportError, export
from ortcam_export.sources.libraries import read_declared

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

LABELS = {index: f"kind {index}" for index in range(5)}
TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
SMALL = {"image_size": 32, "patch_size": 8, "id2label": LABELS}


def photographs() -> list[np.ndarray]:
    """uint8 RGB, noise on smooth colours: landscape, portrait, square, and one smaller than most inputs."""
    generator = np.random.default_rng(4)
    pictures = []
    for height, width in ((211, 320), (333, 187), (256, 256), (60, 90)):
        rows, columns = np.mgrid[:height, :width]
        smooth = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1)
        pictures.append((smooth * 0.6 + generator.integers(0, 100, smooth.shape)).astype(np.uint8))
    return pictures


# --- timm's data configs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "size"),
    [("center", 0.875, 64), ("center", 0.95, 97), ("center", 1.0, 80), ("squash", 1.0, 72), ("squash", 0.9, 72)],
)
def test_a_data_config_gives_the_tensors_of_timms_own_transform(
    interpolation: str, crop_mode: str, crop_pct: float, size: int
) -> None:
    config = {
        "input_size": (3, size, size),
        "interpolation": interpolation,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }
    transform = timm.data.create_transform(**config, is_training=False)
    preprocessing = read_declared(config).preprocessing
    for picture in photographs():
        np.testing.assert_array_equal(preprocessing(picture)[0], transform(Image.fromarray(picture)).numpy())


def test_the_crop_of_a_data_config_scales_with_the_size_a_user_gives() -> None:
    config = timm.data.resolve_data_config({"input_size": (3, 224, 224)}, pretrained_cfg={"crop_pct": 0.9})
    assert read_declared(config, (128, 128)).preprocessing.resize == 142
    assert timm.data.create_transform(**config | {"input_size": (3, 128, 128)}).transforms[0].size == 142


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_mode": "border"}, "crop_mode border cannot be represented; accepted is center or squash"),
        ({"interpolation": "lanczos"}, "interpolation lanczos cannot be represented; accepted is bilinear or bicubic"),
        ({"input_size": 224}, r"input_size 224 cannot be represented; accepted is \(C, H, W\)"),
        ({"crop_pct": 0}, "crop_pct 0 cannot be represented; accepted is a number above 0"),
        ({"input_size": (3, 224, 320)}, "center with an input of 224 x 320 cannot be represented"),
        ({"crop_border_pixels": 4}, "crop_border_pixels 4 cannot be represented"),
        ({"std": (0.0, 1.0, 1.0)}, "timm data config: preprocessing std"),
        ({"std": 1.0}, "timm data config: "),
    ],
)
def test_a_data_config_that_cannot_be_represented_is_refused(change: dict[str, Any], message: str) -> None:
    config = timm.data.resolve_data_config({}, pretrained_cfg={"crop_pct": 0.9})
    read_declared(config)
    with pytest.raises(ExportError, match=message) as caught:
        read_declared(config | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_size": (3, 8, 8)}, "timm data config has interpolation, mean"),
        (object(), "object is not known; accepted"),
    ],
)
def test_what_is_no_preprocessing_is_named(given: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(TinyNet(), tmp_path / "a.ortcam", labels=TINY_LABELS, preprocessing=given)


# --- transformers' image processors --------------------------------------------------------------------------------

PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {"size": {"height": 64, "width": 48}},
    "BeitImageProcessor": {"size": {"height": 48, "width": 48}},
    "SiglipImageProcessor": {"size": {"height": 48, "width": 48}, "resample": 2},
    "CLIPImageProcessor": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 70}},
    "LevitImageProcessor": {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}},
    "PoolFormerImageProcessor": {"size": {"shortest_edge": 90}, "crop_size": {"height": 90, "width": 90}},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
    "EfficientNetImageProcessor": {"size": {"height": 60, "width": 60}, "image_std": [0.4, 0.5, 0.6]},
    "MobileNetV2ImageProcessor": {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "no normalisation": {"do_normalize": False},
    "no rescaling": {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [50.0, 60.0, 70.0]},
    "bytes": {"do_rescale": False, "do_normalize": False},
    "another scale": {"rescale_factor": 1 / 127.5},
}
CASES = [
    *PROCESSORS.items(),
    *(("ViTImageProcessor", {"size": {"height": 40, "width": 56}, **variant}) for variant in VARIANTS.values()),
    ("EfficientNetImageProcessor", {"size": {"height": 60, "width": 60}, "rescale_offset": True, "include_top": False}),
]


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("backend", ["Pil", ""])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_an_image_processor_gives_the_same_tensors_through_ortcam(
    name: str, settings: dict[str, Any], backend: str
) -> None:
    """Bit for bit with the PIL backend; 1 of 255 apart with torchvision's, whose resize has 16-bit weights."""
    processor = getattr(transformers, name + backend)(**settings)
    preprocessing = read_declared(processor).preprocessing
    level = preprocessing.scale / 255 / np.array(preprocessing.std)[:, None, None]
    for picture in photographs():
        theirs = processor(images=Image.fromarray(picture), return_tensors="np")["pixel_values"]
        result = preprocessing(picture)
        if not backend:
            assert (np.abs(result - theirs) / level).max() <= 1 + 1e-4
        elif name == "EfficientNetImageProcessor":  # it divides twice, which rounds the last bit twice
            np.testing.assert_allclose(result, theirs, rtol=0, atol=2.0**-20)
        else:
            np.testing.assert_array_equal(result, theirs)


@pytest.mark.sample(every=4)
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "ViTImageProcessor",
            {"resample": 1},
            "resample lanczos cannot be represented; accepted is bilinear or bicubic",
        ),
        ("ViTImageProcessor", {"do_resize": False}, "do_resize False cannot be represented"),
        ("CLIPImageProcessor", {"do_center_crop": False}, "shortest_edge 224 without a crop cannot be represented"),
        ("DetrImageProcessor", {}, "cannot be represented; accepted is height and width, or shortest_edge with a crop"),
        ("ViTImageProcessor", {"image_std": [0.5, 0.5, 0.5, 0.5]}, "rescale_factor, image_mean or image_std: "),
        ("DonutImageProcessor", {}, "differs by .* grey levels from what its attributes say"),
        ("VideoMAEImageProcessor", {}, "gives .* where its attributes say"),
    ],
)
def test_an_image_processor_that_cannot_be_represented_is_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=f"transformers {name}.*{message}") as caught:
        read_declared(getattr(transformers, name)(**settings))
    assert "\n" not in str(caught.value)


def test_a_processor_that_does_more_than_its_attributes_say_is_caught() -> None:
    class Inverting(transformers.ViTImageProcessor):  # type: ignore[misc]
        def _preprocess(self, images: list[torch.Tensor], *arguments: Any, **settings: Any) -> Any:
            return super()._preprocess([255 - image for image in images], *arguments, **settings)

    with pytest.raises(ExportError, match="Inverting: differs by"):
        read_declared(Inverting(size={"height": 32, "width": 32}))


def test_a_processor_inside_another_is_found() -> None:
    inner = transformers.ViTImageProcessor(size={"height": 32, "width": 40})
    assert read_declared(SimpleNamespace(image_processor=inner)) == read_declared(inner)
