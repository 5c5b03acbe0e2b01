"""An `.onnx` file with what its user, and the files beside it, say of its input and classes."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from ortcam.bundle import ModelRecord, file_sha256
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.class_embeddings import embeddings_of
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.onnx_files.arithmetic import PIXELS
from ortcam_export.sources.onnx_files.declarations import declarations_of
from ortcam_export.sources.onnx_files.file import OnnxFile
from ortcam_export.sources.onnx_files.reading import read_onnx
from ortcam_export.sources.preprocessing import assumed_of, unknown_preprocessing, user_preprocessing
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import COMMON_SIDE, InputSpec

__all__ = ["open_onnx_file"]

_MIDDLE: Final = 128.0  # what TFLite's converters take off bytes
_OF_16_BITS: Final = (0.0, 65535.0)


def open_onnx_file(path: Path, spec: InputSpec) -> Source:
    """Read an `.onnx` file, with what the user says of it: a graph does not say how its image is made, nor its labels.

    Raises:
        ExportError: see `read_onnx`; or what only the user can say, all of it in one error.
    """
    embeddings = embeddings_of(spec)
    file = read_onnx(
        path,
        output=spec.output,
        input_layout=spec.input_layout,
        activation=spec.activation,
        inputs=read_inputs(spec.inputs),
        encoder=embeddings is not None,
        channels=spec.said_channels,
    )
    spec = spec.for_channels(_channels_of(file, spec), str(path))
    if file.dtype in PIXELS:
        spec = _spec_of_integers(file, spec)
    if spec.input_size is None and None in file.size:
        spec = dataclasses.replace(spec, input_size=spec.preset_size)
    assert spec.channels is not None
    found = declarations_of(path, file.metadata, file.class_names, file.size, spec.channels)
    assumed = []
    if file.layout == "nhwc" and file.layout_guessed:
        assumed.append(
            f"the last side of the input {file.model.graph.inputs[0].shape} is the channels; --input-layout nchw says "
            "otherwise"
        )
    declared = spec.declared
    if declared is None and found.preprocessing is not None and not (spec.mean is not None and spec.std is not None):
        declared = found.preprocessing
        spec = dataclasses.replace(spec, declared=declared)
        assumed += [] if found.assumed is None else [found.assumed]
    if declared is not None and spec.input_size is None:
        spec = dataclasses.replace(spec, input_size=(declared.preprocessing.height, declared.preprocessing.width))
    sized = spec.input_size is not None or None not in file.size
    if not sized and spec.partial:
        spec, sized = dataclasses.replace(spec, input_size=_guessed(file.size)), True
        assumed.append(f"an input of {_pair(spec.input_size)}, since the graph leaves it open; --input-size says it")
    if not sized or not spec.says_normalisation:
        raise unknown_preprocessing(str(path), spec, sized=sized)
    assumed += assumed_of(spec, _guessed(file.size, spec.input_size))
    height, width = (
        side if side is not None else said for side, said in zip(file.size, spec.input_size or file.size, strict=True)
    )
    assert height is not None
    assert width is not None
    if spec.input_size not in (None, (height, width)):
        raise ExportError(f"{path}: --input-size {_pair(spec.input_size)}: the graph takes {_pair(file.size)}")
    record = ModelRecord(_as_text(path.stem), "onnx", _as_text(path.name), file_sha256(path))
    return Source(
        record,
        file,
        *user_preprocessing(spec, (height, width), str(path)),
        spec.labels or found.labels,
        labels_source="" if spec.labels else found.labels_source,
        assumed=tuple(assumed),
        metadata=file.metadata,
        inputs=file.fixed,
        embeddings=embeddings,
    )


def _channels_of(file: OnnxFile, spec: InputSpec) -> int:
    """How many channels a file's image has: its own word, what was said or declared, or three."""
    declared = 3 if spec.declared is None else spec.declared.preprocessing.channels
    return file.channels or spec.said_channels or declared


def _guessed(size: tuple[int | None, int | None], said: tuple[int, int] | None = None) -> tuple[int, int]:
    """(H, W), with what the user said, or the most common side, where the graph leaves one open."""
    height, width = (
        side if side is not None else other for side, other in zip(size, said or (COMMON_SIDE,) * 2, strict=True)
    )
    assert height is not None
    assert width is not None
    return height, width


def _spec_of_integers(file: OnnxFile, spec: InputSpec) -> InputSpec:
    """What a user says of a graph that takes integers, completed: they are pixels.

    Raises:
        ExportError: the user says otherwise.
    """
    channels = spec.channels
    assert channels is not None
    if file.dtype == ir.DataType.UINT16 and spec.order == "bands" and spec.value_range is None:
        spec = dataclasses.replace(spec, value_range=_OF_16_BITS)
    low, high = spec.value_range or (0.0, 255.0)
    zero, one = (0.0 - low,) * channels, (1.0,) * channels
    name, what = file.dtype.name.lower(), "pixels as they are"
    accepted: dict[str, tuple[Any, ...]] = {"mean": (zero,), "std": (one,), "scale": (high - low,)}
    if file.dtype == ir.DataType.INT8 and spec.value_range is None:
        what = f"pixels less {_MIDDLE:g}"
        accepted["mean"] = ((_MIDDLE,) * channels, zero)
    elif file.dtype != ir.DataType.UINT8 and spec.value_range is None:
        accepted["scale"] = (255.0, *((spec.scale,) if spec.scale is not None else ()))
    for key, values in accepted.items():
        if getattr(spec, key) not in (None, *values):
            raise ExportError(f"{file.path}: its input is {name}, {what}; --{key} does not go with it")
        if spec.declared is not None and getattr(spec.declared.preprocessing, key) not in values:
            raise ExportError(f"{file.path}: its input is {name}, {what}; {spec.declared.source} has another {key}")
    scale = accepted["scale"][-1]
    return dataclasses.replace(spec, mean=accepted["mean"][0], std=one, scale=scale)


def _as_text(name: str) -> str:
    """A file's name with what is no Unicode in it replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _pair(size: tuple[int | None, int | None] | None) -> str:
    assert size is not None
    return " x ".join("any" if side is None else str(side) for side in size)
