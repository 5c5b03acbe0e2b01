"""Lists of images of strangers, CSV and JSON, at `ortcam evaluate`: one sentence each, and nothing is waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ortcam.errors import DatasetError
from ortcam.evaluation.dataset import read_dataset
from ortcam.request import class_index

LABELS = ("cat", "dog")
NINES = "9" * 5000

ROWS = {
    "a box of infinite numbers": ("file,boxes\na.png,0 0 1e400 5\n", "box .*accepted are four numbers"),
    "a box of no numbers": ("file,boxes\na.png,nan nan nan nan\n", "box .*accepted are four numbers"),
    "a box of long numbers": (f"file,boxes\na.png,0 0 {NINES} 5\n", "box .*accepted are four numbers"),
    "a box of other digits": ("file,boxes\na.png,0 0 \u0665 \u0665\n", "box .*accepted are four numbers"),
    "a size of long numbers": (f"file,width,height\na.png,{NINES},5\n", "width .*accepted are whole numbers"),
    "a size of other digits": ("file,width,height\na.png,\u0665,5\n", "width .*accepted are whole numbers"),
    "a size of nothing": ("file,width,height\na.png,0,5\n", "width .*accepted are whole numbers"),
    "a class of long numbers": (f"file,class_index\na.png,{NINES}\n", "no class of the model"),
    "a null character": ("file\na\0.png,\n,\n", "no file|cannot be read"),
    "a field without end": ("file\n" + "x" * 200_000 + "\n", "cannot be read as CSV: field larger"),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_of_a_stranger_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    text, message = ROWS[case]
    path = tmp_path / "images.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(Exception, match=message) as raised:
        read_dataset(path, lambda target: class_index(target, LABELS))
    assert type(raised.value).__module__ == "ortcam.errors"
    assert len(str(raised.value)) < 400


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a list of a terabyte": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "has 1099511627776 bytes"),
    "nothing": (lambda _: None, "cannot be read"),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("case", FILES)
def test_labels_that_are_no_list_are_not_opened(case: str, suffix: str, tmp_path: Path) -> None:
    make, message = FILES[case]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    path = tmp_path / f"labels{suffix}"
    make(path)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path / "images", lambda target: class_index(target, LABELS), annotations=path)


def test_json_of_any_depth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    path = tmp_path / "labels.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        read_dataset(tmp_path, lambda target: class_index(target, LABELS), annotations=path)
