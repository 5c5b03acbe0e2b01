"""What a caller asks of an export or an inspection, checked before PyTorch and ONNX are imported, which takes long."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ortcam.bundle import Bundle, Precision
from ortcam.images.presets import PRESETS, Preset, PresetName
from ortcam.support.ranges import OPSET, shown
from ortcam.support.unfinished import clear
from ortcam_export.errors import ExportError
from ortcam_export.precision.calibration import check_folder
from ortcam_export.sources.labels import read_labels
from ortcam_export.sources.libraries import read_declared
from ortcam_export.sources.model_names import check_model, check_takes_checkpoint
from ortcam_export.sources.opening import (
    DEFAULT_OPSET,
    DEFAULT_WEIGHTS,
    ChannelOrder,
    InputLayout,
    InputSpec,
    InterpolationName,
    SaidActivation,
    choose_precisions,
)
from ortcam_export.staging import check_destination

if TYPE_CHECKING:
    from ortcam_export.exporting import Inspection
    from ortcam_export.sources.opening import Model

__all__ = ["ExportRequest", "StageReport", "export", "inspect_model"]

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
        layer: as named by the user; None takes the default layer.
        opset: version of the ONNX operator set.
        spec: what the user said of input, output and classes.
        precisions: beside float32.
        calibration: folder of pictures for int8, or None.
        report: told the stages.
    """

    model: "Model"
    destination: Path
    force: bool
    weights: str
    checkpoint: Path | None
    layer: str | None
    opset: int
    spec: InputSpec
    precisions: tuple[Precision, ...]
    calibration: Path | None
    report: StageReport


def export(
    model: "Model",
    bundle: str | os.PathLike[str],
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    layer: str | None = None,
    opset: int = DEFAULT_OPSET,
    force: bool = False,
    input_size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: InterpolationName | None = None,
    labels: str | Path | Sequence[str] | None = None,
    report: StageReport | None = None,
    channel_order: ChannelOrder | None = None,
    scale: float | None = None,
    activation: SaidActivation | None = None,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    preprocessing: object | None = None,
    precision: str | Sequence[str] = "fp32",
    calibration: str | os.PathLike[str] | None = None,
    preset: PresetName | None = None,
) -> Bundle:
    """Export a classifier as a bundle.

    Args:
        model: torchvision name, path of an `.onnx` file, a module, or `package.module:callable` that returns one, alone
            or in a pair with a `preprocessing`. A module may be an `nn.Module`, which stays as it is, an
            ExportedProgram, or TorchScript; the last two may be files, too: `.pt2`, and `.pt` of `torch.jit.save`.
        bundle: folder to write; it appears only when the bundle is complete and has passed its parity check.
        weights: torchvision weights by name, "DEFAULT", or "none" for random ones.
        checkpoint: file with a state dict: `.pth`, plain or xz-compressed, or `.safetensors`.
        layer: module path, tensor name, or index in `inspect_model`'s list; None takes the default layer.
        opset: version of the ONNX operator set, for models that come from PyTorch.
        force: replace a bundle that is there.
        input_size: (height, width) of the model's input, or its side.
        resize: length of the short side before the crop; None resizes straight to `input_size`, unless torchvision's
            metadata say otherwise.
        mean: of the three channels in `channel_order`, of pixels in [0, scale].
        std: standard deviation of the three channels in `channel_order`, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: the labels, "imagenet", or a file of them (`sources.labels.parse_labels`). None takes the model's
            own, or those that lie beside its file, or else the index of each class.
        report: told the stages.
        channel_order: "rgb" (where nothing else is known) or "bgr": the order of the channels in the model's input.
        scale: what white becomes before mean and std; 1 where nothing else is known, 255 for models that take bytes.
        activation: how logits become probabilities: "softmax", or "sigmoid" for classes that do not exclude each other
            and for one logit; None takes what the graph ends in, else softmax. Of a graph that ends in Sigmoid,
            "softmax" is that of the logits in front of it; one that ends in a softmax has no "sigmoid".
            "probabilities": the model gives probabilities, and logits are made of them: an ensemble, say, or one
            softmax per group of classes.
        output: the model's output to explain, where it has several.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        preprocessing: a timm data config, a transformers image processor, or an `ortcam.Preprocessing`;
            None takes what the model says of itself, as torchvision's and timm's do. `input_size`, `resize`, `mean`,
            `std`, `interpolation`, `channel_order` and `scale` override parts of it.
        precision: what the masked passes can compute in, beside float32, which is always there: "fp16" and "int8".
            Features, head and the logits of the clean image are float32 in all of them.
        calibration: for int8, a folder with pictures of the kind that will be explained; the first 64 by name are read.
            None takes the few that ortcam ships. On some of them each precision's maps are compared with float32's.
        preset: the usual scale, mean, std and channel order by name, `ortcam.images.presets`; each of them can be
            given, too, and then counts. With another `channel_order` its mean and std are in that order.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: see the message; nothing is left behind.

    Example:
        ```python
        ortcam_export.export("resnet18", "resnet18.ortcam")
        ortcam_export.export("model.onnx", "model.ortcam", preset="imagenet", labels="labels.txt")
        ```
    """
    destination = Path(bundle)
    clear(destination.parent, former=destination.name)
    check_destination(destination, force=force)
    precisions = choose_precisions(precision)[1:]
    if checkpoint is not None and isinstance(model, (str, Path)):
        check_takes_checkpoint(model)
    usual = _preset(preset, channel_order)
    input_size = _sides(input_size)
    spec = InputSpec(
        input_size=input_size,
        resize=resize,
        mean=mean if usual is None or mean is not None else usual.mean,
        std=std if usual is None or std is not None else usual.std,
        interpolation=interpolation if usual is None or interpolation is not None else usual.interpolation,
        labels=read_labels(labels),
        channel_order=channel_order if usual is None or channel_order is not None else usual.channel_order,
        scale=scale if usual is None or scale is not None else usual.scale,
        activation=activation,
        output=output,
        input_layout=input_layout,
    )
    _check_spec(spec)
    request = ExportRequest(
        model,
        destination,
        force,
        weights,
        _check_checkpoint(checkpoint),
        layer,
        _check_opset(opset),
        spec,
        precisions,
        None if calibration is None else _check_calibration(Path(calibration), precisions),
        report or (lambda _: None),
    )
    if isinstance(model, (str, Path)):
        check_model(model)
    if preprocessing is not None:
        declared = read_declared(preprocessing, input_size)
        request = dataclasses.replace(request, spec=dataclasses.replace(spec, declared=declared))
    from ortcam_export.exporting import write_bundle  # noqa: PLC0415 - only here: it imports what takes long

    return write_bundle(request)


def inspect_model(
    model: "Model",
    *,
    weights: str = "none",
    input_size: int | tuple[int, int] | None = None,
    output: str | None = None,
    input_layout: InputLayout | None = None,
    activation: SaidActivation | None = None,
    opset: int = DEFAULT_OPSET,
    labels: str | Path | Sequence[str] | None = None,
) -> "Inspection":
    """What a model is, and the layers it can be cut at; weights of torchvision's models are random by default.

    Example:
        ```python
        print(ortcam_export.inspect_model("model.onnx").classes)
        ```

    Raises:
        ExportError: the model cannot be loaded or converted.
    """
    spec = InputSpec(
        _sides(input_size),
        labels=read_labels(labels),
        output=output,
        input_layout=input_layout,
        activation=activation,
        partial=True,
    )
    _check_spec(spec)
    if isinstance(model, (str, Path)):
        check_model(model)
    from ortcam_export.exporting import inspect_source  # noqa: PLC0415 - only here: it imports what takes long

    return inspect_source(model, weights=weights, spec=spec, opset=_check_opset(opset))


def _check_spec(spec: InputSpec) -> None:
    """Refuse what no model can take, before any model is opened."""
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
    # The other values are checked where a preprocessing holds them.
    dataclasses.replace(spec, partial=True).preprocessing(*(spec.input_size or (1, 1)))


def _sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _preset(name: str | None, order: ChannelOrder | None) -> Preset | None:
    """The preset of a name, in the channel order that was said, with mean and std in that order."""
    if name is None:
        return None
    found = next((preset for known, preset in PRESETS.items() if known == name), None)
    if found is None:
        raise ExportError(f"preset={name!r}: accepted is {', '.join(PRESETS)}")
    if order in ("rgb", "bgr") and order != found.channel_order:
        (r, g, b), (s, t, u) = found.mean, found.std
        return dataclasses.replace(found, mean=(b, g, r), std=(u, t, s), channel_order=order)
    return found


def _check_opset(opset: int) -> int:
    if not OPSET.holds(opset):
        raise ExportError(f"opset={shown(opset)}: accepted is {OPSET.words}, say {DEFAULT_OPSET}")
    return int(opset)


def _check_checkpoint(checkpoint: str | Path | None) -> Path | None:
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


def _check_calibration(folder: Path, precisions: Sequence[Precision]) -> Path:
    if not precisions:
        raise ExportError(f"calibration {folder}: goes with a precision beside float32, which needs no pictures")
    return check_folder(folder)
