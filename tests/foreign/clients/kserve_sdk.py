"""KServe's own REST client. Arguments: port, image, JSON of the parameters; prints JSON of what came back."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "shapes"


async def talk(port: str, image: bytes, parameters: dict[str, Any]) -> dict[str, Any]:
    """All of the client's calls."""
    url = f"http://127.0.0.1:{port}"
    old = InferenceRESTClient(RESTConfig(protocol="v1", timeout=300, retries=0))
    new = InferenceRESTClient(RESTConfig(protocol="v2", timeout=300, retries=0))
    content = base64.b64encode(image).decode()
    instances = {"instances": [{"image": {"b64": content}}], "parameters": parameters}
    try:
        await old.explain(url, MODEL, {**instances, "parameters": {"method": "guess"}})
        refused = ""
    except httpx.HTTPStatusError as error:
        refused = str(error)
    tensor = InferInput("image", [1], "BYTES", parameters={"content_type": "base64"}, data=[content])
    inferred = await new.infer(url, InferRequest(MODEL, [tensor]), model_name=MODEL)
    return {
        "explained": await old.explain(url, MODEL, instances),
        "predicted": await old.infer(url, {"instances": instances["instances"]}, model_name=MODEL),
        "probabilities": {item.name: item.as_numpy().tolist() for item in inferred.outputs}["probabilities"],
        "ready": [await client.is_model_ready(url, MODEL) for client in (old, new)] + [await new.is_server_ready(url)],
        "live": await new.is_server_live(url),
        "refused": refused,
    }


print(json.dumps(asyncio.run(talk(sys.argv[1], Path(sys.argv[2]).read_bytes(), json.loads(sys.argv[3])))))
