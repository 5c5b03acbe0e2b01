"""Files below a folder come in one order, each once, through links, and without what is to be left out."""

import sys
from pathlib import Path

import pytest

from ortcam.support.walking import files_below


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_come_before_subfolders_each_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b", "a/z", "a/b/c", "c/d", "A", ".hidden/e", "a10/f", "a.x")
    found = list(files_below(tmp_path, lambda name: name != "A"))
    assert found == ["a.x", "b", "a/z", "a/b/c", "a10/f", "c/d"]


def test_folders_are_left_out_by_path_or_by_what_they_hold(tmp_path: Path) -> None:
    touch(tmp_path, "a/1", "a/no/2", "b/stop", "b/3", "b/c/4", "d/5")
    found = files_below(tmp_path, lambda _: True, enters=lambda path: path != "a/no", unless="stop")
    assert list(found) == ["a/1", "d/5"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_folder_with_many_names_is_visited_once(tmp_path: Path) -> None:
    folder = touch(tmp_path / "folder", "a/1")
    (folder / "a" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "b").symlink_to(folder / "a", target_is_directory=True)
    assert list(files_below(folder, lambda _: True)) == ["a/1"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(files_below(tmp_path / "none", lambda _: True))


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1", "b/2", "c/3")
    told = []
    found = files_below(tmp_path, lambda _: True, tell=lambda path, error: told.append((path, type(error))))
    assert next(found) == "a/1"
    (tmp_path / "b" / "2").unlink()
    (tmp_path / "b").rmdir()
    assert list(found) == ["c/3"]
    assert told == [("b", FileNotFoundError)]
