"""Example requests of the paths, for curl. SERVER stands for the address of the server, NAME for a model."""

from collections.abc import Mapping
from typing import Final

__all__ = ["EXAMPLES", "SERVER"]

SERVER: Final = "SERVER"

# `curl --json @-` is the same, but curl before 7.82 lacks it.
_SEND: Final = " | curl -H 'Content-Type: application/json' --data-binary @- SERVER"
_TENSOR: Final = '[{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["'


def _of_image(key: str, before: str, after: str) -> str:
    """Commands that write JSON with an image in it; as an argument of curl it would soon be too long."""
    begin, end = f'{{"{key}": {before}', f'{after}, "parameters": {{"method": "recipro-cam"}}}}'
    return f"(printf '{begin}'; base64 < cat.jpg | tr -d '\\n'; printf '{end}')"


# operationId -> requests, each with what it shows. A test runs all of them.
EXAMPLES: Final[Mapping[str, Mapping[str, str]]] = {
    "predict": {"An image as it is": "curl --data-binary @cat.jpg SERVER/v1/models/NAME:predict"},
    "explain": {
        "An image as it is": "curl --data-binary @cat.jpg SERVER/v1/models/NAME:explain",
        "JSON": _of_image("instances", '[{"b64": "', '"}]') + f"{_SEND}/v1/models/NAME:explain",
        "A method with its options, and a limit": "curl --data-binary @cat.jpg "
        "'SERVER/v1/models/NAME:explain?method=scorecam&normalize=before-upsampling&budget=0.12&top_k=2'",
        "The overlay alone": "curl -o overlay.png -H 'Accept: image/png' --data-binary @cat.jpg "
        "SERVER/v1/models/NAME:explain",
        "A job": "curl -i -H 'Prefer: respond-async' --data-binary @cat.jpg "
        "'SERVER/v1/models/NAME:explain?method=scorecam'",
        "Maps that get better": "curl -N -H 'Accept: text/event-stream' --data-binary @cat.jpg "
        "'SERVER/v1/models/NAME:explain?method=scorecam'",
    },
    "infer": {"JSON": _of_image("inputs", _TENSOR, '"]}]') + f"{_SEND}/v2/models/NAME-explain/infer"},
    "metadata": {"Of the model that explains": "curl SERVER/v2/models/NAME-explain"},
    "ready": {"For an orchestrator": "curl -f SERVER/v2/health/ready"},
    "metrics": {"For Prometheus": "curl SERVER/metrics"},
    "job": {
        "Wait for it": "curl -H 'Prefer: wait=30' SERVER/jobs/ID",
        "Maps that get better": "curl -N -H 'Accept: text/event-stream' SERVER/jobs/ID",
    },
    "result": {"The answer itself": "curl SERVER/jobs/ID/result"},
    "endJob": {"Cancel or forget": "curl -X DELETE SERVER/jobs/ID"},
}
