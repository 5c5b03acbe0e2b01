"""What a request brings: JSON, forms and images by their own bytes, told apart by type and first bytes."""

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from tests.common.loops import run_async

from ortcam.errors import OrtcamError
from ortcam.serve.decoding.sources import Encoded
from ortcam.serve.http.refusals import Refusal
from ortcam.serve.protocols.inputs import Inputs, parameters_of_query, read_inputs
from ortcam.serve.settings import RequestLimits

FILE = b"\xff\xd8\xff\r\n\0 an image"
B64 = base64.b64encode(FILE).decode()
FORM = "multipart/form-data; boundary=xyz"
URLENCODED = "application/x-www-form-urlencoded"


def read(body: bytes, kind: str | None = None, query: str = "", limits: RequestLimits | None = None) -> Inputs:
    """What a request brings, with its body in two pieces."""
    half = len(body) // 2
    pieces = [(body[:half], True), (body[half:], False)]

    async def receive() -> dict[str, Any]:
        content, more = pieces.pop(0)
        return {"type": "http.request", "body": content, "more_body": more}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": [] if kind is None else [(b"content-type", kind.encode())],
        "server": ("127.0.0.1", 80),
        "app": SimpleNamespace(state=SimpleNamespace()),
    }
    return run_async(read_inputs(Request(scope, receive), limits or RequestLimits()))


def contents(inputs: Inputs) -> list[bytes]:
    assert all(isinstance(source, Encoded) for source in inputs.sources)
    return [source.content for source in inputs.sources if isinstance(source, Encoded)]


def form(*parts: tuple[str, bytes], end: bytes = b"--xyz--\r\n") -> bytes:
    lines = [f"--xyz\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts]
    return b"".join(lines) + end


def field(name: str, value: str) -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', value.encode()


def file(name: str, content: bytes = FILE) -> tuple[str, bytes]:
    return (
        f'content-disposition: form-data; name="{name}"; filename="cat \\"x\\";.jpg"\r\nContent-Type: image/jpeg',
        content,
    )


def body_of(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "application/octet-stream", URLENCODED, None, "IMAGE/WebP"]
)
def test_an_image_is_a_body_of_its_own(kind: str | None) -> None:
    found = read(FILE, kind, "method=scorecam++&budget=12%25&target=tiger+cat&target=2")
    assert contents(found) == [FILE]
    assert found.parameters == {"method": "scorecam++", "budget": "12%", "target": ["tiger cat", "2"]}


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", URLENCODED, None])
@pytest.mark.parametrize("root", ["instances", "inputs"])
def test_json_has_instances_and_parameters(kind: str | None, root: str) -> None:
    """`curl -d` says that its JSON is a form."""
    body = body_of({root: [{"image": {"b64": B64}}, {"b64": B64}], "parameters": {"top_k": 2}, "signature_name": "x"})
    found = read(b"\n " + body, kind, "map=full")
    assert contents(found) == [FILE, FILE]
    assert found.parameters == {"top_k": 2, "map": "full"}


def test_a_form_has_files_and_fields() -> None:
    found = read(form(field("method", "cam"), file("image"), field("target", "1"), field("target", "2")), FORM)
    assert contents(found) == [FILE]
    assert found.parameters == {"method": "cam", "target": ["1", "2"]}
    several = read(b"a preamble\r\n" + form(file("a"), file("a", b"x--xyz\r\n")) + b"an end", FORM)
    assert contents(several) == [FILE, b"x--xyz\r\n"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"", None, 400, "the body is empty"),
        (b"", FORM, 400, "the body is empty"),
        (b"{", "application/json", 400, "no JSON"),
        (FILE, "application/json", 400, "no JSON"),
        (FILE, "text/html", 415, "'text/html'"),
        (body_of({"x": 1}), "application/json", 400, "'x'"),
        (body_of({}), "application/json", 400, "no instances"),
        (body_of({"instances": [1], "inputs": [1]}), None, 400, "instances and inputs"),
        (body_of({"instances": []}), None, 400, "at least one"),
        (body_of({"instances": {"b64": B64}}), None, 400, "no list"),
        (body_of({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": []}]}), None, 400, "/v2/"),
        (body_of({"instances": [{"b64": B64}], "parameters": [1]}), None, 422, "parameters=[1]"),
        (body_of({"instances": [{"b64": B64}] * 17}), None, 422, "17 images"),
        (body_of({"instances": [{"b64": B64}], "parameters": {"map": "low"}}), None, 422, "give it once"),
        (form(file("a")), "multipart/form-data", 400, "boundary"),
        (form(file("a")), "multipart/form-data; boundary=" + "x" * 71, 400, "boundary"),
        (form(file("a"), end=b""), FORM, 400, "no end"),
        (FILE, FORM, 400, "no end"),
        (form(), FORM, 422, "no image"),
        (form(field("image", "cat.jpg")), FORM, 422, "no image"),
        (form(("X: y", FILE)), FORM, 400, "no name"),
        (form(("Content-Disposition: form-data; filename=x", FILE)), FORM, 400, "no name"),
        (form(file("a"), ("Content-Disposition: form-data; name=b", FILE)), FORM, 422, "no text"),
        (form(("X: " + "y" * 10_000, FILE)), FORM, 400, "too long"),
        (form(*[file("a")] * 17), FORM, 422, "17 images"),
        (form(*[file("a")] * 200), FORM, 422, "too many parts"),
        (b"\x89PNG\x1a" + b"x" * 2000, URLENCODED, 422, "--data-binary"),
        (b"\xff\xd8\xff" + b"x" * 2000, URLENCODED, 422, "--data-binary"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_bodies_are_refused_in_one_sentence(body: bytes, kind: str | None, status: int, words: str) -> None:
    with pytest.raises((Refusal, OrtcamError)) as raised:
        read(body, kind, "map=full")
    found = raised.value.status if isinstance(raised.value, Refusal) else 422
    assert (found, words in str(raised.value)) == (status, True), raised.value


def test_a_body_is_bounded() -> None:
    limits = RequestLimits.of({"body_bytes": 1024})
    assert contents(read(b"x" * 1024, None, limits=limits)) == [b"x" * 1024]
    with pytest.raises(Refusal) as raised:
        read(b"x" * 1025, None, limits=limits)
    assert raised.value.status == 413


def test_a_query_string_is_bounded() -> None:
    assert parameters_of_query("") == {}
    assert parameters_of_query("a=&b=%20&b=%ff") == {"a": "", "b": [" ", "\ufffd"]}
    with pytest.raises(Refusal) as raised:
        parameters_of_query("&".join(["a=1"] * 101))
    assert raised.value.status == 400


def test_headers_that_would_take_seconds_to_parse_are_refused() -> None:
    slow = 'a="' + ";" * 10_000
    with pytest.raises(Refusal) as raised:
        read(form(file("image")), f"{FORM}; {slow}")
    assert raised.value.status == 415
    with pytest.raises(Refusal, match="too long"):
        read(form((f"Content-Disposition: form-data; {slow}", FILE)), FORM)
