"""Image arguments: files, folders, globs and standard input become a list of images."""

import doctest
import io
import os
import types
from pathlib import Path

import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.errors import ImageError
from ortcam.images import inputs as image_inputs
from ortcam.images.inputs import expand, from_argument
from ortcam.results.sheet import save as save_sheet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, a hidden one, a text, and an image in a subfolder; no file has content."""
    for name in ("img10.jpg", "img2.PNG", ".hidden.png", "notes.txt", "sub/deep.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(image_inputs).failed == 0


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["img2.PNG", "img10.jpg"]),
        ("*", ["img2.PNG", "img10.jpg"]),
        ("*.jpg", ["img10.jpg"]),
        ("**", ["img2.PNG", "img10.jpg", "sub/deep.webp"]),
        ("**/*.webp", ["sub/deep.webp"]),
    ],
)
def test_a_folder_and_a_glob_give_images_in_natural_order(folder: Path, pattern: str, found: list[str]) -> None:
    given = str(folder / pattern) if pattern else str(folder)
    assert expand([given], tell=lambda _: None) == [str(folder / name) for name in found]


def test_what_is_left_out_is_said_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expand([str(folder)])
    assert capsys.readouterr().err == (
        f"ortcam: {folder}: 2 images; left out: 1 other file (notes.txt) "
        f"and 1 subfolder ('{folder}/**' takes them too)\n"
    )
    expand([str(folder / "*.jpg"), str(folder / "sub")])
    assert capsys.readouterr().err == ""


def test_pictures_that_ortcam_made_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "mug.png"
    image.write_bytes(demo_image().read_bytes())
    explanation = ortcam.load(bundle_path()).explain(image, method="recipro-cam")
    folder = explanation.save(tmp_path / "mug" / "recipro-cam").parent
    sheet = save_sheet(folder, [explanation])
    assert expand([str(tmp_path)]) == [str(image)] != [str(sheet)]
    assert "1 image; left out: 1 picture that ortcam made and 1 subfolder" in capsys.readouterr().err
    assert expand([f"{tmp_path}/**"]) == [str(image)]
    assert "1 image; left out: 4 pictures that ortcam made and 2 other files (class-" in capsys.readouterr().err
    overlay = next(folder.glob("*/*-overlay.png"))
    assert expand([str(overlay)]) == [str(overlay)]  # what is named is taken


def test_files_stay_as_they_are_and_what_a_folder_gives_again_is_taken_once(folder: Path) -> None:
    first = str(folder / "img10.jpg")
    assert expand([first, "absent.jpg", first, "-"]) == [first, "absent.jpg", first, "-"]
    assert expand([first, str(folder), str(folder / "*"), first], tell=lambda _: None) == [
        first,
        str(folder / "img2.PNG"),
        first,
    ]


def test_a_file_whose_name_has_wildcards_is_a_file(folder: Path) -> None:
    odd = folder / "a[1]*.png"
    odd.touch()
    assert expand([str(odd)]) == [str(odd)]


def test_a_tilde_in_quotes_is_the_users_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "ho[m]e"
    home.mkdir()
    (home / "cat.png").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert expand(["~/*.png"]) == expand(["~"]) == [str(home / "cat.png")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/empty"], "folder '.*empty' has no images: accepted are files that end in .jpg"),
        (["{}/outer"], "folder '.*outer' has no images.*'.*outer/\\*\\*' takes those in its subfolders"),
        (["{}/*.gif"], "glob '.*gif' matches nothing"),
        (["{}/*.txt"], "glob '.*txt' matches 1 name, but no image: accepted are"),
        (["-", "-"], "- is given twice"),
    ],
)
def test_nothing_to_explain_is_an_error(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "outer" / "inner").mkdir(parents=True)
    with pytest.raises(ortcam.ImageError, match=message):
        expand([argument.format(folder) for argument in arguments])


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_argument("cat.jpg") == "cat.jpg"
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"an image")))
    assert from_argument("-") == b"an image"
    with pytest.raises(ortcam.ImageError, match="standard input is empty"):
        from_argument("-")
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(bytes(31_000_000))))
    with pytest.raises(ortcam.ImageError, match=r"standard input has more than 30000006 bytes.*max_pixels"):
        from_argument("-", max_pixels=1)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ortcam.ImageError, match="standard input, which is closed"):
        from_argument("-")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals to open here")
def test_a_terminal_is_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "rb", buffering=0) as terminal:
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=terminal))
        with pytest.raises(ortcam.ImageError, match="standard input, which is a terminal"):
            from_argument("-")
    os.close(master)


def test_a_folder_gives_arrays_only_to_a_model_that_takes_samples(tmp_path):
    for name in ("a.png", "b.npy", "C.NPZ", "d.txt"):
        (tmp_path / name).write_bytes(b"x")
    said: list[str] = []
    assert [Path(path).name for path in expand([str(tmp_path)], tell=said.append)] == ["a.png"]
    assert "3 other files" in said[0]
    found = [Path(path).name for path in expand([str(tmp_path)], tell=said.append, arrays=True)]
    assert found == ["a.png", "b.npy", "C.NPZ"]
    assert [Path(path).name for path in expand([f"{tmp_path}/*.np*"], arrays=True)] == ["b.npy"]
    with pytest.raises(ImageError, match=r"\.ppm, \.npy, \.npz"):
        expand([f"{tmp_path}/*.txt"], arrays=True)


def test_maps_that_ortcam_saved_are_no_images(tmp_path):
    for name in ("class-3.npy", "score.npy", "photo.npy", "manifest.json"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(path).name for path in expand([str(tmp_path)], arrays=True, tell=lambda _: None)] == ["photo.npy"]
