"""Tensors of the protocol: both ways to send values give the same ones, and what does not fit its shape is refused."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ortcam.errors import ImageError, NotFiniteError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.samples import read_samples
from ortcam.serve.decoding.sources import Pixels
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.v2.envelope import Inference, InputTensor
from ortcam.serve.protocols.v2.images import sources_of
from ortcam.serve.protocols.v2.tensors import OutputTensor, byte_strings, numbers
from ortcam.serve.settings import RequestLimits


def of_json(datatype: str, shape: tuple[int, ...], data: list[Any], content_type: str | None = None) -> InputTensor:
    return InputTensor("x", shape, datatype, content_type, data, None)


def of_bytes(datatype: str, shape: tuple[int, ...], raw: bytes) -> InputTensor:
    return InputTensor("x", shape, datatype, None, None, memoryview(raw))


@pytest.mark.parametrize("kind", [("UINT8", np.uint8), ("FP32", np.float32)])
def test_numbers_are_the_same_flat_nested_and_as_bytes(kind: tuple[str, type]) -> None:
    values: NDArray[Any] = np.random.default_rng(0).integers(0, 256, (2, 3, 4)).astype(kind[1])
    for tensor in (
        of_json(kind[0], (2, 3, 4), values.ravel().tolist()),
        of_json(kind[0], (2, 3, 4), values.tolist()),
        of_bytes(kind[0], (2, 3, 4), values.tobytes()),
    ):
        found = numbers(tensor, "x")
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_byte_strings_are_the_same_in_base64_and_as_bytes() -> None:
    values = (b"", b"\xff\xd8", b"abc")
    texts = [base64.b64encode(value).decode() for value in values]
    raw = b"".join(struct.pack("<I", len(value)) + value for value in values)
    assert byte_strings(of_json("BYTES", (3,), texts), "x") == values
    assert byte_strings(of_json("BYTES", (3, 1), [[text] for text in texts], "base64"), "x") == values
    assert byte_strings(of_bytes("BYTES", (3,), raw), "x") == values


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (of_json("UINT8", (2,), [1]), "1 values; accepted: 2 values"),
        (of_json("UINT8", (4,), [[1, 2], [3, 4]]), "the shape [2, 2]; accepted: 4 values"),
        (of_json("UINT8", (2, 2), [[1, 2, 3, 4]]), "the shape [1, 4]"),
        (of_json("UINT8", (2,), [1, 256]), "not UINT8; accepted: whole numbers from 0 to 255"),
        (of_json("UINT8", (2,), [1, -1]), "not UINT8"),
        (of_json("UINT8", (2,), [1, 1.5]), "not UINT8"),
        (of_json("UINT8", (2,), [1, 10**40]), "too large"),
        (of_json("FP32", (2,), [0.5, 10**400]), "too large"),
        (of_json("UINT8", (2,), [1, True]), "not numbers"),
        (of_json("FP32", (2,), ["1", "2"]), "not numbers"),
        (of_json("FP32", (2,), [None, 1]), "not numbers"),
        (of_json("FP32", (2,), [True, False]), "not numbers"),
        (of_json("FP32", (2,), [{}, 1]), "not numbers"),
        (of_json("FP32", (2, 2), [[1, 2], [3]]), "different lengths"),
        (of_bytes("FP32", (2,), b"1234567"), "binary_data_size 7, but FP32 [2] has 8 bytes"),
        (of_bytes("UINT8", (2**40, 2**40), b""), "binary_data_size 0"),
    ],
)
def test_numbers_that_do_not_fit(tensor: InputTensor, said: str) -> None:
    with pytest.raises(Refusal) as error:
        numbers(tensor, "x")
    assert error.value.status == 400
    assert said in error.value.message


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (of_json("BYTES", (2,), ["AAAA"]), "1 elements; accepted: 2"),
        (of_json("BYTES", (1,), ["AAAA"] * 9), "more than 1 elements; accepted: 1"),
        (of_json("BYTES", (1,), ["AAAA"], "str"), "content_type is 'str'; accepted: 'base64'"),
        (of_bytes("BYTES", (1,), b"\5\0\0\0abc"), "the 7 bytes of x"),
        (of_bytes("BYTES", (1,), b"\3\0\0\0abcd"), "the 8 bytes of x"),
        (of_bytes("BYTES", (2,), b"\3\0\0\0abc"), "accepted: 2 elements"),
        (of_bytes("BYTES", (1,), b"\3\0"), "the 2 bytes of x"),
        (of_bytes("BYTES", (1,), b"\xff\xff\xff\xff"), "the 4 bytes of x"),
    ],
)
def test_byte_strings_that_do_not_fit(tensor: InputTensor, said: str) -> None:
    with pytest.raises(Refusal) as error:
        byte_strings(tensor, "x")
    assert error.value.status == 400
    assert said in error.value.message


@pytest.mark.parametrize("text", ["A*", "é", "AAA", 7, None, "https://example.org/cat.jpg", "../cat.jpg"])
def test_texts_that_are_no_base64(text: object) -> None:
    with pytest.raises(ImageError, match=r"x\.data\[1\] is .*base64"):
        byte_strings(of_json("BYTES", (2,), ["AAAA", text]), "x")


def test_every_float32_survives_json() -> None:
    random = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    values = random[np.isfinite(random)].reshape(1, -1)  # more than a piece of the JSON
    tensor = OutputTensor.of_array("x", "FP32", values)
    found = np.array(json.loads("".join(tensor.as_json())), np.float32)
    np.testing.assert_array_equal(found, values[0])
    np.testing.assert_array_equal(np.frombuffer(tensor.as_bytes(), "<f4"), values[0])


def test_other_types_in_json_and_as_bytes() -> None:
    numbers_ = OutputTensor.of_array("x", "INT64", np.array([[-1, 2**40]]))
    assert json.loads("".join(numbers_.as_json())) == [-1, 2**40]
    assert numbers_.as_bytes() == struct.pack("<2q", -1, 2**40)
    flags = OutputTensor.of_array("x", "BOOL", np.array([[True, False]]))
    assert json.loads("".join(flags.as_json())) == [True, False]
    assert flags.as_bytes() == b"\1\0"
    texts = OutputTensor.of_texts("x", ['a"', "é"])
    assert json.loads("".join(texts.as_json())) == ['a"', "é"]
    assert texts.as_bytes() == b'\2\0\0\0a"\2\0\0\0\xc3\xa9'
    files = OutputTensor("x", "BYTES", (1, 1), (b"\xff\xd8",), is_text=False)
    assert json.loads("".join(files.as_json())) == [base64.b64encode(b"\xff\xd8").decode()]


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(NotFiniteError, match="'x'"):
        OutputTensor.of_array("x", "FP32", np.array([np.nan]))


@pytest.mark.parametrize(
    ("channels", "order", "shape"),
    [
        (13, "bands", (13, 20, 13)),
        (13, "bands", (2, 13, 20, 13)),
        (13, "bands", (3, 13, 13)),
        (4, "bands", (3, 4, 4)),
        (1, "grey", (3, 20, 1)),
        (3, "rgb", (3, 20, 3)),
        (3, "rgb", (20, 3, 3)),
    ],
)
def test_pixels_with_as_many_rows_as_channels_are_read_in_their_order(
    channels: int, order: Any, shape: tuple[int, ...]
) -> None:
    span = None if order == "rgb" else (0.0, 255.0)
    preprocessing = Preprocessing(
        8, 8, None, (0.5,) * channels, (0.5,) * channels, channel_order=order, value_range=span
    )
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tensor = InputTensor("pixels", shape, "UINT8", None, None, memoryview(values.tobytes()))
    sources = sources_of(Inference(None, {}, (tensor,), None, binary=False), preprocessing, RequestLimits())
    images = values if values.ndim == 4 else values[None]
    for source, image in zip(sources, images, strict=True):
        assert isinstance(source, Pixels)
        np.testing.assert_array_equal(read_samples(source.array, preprocessing, max_pixels=10_000), image)
