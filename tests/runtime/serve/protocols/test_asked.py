"""The parameters of a request: read by their type, refused in one sentence, and bounded by the server's limits."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.common.loops import run_async

from ortcam.bundle import Manifest, read_bundle
from ortcam.errors import OptionError, OrtcamError, TargetError
from ortcam.request import ExplainRequest
from ortcam.serve.protocols.asked import MOST_BATCH, PARAMETERS, Asked
from ortcam.serve.settings import RequestLimits

LIMITS = RequestLimits()


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return read_bundle(tiny_bundle).manifest


def test_nothing_said_is_the_method_of_the_bundle_and_a_small_answer(manifest: Manifest) -> None:
    asked = Asked.of({}, LIMITS, manifest)
    assert asked.request == ExplainRequest.of().for_bundle(manifest)
    assert (asked.map, asked.overlay, asked.deadline_ms, asked.precision) == ("low", "none", None, None)
    assert not asked.masks_image


def test_texts_of_a_query_string_mean_what_values_of_json_mean(manifest: Manifest) -> None:
    values = {
        "method": "sscam",
        "num_samples": 4,
        "std": 0.5,
        "top_k": 3,
        "budget": 0.5,
        "deadline_ms": 2000.0,
        "tolerance": 0.05,
        "completion": "gaussian-process",
        "sampling_error": 0.2,
        "batch_size": 8,
        "augment": 2,
        "augment_flip": True,
        "precision": "fp32",
        "map": "full",
        "overlay": "png",
    }
    texts = {name: str(value).lower() for name, value in values.items()}
    assert Asked.of(texts, LIMITS, manifest) == Asked.of(values, LIMITS, manifest)
    assert Asked.of({**values, "seed": None}, LIMITS, manifest) == Asked.of(values, LIMITS, manifest)


def test_a_request_is_that_of_the_library(manifest: Manifest) -> None:
    asked = Asked.of({"method": "iscam", "budget": "3", "target": "dog,0", "deadline_ms": 500}, LIMITS, manifest)
    library = ExplainRequest.of(method="iscam", budget=3, target=[1, 0], deadline=500.0)
    assert asked.request == library.for_bundle(manifest)
    assert asked.deadline_ms == 500


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (2, (2,)),
        ("2", (2,)),
        ("Sea_Snake", (2,)),
        ("cat, dog", (0, 1)),
        ("white, striped", (5,)),
        (["dog", 0], (1, 0)),
        (["dog", "white, striped"], (1, 5)),
    ],
)
def test_classes_are_named_by_index_label_or_list(target: object, classes: tuple[int, ...], manifest: Manifest) -> None:
    asked = Asked.of({"target": target}, LIMITS, manifest)
    found, _ = asked.request.classes(None, manifest.labels)  # type: ignore[arg-type]  # no logits are needed
    assert tuple(found) == classes


def test_a_precision_is_one_that_the_bundle_has(manifest: Manifest) -> None:
    variant: Any = object()  # nothing but its name is looked at
    both = dataclasses.replace(manifest, variants={"float16": variant})
    for text, name in (("fp16", "float16"), ("Float16", "float16"), ("fp32", "float32"), (None, None)):
        assert Asked.of({"method": "scorecam", "precision": text}, LIMITS, both).precision == name


def test_a_deadline_bounds_the_wait_where_the_method_has_none(manifest: Manifest) -> None:
    asked = Asked.of({"method": "grad-cam", "deadline_ms": 500, "augment": 2}, LIMITS, manifest)
    assert (asked.deadline_ms, asked.request.limits.deadline) == (500, None)
    assert Asked.of({"deadline_ms": 500}, LIMITS, manifest).masks_image


def test_each_of_several_images_has_an_equal_share_of_the_time_that_is_left(manifest: Manifest) -> None:
    asked = Asked.of({"deadline_ms": 1000, "method": "scorecam"}, LIMITS, manifest)
    assert [asked.share(passed, left).deadline_ms for passed, left in [(0, 4), (200, 4), (200, 1), (2000, 2)]] == [
        250,
        400,
        1000,
        1500,
    ]
    assert Asked.of({}, LIMITS, manifest).share(200, 4).deadline_ms is None


def test_labels_are_looked_up_beside_the_event_loop(manifest: Manifest) -> None:
    for given in ({"target": "dog"}, {"target": ["dog", 2]}, {"target": 1}, {}):
        assert run_async(Asked.beside(given, LIMITS, manifest)) == Asked.of(given, LIMITS, manifest)
    with pytest.raises(TargetError, match="did you mean 'dog'"):
        run_async(Asked.beside({"target": "dogs"}, LIMITS, manifest))


def test_previews_take_a_method_that_has_them(manifest: Manifest) -> None:
    assert Asked.of({}, LIMITS, manifest, previews=True).masks_image
    assert not Asked.of({"method": "grad-cam"}, LIMITS, manifest, previews=True).masks_image


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mapp": "full"}, ["'mapp'", "map", "overlay", "did you mean 'map'"]),
        ({"deadline": 5}, ["'deadline'", "did you mean 'deadline_ms'"]),
        ({"cls": 5}, ["'cls'"]),
        ({"method": "score"}, ["'score'", "scorecam"]),
        ({"method": ["cam"]}, ["method is a list"]),
        ({"method": 5}, ["unknown method 5"]),
        ({"gate": "tanh"}, ["auto", "scorecam++"]),
        ({"map": "big"}, ["map='big'", "low, full, none"]),
        ({"overlay": True}, ["overlay=True", "none, png, jpeg"]),
        ({"budget": "lots"}, ["budget='lots'", "12%"]),
        ({"budget": "nan%"}, ["budget=nan"]),
        ({"budget": -1}, ["budget=-1"]),
        ({"budget": {"a": 1}}, ["budget is an object"]),
        ({"deadline_ms": 0}, ["deadline_ms=0", "milliseconds"]),
        ({"deadline_ms": "soon"}, ["deadline_ms='soon'"]),
        ({"deadline_ms": True}, ["deadline_ms=True"]),
        ({"tolerance": "x"}, ["tolerance='x'"]),
        ({"completion": "magic"}, ["completion='magic'"]),
        ({"method": "grad-cam", "budget": 3}, ["budget with grad-cam"]),
        ({"method": "grad-cam", "precision": "fp32"}, ["precision with grad-cam"]),
        ({"method": "scorecam", "precision": "int8"}, ["precision='int8'", "float32"]),
        ({"method": "scorecam", "precision": 16}, ["precision=16"]),
        ({"batch_size": MOST_BATCH + 1}, ["batch_size=65", "64"]),
        ({"batch_size": "many"}, ["batch_size='many'"]),
        ({"top_k": 0}, ["top_k=0"]),
        ({"top_k": 1.0}, ["top_k=1.0"]),
        ({"top_k": 7}, ["top_k=7", "6"]),
        ({"top_k": 2, "target": 1}, ["top_k=2", "one or the other"]),
        ({"target": 99}, ["99", "0 to 5"]),
        ({"target": 1.5}, ["1.5"]),
        ({"target": True}, ["True"]),
        ({"target": []}, ["empty"]),
        ({"target": [[1]]}, ["an item of target is a list"]),
        ({"target": {"index": 1}}, ["target is an object"]),
        ({"target": "crane"}, ["3, 4"]),
        ({"method": "x" * 1_000_000}, ["1000000 characters", "1000"]),
        ({"y" * 1_000_000: 1}, ["unknown parameter"]),
        ({"top_k": 10**400}, ["401 digits"]),
        ({"method": "sscam", "num_samples": float("nan")}, ["num_samples=nan"]),
    ],
    ids=lambda value: ",".join(map(str, value))[:40],
)
def test_bad_parameters_are_refused_in_one_short_sentence(
    given: dict[str, object], words: list[str], manifest: Manifest
) -> None:
    with pytest.raises(OrtcamError) as raised:
        Asked.of(given, LIMITS, manifest)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message) < 700
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given", "limit", "enough", "words"),
    [
        ({"top_k": 3}, "targets", 3, "at most 2"),
        ({"target": [1, 1, 1]}, "targets", 3, "at most 2"),
        ({"target": "0,1,2"}, "targets", 3, "at most 2"),
        ({"method": "sscam"}, "samples", 35, "smaller num_samples"),
        ({"method": "smooth-grad-cam++", "num_samples": 5}, "samples", 5, "smaller num_samples"),
        ({"augment": 3}, "copies", 3, "augment=3"),
        ({"method": "scorecam"}, "passes", 10, "budget of at most 9 channels"),
        ({"method": "iscam", "augment": 2, "budget": 2}, "passes", 40, "budget of at most 1 channel"),
        ({"method": "iscam", "augment": 2, "budget": 1}, "passes", 20, "fewer samples or copies"),
    ],
)
def test_a_request_takes_no_more_than_the_server_allows(
    given: dict[str, object], limit: str, enough: int, words: str, manifest: Manifest
) -> None:
    Asked.of(given, RequestLimits.of({limit: enough}), manifest)
    with pytest.raises(OptionError, match=words):
        Asked.of(given, RequestLimits.of({limit: enough - 1}), manifest)


def test_every_parameter_of_the_library_has_a_name_here() -> None:
    parameters = inspect.signature(ExplainRequest.of).parameters.values()
    own = {item.name for item in parameters if item.kind is item.KEYWORD_ONLY}
    assert {name.removesuffix("_ms") for name in PARAMETERS} - {"precision", "map", "overlay", "score_arrays"} == own
