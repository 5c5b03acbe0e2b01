"""What the server and its models say of themselves in the Open Inference Protocol."""

import dataclasses
from typing import Any, Final

from ortcam._version import __version__
from ortcam.bundle import Manifest
from ortcam.serve.protocols.v2.images import INPUT_NAMES

__all__ = ["EXPLAIN", "PREDICT", "OutputRecord", "model_metadata", "server_metadata"]

_PLATFORM: Final = "onnx_onnxv1"
_EXTENSIONS: Final = ("binary_tensor_data", "classification", "parameters")


@dataclasses.dataclass(frozen=True)
class OutputRecord:
    """An output as the metadata list it.

    Attributes:
        datatype: of its elements.
        shape: with names for what a model or a request decides: "n" images, "k" classes explained.
        usual: whether it is sent where the client names no outputs.
    """

    datatype: str
    shape: tuple[str, ...]
    usual: bool = False


# A model NAME predicts.
PREDICT: Final = {
    "logits": OutputRecord("FP32", ("n", "classes"), usual=True),
    "probabilities": OutputRecord("FP32", ("n", "classes"), usual=True),
}

# A model NAME-explain explains. Which maps are sent as usual depends on the parameters `map` and `overlay`.
EXPLAIN: Final = {
    "targets": OutputRecord("INT64", ("n", "k"), usual=True),
    "labels": OutputRecord("BYTES", ("n", "k"), usual=True),
    "probability": OutputRecord("FP32", ("n", "k"), usual=True),
    "estimated_error": OutputRecord("FP32", ("n", "k"), usual=True),
    "flat": OutputRecord("BOOL", ("n", "k"), usual=True),
    "low_resolution": OutputRecord("FP32", ("n", "k", "h", "w"), usual=True),
    "saliency": OutputRecord("FP32", ("n", "k", "H", "W")),
    "overlay": OutputRecord("BYTES", ("n", "k")),
    "explanation": OutputRecord("BYTES", ("n",)),
    "logits": OutputRecord("FP32", ("n", "classes")),
}


def server_metadata() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    return {"name": "ortcam", "version": __version__, "extensions": list(_EXTENSIONS)}


def model_metadata(name: str, version: str, manifest: Manifest, outputs: dict[str, OutputRecord]) -> dict[str, Any]:
    """The answer to `GET /v2/models/NAME`. A request has one of the inputs, not all of them.

    Args:
        name: of the model, say "resnet18" or "resnet18-explain".
        version: of its bundle.
        manifest: of its bundle.
        outputs: `PREDICT` or `EXPLAIN`.
    """
    preprocessing, cut = manifest.preprocessing, manifest.cut
    sizes = {
        "classes": len(manifest.labels),
        "H": preprocessing.height,
        "W": preprocessing.width,
        "h": cut.height,
        "w": cut.width,
    }
    shapes = {"BYTES": [-1], "UINT8": [-1, -1, -1, 3], "FP32": [-1, 3, preprocessing.height, preprocessing.width]}
    return {
        "name": name,
        "versions": [version],
        "platform": _PLATFORM,
        "inputs": [
            {"name": input_name, "datatype": datatype, "shape": shapes[datatype]}
            for datatype, input_name in INPUT_NAMES.items()
        ],
        "outputs": [
            {"name": output, "datatype": record.datatype, "shape": [sizes.get(size, -1) for size in record.shape]}
            for output, record in outputs.items()
        ],
    }
