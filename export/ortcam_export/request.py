"""An export as its caller asked for it: each argument checked once, before PyTorch and ONNX are imported."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ortcam.bundle import Precision, precision_by_name
from ortcam.errors import OptionError
from ortcam.images.presets import PRESETS, Preset
from ortcam.support.ranges import BASELINE_VALUE, IMAGE_CHANNELS, OPSET, STATIC_BATCH, shown
from ortcam.support.unfinished import clear
from ortcam_export.errors import ExportError
from ortcam_export.precision.calibration import check_folder
from ortcam_export.sources.given.class_embeddings import embeddings_of
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.labels import read_labels
from ortcam_export.sources.libraries import read_declared
from ortcam_export.sources.model_names import check_model, check_takes_checkpoint
from ortcam_export.sources.types import DEFAULT_OPSET, ChannelOrder, InputLayout, InputSpec, SaidActivation
from ortcam_export.staging import check_destination

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = [
    "ExportRequest",
    "StageReport",
    "check_bundle_path",
    "check_calibration",
    "check_checkpoint",
    "check_layers",
    "check_name",
    "check_opset",
    "check_spec",
    "check_static_batch",
    "check_takes",
    "choose_precisions",
    "per_channel",
    "sides",
    "spec_of",
    "with_arrays",
    "with_declared",
    "with_labels",
    "with_preset",
]

# Called with a sentence when a stage of the export begins.
StageReport = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """An export as it was asked for, its arguments and its destination checked.

    Attributes:
        model: torchvision name, `package.module:callable`, path, or a module.
        destination: folder to write.
        force: whether a bundle that is there is replaced.
        weights: torchvision weights by name, "DEFAULT", or "none".
        checkpoint: file with a state dict, or None.
        layers: as named by the user; without any the default layer is taken.
        opset: version of the ONNX operator set.
        spec: what the user said of input, output and classes.
        precisions: beside float32.
        calibration: folder of images for int8, or None.
        static_batch: rows of a run where every dimension of the graphs is fixed; None: the batch stays open.
        report: told the stages.
    """

    model: "Model"
    destination: Path
    force: bool
    weights: str
    checkpoint: Path | None
    layers: tuple[str, ...]
    opset: int
    spec: InputSpec
    precisions: tuple[Precision, ...]
    calibration: Path | None
    static_batch: int | None
    report: StageReport


def check_bundle_path(bundle: str | os.PathLike[str], *, force: bool) -> Path:
    """Where the bundle goes, cleared of what an interrupted export left there.

    Raises:
        ExportError: something is there, or there is no folder to write to; see `check_destination`.
    """
    destination = Path(bundle)
    clear(destination.parent, former=destination.name)
    check_destination(destination, force=force)
    return destination


def choose_precisions(names: str | Sequence[str]) -> tuple[Precision, ...]:
    """Precisions by name, each once; float32, which is always there, first.

    Raises:
        ExportError: none of this name.
    """
    if isinstance(names, str):
        names = names.split(",")
    try:
        return tuple(dict.fromkeys(["float32", *(precision_by_name(name) for name in names)]))
    except OptionError as error:
        raise ExportError(str(error)) from None


def check_name(model: "Model") -> None:
    """See that a model that is given by its name or path can be there.

    Raises:
        ExportError: see `sources.model_names.check_model`.
    """
    if isinstance(model, (str, Path)):
        check_model(model)


def check_takes(model: "Model", checkpoint: str | Path | None) -> None:
    """See that a model that is given by its name or path may be given a checkpoint, if it is.

    Raises:
        ExportError: its file holds its own weights.
    """
    if checkpoint is not None and isinstance(model, (str, Path)):
        check_takes_checkpoint(model)


def check_spec(spec: InputSpec) -> InputSpec:
    """The spec, if it asks for nothing that no model can take.

    Raises:
        ExportError: it does.
    """
    choices: dict[str, tuple[str, ...]] = {
        "activation": get_args(SaidActivation),
        "input_layout": get_args(InputLayout),
    }
    for name, accepted in choices.items():
        value = getattr(spec, name)
        if value is not None and value not in accepted:
            raise ExportError(f"{name}={value!r}: accepted is {' or '.join(map(repr, accepted))}")
    if spec.input_size is not None and len(spec.input_size) != 2:
        raise ExportError(f"input_size={spec.input_size!r}: accepted are a height and a width")
    if spec.channels is not None and not IMAGE_CHANNELS.holds(spec.channels):
        raise ExportError(f"channels={shown(spec.channels)}: accepted is {IMAGE_CHANNELS.words}")
    if isinstance(spec.baseline_value, str) and spec.baseline_value not in ("mean", "zero"):
        raise ExportError(f"baseline_value={spec.baseline_value!r}: accepted is 'mean', 'zero', or a value per channel")
    if isinstance(spec.baseline_value, tuple) and not all(map(BASELINE_VALUE.holds, spec.baseline_value)):
        raise ExportError(f"baseline_value={spec.baseline_value!r}: accepted are numbers {BASELINE_VALUE.bounds}")
    # The other values are checked where a preprocessing holds them; which bands there are the model may have to say.
    known = spec if spec.said_channels is not None else dataclasses.replace(spec, display=None)
    dataclasses.replace(known, partial=True).preprocessing(*(spec.input_size or (1, 1)))
    return spec


def spec_of(said: Mapping[str, Any]) -> InputSpec:
    """What a user said of input, output and classes.

    Args:
        said: arguments of `export` or `inspect_model`, by their names; others than those of the spec are left alone.

    Raises:
        ExportError: what no model can take.
    """
    names = {field.name for field in dataclasses.fields(InputSpec)} - {"labels", "preset"}
    values = {name: value for name, value in said.items() if name in names}
    shown, baseline = said.get("display"), said.get("baseline_value")
    values |= {name: per_channel(said.get(name)) for name in ("mean", "std")}
    values |= {
        "input_size": sides(said.get("input_size")),
        "display": None if shown is None else tuple([shown] if isinstance(shown, int) else shown),
        "baseline_value": baseline if isinstance(baseline, str) else per_channel(baseline),
        "inputs": dict(said.get("inputs") or {}),
    }
    spec = with_labels(with_preset(InputSpec(**values), said.get("preset")), said.get("labels"))
    return with_arrays(check_spec(spec))


def sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of an input that may be given by its side."""
    return (size, size) if isinstance(size, int) else size


def per_channel(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Values per channel, where one may stand for all: it stays alone, until the number of channels is known."""
    if values is None:
        return None
    several = [values] if isinstance(values, (int, float, np.number)) else values
    return tuple(value.item() if isinstance(value, np.generic) else value for value in several)


def with_preset(spec: InputSpec, name: str | None) -> InputSpec:
    """The spec with what a preset says where the user said nothing; None stands for no preset.

    Raises:
        ExportError: no preset has this name.
    """
    preset = _preset(name, spec.channel_order)
    if preset is None:
        return spec
    of_preset: dict[str, Any] = {
        "mean": preset.mean,
        "std": preset.std,
        "interpolation": preset.interpolation,
        "channel_order": preset.channel_order,
        "scale": preset.scale,
    }
    if preset.for_any_channels:
        of_preset |= {"mean": preset.mean[:1], "std": preset.std[:1], "channel_order": None}
    parts = {part: value for part, value in of_preset.items() if getattr(spec, part) is None}
    return dataclasses.replace(spec, preset=name, **parts)


def with_labels(spec: InputSpec, labels: str | Path | Sequence[str] | None) -> InputSpec:
    """The spec with the labels that the user gave, read from their file.

    Raises:
        ExportError: see `sources.labels.read_labels`.
    """
    return dataclasses.replace(spec, labels=read_labels(labels))


def with_arrays(spec: InputSpec) -> InputSpec:
    """The spec with the values of further inputs and the embeddings of classes read, before anything takes long.

    Raises:
        ExportError: see `sources.given.fixed_inputs.read_inputs` and `sources.given.embeddings.embeddings_of`.
    """
    return dataclasses.replace(spec, inputs=read_inputs(spec.inputs), classes=embeddings_of(spec))


def with_declared(spec: InputSpec, preprocessing: object | None) -> InputSpec:
    """The spec with a whole preprocessing of another library, if one was given.

    Raises:
        ExportError: see `sources.libraries.read_declared`.
    """
    if preprocessing is None:
        return spec
    return dataclasses.replace(spec, declared=read_declared(preprocessing, spec.input_size))


def _preset(name: str | None, order: ChannelOrder | None) -> Preset | None:
    """The preset of a name, in the channel order that was said, with mean and std in that order."""
    if name is None:
        return None
    found = next((preset for known, preset in PRESETS.items() if known == name), None)
    if found is None:
        raise ExportError(f"preset={name!r}: accepted is {', '.join(PRESETS)}")
    if {order, found.channel_order} == {"rgb", "bgr"}:
        return dataclasses.replace(found, mean=found.mean[::-1], std=found.std[::-1])
    return found


def check_layers(layer: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of layers, from one name, several with commas between them, or a sequence of names.

    Raises:
        ExportError: a name is empty or no text.
    """
    if layer is None:
        return ()
    names = layer.split(",") if isinstance(layer, str) else list(layer)
    names = [name.strip() if isinstance(name, str) else name for name in names]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ExportError(f"layer={layer!r}: accepted is the name of a layer, or several, say layer2,layer3,layer4")
    return tuple(names)


def check_opset(opset: int) -> int:
    """The version of the operator set.

    Raises:
        ExportError: none that can be exported.
    """
    if not OPSET.holds(opset):
        raise ExportError(f"opset={shown(opset)}: accepted is {OPSET.words}, say {DEFAULT_OPSET}")
    return int(opset)


def check_static_batch(size: int | None) -> int | None:
    """Rows of a run of graphs with fixed shapes; None where the batch stays open.

    Raises:
        ExportError: no such number.
    """
    if size is None:
        return None
    if not STATIC_BATCH.holds(size):
        raise ExportError(f"static_batch={shown(size)}: accepted is {STATIC_BATCH.words}, say 8")
    return int(size)


def check_checkpoint(checkpoint: str | Path | None) -> Path | None:
    """The file with a state dict; None where none was given.

    Raises:
        ExportError: there is no such file.
    """
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    if not path.exists():
        raise ExportError(f"{path}: no such checkpoint")
    if path.is_dir():
        raise ExportError(f"{path}: a folder; accepted is a file with a state dict")
    if not path.is_file():
        raise ExportError(f"{path}: no regular file; accepted is a file with a state dict")
    return path


def check_calibration(folder: str | os.PathLike[str] | None, precisions: Sequence[Precision]) -> Path | None:
    """The folder of images for int8; None where none was given.

    Args:
        folder: as the user gave it.
        precisions: that are asked for beside float32.

    Raises:
        ExportError: no precision needs it, or it holds no images.
    """
    if folder is None:
        return None
    path = Path(folder)
    if not precisions:
        raise ExportError(f"calibration {path}: goes with a precision beside float32, which needs no pictures")
    return check_folder(path)
