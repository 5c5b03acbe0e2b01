"""The model repository of Triton Inference Server: a configuration beside a fused explainer."""

import re
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from ortcam_export.errors import ExportError

__all__ = ["CONFIGURATION", "MODEL_FILE", "check_name", "configuration", "plain_name"]

CONFIGURATION: Final = "config.pbtxt"
MODEL_FILE: Final = "1/model.onnx"  # version 1, under the name that the ONNX Runtime backend looks for

_TYPES: Final = {
    ir.DataType.FLOAT: "TYPE_FP32",
    ir.DataType.INT64: "TYPE_INT64",
    ir.DataType.UINT8: "TYPE_UINT8",
    ir.DataType.BOOL: "TYPE_BOOL",
}
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(name: str) -> str:
    """Check the name of a model in a repository, which is the name of a folder.

    Raises:
        ExportError: a character that is none of letters, digits, point, underscore and hyphen.
    """
    if not _PLAIN.fullmatch(name):
        raise ExportError(f"name {name!r}: accepted are letters, digits, points, underscores and hyphens")
    return name


def plain_name(text: str) -> str:
    """Make a name of a text, with hyphens for characters that a name cannot have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


def configuration(name: str, model: ir.Model, parameters: Mapping[str, str]) -> str:
    """The text of `config.pbtxt`, of the message `inference.ModelConfig`.

    A request is one image: the explainer batches the masked images itself (`max_batch_size: 0`), so more images at a
    time are more instances. Triton places one on every GPU where there are any, else one on the CPU.

    Args:
        name: of the model.
        model: the explainer.
        parameters: for whoever asks the server for the configuration; plain text.
    """
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', "max_batch_size: 0"]
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            assert value.dtype is not None
            assert value.shape is not None
            sizes = ", ".join(str(size) if isinstance(size, int) else "-1" for size in value.shape)
            lines += [f"{kind} {{", f'  name: "{value.name}"', f"  data_type: {_TYPES[value.dtype]}"]
            lines += [f"  dims: [ {sizes} ]", "}"]
    lines += ["instance_group { kind: KIND_AUTO count: 1 }"]
    for key, text in parameters.items():
        lines += [f'parameters {{ key: "{key}" value {{ string_value: "{_escaped(text)}" }} }}']
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """As the text format of protocol buffers takes it: bytes beyond ASCII in octal digits."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in text.encode()
    )
