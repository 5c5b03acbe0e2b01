"""What the server and its models say of themselves in the Open Inference Protocol."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ortcam._version import __version__
from ortcam.bundle import Manifest
from ortcam.serve.protocols.v2.images import datatypes_of

__all__ = ["EXPLAIN", "PREDICT", "VALUES", "OutputRecord", "model_metadata", "outputs_of", "server_metadata"]

_PLATFORM: Final = "onnx_onnxv1"
_EXTENSIONS: Final = ("binary_tensor_data", "classification", "parameters")


@dataclasses.dataclass(frozen=True)
class OutputRecord:
    """An output as the metadata list it.

    Attributes:
        datatype: of its elements.
        shape: with names for what a model or a request decides: "n" images, "k" classes explained, "output" for all
            dimensions of the output of one image.
        usual: whether it is sent where the client names no outputs.
    """

    datatype: str
    shape: tuple[str, ...]
    usual: bool = False


# A model NAME predicts. One whose outputs are values has these.
VALUES: Final = {"values": OutputRecord("FP32", ("n", "output"), usual=True)}
PREDICT: Final = {
    "logits": OutputRecord("FP32", ("n", "classes"), usual=True),
    "probabilities": OutputRecord("FP32", ("n", "classes"), usual=True),
}

# A model NAME-explain explains. Which maps are sent as usual depends on the parameters `map` and `overlay`.
EXPLAIN: Final = {
    "targets": OutputRecord("INT64", ("n", "k"), usual=True),
    "labels": OutputRecord("BYTES", ("n", "k"), usual=True),
    "probability": OutputRecord("FP32", ("n", "k"), usual=True),
    "value": OutputRecord("FP32", ("n", "k")),
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


def outputs_of(manifest: Manifest, *, explains: bool) -> dict[str, OutputRecord]:
    """The outputs of a model that predicts, or of one that explains.

    Args:
        manifest: of the bundle.
        explains: whether the model explains.
    """
    of_values = manifest.activation == "identity"
    if not explains:
        return VALUES if of_values else PREDICT
    left_out = ("probability", "logits") if of_values else ()
    return {name: record for name, record in EXPLAIN.items() if name not in left_out}


def model_metadata(name: str, version: str, manifest: Manifest, outputs: dict[str, OutputRecord]) -> dict[str, Any]:
    """The answer to `GET /v2/models/NAME`. A request has one of the inputs, not all of them.

    `parameters` say what the protocol has no place for: what the channels are, the range of samples (none: 8-bit
    levels), the shape of the output of one image, and what makes probabilities of it.

    Args:
        name: of the model, say "resnet18" or "resnet18-explain".
        version: of its bundle.
        manifest: of its bundle.
        outputs: of `outputs_of`.
    """
    preprocessing, cut, parts = manifest.preprocessing, manifest.cut, manifest.output_parts
    channels, span = preprocessing.channels, preprocessing.value_range
    sizes = {
        "classes": manifest.outputs,
        "H": preprocessing.height,
        "W": preprocessing.width,
        "h": cut.height,
        "w": cut.width,
    }
    shapes = {
        "image": [-1],
        "pixels": [-1, -1, -1, channels if preprocessing.needs_samples else 3],
        "preprocessed": [-1, channels, preprocessing.height, preprocessing.width],
    }
    return {
        "name": name,
        "versions": [version],
        "platform": _PLATFORM,
        "inputs": [
            {"name": input_name, "datatype": datatype, "shape": shapes[input_name]}
            for input_name, datatype in datatypes_of(preprocessing).items()
        ],
        "outputs": [
            {"name": output, "datatype": record.datatype, "shape": _shape(record, sizes, manifest)}
            for output, record in outputs.items()
        ],
        "parameters": {
            "channels": channels,
            "channel_order": preprocessing.channel_order,
            **({} if span is None else {"value_range": list(span)}),
            "output_shape": list(manifest.output_shape),
            **({"output_parts": {part.name: list(part.shape) for part in parts}} if parts else {}),
            "activation": manifest.activation,
        },
    }


def _shape(record: OutputRecord, sizes: Mapping[str, int], manifest: Manifest) -> list[int]:
    found: list[int] = []
    for size in record.shape:
        found += manifest.output_shape if size == "output" else [sizes.get(size, -1)]
    return found
