"""Requests that are almost right: bodies and heads of every protocol, changed at random from a seed."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
from tests.common.images import encoded, photograph

__all__ = ["Asking", "changed", "seeds"]

PICTURE: Final = encoded(photograph(20, 30), "JPEG")
SMALL: Final = encoded(photograph(20, 30), "PNG")


@dataclass(frozen=True)
class Asking:
    """A request."""

    path: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"


def seeds(name: str) -> list[Asking]:
    """Requests that are right for a model of 32 x 48 pixels, one or more of each form."""
    b64 = base64.b64encode(PICTURE).decode()
    pixels = photograph(6, 5)
    model_input = np.linspace(-1, 1, 3 * 32 * 48, dtype="<f4").reshape(1, 3, 32, 48)
    explain, predict, infer = f"/v1/models/{name}:explain", f"/v1/models/{name}:predict", "/v2/models/{}/infer"
    parameters = {"method": "scorecam", "budget": 3, "target": [1, "dog"], "map": "full", "overlay": "png"}
    kinds: list[Any] = [{"image": {"b64": b64}}, {"b64": b64}, {"data": b64}, pixels.tolist()]
    found = [_json(path, {"instances": [kind]}) for kind in kinds for path in (predict, explain)]
    found += [
        _json(explain, {"instances": kinds[:2], "parameters": parameters}),
        _json(explain, {"inputs": kinds[:1], "parameters": {"deadline_ms": 100, "tolerance": 0.2, "top_k": 2}}),
        _json(explain, {"instances": kinds[:1]}, Prefer="respond-async"),
        _json(explain, {"instances": kinds[:1]}, Accept="text/event-stream"),
    ]
    query = urlencode({"method": "scorecam", "budget": 2, "map": "none", "overlay": "jpeg"})
    for content, kind in ((PICTURE, "image/jpeg"), (SMALL, "image/png")):
        found.append(Asking(f"{explain}?{query}", content, {"Content-Type": kind, "Accept": "image/png, */*;q=0.1"}))
        found.append(Asking(f"{predict}?top_k=3", content, {"Content-Type": "application/x-www-form-urlencoded"}))
    found.append(_multipart(explain))
    bytes_tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [b64]}
    encoding = {"parameters": {"content_type": "base64"}}
    pixel_tensor = {"name": "image", "shape": [1, 6, 5, 3], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    for model, outputs in ((name, ["logits"]), (f"{name}-explain", ["saliency", "low_resolution", "targets"])):
        path = infer.format(model)
        more: dict[str, Any] = {"id": "7", "outputs": [{"name": output} for output in outputs]}
        if model != name:
            more["parameters"] = {"top_k": 2, "method": "scorecam", "budget": 0.5}
        found += [
            _json(path, {"inputs": [bytes_tensor | encoding], **more}),
            _json(path, {"inputs": [pixel_tensor], **more}),
            _json(path, {"inputs": [pixel_tensor]}),
            _binary(path, "BYTES", [1], len(PICTURE).to_bytes(4, "little") + PICTURE, more),
            _binary(path, "UINT8", [1, *pixels.shape], pixels.tobytes(), more),
            _binary(
                path, "FP32", [1, 3, 32, 48], model_input.tobytes(), more | {"parameters": {"binary_data_output": True}}
            ),
        ]
    return found


def _json(path: str, body: Any, **headers: str) -> Asking:
    return Asking(path, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)


def _multipart(path: str) -> Asking:
    parts = [
        b'Content-Disposition: form-data; name="image"; filename="cat.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + PICTURE,
        b'Content-Disposition: form-data; name="method"\r\n\r\nrecipro-cam',
        b'Content-Disposition: form-data; name="top_k"\r\n\r\n2',
    ]
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return Asking(path, body, {"Content-Type": "multipart/form-data; boundary=edge"})


def _binary(path: str, datatype: str, shape: list[int], data: bytes, more: dict[str, Any]) -> Asking:
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Asking(path, head + data, headers)


# What stands where something sensible stood.
ODD_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**70),
    1e308,
    0.5,
    -0.0,
    "",
    "0",
    "a" * 2000,
    "\0",
    "\ud800",
    "é\n",
    "cat",
    "../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "AAAA",
    "%00",
    [],
    {},
    [[]],
    [None] * 50,
    {"b64": "AAAA"},
    [[[300, -1, 0]]],
    [[[0.5, 1e300, 2]]],
)
ODD_TEXTS: Final = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"9" * 400,
    b"[" * 500,
    b"{" * 500,
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\0",
    b"null",
    b"-",
    b",",
    b"\r\n",
    b"--edge",
    b"--edge--",
)
ODD_HEADERS: Final = {
    "Content-Type": (
        "",
        "text/plain",
        "image/jpeg",
        "image/*",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=edge; boundary=x",
        "application/octet-stream",
        'a/b; q="',
        "application/x-www-form-urlencoded",
    ),
    "Inference-Header-Content-Length": (
        "",
        "0",
        "-1",
        "1e3",
        "12",
        "999999999999",
        "0x10",
        "٣".encode().decode("latin-1"),
        "7",
    ),
    "Accept": (
        "",
        "*/*",
        "image/png",
        "image/jpeg;q=nan",
        "text/event-stream",
        "text/html",
        "image/png;q=2, , ;;;",
        "application/json;q=0",
    ),
    "Prefer": ("", "respond-async", "respond-async, wait=10", "wait=-1", "respond-async;;"),
    "Content-Encoding": ("gzip", "br", "identity", "deflate, gzip"),
    "X-Request-Id": ("", "a" * 1000, "id\twith\ttabs", "{}", "../.."),
    "Authorization": ("", "Bearer", "Bearer x", "Basic Og=="),
}
ODD_QUERIES: Final = (
    "method=",
    "method=scorecam&method=cam",
    "budget=nan",
    "budget=1e999",
    "deadline_ms=-1",
    "deadline_ms=0",
    "target=%00",
    "target=[",
    "target=999999",
    "top_k=0",
    "top_k=1e9",
    "map=all",
    "overlay=gif",
    "samples=1000000",
    "augment=100000",
    "precision=int4",
    "batch_size=0",
    "tolerance=2",
    "&&&",
    "=",
    "a=b",
    "%ff=%fe",
    "completion=none&budget=1",
)


def changed(asking: Asking, random: Random) -> Asking:
    """A request with one to four changes."""
    changes: list[Callable[[Asking, Random], Asking]] = [_bytes, _bytes, _tree, _tree, _tree, _header, _query]
    for _ in range(random.choice((1, 1, 2, 4))):
        asking = random.choice(changes)(asking, random)
    return asking


def _bytes(asking: Asking, random: Random) -> Asking:
    """Bytes flipped, cut, doubled, or replaced."""
    body = bytearray(asking.body)
    start, end = sorted(random.randrange(len(body) + 1) for _ in range(2))
    end = min(end, start + random.choice((1, 4, 100, len(body))))
    match random.randrange(5):
        case 0:
            for place in random.sample(range(len(body)), min(len(body), random.choice((1, 3, 20)))):
                body[place] = random.randrange(256)
        case 1:
            del body[start:end]
        case 2:
            body[end:end] = body[start:end]
        case 3:
            body[start : start + random.randrange(3)] = random.choice(ODD_TEXTS)
        case _:
            del body[start:]
    return Asking(asking.path, bytes(body), asking.headers)


def _tree(asking: Asking, random: Random) -> Asking:
    """A value of the JSON in the body replaced, removed, or doubled."""
    size = asking.headers.get("Inference-Header-Content-Length")
    length = int(size) if size is not None and size.isascii() and size.isdigit() else len(asking.body)
    try:
        tree = json.loads(asking.body[:length])
    except (ValueError, RecursionError):
        return _bytes(asking, random) if asking.body else asking
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(places) < 2000:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        places += [(node, key) for key in keys[:200]]
        waiting += [node[key] for key in keys[:200]]
    if not places:
        tree = random.choice(ODD_VALUES)
    else:
        node, key = random.choice(places)
        match random.randrange(4):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[random.choice(("", "a", "instances", "parameters", "image", "shape", "method", "\0"))] = node[key]
            case 2 if isinstance(node, list):
                node.append(node[key])
            case _:
                node[key] = random.choice(ODD_VALUES)
    head = json.dumps(tree).encode()
    headers = asking.headers if size is None else asking.headers | {"Inference-Header-Content-Length": str(len(head))}
    return Asking(asking.path, head + asking.body[length:], headers)


def _header(asking: Asking, random: Random) -> Asking:
    name = random.choice(list(ODD_HEADERS))
    return Asking(asking.path, asking.body, asking.headers | {name: random.choice(ODD_HEADERS[name])})


def _query(asking: Asking, random: Random) -> Asking:
    path = f"{asking.path}{'&' if '?' in asking.path else '?'}{random.choice(ODD_QUERIES)}"
    return Asking(path, asking.body, asking.headers)
