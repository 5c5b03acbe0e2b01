"""Which files of the zoo stand for the others, and how far a bundle is from its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tests.export.zoo.graphs import (
    ZooFile,
)

from ortcam.bundle import Bundle
from ortcam.errors import OrtcamError

# One of each kind, for what need not be asked of all, and for `make test`.
REPRESENTATIVES = (
    "torch_old_transformer",
    "torch_new_view_one",
    "opset_7_with_weights_among_the_inputs",
    "opset_9_with_upsample",
    "int8_dynamic",
    "tf_mobilenet_v3_with_channels_last_inside",
    "ends_in_sigmoid_for_many_labels",
    "several_outputs",
    "zip_map",
    "float16",
    "int8_qdq_per_channel",
    "int8_qoperator_per_channel",
    "external_data_in_a_name_with_spaces",
    "uint8_channels_last_normalised_inside",
    "model_local_functions",
    "open_image_size",
)


# For what takes long and is the same for all: two that PyTorch wrote, an old opset, quantized.
FEW = ("torch_old_transformer", "torch_new_view_one", "opset_7_with_weights_among_the_inputs", "int8_qdq_per_channel")

Exported = Callable[[str], tuple[ZooFile, Bundle | OrtcamError]]


def logits_of(bundle: Bundle, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the graphs alone, the way a reader of the manifest would run them."""
    graphs = bundle.manifest.graphs

    def run(name: str, feeds: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        return ort.InferenceSession(bundle.file(name), providers=["CPUExecutionProvider"]).run(None, feeds)[0]

    if graphs.classifier is not None:
        return run(graphs.classifier, {"image": images})
    assert graphs.head is not None
    return run(graphs.head, {"features": run(graphs.features, {"image": images})})


def difference(value: NDArray[np.floating], expected: NDArray[np.float64]) -> float:
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def flags(arguments: dict[str, Any], folder: Path) -> list[str]:
    """The arguments of `export` as those of the command line; labels go into a file."""
    said = []
    for key, value in arguments.items():
        if key == "labels":
            (folder / "labels.txt").write_text("\n".join(value))
            said += ["--labels", str(folder / "labels.txt")]
        else:
            values = value if isinstance(value, (tuple, list)) else [value]
            flag = "model-output" if key == "output" else key.replace("_", "-")
            said += [f"--{flag}", *map(str, values)]
    return said
