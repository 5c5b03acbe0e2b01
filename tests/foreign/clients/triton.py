"""Triton's own client. Arguments: port, image, a .npz of pixels and model input, a .npz for the answers, parameters."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton

MODEL = "shapes"
EXPLAINER = f"{MODEL}-explain"


def outputs(*names: str, binary: bool) -> list[Any]:
    """Ask for outputs, as JSON or as bytes behind it."""
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def main(port: str, image: str, arrays: str, answers: str, parameters: str) -> None:
    """Ask in every form, and write what came back."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=300, connection_timeout=300)
    content, given, asked = Path(image).read_bytes(), np.load(arrays), json.loads(parameters)
    inputs = {}
    for name, binary, element in (("bytes", True, content), ("json", False, base64.b64encode(content))):
        # Triton's client sends the text of an element in JSON, so that the image is base64 there.
        inputs[name] = triton.InferInput("image", [1], "BYTES")
        inputs[name].set_data_from_numpy(np.array([element], object), binary_data=binary)
    for key, datatype in (("pixels", "UINT8"), ("preprocessed", "FP32")):
        for name, binary in ((key, True), (f"{key}-json", False)):
            inputs[name] = triton.InferInput(key, list(given[key].shape), datatype)
            inputs[name].set_data_from_numpy(given[key], binary_data=binary)
    found = {}
    for name, tensor in inputs.items():
        binary = not name.endswith("json")
        answer = client.infer(MODEL, [tensor], outputs=outputs("logits", "probabilities", binary=binary))
        found |= {f"{name}/{output}": answer.as_numpy(output) for output in ("logits", "probabilities")}
        wanted = ("saliency", "low_resolution", "targets", "probability")
        answer = client.infer(EXPLAINER, [tensor], outputs=outputs(*wanted, binary=binary), parameters=asked)
        found |= {f"{name}/{output}": answer.as_numpy(output) for output in wanted}
    pending = [client.async_infer(EXPLAINER, [inputs["bytes"]], request_id=str(number)) for number in range(3)]
    ids = [item.get_result().get_response()["id"] for item in pending]
    try:
        client.infer(EXPLAINER, [inputs["bytes"]], parameters={"method": "guess"})
        refused = ""
    except triton.InferenceServerException as error:
        refused = str(error)
    np.savez(answers, **found)
    facts = {
        "live": client.is_server_live(),
        "ready": [client.is_server_ready(), client.is_model_ready(MODEL), client.is_model_ready(EXPLAINER)],
        "metadata": [client.get_model_metadata(name) for name in (MODEL, EXPLAINER)],
        "server": client.get_server_metadata(),
        "ids": ids,
        "refused": refused,
    }
    print(json.dumps(facts))


main(*sys.argv[1:])
