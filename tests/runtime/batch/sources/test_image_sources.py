"""Folders, globs and lists of images: every image once, in a fixed order, whatever its name is and where it lies."""

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ortcam.batch.items import FilePlace, NoPlace
from ortcam.batch.sources.opening import open_source
from ortcam.errors import DatasetError

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
NAMES = ["b.jpg", "a.PNG", "x y/\u00e4 \u732b.jpg", "x y/deep/er/c.webp", "#%?.jpg"]
OTHERS = ["notes.txt", ".hidden.jpg", ".hidden/d.jpg", "x y/labels.csv", "out/_batch.json", "out/_gallery/e.jpg"]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def ids(place: Any, **options: Any) -> list[str]:
    return [item.id for item in open_source(place, **options).items()]


def test_a_folder_gives_its_images_and_those_below_in_a_fixed_order(tmp_path: Path) -> None:
    source = open_source(touch(tmp_path, *NAMES, *OTHERS))
    items = list(source.items())
    assert [item.id for item in items] == ["#%?.jpg", "a.PNG", "b.jpg", "x y/\u00e4 \u732b.jpg", "x y/deep/er/c.webp"]
    assert [item.place for item in items] == [FilePlace(str(tmp_path / item.id)) for item in items]
    assert all(item.path == str(tmp_path / item.id) and item.targets is None for item in items)
    assert list(source.items()) == items
    assert (source.count, source.counted()) == (None, len(NAMES))


def test_a_store_gives_the_same_ids_as_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, *NAMES, *OTHERS)
    store = fsspec.filesystem("memory")
    for name in (*NAMES, *OTHERS):
        store.pipe_file(f"/same/{name}", b"")
    for below, glob in [("", ""), ("/x y", ""), ("", "/**/*.jpg"), ("", "/*"), ("", "/x*/**"), ("", "/[ab].*")]:
        found = ids(f"memory://same{below}{glob}")
        assert sorted(found) == sorted(ids(f"{tmp_path}{below}{glob}")), below + glob
    place = next(open_source("memory://same/x y").items()).place
    assert place == FilePlace("memory://same/x y/\u00e4 \u732b.jpg")


def test_an_input_that_grows_keeps_its_ids(tmp_path: Path) -> None:
    source = open_source(touch(tmp_path, "b.jpg", "c/d.jpg"))
    before = {item.id: item.place for item in source.items()}
    touch(tmp_path, "a.jpg", "c/a.jpg", "d/e.jpg")
    after = {item.id: item.place for item in source.items()}
    assert len(after) == 5
    assert before.items() <= after.items()


@needs_links
def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "o.jpg")
    folder = touch(tmp_path / "folder", "a/b.jpg")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "out").symlink_to(outside)
    (folder / "self").symlink_to("self")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")  # its row says that it cannot be read
    assert ids(folder) == ["gone.jpg", "a/b.jpg", "out/o.jpg"]


@needs_links
def test_names_that_are_no_text_get_ids_of_their_own(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path)
    for name in (b"/caf\xe9.jpg", b"/caf\\xe9.jpg"):
        Path(os.fsdecode(raw + name)).touch()
    items = list(open_source(tmp_path).items())
    assert len({item.id for item in items}) == 2
    for item in items:
        item.id.encode()
        item.path.encode()
        assert isinstance(item.place, FilePlace)
        assert Path(item.place.url).exists()


def test_a_folder_that_cannot_be_read_is_a_failure_below_and_refused_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg", "open/c.jpg")
    scandir = os.scandir

    def denied(path: Any) -> Any:  # root reads what has no rights
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    *read, failed = open_source(tmp_path).items()
    assert [item.id for item in read] == ["a.jpg", "open/c.jpg"]
    assert (failed.id, failed.place) == ("locked/", NoPlace("the folder cannot be read: Permission denied"))
    with pytest.raises(DatasetError, match="access is denied"):
        open_source(tmp_path / "locked")


def test_images_may_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a-1.jpg", "a-2.jpg", "a-3.jpg")
    listed = [str(tmp_path / "a-3.jpg"), str(tmp_path / "a-1.jpg")]
    assert ids(listed) == listed
    assert ids(tmp_path / "a-2.jpg") == ["a-2.jpg"]
    assert ids(f"{tmp_path}/a-{{1..2}}.jpg") == ["a-1.jpg", "a-2.jpg"]


def test_names_with_wildcards_in_them_are_names_first(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]/b.jpg", "a1/c.jpg", "{0..1}.jpg")
    assert ids(tmp_path / "a[1]") == ["b.jpg"]
    assert ids(tmp_path / "{0..1}.jpg") == ["{0..1}.jpg"]


def test_the_current_folder_is_no_part_of_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = touch(tmp_path / "[x]{1,2}*", "a.jpg", "b/c.jpg", "s-1.jpg")
    monkeypatch.chdir(here)
    for given, found in {
        "*.jpg": ["a.jpg", "s-1.jpg"],
        "./b/*": ["c.jpg"],
        "../[[]*/b/*.jpg": ["[x]{1,2}*/b/c.jpg"],
        "s-{1..1}.jpg": ["s-1.jpg"],
    }.items():
        items = list(open_source(given).items())
        assert [item.id for item in items] == found
        assert all(isinstance(item.place, FilePlace) and Path(item.place.url).exists() for item in items)


REFUSED = {
    "": "accepted are a folder",
    "missing": "missing: does not exist; accepted are a folder",
    "missing/*.jpg": "does not exist",
    "empty": "no images in it; accepted are files that end in",
    "*.gif": "no images in it",
    "{a,b}.*": "accepted are braces or wildcards, not both at once",
    "data.bin": "accepted are a folder",
    "shard.tar.gz": "is compressed; unpack it",
    "out": "is an OUTPUT of ortcam batch",
    "memory://no-such-place": "does not exist",
    "memory://no-such-place/*.jpg": "does not exist",
    "nonsense://a": "accepted are local paths and URLs",
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_input_that_is_none_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    touch(tmp_path, "data.bin", "shard.tar.gz", "out/_batch.json", "a.jpg")
    (tmp_path / "empty").mkdir()
    given = what if not what or "://" in what else str(tmp_path / what)
    with pytest.raises(Exception, match=REFUSED[what]) as caught:
        open_source(given)
    assert type(caught.value).__name__ in ("DatasetError", "OptionError")
    assert "\n" not in str(caught.value)


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="several kinds"):
        open_source(["a.jpg", "b.tar"])
    with pytest.raises(DatasetError, match="is empty"):
        open_source([])
    with pytest.raises(DatasetError, match=r"the id 'b.jpg' comes twice"):
        open_source(["a.jpg", "b.jpg", "b.jpg"])
    with pytest.raises(DatasetError, match=r"the id 'a.jpg' comes twice"):
        open_source(f"{tmp_path}/{{a,a}}.jpg")
