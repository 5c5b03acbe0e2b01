"""Labels: every form of file that is accepted, and one sentence for every one that is not."""

import doctest
import json
from pathlib import Path

import pytest

from ortcam_export import ExportError
from ortcam_export.sources import labels
from ortcam_export.sources.labels import imagenet_labels, parse_labels, read_labels


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(labels).failed == 0


@pytest.mark.parametrize(
    "text",
    [
        "scratch\ndent, deep\n",
        "\ufeffscratch\r\n\r\ndent, deep\r\n",
        '0,scratch\n1,"dent, deep"\n',
        'index,name\n1,"dent, deep"\n0,scratch\n',
        'name;id\n"dent, deep";1\nscratch;0\n',
        "0\tscratch\n1\tdent, deep\n",
        "0 scratch\n1 dent, deep\n",
        "0: scratch\n1: dent, deep\n",
        '["scratch", "dent, deep"]',
        '{"1": "dent, deep", "0": "scratch"}',
        '{"dent, deep": 1, "scratch": 0}',
        '{"id2label": {"0": "scratch", "1": "dent, deep"}, "model_type": "vit"}',
        '{"0": ["n1", "scratch"], "1": ["n2", "dent, deep"]}',
    ],
)
def test_a_file_of_any_of_these_forms_names_the_classes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes(text.encode())
    assert read_labels(path) == ("scratch", "dent, deep")


@pytest.mark.parametrize("text", ["5\n6\n", "2 legs\n4 legs\n", "crane, bird\ncrane, machine\n"])
def test_lines_that_only_look_like_a_table_are_names(text: str) -> None:
    assert parse_labels(text, Path("names.txt")) == tuple(text.splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,scratch\n2,dent\n", "its indices go from 1 to 2 in 2 rows; accepted is each from 0 to 1 once"),
        ("0,scratch\n0,dent\n", "accepted is each from 0 to 1 once"),
        (f"{'1' * 5000},scratch\n{'2' * 5000},dent\n", "no column of it has the indices"),
        ("a,b\nc,d\n", "no column of it has the indices"),
        ('{"0": "scratch", "2": "dent"}', "has the indices 0 to 1, each once"),
        ('{"scratch": 0, "dent": 0}', "has the indices 0 to 1, each once"),
        ("[1, 2]", "holds no labels; accepted is one name a line"),
        ("[", "not JSON"),
        ("", "holds no labels"),
    ],
)
def test_what_names_no_classes_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        parse_labels(text, Path("names.csv"))


def test_imagenet_is_known_without_torchvision_and_as_torchvision_has_it(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    assert list(imagenet_labels()) == torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert read_labels("imagenet") == imagenet_labels()
    with pytest.raises(ExportError, match="--labels imagenett: no such file; accepted is `imagenet`"):
        read_labels("imagenett")


def test_a_list_in_memory_is_taken_as_it_is() -> None:
    assert read_labels(["1", "0"]) == ("1", "0")
    assert json.dumps(read_labels(None)) == "null"
