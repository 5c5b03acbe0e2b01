"""The envelope of an inference request: what is read of it, and the sentence for each thing that is wrong with it."""

import json
from typing import Any

import pytest

from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.v2.envelope import AskedOutput, read_inference

IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}


def body(**entries: Any) -> bytes:
    return json.dumps({"inputs": [IMAGE]} | entries).encode()


def refused(content: bytes, length: str | None = None) -> str:
    with pytest.raises(Refusal) as error:
        read_inference(content, length)
    assert error.value.status == 400
    assert "\n" not in error.value.message
    assert len(error.value.message) < 500
    return error.value.message


def test_a_request_in_json() -> None:
    outputs = [
        {"name": "saliency", "parameters": {"binary_data": True}},
        {"name": "logits", "parameters": {"classification": 3}},
    ]
    found = read_inference(body(id="42", parameters={"top_k": 2}, outputs=outputs, model_name="m"), None)
    assert (found.id, found.parameters, found.binary) == ("42", {"top_k": 2}, False)
    assert found.outputs == (AskedOutput("saliency", True, None), AskedOutput("logits", False, 3))
    (tensor,) = found.inputs
    assert (tensor.name, tensor.shape, tensor.datatype, tensor.data, tensor.raw) == (
        "image",
        (1,),
        "BYTES",
        ["AAAA"],
        None,
    )


def test_bytes_behind_the_json_belong_to_the_tensors_in_order() -> None:
    first = {"name": "a", "shape": [3], "datatype": "UINT8", "parameters": {"binary_data_size": 3}}
    second = {"name": "b", "shape": [2], "datatype": "UINT8", "data": [7, 8]}
    third = {"name": "c", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}}
    head = body(inputs=[first, second, third], parameters={"binary_data_output": True})
    found = read_inference(head + b"abcde", str(len(head)))
    assert [None if item.raw is None else bytes(item.raw) for item in found.inputs] == [b"abc", None, b"de"]
    assert found.binary
    assert found.parameters == {}


def test_an_output_overrides_what_the_request_says_of_all() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}]
    found = read_inference(body(parameters={"binary_data_output": True}, outputs=outputs), None)
    assert found.outputs is not None
    assert [output.binary for output in found.outputs] == [False, True]


def test_with_a_json_of_length_0_the_body_is_one_image() -> None:
    (tensor,) = read_inference(b"JPEG", "0").inputs
    assert (tensor.datatype, tensor.shape) == ("BYTES", (1,))
    assert bytes(tensor.raw or b"") == b"\4\0\0\0JPEG"


def test_no_outputs_and_an_empty_list_of_them_are_the_usual_ones() -> None:
    assert read_inference(body(), None).outputs is None
    assert read_inference(body(outputs=[]), None).outputs is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON object"),
        (b"\xff\xd8\xff", "send the header Inference-Header-Content-Length: 0"),
        (b'{"inputs": ', "no JSON"),
        (b'{"inputs": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", "too many digits"),
        (b'{"inputs": NaN}', "NaN"),
        (b'{"inputs": [], "inputs": []}', "comes twice"),
        (b"[]", "no JSON object"),
        (b"{}", "inputs is missing"),
        (body(inputs=[]), "inputs is empty"),
        (body(inputs={"name": 1}), "inputs is {'name': 1}; accepted: a list"),
        (body(inputs=[IMAGE] * 65), "inputs has 65 entries; accepted: at most 64"),
        (body(inputs=["x"]), "inputs[0] is 'x'; accepted: an object"),
        (body(instances=[]), "the entry 'instances'; accepted: id, parameters, inputs, outputs"),
        (body(id=7), "id is 7; accepted: a text"),
        (body(id="7" * 2000), "accepted: a text of at most 1024"),
        (body(parameters=[]), "parameters is []"),
        (body(parameters={"binary_data_output": 1}), "parameters.binary_data_output is 1; accepted: true or false"),
        (body(inputs=[IMAGE | {"shape": [-1]}]), "inputs[0].shape[0] is -1"),
        (body(inputs=[IMAGE | {"shape": [True]}]), "inputs[0].shape[0] is True"),
        (body(inputs=[IMAGE | {"shape": [10**30]}]), "accepted: a whole number from 0"),
        (body(inputs=[IMAGE | {"shape": [1] * 9}]), "9 dimensions; accepted: at most 8"),
        (body(inputs=[IMAGE | {"shape": 1}]), "inputs[0].shape is 1; accepted: a list"),
        (body(inputs=[IMAGE | {"datatype": None}]), "inputs[0].datatype is missing"),
        (body(inputs=[IMAGE | {"data": "AAAA"}]), "inputs[0].data is 'AAAA'; accepted: a list"),
        (body(inputs=[IMAGE | {"data": None}]), "inputs[0] has neither data nor binary_data_size"),
        (body(inputs=[IMAGE | {"parameters": {"binary_data_size": 0}}]), "has data and binary_data_size"),
        (body(inputs=[IMAGE | {"parameters": {"shared_memory_region": "r"}}]), "the entry 'shared_memory_region'"),
        (body(outputs=[{"name": "a"}, {"name": "a"}]), "'a', which comes twice"),
        (body(outputs=[{}]), "outputs[0].name is missing"),
        (body(outputs=[{"name": "a", "parameters": {"classification": 0}}]), "classification is 0"),
        (body(outputs=[{"name": "a", "parameters": {"binary_data": "yes"}}]), "binary_data is 'yes'"),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_named(content: bytes, said: str) -> None:
    assert said in refused(content)


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", "١", "9" * 30, "100000"])
def test_a_length_of_the_json_that_cannot_be(length: str) -> None:
    assert "Inference-Header-Content-Length" in refused(body(), length)


@pytest.mark.parametrize(("announced", "sent"), [(4, b"abc"), (2, b"abc"), (0, b"a")])
def test_other_than_the_announced_bytes(announced: int, sent: bytes) -> None:
    tensor = {"name": "a", "shape": [3], "datatype": "UINT8", "parameters": {"binary_data_size": announced}}
    head = body(inputs=[tensor])
    assert "follow the JSON" in refused(head + sent, str(len(head)))


def test_white_space_and_a_byte_order_mark_before_the_json() -> None:
    assert read_inference(b" \r\n" + body(), None) == read_inference("\ufeff".encode() + body(), None)


def test_no_body_where_it_should_be_an_image() -> None:
    assert "the body is empty" in refused(b"", "0")
