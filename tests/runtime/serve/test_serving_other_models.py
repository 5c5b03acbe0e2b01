"""Bands, values, tensors and scores over HTTP: each way to send and to ask gives what the library gives."""

import base64
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, VALUES_BUNDLE

from ortcam.explainer import Explainer
from ortcam.images.encoding import encode_png
from ortcam.images.reading import read_image
from ortcam.request import Score
from ortcam.serve import Settings, create_app

FIELD = np.random.default_rng(0).integers(0, 9000, (40, 60, 4), np.uint16)
PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
DIRECTION = [0.5, -0.25, 1.0]


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    bundles = [str(BANDS_BUNDLE), str(VALUES_BUNDLE), str(TENSOR_BUNDLE)]
    with TestClient(create_app(Settings.of(bundles))) as opened:
        for _ in range(3000):
            if opened.get("/v2/health/ready").status_code == 200:
                break
            time.sleep(0.02)
        yield opened


def explainer_of(client: TestClient, name: str) -> Explainer:
    """The server's own, so that numbers can be compared bit for bit."""
    found: Explainer = client.app.state.service.models.get(name).explainer  # type: ignore[attr-defined]
    return found


def answered(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


def refused(response: Any, *words: str) -> None:
    assert response.status_code in (400, 422), response.text
    sentence = response.json()["error"]
    assert all(word in sentence for word in words), sentence


def full(target: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(target["map"]["b64"]), "<f4").reshape(target["map"]["shape"])


def data_of(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output for output in answer["outputs"]}


@pytest.mark.slow
def test_a_body_in_base64_and_lists_of_samples_give_the_map_of_the_array(client: TestClient) -> None:
    path, query = "/v1/models/bands:explain", {"method": "grad-cam", "map": "full"}
    expected = explainer_of(client, "bands").explain(FIELD, method="grad-cam")
    bodies = [
        client.post(path, params=query, content=npy(FIELD)),
        client.post(path, params=query, content=npy(FIELD), headers={"Content-Type": "application/x-npy"}),
        client.post(path, json={"instances": [{"b64": b64(npy(FIELD))}], "parameters": query}),
        client.post(path, json={"instances": [{"image": FIELD.tolist()}], "parameters": query}),
    ]
    for response in bodies:
        (record,) = answered(response)["explanations"]
        np.testing.assert_array_equal(full(record["targets"][0]), expected.maps[0])
        assert record["photograph"]["size"] == [40, 60]
        assert record["targets"][0]["probability"] == pytest.approx(float(expected.probabilities[0]))


@pytest.mark.slow
def test_an_overlay_is_drawn_over_the_rendering(client: TestClient) -> None:
    response = client.post(
        "/v1/models/bands:explain", content=npy(FIELD), params={"method": "grad-cam"}, headers={"Accept": "image/png"}
    )
    assert response.content.startswith(b"\x89PNG")
    drawn = read_image(response.content)
    expected = explainer_of(client, "bands").explain(FIELD, method="grad-cam")
    np.testing.assert_array_equal(drawn, expected.overlay())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("datatype", "dtype"), [("UINT16", "<u2"), ("INT16", "<i2"), ("FP32", "<f4"), ("UINT8", "|u1")]
)
def test_tensors_of_samples_give_the_logits_of_the_array(client: TestClient, datatype: str, dtype: str) -> None:
    array = (FIELD % 200).astype(dtype)
    logits, _ = explainer_of(client, "bands").classify(array.astype(np.dtype(dtype).newbyteorder("=")))
    for shape in (array.shape, (1, *array.shape)):
        tensor = {"name": "pixels", "datatype": datatype, "shape": list(shape)}
        as_json = client.post("/v2/models/bands/infer", json={"inputs": [tensor | {"data": array.ravel().tolist()}]})
        found = data_of(answered(as_json))["logits"]["data"]
        np.testing.assert_array_equal(np.array(found, np.float32), logits)
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": array.nbytes}}]}).encode()
    sent = client.post(
        "/v2/models/bands/infer",
        content=head + array.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    np.testing.assert_array_equal(np.array(data_of(answered(sent))["logits"]["data"], np.float32), logits)


@pytest.mark.slow
def test_samples_of_another_number_of_bands_or_type_are_refused(client: TestClient) -> None:
    refused(client.post("/v1/models/bands:explain", content=npy(FIELD[..., :3])), "3", "4")
    tensor = {"name": "pixels", "datatype": "UINT16", "shape": [40, 60, 3], "data": [0] * 7200}
    refused(client.post("/v2/models/bands/infer", json={"inputs": [tensor]}), "[n, h, w, 4]")
    wide = {"name": "pixels", "datatype": "INT16", "shape": [1, 1, 4], "data": [40_000, 0, 0, 0]}
    refused(client.post("/v2/models/bands/infer", json={"inputs": [wide]}), "INT16", "-32768 to 32767")
    deep = {"name": "pixels", "datatype": "UINT16", "shape": [1, 1, 3], "data": [0, 0, 0]}
    refused(client.post("/v2/models/values/infer", json={"inputs": [deep]}), "'pixels' of UINT8")
    broken = npy(FIELD).replace(b"\n", b"").replace(b"\0", b"")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(client.post("/v1/models/bands:predict", content=broken, headers=form), "--data-binary")


def test_metadata_say_what_the_protocol_has_no_place_for(client: TestClient) -> None:
    bands = answered(client.get("/v2/models/bands"))
    assert bands["parameters"] == {
        "channels": 4,
        "channel_order": "bands",
        "value_range": [0.0, 10_000.0],
        "output_shape": [3],
        "activation": "softmax",
    }
    assert [(item["name"], item["datatype"], item["shape"]) for item in bands["inputs"]] == [
        ("image", "BYTES", [-1]),
        ("pixels", "FP32", [-1, -1, -1, 4]),
        ("preprocessed", "FP32", [-1, 4, 32, 48]),
    ]
    tensor = answered(client.get("/v2/models/tensor"))
    assert tensor["outputs"] == [{"name": "values", "datatype": "FP32", "shape": [-1, 2, 4, 6]}]
    assert "value_range" not in tensor["parameters"]
    names = {item["name"] for item in answered(client.get("/v2/models/tensor-explain"))["outputs"]}
    assert "value" in names
    assert not {"probability", "logits"} & names


def test_outputs_that_are_values_are_called_so(client: TestClient) -> None:
    png = encode_png(PHOTOGRAPH)
    values, _ = explainer_of(client, "values").classify(PHOTOGRAPH)
    (record,) = answered(client.post("/v1/models/values:predict", content=png, params={"values": True}))["predictions"]
    best = int(np.argmax(values))
    named = {"index": best, "label": ("age", "weight")[best], "value": float(values[best])}
    assert record["classes"][0] == named
    np.testing.assert_array_equal(np.array(record["values"], np.float32), values)
    refused(client.post("/v1/models/values:predict", content=png, params={"probabilities": True}), "values=true")
    refused(client.post("/v1/models/bands:predict", content=npy(FIELD), params={"values": True}), "probabilities=true")
    (explained,) = answered(client.post("/v1/models/values:explain", content=png))["explanations"]
    assert explained["targets"][0]["value"] == pytest.approx(float(values[best]))
    assert "probability" not in explained["targets"][0]


def test_a_tensor_is_predicted_by_shape_and_range_and_explained_by_a_score(client: TestClient) -> None:
    png = encode_png(PHOTOGRAPH)
    tensor, _ = explainer_of(client, "tensor").classify(PHOTOGRAPH)
    (record,) = answered(client.post("/v1/models/tensor:predict", content=png))["predictions"]
    assert record == {"shape": [2, 4, 6], "lowest": float(tensor.min()), "highest": float(tensor.max())}
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64(png)]}]}
    values = data_of(answered(client.post("/v2/models/tensor/infer", json=body)))["values"]
    assert values["shape"] == [1, 2, 4, 6]
    np.testing.assert_array_equal(np.array(values["data"], np.float32), tensor)
    refused(client.post("/v1/models/tensor:explain", content=png), "output[0, :, :]")
    query = {"score": "output[1, :, :]", "map": "full", "method": "grad-cam"}
    (explained,) = answered(client.post("/v1/models/tensor:explain", content=png, params=query))["explanations"]
    expected = explainer_of(client, "tensor").explain(PHOTOGRAPH, score="output[1, :, :]", method="grad-cam")
    np.testing.assert_array_equal(full(explained["targets"][0]), expected.maps[0])
    mean = tensor.reshape(2, 4, 6)[1].astype(np.float64).mean()
    # Sums of 24 float32: at most 24 roundings of 2^-24 each.
    assert explained["targets"][0]["value"] == pytest.approx(mean, rel=24 * 2**-24, abs=24 * 2**-24)


def test_a_score_with_arrays_is_answered_in_both_protocols(client: TestClient) -> None:
    arrays = {"query": DIRECTION}
    expected = explainer_of(client, "bands").explain(
        FIELD, score=Score("cosine:query", arrays={"query": np.array(DIRECTION)}), method="grad-cam"
    )
    parameters = {"score": "cosine:query", "method": "grad-cam", "map": "full"}
    for given in (arrays, json.dumps(arrays)):
        asked = {"instances": [{"b64": b64(npy(FIELD))}], "parameters": parameters | {"score_arrays": given}}
        answer = answered(client.post("/v1/models/bands:explain", json=asked))
        (record,) = answer["explanations"]
        (target,) = record["targets"]
        assert (target["index"], target["label"]) == (-1, "cosine:query")
        assert target["value"] == pytest.approx(float(expected.probabilities[0]))
        assert answer["predictions"][0]["classes"] == [{name: target[name] for name in ("index", "label", "value")}]
        assert set(record["score"]["score_arrays"]) == {"query"}
        np.testing.assert_array_equal(full(target), expected.maps[0])
    sent = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64(npy(FIELD))]}
    body = {"inputs": [sent], "parameters": parameters | {"score_arrays": arrays}}
    found = data_of(answered(client.post("/v2/models/bands-explain/infer", json=body)))
    assert (found["targets"]["data"], found["labels"]["data"]) == ([-1], ["cosine:query"])
    assert "probability" not in found
    np.testing.assert_array_equal(np.array(found["saliency"]["data"], np.float32), expected.maps.ravel())
    body |= {"outputs": [{"name": "probability"}]}
    refused(client.post("/v2/models/bands-explain/infer", json=body), "'probability'", "value")


def test_scores_that_a_server_does_not_take_are_refused(client: TestClient) -> None:
    content = npy(FIELD)

    def ask(**parameters: Any) -> Any:
        asked = {"instances": [{"b64": b64(content)}], "parameters": parameters}
        return client.post("/v1/models/bands:explain", json=asked)

    refused(ask(score="cosine:/etc/passwd"), "no array is named", "files are not read")
    refused(ask(score="cosine:query", score_arrays={"query": "/etc/passwd"}), "score_arrays", "lists of numbers")
    refused(ask(score="cosine:query", score_arrays={"query": [[1.0], [1.0, 2.0]]}), "lists of numbers")
    refused(ask(score="cosine:query", score_arrays={"query": [True, 1.0, 1.0]}), "lists of numbers")
    refused(ask(score="cosine:query", score_arrays={"query": [[[1.0]]]}), "lists of numbers")
    refused(ask(score="cosine:query", score_arrays={"query": [1.0, 2.0]}), "[2]", "[3]")
    refused(ask(score="entropy", score_arrays={"query": [1.0]}), "does not use")
    refused(ask(score_arrays={"query": [1.0]}), "goes with score")
    refused(ask(score=5), "score=5")
    refused(ask(score="water - desert"), "desert")
    refused(ask(score="water - field", target="water"), "target")


def test_jobs_and_streams_take_scores(client: TestClient) -> None:
    query = {"score": "water - field", "method": "scorecam", "map": "none"}
    path, content = "/v1/models/bands:explain", npy(FIELD)
    expected = answered(client.post(path, params=query, content=content))["explanations"][0]["targets"]
    accepted = client.post(path, params=query, content=content, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    result = client.get(f"{accepted.json()['url']}/result", headers={"Prefer": "wait=60"})
    assert answered(result)["explanations"][0]["targets"] == expected
    with client.stream("POST", path, params=query, content=content, headers={"Accept": "text/event-stream"}) as stream:
        events = [line for line in stream.iter_lines() if line.startswith("data:")]
    assert json.loads(events[-1][5:])["explanations"][0]["targets"] == expected
