"""Globs match what Python's own match; braces are what WebDataset makes of them."""

import glob
import itertools
from pathlib import Path

import pytest

from ortcam.batch.sources.listing import below
from ortcam.batch.sources.patterns import Pattern, expanded, has_braces
from ortcam.errors import DatasetError

FILES = [
    "a.jpg",
    "b.png",
    "x/a.jpg",
    "x/y/a.jpg",
    "x/y/img[1].jpg",
    "img_01.jpg",
    "img_2.jpg",
    "z/x/img_03.jpg",
    "x/b.txt",
]
GLOBS = [
    "*.jpg",
    "**/*.jpg",
    "x/*",
    "x/**",
    "**",
    "*/a.jpg",
    "img_[01]*.jpg",
    "img_[!0]*.jpg",
    "img_?.jpg",
    "**/y/*.jpg",
]
GLOBS += ["x/y/img[[]1].jpg", "*/*/*", "nothing*", "[z-a]*", "x/**/a.jpg", "img_[", "**/x/**/*.jpg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("globs")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("pattern", GLOBS)
def test_a_glob_matches_what_pythons_own_does(pattern: str, folder: Path) -> None:
    names = glob.glob(f"{folder}/{pattern}", recursive=True)  # noqa: PTH207 - the function that a shell comes close to
    expected = {name for name in names if Path(name).is_file()}
    compiled = Pattern(f"{folder}/{pattern}")
    listing = below(compiled.base, compiled, None)
    found = [listing.url(name) for name in listing.names(lambda _: True)]
    assert sorted(found) == sorted(expected)


def test_folders_that_cannot_match_are_not_visited() -> None:
    pattern = Pattern("/data/x/*/img_*.jpg")
    assert pattern.base == "/data/x/"
    assert pattern.may_hold("any")
    assert not pattern.may_hold("any/deeper")
    assert not Pattern("/data/a*/b/*.jpg").may_hold("b")


def test_braces_stand_for_numbers_and_words() -> None:
    assert expanded("t-{08..11}.tar") == ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]
    assert expanded("{2..0}") == ["2", "1", "0"]
    assert expanded("{a,b}/{0..1}{c}") == ["a/0{c}", "a/1{c}", "b/0{c}", "b/1{c}"]
    assert not has_braces("{c}.tar")


def test_braces_are_what_webdataset_makes_of_them() -> None:
    braceexpand = pytest.importorskip("braceexpand").braceexpand  # comes with webdataset
    for first, last in itertools.product(["0", "8", "08", "098"], ["11", "099", "101"]):
        text = f"s3://b/t-{{{first}..{last}}}.tar"
        assert expanded(text) == list(braceexpand(text)), text


@pytest.mark.parametrize("text", ["{0..99999999}", "{0..999}{0..9999}"])
def test_braces_without_end_are_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="more than 1000000 files"):
        expanded(text)
