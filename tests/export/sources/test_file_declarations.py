"""What an .onnx file says of its classes and its image is taken, and what it does not say is asked for or assumed."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.sources.test_onnx_refusals import plain

import ortcam
from ortcam.cli import main
from ortcam.images.presets import PRESETS
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.sources.onnx_files.declarations import declarations_of

NAMES = ("crack", "dent", "scratch", "stain", "fine")
NONE: dict[str, str] = {}


def with_metadata(path: Path, metadata: Mapping[str, str]) -> Path:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    return path


def ultralytics(**changes: str) -> dict[str, str]:
    return {"task": "classify", "names": repr(dict(enumerate(NAMES))), "imgsz": "[48, 64]", "author": "x"} | changes


@pytest.mark.slow
def test_ultralytics_names_size_and_range_are_taken(tmp_path: Path) -> None:
    said: list[str] = []
    path = with_metadata(plain(tmp_path), ultralytics())
    manifest = export(path, tmp_path / "a.ortcam", activation="softmax", report=said.append).manifest
    assert manifest.labels == NAMES
    assert (manifest.preprocessing.height, manifest.preprocessing.width) == (48, 64)
    assert (manifest.preprocessing.scale, manifest.preprocessing.mean, manifest.preprocessing.std) == (
        1,
        (0,) * 3,
        (1,) * 3,
    )
    assert any(line.startswith("assumed: Ultralytics' own preprocessing") for line in said)


@pytest.mark.parametrize(
    "names", ["{0: 'a'", "__import__('os')", "{1: 'a'}", "[" * 5000, "{0: 1}", "{[]: 1}", "{1e999: 'a'}"]
)
def test_names_that_are_no_names_say_nothing(names: str, tmp_path: Path) -> None:
    assert declarations_of(tmp_path / "m.onnx", ultralytics(names=names), None, (48, 64)).labels is None


@pytest.mark.parametrize("sides", ["{[]: 1}", "[1e999, 3]", "-" * 5000 + "1"])
def test_sizes_that_are_no_sizes_say_nothing(sides: str, tmp_path: Path) -> None:
    found = declarations_of(tmp_path / "m.onnx", ultralytics(imgsz=sides), None, (48, 64)).preprocessing
    assert found is not None
    assert (found.preprocessing.height, found.preprocessing.width) == (48, 64)


@pytest.mark.parametrize("change", [{"crop_pct": 0}, {"crop_pct": 1e-320}, {"size": {"shortest_edge": 10**400}}])
def test_a_config_with_impossible_numbers_says_nothing(change: dict[str, object], tmp_path: Path) -> None:
    config = {"do_resize": True, "size": {"shortest_edge": 224}, "resample": 2, "do_normalize": False, "crop_pct": 0.9}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config | change))
    assert declarations_of(tmp_path / "m.onnx", NONE, None, (None, None)).preprocessing is None


def test_onnx_own_keys_for_images_are_taken(tmp_path: Path) -> None:
    keys = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    found = declarations_of(tmp_path / "m.onnx", keys, NAMES, (224, 224))
    assert found.labels == NAMES
    assert found.preprocessing is not None
    made = found.preprocessing.preprocessing
    assert (made.scale, made.channel_order, made.mean, made.std) == (255, "bgr", (0,) * 3, (1,) * 3)
    assert declarations_of(tmp_path / "m.onnx", keys, NAMES, (None, None)).preprocessing is None


def test_hugging_face_files_beside_the_graph_are_taken(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): n for i, n in enumerate(NAMES)}}))
    processor = {"do_resize": True, "size": {"shortest_edge": 40}, "do_center_crop": True, "resample": 3}
    processor |= {"crop_size": {"height": 32, "width": 48}, "do_normalize": True}
    processor |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = declarations_of(path, NONE, None, (32, 48))
    assert (found.labels, found.labels_source) == (NAMES, "config.json beside it")
    assert found.preprocessing is not None
    made = found.preprocessing.preprocessing
    assert (made.resize, made.mean, made.scale, made.interpolation) == (40, (0.5, 0.4, 0.3), 1, "bicubic")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"do_pad": True}))
    assert declarations_of(path, NONE, None, (32, 48)).preprocessing is None
    assert declarations_of(path, NONE, None, (224, 224)).preprocessing is None


@pytest.mark.slow
def test_labels_beside_the_graph_count_only_where_they_fit(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (tmp_path / "labels.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(NAMES)))
    assert export(path, tmp_path / "a.ortcam", preset="unit", activation="softmax").manifest.labels == NAMES
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    said: list[str] = []
    bundle = export(path, tmp_path / "b.ortcam", preset="unit", activation="softmax", report=said.append)
    assert bundle.manifest.labels[4] == "class 4"
    assert any("the 2 labels of labels.txt beside it are not for its 5 classes" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.channel_order != "grey"])
def test_a_preset_is_its_numbers_and_single_flags_count_more(name: str, tmp_path: Path) -> None:
    preset = PRESETS[name]  # type: ignore[index]
    bundle = export(plain(tmp_path), tmp_path / "a.ortcam", preset=name, std=(2.0, 2.0, 2.0), activation="softmax")  # type: ignore[arg-type]
    made = bundle.manifest.preprocessing
    assert (made.scale, made.mean, made.std) == (preset.scale, preset.mean, (2.0, 2.0, 2.0))
    assert made.channel_order == preset.channel_order


@pytest.mark.slow
def test_a_preset_in_the_other_channel_order_has_its_mean_in_that_order(tmp_path: Path) -> None:
    bundle = export(plain(tmp_path), tmp_path / "a.ortcam", preset="caffe", channel_order="rgb", activation="softmax")
    made = bundle.manifest.preprocessing
    assert (made.channel_order, made.mean) == ("rgb", (123.68, 116.779, 103.939))


def test_what_the_presets_stand_for_is_what_the_libraries_compute() -> None:
    """Keras' modes: caffe is BGR bytes less the mean, tf is x / 127.5 - 1, torch ImageNet's mean and std."""
    pixel = np.array([10.0, 100.0, 250.0])
    expected = {
        "caffe": pixel[::-1] - [103.939, 116.779, 123.68],
        "tensorflow": pixel / 127.5 - 1,
        "imagenet": (pixel / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "unit": pixel / 255,
        "bytes": pixel,
    }
    for name, values in expected.items():
        preset = PRESETS[name]  # type: ignore[index]
        ordered = pixel[::-1] if preset.channel_order == "bgr" else pixel
        np.testing.assert_allclose((ordered / 255 * preset.scale - preset.mean) / preset.std, values, atol=1e-9)


def test_a_missing_preprocessing_lists_the_presets_and_their_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(plain(tmp_path)), "-o", str(tmp_path / "a.ortcam")]) == 2
    said = capsys.readouterr().err
    assert {name for name in PRESETS if f"  {name} " in said} == set(PRESETS) - {"mnist", "torchxrayvision"}  # are grey
    assert all(call in said for call in ("Keras preprocess_input", "Caffe", "PyTorch Normalize"))
    with pytest.raises(ExportError, match=r"preset='imagenett': accepted is imagenet, caffe"):
        export(plain(tmp_path), tmp_path / "a.ortcam", preset="imagenett")  # type: ignore[arg-type]


def test_inspecting_a_file_begins_with_what_it_is_and_needs_no_preprocessing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_metadata(plain(tmp_path), {"author": "me"})
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == [
        "model",
        "inputs",
        "outputs",
        "classes",
        "activation",
        "metadata",
    ]
    assert lines[3].split()[1] == "5:"
    assert "author=me" in lines[5]
    assert lines[6].startswith("preprocessing  not known")
    assert main(["inspect", str(path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["classes"], summary["activation"], summary["preprocessing"]) == (5, None, None)
    assert inspect_model(path, labels=list("abcde")).labels == tuple("abcde")


@pytest.mark.slow
def test_verifying_ends_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "shapes", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["manifest"]["labels"] == list(ortcam.load("shapes").labels)
    assert main(["inspect", "shapes", "--verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("verdict        sound: no file has changed")
