"""Images, classes and boxes are found where they are, and what makes no sense is refused with its line."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ortcam import request as targets
from ortcam.errors import DatasetError, TargetError
from ortcam.evaluation.dataset import Example, inside_boxes, read_dataset
from ortcam.images.preprocessing import Preprocessing

LABELS = ("cat", "dog", "sea snake")


def class_index(target: int | str) -> int:
    return targets.class_index(target, LABELS)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_a_folder_gives_its_images_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg")
    assert [example.name for example in read_dataset(tmp_path, class_index)] == ["a.PNG", "b.jpg"]
    assert all(example.label is None for example in read_dataset(tmp_path, class_index))


@pytest.mark.skipif(sys.platform == "win32", reason="file names are text on Windows")
def test_a_file_name_that_is_no_text_gets_one(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    (example,) = read_dataset(tmp_path, class_index)
    assert example.name == r"caf\xe9.jpg"
    assert example.path.exists()


def test_class_folders_are_labels_or_indices(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.jpg", "2/x/3.jpg", "sea snake/4.jpg")
    found = {example.name: example.label for example in read_dataset(tmp_path, class_index)}
    assert found == {"dog/1.jpg": 1, "2/x/3.jpg": 2, "sea snake/4.jpg": 2}


def test_a_folder_that_is_no_class_says_how_to_name_it(tmp_path: Path) -> None:
    touch(tmp_path, "n02123045/1.jpg", "dog/2.jpg")
    with pytest.raises(TargetError, match=r"folder 'n02123045'.*--annotations"):
        read_dataset(tmp_path, class_index)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"n02123045": "cat"}))
    assert [example.label for example in read_dataset(tmp_path, class_index, annotations=labels)] == [1, 0]


def test_folders_none_of_which_is_a_class_leave_the_images_without_labels_and_say_so(tmp_path: Path) -> None:
    touch(tmp_path, "holiday/1.jpg", "work/2.jpg")
    told: list[str] = []
    assert [example.label for example in read_dataset(tmp_path, class_index, tell=told.append)] == [None, None]
    assert len(told) == 1
    assert "holiday, work" in told[0]
    assert "--annotations" in told[0]
    touch(tmp_path, "17/3.jpg")  # a number is meant as a class
    with pytest.raises(TargetError, match=r"folder '\w+'"):
        read_dataset(tmp_path, class_index)


def test_images_may_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    paths = [tmp_path / "b.jpg", tmp_path / "a.jpg"]
    assert [example.path for example in read_dataset(paths, class_index)] == paths
    assert [example.path for example in read_dataset(tmp_path / "a.jpg", class_index)] == paths[1:]
    with pytest.raises(DatasetError, match="list is empty"):
        read_dataset([], class_index)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("column", ["file", "Filename", "image"])
def test_a_csv_as_spreadsheets_write_it_is_read(tmp_path: Path, delimiter: str, column: str) -> None:
    touch(tmp_path, "a.jpg")
    rows = [[column, "class", "boxes"], ["a.jpg", "dog", '"1 2 3 4;5 6 7 8"']]
    (tmp_path / "list.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    (example,) = read_dataset(tmp_path / "list.csv", class_index)
    assert (example.name, example.label, len(example.boxes)) == ("a.jpg", 1, 2)


def test_labels_of_a_flat_folder_come_from_a_csv(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.jpg", "b.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class,boxes\nb.jpg,dog,1 2 3 4\n")
    first, second = read_dataset(images, class_index, annotations=labels)
    assert (first.label, first.boxes) == (None, ())
    assert (second.label, second.boxes) == (1, ((1, 2, 3, 4),))


def test_a_csv_names_files_beside_it_or_in_the_folder_of_its_name(tmp_path: Path) -> None:
    csv = tmp_path / "images.csv"
    csv.write_text(
        "file,class_index,label,width,height,boxes_x0_y0_x1_y1\n"
        "a.jpg,2,sea_snake,341,256,75.7 73.7 300.8 131.8\n"
        "b.jpg,0,cat,341,256,1 2 30 40;5 6 70 80\n"
        "c.jpg,1,dog,341,256,\n"
    )
    touch(tmp_path, "a.jpg")
    a, b, c = read_dataset(csv, class_index)
    assert a == Example("a.jpg", tmp_path / "a.jpg", 2, ((75.7, 73.7, 300.8, 131.8),), (341, 256))
    assert (len(b.boxes), len(c.boxes)) == (2, 0)
    touch(tmp_path, "images/a.jpg")
    assert read_dataset(csv, class_index)[0].path == tmp_path / "images" / "a.jpg"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,7,", "line 2.*target 7: the model has classes 0 to 2"),
        ("a.jpg,1,1 2 3", "line 2.*'1 2 3'.*four numbers"),
        ("a.jpg,1,3 2 1 4", "line 2.*x0 is below x1"),
        (",1,", "line 2.*no file"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: str, message: str) -> None:
    csv = tmp_path / "images.csv"
    csv.write_text(f"file,class,boxes\n{line}\n")
    with pytest.raises((DatasetError, TargetError), match=message):
        read_dataset(csv, class_index)


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder, image or CSV"):
        read_dataset(tmp_path / "gone", class_index)
    with pytest.raises(DatasetError, match="no images in it"):
        read_dataset(tmp_path, class_index)
    (tmp_path / "images.csv").write_text("name\nx.jpg\n")
    with pytest.raises(DatasetError, match="has the columns name; accepted is a header with a column 'file'"):
        read_dataset(tmp_path / "images.csv", class_index)
    (tmp_path / "none.csv").write_text("file\nx.jpg\n")
    with pytest.raises(DatasetError, match=r"none of its 1 files is there, such as .*x\.jpg"):
        read_dataset(tmp_path / "none.csv", class_index)
    touch(tmp_path, "x.jpg")
    (tmp_path / "twice.csv").write_text("file\nx.jpg\nx.jpg\n")
    with pytest.raises(DatasetError, match="comes twice"):
        read_dataset(tmp_path / "twice.csv", class_index)


def test_a_class_whose_label_is_a_number_is_found_by_its_label(tmp_path: Path) -> None:
    touch(tmp_path, "10/a.jpg", "1/b.jpg")
    labels = ("1", "10", "2")  # in the order in which torchvision's ImageFolder sorts folders

    def by_label(target: int | str) -> int:
        return targets.class_index(target, labels)

    assert {example.name: example.label for example in read_dataset(tmp_path, by_label)} == {
        "10/a.jpg": 1,
        "1/b.jpg": 0,
    }
    csv = tmp_path / "images.csv"
    csv.write_text("file,class\n10/a.jpg,2\n1/b.jpg,10\n")
    assert [example.label for example in read_dataset(csv, by_label)] == [2, 1]


def test_a_number_that_is_an_index_and_the_label_of_another_class_is_refused_where_not_all_are_labels(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "0/a.jpg", "1/b.jpg")

    def class_index(target: int | str) -> int:
        return targets.class_index(target, ("1", "10", "2"))

    with pytest.raises(TargetError, match=r"folder '1': .*index:1 or label:1.*--annotations"):
        read_dataset(tmp_path, class_index)
    (tmp_path / "labels.json").write_text(json.dumps({"0": 0, "1": "index:1"}))
    found = read_dataset(tmp_path, class_index, annotations=tmp_path / "labels.json")
    assert [example.label for example in found] == [0, 1]


def test_a_header_may_have_spaces_and_capitals(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "images.csv").write_text("File, Class, Boxes\na.jpg,dog,1 2 3 4\n")
    (example,) = read_dataset(tmp_path / "images.csv", class_index)
    assert (example.label, example.boxes) == (1, ((1, 2, 3, 4),))


def test_labels_that_name_no_image_are_refused(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.jpg")
    (tmp_path / "labels.csv").write_text("file,class\nimages/a.jpg,dog\n")
    (tmp_path / "labels.json").write_text('{"images/a.jpg": "dog"}')
    for name in ("labels.csv", "labels.json"):
        with pytest.raises(DatasetError, match=r"names none of the images.*'images/a.jpg'"):
            read_dataset(images, class_index, annotations=tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,class\na.jpg,dog\na.jpg,cat\n")
    with pytest.raises(DatasetError, match="comes twice"):
        read_dataset(images, class_index, annotations=tmp_path / "labels.csv")


def test_images_are_found_through_links_and_beside_their_folder(tmp_path: Path) -> None:
    real = touch(tmp_path / "real", "a.jpg")
    folder = touch(tmp_path / "images", "dog/b.jpg", ".ipynb_checkpoints/c.jpg")
    (folder / "cat").symlink_to(real)
    (folder / "dog" / "round").symlink_to(folder)
    assert {example.name for example in read_dataset(folder, class_index)} >= {"cat/a.jpg", "dog/b.jpg"}
    assert all("ipynb" not in example.name for example in read_dataset(folder, class_index))
    (tmp_path / "images.csv").write_text("file\nimages/dog/b.jpg\n")
    assert read_dataset(tmp_path / "images.csv", class_index)[0].path.exists()


def test_boxes_of_an_image_of_another_shape_are_refused() -> None:
    preprocessing = Preprocessing(height=20, width=20, resize=40, mean=(0.5,) * 3, std=(0.5,) * 3)
    example = Example("a", Path(), boxes=((1, 2, 3, 4),), size=(160, 80))
    with pytest.raises(DatasetError, match="160 x 80 pixels, but the upright image has 80 x 160"):
        inside_boxes(example, preprocessing, 160, 80)


def test_a_larger_limit_adds_to_the_images_of_a_smaller_one(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{index:02d}.jpg" for index in range(40)))
    few, more = (read_dataset(tmp_path, class_index, limit=limit, seed=3) for limit in (5, 12))
    assert len(few) == 5
    assert len(more) == 12
    assert {example.name for example in few} < {example.name for example in more}
    other = read_dataset(tmp_path, class_index, limit=5, seed=4)
    assert {example.name for example in few} != {example.name for example in other}


def test_boxes_follow_resize_and_crop() -> None:
    preprocessing = Preprocessing(height=20, width=20, resize=40, mean=(0.5,) * 3, std=(0.5,) * 3)
    # 80 x 160 pixels, resized to 40 x 80, of which the crop takes rows 10 to 30 and columns 30 to 50.
    example = Example("a", Path(), boxes=((70, 0, 90, 40),), size=None)
    inside = inside_boxes(example, preprocessing, 80, 160)
    expected = np.zeros((20, 20), bool)
    expected[:10, 5:15] = True
    np.testing.assert_array_equal(inside, expected)


def test_boxes_of_a_smaller_copy_are_scaled() -> None:
    preprocessing = Preprocessing(height=20, width=20, resize=40, mean=(0.5,) * 3, std=(0.5,) * 3)
    full = Example("a", Path(), boxes=((70, 0, 90, 40),))
    half = Example("a", Path(), boxes=((35, 0, 45, 20),), size=(80, 40))
    np.testing.assert_array_equal(
        inside_boxes(full, preprocessing, 80, 160), inside_boxes(half, preprocessing, 80, 160)
    )
