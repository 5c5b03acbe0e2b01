"""One rule for classes: what a text, a number and an array mean, on the command line and in Python."""

import collections
import doctest

import numpy as np
import pytest

import ortcam.request.request
import ortcam.request.targets
import ortcam.support.suggestions
from ortcam.errors import TargetError
from ortcam.request import as_targets, as_top_k, class_index, class_indices
from ortcam.support.suggestions import suggestions

NUMBERS = ("1", "10", "11", "2", "3", "4", "5")  # as torchvision's ImageFolder sorts folders
ANIMALS = (
    "cat",
    "white, striped",
    "crane",
    "crane",
    "label:dog",
    "dog",
    "index:0",
    "",
    '"quoted"',
    "Turkey",
    "turkey",
    "tiger cat",
    "café",
)


def test_the_examples_in_docstrings_hold() -> None:
    for module in (ortcam.support.suggestions, ortcam.request.request, ortcam.request.targets):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("texts", [["2"], ["1,2"], ["2,1"], ["10,2"], ["0", "2"], [" 2 "]])
def test_a_number_that_may_mean_two_classes_is_refused_alone_and_in_a_list(texts: list[str]) -> None:
    with pytest.raises(TargetError, match=r"accepted is index:(1|2) or label:(1|2)"):
        class_indices(texts, NUMBERS)


@pytest.mark.parametrize(
    ("texts", "indices"),
    [
        (["10"], [1]),  # no index of these seven
        (["0"], [0]),  # no label
        (["label:2", "index:2"], [3, 2]),
        (["LABEL:2,Index:2,10"], [3, 2, 1]),
        (["label: 2 "], [3]),
        (['"2"'], [3]),
    ],
)
def test_a_number_is_what_it_can_only_be_or_what_its_prefix_says(texts: list[str], indices: list[int]) -> None:
    assert class_indices(texts, NUMBERS) == indices


def test_a_number_that_means_one_class_either_way_is_that_class() -> None:
    digits = tuple("0123456789")
    assert class_indices(["3,7"], digits) == [3, 7]
    assert class_indices(["3,7"], ("a",) * 3 + ("3", "b", "c", "d", "7")) == [3, 7]


def test_text_in_python_follows_the_rule_and_integers_are_indices() -> None:
    assert class_index(2, NUMBERS) == class_index(np.int64(2), NUMBERS) == class_index("index:2", NUMBERS) == 2
    assert class_index("label:2", NUMBERS) == class_index(np.str_("label:2"), NUMBERS) == 3
    with pytest.raises(TargetError, match="index:2 or label:2"):
        class_index("2", NUMBERS)
    assert class_index("a, b", ("a", "b", "a, b")) == 2, "no list"


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("White,striped", 1),
        ("label:white, striped", 1),
        ("'white, striped'", 1),
        ("label:label:dog", 4),
        ("index:0", 0),
        ("label:index:0", 6),
        ("label:", 7),
        ('"quoted"', 8),
        ("turkey", 10),
        ("Turkey", 9),
        ("tiger_cat", 11),
        ("cafe\u0301", 12),
        ("CAFÉ", 12),
    ],
)
def test_labels_are_found_however_they_look(text: str, index: int) -> None:
    assert class_indices([text], ANIMALS) == [index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", "names the classes 2, 3: give the index, say index:2"),
        ("TURKEY", "names the classes 9, 10"),
        ("label:dog", r"is the label of class 4, and says the label of class 5; accepted is index:"),
        ("", "is empty"),
        (" ", "is empty"),
        ("cat,", "is empty"),
        ("13", "target 13: the model has classes 0 to 12"),
        ("-1", "target -1: the model has classes 0 to 12"),
        ("index:13", "accepted is index: and a number from 0 to 12"),
        ("index:cat", "accepted is index: and a number from 0 to 12"),
        ("1.0", "no class of the model has this label"),
        ("9" * 5000, "no class of the model has this label"),
        ("cats", "did you mean 'cat', 'tiger cat'"),
    ],
)
def test_what_is_no_class_or_several_says_so(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        class_indices([text], ANIMALS)


def test_where_no_label_is_like_the_wrong_one_a_few_short_ones_are_listed() -> None:
    with pytest.raises(TargetError, match=r"\(0 to 1\); accepted: 'mug', 'key'$"):
        class_index("bottle", ("mug", "key"))
    with pytest.raises(TargetError, match=r"\(0 to 1\); did you mean 'mug'\?$"):
        class_index("mugg", ("mug", "key"))
    for labels in (tuple(f"{n}" for n in range(11)), ("mug", "k" * 200)):
        with pytest.raises(TargetError, match=rf"\(0 to {len(labels) - 1}\)$"):
            class_index("bottle", labels)


def test_a_label_with_commas_is_one_class_among_others_and_its_parts_are_asked_for_by_name() -> None:
    assert class_indices(["cat,white, striped,dog"], ANIMALS) == [0, 1, 5]
    labels = ("a", "b", "a,b")
    with pytest.raises(TargetError, match=r"accepted is label:a,b, or one class each: -t index:0 -t index:1"):
        class_indices(["a,b"], labels)
    assert class_indices(["label:a,b"], labels) == class_indices(['"a,b"'], labels) == [2]
    assert class_indices(["a", "b"], labels) == [0, 1]


@pytest.mark.parametrize(
    "target",
    [
        2,
        np.int64(2),
        np.array(2),
        np.array([2]),
    ],
)
def test_an_integer_is_one_of_python_or_numpy(target: object) -> None:
    assert as_targets(target) == (2,)
    assert type(as_targets(target)[0]) is int


def test_several_targets_keep_order_and_repetition() -> None:
    assert as_targets(item for item in [3, "dog", 3]) == (3, "dog", 3)
    assert as_targets(np.array(["dog", "cat"])) == ("dog", "cat")
    assert as_targets(collections.deque(["1"])) == ("1",)


@pytest.mark.parametrize(
    "target",
    [
        b"fish",
        bytearray(b"fish"),
        memoryview(b"fish"),
        True,
        np.True_,
        1.0,
        np.float32(1),
        np.array([1.0]),
        [[1, 2]],
        np.zeros((1, 1), int),
        {"dog": 1},
        [b"fish"],
        [None],
        object(),
    ],
)
def test_what_is_neither_index_nor_label_is_refused(target: object) -> None:
    with pytest.raises(TargetError, match="accepted is a class index or a label, or several of them"):
        as_targets(target)


@pytest.mark.parametrize("target", [[], (), np.array([], int), iter(())])
def test_no_targets_are_refused(target: object) -> None:
    with pytest.raises(TargetError, match="target is empty"):
        as_targets(target)


@pytest.mark.parametrize("top_k", [2, np.int64(2), np.uint8(2), np.array(2)])
def test_top_k_is_a_whole_number_of_any_library(top_k: object) -> None:
    assert as_top_k(top_k, 3) == 2


@pytest.mark.parametrize("top_k", [0, -1, 4, True, np.True_, 2.0, "2", None, [2], np.array([2])])
def test_what_is_no_number_of_classes_is_refused(top_k: object) -> None:
    with pytest.raises(TargetError, match="accepted is a whole number from 1 to 3, the model's classes"):
        as_top_k(top_k, 3)


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [
        ("cat", ["car", "bat", "tiger cat", "Persian cat", "cattle truck"], ["tiger cat", "Persian cat"]),
        ("big cat", ["big dog", "tiger cat", "big cat show"], ["big cat show"]),
        ("samples", ["gate", "num_samples"], ["num_samples"]),
        ("doge", ["cat", "dog"], ["dog"]),
        ("gatte", ["gate", "maps"], ["gate"]),
        ("unicorn", ["cat", "dog"], []),
        ("", ["cat"], []),
    ],
)
def test_names_are_suggested_by_words_then_by_letters(text: str, known: list[str], found: list[str]) -> None:
    assert suggestions(text, known) == found
