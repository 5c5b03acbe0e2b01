"""`Score`: what the grammar means, and what it refuses with the value and what is accepted."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import TINY_LABELS

import ortcam
from ortcam.bundle import Manifest
from ortcam.engine.score import ScoreMatrix
from ortcam.errors import OptionError, TargetError
from ortcam.images.encoding import write_png
from ortcam.request import ExplainRequest
from ortcam.request.score_text import parse_score


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return ortcam.read_bundle(tiny_bundle).manifest


@pytest.fixture(scope="module")
def tensor(manifest: Manifest) -> Manifest:
    """Of a model whose output is a tensor [4,3,5]."""
    return dataclasses.replace(manifest, activation="identity", labels=(), output_shape=(4, 3, 5))


def matrix(text: str, manifest: Manifest, **arrays: Any) -> ScoreMatrix:
    return ortcam.Score(text, arrays=arrays).matrix(manifest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", {"logits": [1, 0, 0, 0, 0, 0]}),
        ("-cat", {"logits": [-1, 0, 0, 0, 0, 0]}),
        ("dog - 0.5*cat", {"logits": [-0.5, 1, 0, 0, 0, 0]}),
        ("cat + dog + cat", {"logits": [2, 1, 0, 0, 0, 0]}),
        ("'white, striped' - index:0", {"logits": [-1, 0, 0, 0, 0, 1]}),
        ("2 * logit:sea_snake", {"logits": [0, 0, 2, 0, 0, 0]}),
        ("Probability:DOG", {"probabilities": [0, 1, 0, 0, 0, 0]}),
        ("3 - entropy", {"one": [3], "entropy": [-1]}),
        ("output[2] - .5*output[:]", {"logits": [-1 / 12, -1 / 12, 11 / 12, -1 / 12, -1 / 12, -1 / 12]}),
        ("logit:3", {"logits": [0, 0, 0, 1, 0, 0]}),
        ("1e-3*cat", {"logits": [1e-3, 0, 0, 0, 0, 0]}),
    ],
)
def test_an_expression_is_a_row_of_weights(manifest: Manifest, text: str, expected: dict[str, list[float]]) -> None:
    found = matrix(text, manifest).weights
    assert {term: row[0].tolist() for term, row in found.items()} == {
        term: pytest.approx(row) for term, row in expected.items()
    }


def test_labels_may_hold_signs_and_quotes() -> None:
    assert [item.name for item in parse_score("jack-o'-lantern - t-shirt")] == ["jack-o'-lantern", "t-shirt"]
    assert [item.name for item in parse_score("'salt - pepper' + \"it's\"")] == ["'salt - pepper'", '"it\'s"']
    assert parse_score("logit:'a + b'")[0].name == "'a + b'"


def test_a_cosine_is_of_a_unit_vector(manifest: Manifest) -> None:
    query = np.array([3.0, 0, 0, 4, 0, 0])
    assert matrix("cosine:query", manifest, query=query).weights["direction"][0] == pytest.approx(query / 5)
    assert matrix("cosine:query", manifest, query=query[None]).weights["direction"].shape == (1, 6)


def test_a_mask_weighs_two_axes(tensor: Manifest) -> None:
    assert matrix("output[1, :, 2]", tensor).weights["logits"].reshape(4, 3, 5)[1, :, 2] == pytest.approx([1 / 3] * 3)
    mask = np.zeros((3, 5))
    mask[0, 1], mask[2, 4] = 1, 3
    found = matrix("output[2, :, :]@mask", tensor, mask=mask).weights["logits"].reshape(4, 3, 5)
    assert found[2] == pytest.approx(mask / 4)
    assert found[[0, 1, 3]].any() == False  # noqa: E712 - of numpy
    size = tensor.preprocessing.height, tensor.preprocessing.width
    large = np.zeros(size)
    large[: size[0] // 2] = 1  # 1.5 of 3 rows
    found = matrix("output[2, :, :]@mask", tensor, mask=large).weights["logits"].reshape(4, 3, 5)[2]
    assert found == pytest.approx(np.repeat([[2], [1], [0]], 5, axis=1) / 15)


def test_files_are_read_once(manifest: Manifest, tmp_path: Path) -> None:
    np.save(tmp_path / "query.npy", np.arange(6.0))
    score = ortcam.Score(f"cosine:{tmp_path / 'query.npy'}")
    (tmp_path / "query.npy").unlink()
    again = pickle.loads(pickle.dumps(score))
    assert again == score
    assert np.array_equal(again.matrix(manifest).rows(("direction",)), score.matrix(manifest).rows(("direction",)))
    write_png(tmp_path / "mask.png", np.full((3, 5, 3), 51, np.uint8))
    picture = ortcam.Score(f"output[0, :, :]@{tmp_path / 'mask.png'}")
    assert np.asarray(next(iter(picture.arrays.values()))) == pytest.approx(np.full((3, 5), 0.2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "score='': accepted is logit or probability"),
        ("cat + ", "a term is empty"),
        ("3", "class 3 is index:3"),
        ("5 - 3", "a class is index:N"),
        ("cosine:", "needs a file"),
        ("2*", "nothing to multiply"),
        ("output[a]", "accepted is output[I, J, ...]"),
        ("output[:]@mask", "a mask has two axes"),
        ("cosine:no-such-file.npy", "No such file"),
        ("cosine:''", "needs a file or the name of an array"),
        ('output[:, :]@""', "needs a file or the name of an array"),
        ("cosine:.", "is no regular file"),
        ("9e40*cat", "is too large"),
        ("x" * 70_000, "accepted is logit or probability"),
    ],
)
def test_what_is_no_score_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        ortcam.Score(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("bird", TargetError, "score='bird': target 'bird': no class"),
        ("crane", TargetError, "index:3"),
        ("cat-dog", TargetError, "+ and - stand between spaces"),
        ("cat*2", TargetError, "a number in front of its class"),
        ("prob:cat", TargetError, "accepted in front of : are logit, probability"),
        ("entropie", TargetError, "did you mean 'entropy'?"),
        ("0*cat", OptionError, "the same for every image"),
        ("cat - cat + 2", OptionError, "the same for every image"),
        ("entropy - entropy", OptionError, "the same for every image"),
        ("output[6]", OptionError, "axis 0 accepts 0 to 5"),
        ("cat+dog", TargetError, "+ and - stand between spaces"),
        ("output[0, 0]", OptionError, "has 2 axes; accepted is one index or : for each axis of the output [6]"),
        ("cosine:query", OptionError, "accepted is [6]"),
        ("cosine:zeros", OptionError, "has no direction"),
    ],
)
def test_what_the_model_does_not_have_is_refused(manifest: Manifest, text: str, error: type, words: str) -> None:
    arrays = {"cosine:query": {"query": np.ones(5)}, "cosine:zeros": {"zeros": np.zeros(6)}}.get(text, {})
    with pytest.raises(error) as caught:
        matrix(text, manifest, **arrays)
    assert words in str(caught.value)


def test_a_tensor_has_elements_alone(tensor: Manifest) -> None:
    for text in ("cat", "entropy", "probability:0"):
        with pytest.raises(OptionError, match=r"output\[0, :, :\]"):
            matrix(text, tensor)

    with pytest.raises(TargetError, match=r"--score 'output\[0, :, :\]'"):
        ExplainRequest.of(method="grad-cam").for_bundle(tensor)


def test_values_are_no_probabilities(manifest: Manifest) -> None:
    values = dataclasses.replace(manifest, activation="identity")
    assert matrix("dog - cat", values).weights.keys() == {"logits"}
    for text in ("probability:cat", "entropy"):
        with pytest.raises(OptionError, match="values, not probabilities"):
            matrix(text, values)
    for method in ("scorecam", "grad-cam", "recipro-cam", "auto"):
        with pytest.raises(OptionError, match="values, not probabilities; accepted is logit"):
            ExplainRequest.of(method=method, score="probability", target=0).for_bundle(values)
        assert ExplainRequest.of(method=method, score="logit", target=0).for_bundle(values)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04damaged", b"\x93NUMPY", b"no array", b"\x93NUMPY\x01\x00\x0a\x00{'descr': 0}"]
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "query.npy").write_bytes(content)
    with pytest.raises(OptionError, match=r"query\.npy cannot be read as a \.npy file|truncated"):
        ortcam.Score(f"cosine:{tmp_path / 'query.npy'}")


def test_a_file_that_says_it_is_large_takes_no_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    (tmp_path / "query.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(OptionError, match="is truncated: of 8000000000000 bytes"):
        ortcam.Score(f"cosine:{tmp_path / 'query.npy'}")


def test_large_numbers_keep_their_direction(manifest: Manifest, tensor: Manifest) -> None:
    large = np.array([3e300, 0, 0, 4e300, 0, 0])
    assert matrix("cosine:q", manifest, q=large).weights["direction"][0] == pytest.approx(large / 5e300)
    mask = np.full((3, 5), 1.5e308)
    assert matrix("output[0, :, :]@m", tensor, m=mask).weights["logits"][0, :15] == pytest.approx(np.full(15, 1 / 15))


def test_words_are_read_in_any_case(manifest: Manifest) -> None:
    score = ortcam.Score(" Logit ")
    assert score.text == "logit"
    request = ExplainRequest.of(method="recipro-cam", score=score, target=0).for_bundle(manifest)
    assert request.settings.all_options["score"] == "logit"


def test_arrays_are_checked() -> None:
    with pytest.raises(OptionError, match="rows of one length"):
        ortcam.Score("cosine:query", arrays={"query": [[1, 2], [3]]})
    with pytest.raises(OptionError, match="accepted are arrays by name"):
        ortcam.Score("cosine:query", arrays=[np.ones(6)])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="does not use the array 'quary'"):
        ortcam.Score("cosine:query", arrays={"query": np.ones(6), "quary": np.ones(6)})
    with pytest.raises(OptionError, match="files are not read here"):
        ortcam.Score("cosine:/etc/passwd", files=False)
    for wrong in (np.array([1, np.nan]), np.array(["a"]), np.array([])):
        with pytest.raises(OptionError, match="accepted are finite numbers"):
            ortcam.Score("cosine:query", arrays={"query": wrong})


def test_an_expression_names_its_classes_itself() -> None:
    for beside in ({"target": 1}, {"top_k": 2}):
        with pytest.raises(TargetError, match="an expression is one score"):
            ExplainRequest.of(score="entropy", **beside)
    assert ExplainRequest.of(score="logit", target=1).score is not None
    assert TINY_LABELS[0] == "cat"
