"""Saving: nothing is lost without a word, and a manifest lists only what is there, whoever writes or is killed."""

import errno
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.runtime.results.saving import contents, manifest_of, state, summary, write

import ortcam
from ortcam.errors import NotFiniteError, OutputError
from ortcam.images.encoding import write_png
from ortcam.results import saved
from ortcam.results.saved import OccupiedError

posix = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and killed by signals")


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])


def test_another_class_of_the_same_explanation_is_added(
    explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = explainer.explain(photograph, target=[0, 1])
    first.save(tmp_path)
    second = explainer.explain(photograph, target=[1, 2])
    second.save(tmp_path)
    manifest = manifest_of(tmp_path)
    assert [target["index"] for target in manifest["targets"]] == [1, 2, 0]
    assert manifest["targets"][2]["run"]["stats"] == json.loads(json.dumps(first.summary()["stats"]))
    assert "run" not in manifest["targets"][0]
    assert manifest["stats"] == json.loads(json.dumps(second.summary()["stats"]))
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "manifest.json", *manifest["files"]}
    np.testing.assert_array_equal(np.load(tmp_path / "class-0.npy"), first.maps[0])


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "scorecam"}, "method scorecam\\+\\+, now scorecam"),
        ({"budget": 4}, "budget none, now 4"),
        ({"gate": "sigmoid"}, "gate tanh, now sigmoid"),
        ({"colormap": "viridis"}, "colormap turbo, now viridis"),
        ({"image": "other"}, "of another image"),
    ],
)
def test_an_explanation_of_something_else_is_replaced_only_by_force(
    explainer: ortcam.Explainer, photograph: Path, picture: np.ndarray, tmp_path: Path, change: dict, message: str
) -> None:
    explainer.explain(photograph, method="scorecam++", target=[0, 1]).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    rendering = {key: change[key] for key in change if key == "colormap"}
    arguments = {"method": "scorecam++"} | {key: change[key] for key in change if key not in ("image", "colormap")}
    other = explainer.explain(picture[::-1] if "image" in change else photograph, target=2, **arguments)
    with pytest.raises(OutputError, match=rf"holds class 0, 1 .*{message}.*--force"):
        other.save(tmp_path, **rendering)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    other.save(tmp_path, force=True, **rendering)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "image.jpg", *contents(2)}
    assert [target["index"] for target in manifest_of(tmp_path)["targets"]] == [2]


def test_results_of_earlier_versions_are_those_of_the_flat_blend(tmp_path: Path) -> None:
    write(tmp_path, 1)  # its manifest names no blend, and no image.jpg lies beside it
    with pytest.raises(OutputError, match="explained with blend flat, now rising"):
        write(tmp_path, 2, rendering={"colormap": "jet", "alpha": 0.5, "blend": "rising"})
    write(tmp_path, 2, rendering={"colormap": "jet", "alpha": 0.5, "blend": "flat"})
    assert [target["index"] for target in state(tmp_path)[0]["targets"]] == [2, 1]


def test_the_small_photograph_goes_with_the_explanation_that_it_was_saved_with(
    explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    explainer.explain(photograph, target=0).save(tmp_path)
    assert "image.jpg" in manifest_of(tmp_path)["files"]
    write(tmp_path, 1, image="other", force=True)
    assert not (tmp_path / "image.jpg").exists()
    (tmp_path / "image.jpg").write_bytes(b"mine")
    write(tmp_path, 1, image="another", force=True)
    assert (tmp_path / "image.jpg").read_bytes() == b"mine"


def test_an_image_with_another_white_is_another_setting(
    tiny_bundle: Path, explainer: ortcam.Explainer, tmp_path: Path
) -> None:
    picture = tmp_path / "xray.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 4096, (60, 60), np.uint16))
    with pytest.warns(ortcam.ImageWarning, match="4095"):
        explainer.explain(picture, target=0).save(tmp_path / "o")
    brighter = ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"], white=4095).explain(picture, target=1)
    with pytest.raises(OutputError, match="explained with white 65535, now 4095"):
        brighter.save(tmp_path / "o")
    ortcam.load(tiny_bundle, white=65535).explain(picture, target=1).save(tmp_path / "o")
    assert len(manifest_of(tmp_path / "o")["targets"]) == 2


def test_the_same_image_by_path_and_by_bytes_is_the_same_image(
    explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    explainer.explain(photograph, target=0).save(tmp_path)
    explainer.explain(photograph.read_bytes(), target=1).save(tmp_path)
    assert [target["index"] for target in manifest_of(tmp_path)["targets"]] == [1, 0]


@pytest.mark.parametrize(
    "content",
    [b"mine", b"[]", b"null", b"{}", b"[" * 100_000, b'{"targets": [{"index": "../x"}]}', b"\xff", b""],
)
def test_a_manifest_of_something_else_is_left_alone_unless_by_force(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(OutputError, match="is no manifest of an explanation and is left alone"):
        write(tmp_path, 1)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]
    write(tmp_path, 1, force=True)
    state(tmp_path)


@posix
def test_a_pipe_or_a_dead_link_in_the_place_of_a_manifest_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(OccupiedError):
        write(tmp_path, 1)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OccupiedError):
        write(tmp_path, 1)
    write(tmp_path, 1, force=True)
    assert not (tmp_path / "manifest.json").is_symlink()


@posix
def test_files_are_never_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "class-1.npy").symlink_to(tmp_path / "elsewhere")
    write(folder, 1)
    assert (tmp_path / "elsewhere").read_text() == "mine"
    state(folder)


def test_a_class_whose_files_are_gone_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / "class-1-overlay.png").unlink()
    write(tmp_path, 3)
    assert [target["index"] for target in state(tmp_path)[0]["targets"]] == [3, 2]


def test_force_removes_no_file_that_is_no_explanations(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = tmp_path / "out"
    write(folder, 1)
    (folder / "manifest.json").write_text(json.dumps(summary(1) | {"files": ["../outside.txt", "notes.txt"]}))
    (folder / "notes.txt").write_text("mine")
    write(folder, 2, image="other", force=True)
    assert outside.exists()
    assert (folder / "notes.txt").exists()
    assert not (folder / "class-1.npy").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, force: bool
) -> None:
    write(tmp_path, 1, content=b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    left = step

    def write_bytes(path: Path, content: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= 1
        return real(path, content)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write(tmp_path, 1, force=force, content=b"new", image="other" if force else "i")
    assert isinstance(caught.value.__cause__, OSError)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_in_the_place_of_a_file_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, 1, content=b"old")
    (tmp_path / "class-2.npy").mkdir()
    for force in (False, True):
        with pytest.raises(OutputError, match="directory"):
            write(tmp_path, 2, force=force, image="other" if force else "i")
        assert state(tmp_path)[0]["targets"] == [{"index": 1}]


def test_numbers_that_json_lacks_are_refused_and_those_of_numpy_are_taken(tmp_path: Path) -> None:
    write(tmp_path, 1, limits={"budget": np.int64(4)})
    write(tmp_path, 2, limits={"budget": 4})
    with pytest.raises(NotFiniteError, match="infinite"):
        write(tmp_path, 3, limits={"budget": 4}, stats={"precision": "float32", "seconds": float("nan")})
    assert [target["index"] for target in state(tmp_path)[0]["targets"]] == [2, 1]


def test_a_place_that_no_system_has_is_an_output_error(tmp_path: Path) -> None:
    for place in (tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot write the explanation here"):
            write(place, 1)


def test_an_explanation_of_a_class_twice_is_saved_once(
    explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    explainer.explain(photograph, target=[1, 1, 0]).save(tmp_path)
    assert [target["index"] for target in state(tmp_path)[0]["targets"]] == [1, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_that_is_no_text_is_escaped_in_the_manifest(
    explainer: ortcam.Explainer, picture: np.ndarray, tmp_path: Path
) -> None:
    write_png(tmp_path / "plain.png", picture)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    (tmp_path / "plain.png").rename(name)
    folder = explainer.explain(name).save(tmp_path / "out")
    assert manifest_of(folder)["image"]["path"] == f"{tmp_path}/caf\\xe9.png"


def test_identity_is_the_same_for_what_json_gives_back() -> None:
    given: Mapping = summary(1, options={"size": (1, 2), "x": 0.1})
    assert saved.identity(given) == saved.identity(json.loads(json.dumps(given)))


def test_an_image_jpg_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"mine")
    preview = {"image.jpg": b"small"}
    for force in (False, True):
        saved.save(tmp_path, summary(1), contents(1) | preview, force=force)
        assert (tmp_path / "image.jpg").read_bytes() == b"mine"
        assert "image.jpg" not in manifest_of(tmp_path)["files"]
    (tmp_path / "image.jpg").unlink()
    for content in (b"small", b"new"):  # one that the manifest lists is replaced
        saved.save(tmp_path, summary(1), contents(1) | {"image.jpg": content}, force=False)
        assert (tmp_path / "image.jpg").read_bytes() == content
