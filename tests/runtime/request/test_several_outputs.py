"""`Score` of a model with several outputs: each is read by its name, and other texts mean what they meant."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.bundle import Manifest, OutputPart
from ortcam.errors import OptionError, TargetError
from ortcam.request import ExplainRequest, first_output, output_example, part_example
from ortcam.request.score_text import parse_score

PARTS = (
    OutputPart("A", (2, 3)),
    OutputPart("B", (3,)),
    OutputPart("offset", ()),
    OutputPart("a - b", (2,)),
    OutputPart("output", (2, 2)),
    OutputPart("tf:0", (1,)),
    OutputPart("0", (2,)),
)
FIRST = {"A": 0, "B": 6, "offset": 9, "a - b": 10, "output": 12, "tf:0": 16, "0": 17}


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return ortcam.read_bundle(tiny_bundle).manifest


@pytest.fixture(scope="module")
def several(manifest: Manifest) -> Manifest:
    return dataclasses.replace(manifest, activation="identity", labels=(), output_shape=(19,), output_parts=PARTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A[0,2]", {2: 1}),
        ("A[1, 0] - B[2]", {3: 1, 8: -1}),
        ("-2*B[:]", {6: -2 / 3, 7: -2 / 3, 8: -2 / 3}),
        ("A[:, 1]", {1: 0.5, 4: 0.5}),
        ("offset", {9: 1}),
        ("3*offset + B[0] + 1", {9: 3, 6: 1}),
        ("'a - b'[1]", {11: 1}),
        ('B[0] - "a - b"[0]', {6: 1, 10: -1}),
        ("output[1,0]", {14: 1}),
        ("'output'[1,0]", {14: 1}),
        ("tf:0[0]", {16: 1}),
        ("tf:0", {16: 1}),
        ("0[1]", {18: 1}),
        ("A[:,0] + A[:,0]", {0: 1, 3: 1}),
    ],
)
def test_an_output_is_read_by_its_name(several: Manifest, text: str, expected: dict[int, float]) -> None:
    row = ortcam.Score(text).matrix(several).weights["logits"][0]
    assert {int(place): pytest.approx(row[place]) for place in np.flatnonzero(row)} == expected


def test_a_mask_weighs_two_axes_of_an_output(several: Manifest) -> None:
    mask = np.array([[0, 1, 0], [3, 0, 0]])
    row = ortcam.Score("A[:,:]@where", arrays={"where": mask}).matrix(several).weights["logits"][0]
    assert row[:6].tolist() == [0, 0.25, 0, 0.75, 0, 0]
    assert not row[6:].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C[0]", r"'C' is no output; .*outputs are A \[2, 3\], B \[3\], offset \[\].* accepted .* 'A\[0, :\]'"),
        ("offsett", "'offsett' is no output; did you mean 'offset'"),
        ("A", r"A has 0 axes; accepted is one index or : for each axis of the output \[2, 3\]"),
        ("A[0]", r"A\[0\] has 1 axis; accepted is one index"),
        ("B[3]", "axis 0 accepts 0 to 2, or :"),
        ("A[2, 0]", "axis 0 accepts 0 to 1"),
        ("offset[0]", r"offset\[0\] has 1 axis"),
        ("entropy", r"'entropy': this model's outputs are A \[2, 3\].* accepted is NAME\[...\], such as"),
        ("probability:A[0,0]", r"accepted is NAME\[...\], such as"),
        ("A[0,0] - A[0,0]", "its terms cancel"),
        ("B[:,:]@where", r"has 2 axes"),
    ],
)
def test_what_no_output_has_is_refused_with_what_is_accepted(several: Manifest, text: str, message: str) -> None:
    arrays = {"where": np.ones((2, 3))} if "@" in text else {}
    with pytest.raises(OptionError, match=message):
        ortcam.Score(text, arrays=arrays).matrix(several)


def test_texts_mean_classes_where_a_model_has_them(manifest: Manifest) -> None:
    labels = ("A[0,5]", "B[2]", "'x'[1]", "output x", "a", "b")
    classes = dataclasses.replace(manifest, labels=labels)
    for index, label in enumerate(labels[:5]):
        row = ortcam.Score(f"b - {label}").matrix(classes).weights["logits"][0]
        assert row.tolist() == np.subtract(np.eye(6)[5], np.eye(6)[index]).tolist()
    with pytest.raises(TargetError, match=r"C\[0\]"):
        ortcam.Score("C[0]").matrix(classes)
    with pytest.raises(OptionError, match=r"'A' is no output: this model's output .*, which is called output"):
        ortcam.Score("A[:,:]@m", arrays={"m": np.ones((2, 2))}).matrix(classes)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_an_example_is_a_score_of_that_output(several: Manifest, part: OutputPart) -> None:
    for rest in (":", "0"):
        row = ortcam.Score(part_example(part, rest)).matrix(several).weights["logits"][0]
        assert np.flatnonzero(row)[0] == FIRST[part.name]
        assert row.sum() == pytest.approx(1)
    assert (output_example(several), first_output(several)) == ("A[0, :]", "A[0, 0]")


def test_a_model_of_several_outputs_has_no_classes_and_says_what_is_accepted(several: Manifest) -> None:
    with pytest.raises(TargetError, match=r"outputs are A \[2, 3\].* without classes: .*--score 'A\[0, :\]'"):
        ExplainRequest.of().for_bundle(several)
    assert several.in_words.startswith("tests.common.tiny:TinyNet: outputs A, B, offset, a - b, output, tf:0, 0, ")


def test_the_numbers_of_an_image_are_told_apart_by_output(several: Manifest, manifest: Manifest) -> None:
    found = several.outputs_by_name(np.arange(19.0))
    assert {name: values.shape for name, values in found.items()} == {part.name: part.shape for part in PARTS}
    assert {name: float(values.flat[0]) for name, values in found.items()} == FIRST
    assert manifest.outputs_by_name(np.arange(6.0))["output"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_minus_inside_brackets_or_quotes_is_none_of_the_expression() -> None:
    assert [(item.output, item.index) for item in parse_score("'a - b'[0, :] - x[1]")] == [
        ("a - b", (0, None)),
        ("x", (1,)),
    ]
