"""MODEL: a bundle, the shipped one, or what is exported once; what is hashed so that no stale bundle is found."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli import main
from ortcam.models import cache as bundle_cache
from ortcam.models.identity import key_of
from ortcam.models.opening import bundle_of, is_bundle
from ortcam_export.sources.model_names import check_model

TINY = {"preset": "imagenet", "activation": "softmax"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle_cache, "in_use", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny_file(classifier: bytes, tmp_path: Path) -> Path:
    """The tiny classifier as one .onnx file."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(classifier)
    return path


def test_shapes_is_the_shipped_bundle_unless_one_of_that_name_is_here(tiny_bundle: Path, tmp_path: Path) -> None:
    assert ortcam.load("shapes").bundle.path == bundle_path().resolve()
    (tmp_path / "shapes").symlink_to(tiny_bundle)
    assert ortcam.load("shapes").labels == ortcam.load(tiny_bundle).labels


@pytest.mark.slow
def test_a_file_is_exported_once_and_explained(tiny_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", str(tiny_file), str(demo_image()), "-m", "eigen-cam", "--preset", "imagenet"]
    assert main([*command, "-o", "first"]) == 0
    said = capsys.readouterr().err
    assert "ortcam: exported" in said
    assert "assumed: classes go by their index" in said
    assert "assumed: the layer" in said
    assert main([*command, "-o", "second"]) == 0
    assert "exported" not in capsys.readouterr().err
    assert len(bundle_cache.entries()) == 1


def test_a_file_that_changes_while_it_is_exported_is_not_kept(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(model: str, place: Path, **_: object) -> None:
        shutil.copytree(bundle_path(), place)
        Path(model).write_bytes(b"another model")

    monkeypatch.setattr("ortcam_export.export", export)
    with pytest.raises(ortcam.OrtcamError, match=r"tiny\.onnx: has changed while it was exported"):
        bundle_of(tiny_file, TINY)
    assert bundle_cache.entries() == []


@pytest.mark.usefixtures("torchvision_names")
def test_a_folder_that_is_called_like_a_model_of_torchvision_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "resnet18" / "cat").mkdir(parents=True)  # `ortcam explain resnet18 cat.jpg -o resnet18`
    (tmp_path / "results").mkdir()
    assert not is_bundle("resnet18")
    check_model("resnet18")
    assert is_bundle("results")


def test_the_key_changes_with_all_that_an_export_depends_on(tiny_file: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("a\nb\n")
    options: dict[str, Any] = {"labels": str(labels), "mean": (0.5, 0.5, 0.5)}

    def key(**changes: Any) -> str:
        found = key_of(str(tiny_file), options | changes)
        assert found is not None
        return found.key

    keys = [key(), key(mean=(0.4, 0.5, 0.5)), key(precision="fp16")]
    labels.write_text("a\nc\n")
    keys.append(key())
    (tmp_path / "labels.txt").write_text("x")  # beside the model
    keys.append(key())
    content = tiny_file.read_bytes()
    tiny_file.write_bytes(content + b"\x42\x00")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    tiny_file.write_bytes(content)
    assert key() == keys[-2]


def test_weights_beside_a_file_count(tiny_file: Path) -> None:
    model = onnx.load(tiny_file)
    for place, weights in zip(("a", "b"), model.graph.initializer, strict=False):  # two files of one name
        tiny_file.with_name(place).mkdir()
        onnx.external_data_helper.set_external_data(weights, location=f"{place}/tiny.data")
        onnx.external_data_helper.save_external_data(weights, str(tiny_file.parent))
        weights.ClearField("raw_data")
    tiny_file.write_bytes(model.SerializeToString())
    keys = {found.key for found in (key_of(str(tiny_file), {}),) if found is not None}
    for place in ("a", "b"):
        data = tiny_file.with_name(place) / "tiny.data"
        changed = bytearray(data.read_bytes())
        changed[0] ^= 1
        data.write_bytes(changed)
        found = key_of(str(tiny_file), {})
        assert found is not None
        keys.add(found.key)
    assert len(keys) == 3


@pytest.mark.slow
def test_where_nothing_is_kept_the_export_serves_this_process_alone(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", "off")
    said: list[str] = []
    place = bundle_of(str(tiny_file), TINY, announce=said.append)
    assert ortcam.load(place).labels[0] == "class 0"
    assert "for this run alone: ORTCAM_CACHE is off" in said[0]


@pytest.mark.slow
def test_a_folder_with_one_graph_is_that_graph(tiny_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    tiny_file.rename(folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate("abcdef"))}))
    assert not is_bundle(folder)
    assert ortcam.load(folder, **TINY).labels == tuple("abcdef")


@pytest.mark.usefixtures("torchvision_names")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing.onnx", r"nothing\.onnx: no such file; a model is a bundle"),
        ("nothing.ortcam", "there is no such folder"),
        ("", "MODEL is empty"),
        ("resnet81", r"unknown model 'resnet81'.*did you mean '?resnet18"),
        ("some/where", "a model is a bundle, `shapes`"),
    ],
)
def test_what_is_no_model_is_one_sentence_that_says_what_is_one(
    model: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", model, "photo.jpg"]) == 2
    found = capsys.readouterr().err
    with pytest.raises(ortcam.OrtcamError, match=message):
        ortcam.load(model)
    assert found.count("\n") == 1


def test_options_of_an_export_do_not_go_with_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ortcam.OptionError, match="labels: goes with a model to export"):
        ortcam.load("shapes", labels=["a"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'preste'; did you mean 'preset'"):
        ortcam.load("shapes", preste="imagenet")  # type: ignore[call-arg]
    assert main(["explain", "shapes", str(demo_image()), "--input-size", "224"]) == 2
    assert "--input-size: goes with a model" in capsys.readouterr().err


@pytest.mark.slow
def test_the_cache_is_listed_and_cleared(tiny_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = bundle_of(str(tiny_file), TINY)
    assert main(["cache"]) == 0
    assert "tiny.onnx" in (listed := capsys.readouterr().out)
    assert "1 bundle, " in listed
    assert main(["cache", "clear"]) == 0
    assert "which another process uses" in capsys.readouterr().out  # this one
    for held in bundle_cache.in_use.values():
        if held is not None:
            held.release()
    bundle_cache.in_use.clear()
    assert main(["cache", "clear", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 1
    assert not os.path.lexists(place)


@pytest.mark.parametrize(
    "words",
    [
        ["--mean", ".5,.5,.5", "--std", ".5", ".5", ".5"],
        ["--mean", ".5", "--std=.5,.5,.5"],
        ["--mean", ".5,", ".5,", ".5", "--std", ".5"],
    ],
)
@pytest.mark.parametrize("size", [["32", "48"], ["32,48"], ["32x48"]])
def test_numbers_that_belong_together_may_be_one_word_or_several(
    words: list[str], size: list[str], tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ortcam.cli.main import make_parser

    options = make_parser().parse_args(["explain", "m.onnx", *words, "--input-size", *size, "a.jpg", "b.jpg"])
    said = words[words.index("--mean") + 1 : next(i for i, word in enumerate(words) if word.startswith("--std"))]
    assert options.model_mean == (0.5,) * (3 if len(" ".join(said).replace(",", " ").split()) == 3 else 1)
    assert options.model_std in ((0.5,), (0.5, 0.5, 0.5))  # one stands for all channels
    assert options.model_input_size == (32, 48)
    assert options.images == ["a.jpg", "b.jpg"]
    assert make_parser().parse_args(["export", "--input-size", "224", "m.onnx"]).input_size == (224, 224)
