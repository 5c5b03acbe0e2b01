"""Images inside JSON: every form that is accepted, and what strangers send in place of them."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from ortcam.errors import ImageError
from ortcam.images.reading import read_image
from ortcam.serve.decoding.sources import Encoded, Pixels, Preprocessed
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.instances import decode_base64, parse_object, source_of

FILE = bytes(range(256))
TEXT = base64.b64encode(FILE).decode()
RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


@pytest.mark.parametrize(
    "instance",
    [
        {"image": {"b64": TEXT}},
        {"data": {"b64": TEXT}},
        {"b64": TEXT},
        {"image": TEXT},
        {"data": TEXT},
        TEXT,
        {"b64": base64.encodebytes(FILE).decode()},
        {"b64": f"data:image/jpeg;base64,{TEXT}"},
    ],
)
def test_encoded_images_come_in_base64(instance: object) -> None:
    found = source_of(instance, "instances[0]")
    assert isinstance(found, Encoded)
    assert found.content == FILE


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"image": value}, lambda value: {"data": value}])
@pytest.mark.parametrize(
    "pixels",
    [RGB, RGB.transpose(2, 0, 1), RGB[..., 0], RGB / 255, np.float32(RGB) / np.float32(255)],
    ids=["rgb", "channels first", "grey", "float64", "float32"],
)
def test_lists_are_the_pixels_that_the_library_makes_of_an_array(pixels: np.ndarray[Any, Any], wrap: Any) -> None:
    found = source_of(json.loads(json.dumps(wrap(pixels.tolist()))), "instances[0]")
    assert isinstance(found, Pixels)
    np.testing.assert_array_equal(found.array, read_image(pixels))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 3, 4, 5)])
def test_preprocessed_lists_are_the_input_of_the_model(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = source_of({"preprocessed": values.tolist()}, "instances[0]")
    assert isinstance(found, Preprocessed)
    np.testing.assert_array_equal(found.array, values)


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ("/etc/passwd", ["'/etc/passwd'", "no paths and no URLs"]),
        ("file:///etc/passwd", ["no paths and no URLs"]),
        ({"image": "http://127.0.0.1/cat.jpg"}, ["http://127.0.0.1/cat.jpg", "no paths and no URLs"]),
        ({"b64": "caf\u00e9"}, ["no base64"]),
        ({"b64": "abc"}, ["no base64"]),
        ({"b64": "\ud800"}, ["no base64"]),
        ({"b64": "x" * 1_000_001}, ["no base64"]),
        ({"b64": 5}, ["instances[0].b64 is a number"]),
        ({"b64": None}, ["is null"]),
        ({"image": {"url": "http://x"}}, ["instances[0].image"]),
        ({"image": {"b64": TEXT, "name": "x"}}, ["instances[0].image"]),
        ({"url": "http://x"}, ["'url'", "accepted is"]),
        ({"image": TEXT, "data": TEXT}, ["'image', 'data'"]),
        ({}, ["nothing"]),
        ({"k" * 100_000: 1}, ["accepted is"]),
        (5, ["a number"]),
        (None, ["null"]),
        (True, ["true"]),
        ([], ["one length above zero"]),
        ([[]], ["one length above zero"]),
        ([[1, 2], [3]], ["depth 2"]),
        ([[1, 2], 3], ["depth 2"]),
        ([1, 2, 3], ["1 dimensions"]),
        ([[[[1]]]], ["4 dimensions"]),
        ([[[[[[1]]]]]], ["more than 4 dimensions"]),
        ([[1, "2"], [3, 4]], ["a text among its pixels"]),
        ([[1, True], [3, 4]], ["true among its pixels"]),
        ([[1, None], [3, 4]], ["null among its pixels"]),
        ([[1, {"a": 1}], [3, 4]], ["an object among its pixels"]),
        ([[1, 256], [3, 4]], ["from 1 to 256"]),
        ([[-1, 2], [3, 4]], ["from -1 to 4"]),
        ([[10**400, 2], [3, 4]], ["401 digits"]),
        ([[10**400, 0.5], [3, 4]], ["beyond those of float64"]),
        ([[0.5, 7.5], [3, 4]], ["instances[0]: "]),
        ([[[0.5] * 7] * 2] * 2, ["instances[0]: "]),
        ({"preprocessed": "x"}, ["accepted are numbers"]),
        ({"preprocessed": {"a": 1}}, ["accepted are numbers"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_instances_are_refused_in_one_short_sentence(instance: object, words: list[str]) -> None:
    with pytest.raises(ImageError) as raised:
        source_of(instance, "instances[0]")
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message) < 700
    assert "\n" not in message


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff{}", 400, "no JSON"),
        (b"[1]", 400, "no JSON object"),
        (b'{"a": NaN}', 400, "NaN"),
        (b'{"a": 1e999}', 400, "1e999"),
        (b'{"a": 1, "a": 2}', 400, "comes twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "too many digits"),
        (b'{"a":' * 30_000, 400, "nested too deeply"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", 400, "nested too deeply"),
        (b'{"a": [' + b"[]," * (1 << 19) + b"[]]}", 413, "lists"),
        (b'{"a": [' + b'"",' * (1 << 15) + b"1]}", 413, "texts"),
        (b'{"a": [' + b"1," * ((1 << 21) + 1) + b"1]}", 413, "values"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bodies_that_are_no_usual_json_are_refused(body: bytes, status: int, words: str) -> None:
    with pytest.raises(Refusal) as raised:
        parse_object(body)
    assert raised.value.status == status
    assert words in raised.value.message
    assert len(raised.value.message) < 400


def test_an_object_is_parsed_with_and_without_a_byte_order_mark() -> None:
    assert parse_object(b'{"a": [1, 2.5]}') == parse_object(b'\xef\xbb\xbf{"a": [1, 2.5]}') == {"a": [1, 2.5]}


def test_no_bytes_are_a_text_of_base64_too() -> None:
    assert decode_base64("", "x") == b""
