"""Every image has a folder of its own below -o, whatever it is called, and finds it again."""

import json
import os
import sys
from pathlib import Path, PureWindowsPath

import pytest

from ortcam.errors import OutputError
from ortcam.results.folders import ResultFolders, check_output, file_digest, folder_name

HOSTILE = [
    "...jpg", "..jpg", ".jpg", ".", "..", "", "/", "a/..", "a/.", "....", "cat..jpg", "cat .jpg", "con.png", "NUL",
    "lpt1.x.png", "caf\udce9.jpg", "x" * 251 + ".jpg", "é" * 125 + ".jpg", "a\nb.jpg", "a\x1b[31m.jpg", " .jpg",
    "a\u202egpj.exe.png", "a\\..\\b.jpg", "\0.jpg", "C:evil.jpg", "a:stream.jpg", "what?.jpg", '<b>*|"x.jpg',
]  # fmt: skip


@pytest.mark.parametrize("image", HOSTILE)
def test_a_folder_lies_directly_in_the_output_and_has_a_name_that_every_system_takes(image: str) -> None:
    name = folder_name(image)
    assert Path("out", name).parent == Path("out")
    assert PureWindowsPath("out", name).parent == PureWindowsPath("out")
    assert name not in ("", ".", "..")
    assert not set(name) & set("/\\\0\n\x1b\u202e")
    assert name == name.rstrip(". ")
    assert len(f"{name}-99999".encode()) <= 255
    assert name.partition(".")[0].lower() not in ("con", "nul", "aux", "prn") or name.endswith("_")


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a/cat.jpg", "cat"),
        ("cat", "cat"),
        ("a.tar.gz", "a.tar"),
        (".hidden.png", ".hidden"),
        ("a b.png", "a b"),
    ],
)
def test_ordinary_names_are_the_stem(image: str, name: str) -> None:
    assert folder_name(image) == name


def explained(folder: Path, sha256: str) -> None:
    """What an explanation of an image leaves."""
    (folder / "scorecam").mkdir(parents=True)
    manifest = {
        "image": {"sha256": sha256},
        "bundle": {"sha256": "b"},
        "method": "scorecam",
        "stats": {"precision": "float32"},
        "options": {},
        "limits": None,
        "rendering": {"colormap": "jet", "alpha": 0.5},
        "targets": [{"index": 1}],
    }
    (folder / "scorecam" / "manifest.json").write_text(json.dumps(manifest))


def test_an_image_finds_its_folder_again_and_another_gets_the_next_number(tmp_path: Path) -> None:
    explained(tmp_path / "cat", "one")
    explained(tmp_path / "cat-2", "two")
    for digest, name in (("one", "cat"), ("two", "cat-2"), ("three", "cat-3"), (None, "cat-3")):
        assert ResultFolders(tmp_path).give("x/cat.png", lambda digest=digest: digest) == tmp_path / name


def test_two_images_of_one_command_never_share_a_folder(tmp_path: Path) -> None:
    folders = ResultFolders(tmp_path)
    given = [folders.give("cat.jpg", lambda: "one") for _ in range(3)]
    assert [folder.name for folder in given] == ["cat", "cat-2", "cat-3"]


def test_no_image_is_hashed_where_nothing_is_there(tmp_path: Path) -> None:
    def fail() -> str:
        raise AssertionError

    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    assert ResultFolders(tmp_path).give("cat.jpg", fail) == tmp_path / "cat"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_what_is_no_folder_or_leads_outside_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "cat").symlink_to(tmp_path)
    (output / "cat-2").write_text("mine")
    (output / "cat-3").symlink_to(output / "cat-3")
    (output / "cat-4").symlink_to(tmp_path / "nowhere")
    assert ResultFolders(output).give("cat.jpg", lambda: "one") == output / "cat-5"
    (tmp_path / "link").symlink_to(output)
    assert ResultFolders(check_output(tmp_path / "link")).give("dog.jpg", lambda: "one") == tmp_path / "link" / "dog"


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_only_regular_files_are_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing", "a\0b"):
        assert file_digest(str(path)) is None


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    places = {
        tmp_path / "file": "is a file",
        tmp_path / "file" / "below": "is a file",
        "": "''",
        "a\0b": "null character",
        tmp_path / ("x" * 5000): "cannot be looked at",
    }
    if sys.platform != "win32":
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        places[tmp_path / "link"] = "leads nowhere"
    for place, message in places.items():
        with pytest.raises(OutputError, match=message):
            check_output(place)
    assert check_output(tmp_path / "new" / "below") == tmp_path / "new" / "below"
