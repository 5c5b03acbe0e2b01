"""Where a classifier comes from: a torchvision name, a callable that returns a module, or an `.onnx` file."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ortcam.bundle import ModelRecord, Precision, precision_by_name
from ortcam.errors import OptionError
from ortcam.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.library_preprocessing import DeclaredPreprocessing
from ortcam_export.model_names import check_takes_checkpoint

if TYPE_CHECKING:
    import torch

    from ortcam_export.onnx_files import OnnxFile

    # What a user may hand over as a classifier.
    Model = str | Path | torch.nn.Module | torch.export.ExportedProgram

__all__ = [
    "DEFAULT_OPSET",
    "DEFAULT_WEIGHTS",
    "ChannelOrder",
    "InputLayout",
    "InputSpec",
    "InterpolationName",
    "SaidActivation",
    "Source",
    "choose_precisions",
    "open_source",
    "read_labels",
    "said_preprocessing",
]

InterpolationName = Literal["bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr"]
InputLayout = Literal["nchw", "nhwc"]
# What a user may say: how logits become probabilities, or that the model's outputs are probabilities already.
SaidActivation = Literal["softmax", "sigmoid", "probabilities"]

DEFAULT_WEIGHTS: Final = "DEFAULT"
DEFAULT_OPSET: Final = 20
_MOST_OF_LABELS: Final = 2**24  # bytes; the 21,000 of ImageNet take half a million


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a user says about a model's input, output and classes; None where nothing was said.

    Attributes:
        input_size: (height, width) of the model's input.
        resize: length of the image's short side before the centre crop.
        mean: of the three channels in `channel_order`, of pixels in [0, scale].
        std: standard deviation of the three channels in `channel_order`, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: a file (a JSON list, or one label a line), or the labels themselves.
        channel_order: "rgb" or "bgr".
        scale: what white becomes before mean and std: 1, or 255 for models that take bytes as they are.
        activation: how logits become probabilities, "softmax" or "sigmoid"; "probabilities": the model gives them.
        output: the model's output to explain: its name in a graph or a dict, its index in a tuple.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        declared: a whole preprocessing that somebody wrote down; what is said above overrides it, part by part.
        partial: whether mean, std and labels may stay unsaid, as for an inspection; they are then 0, 1 and None.
    """

    input_size: tuple[int, int] | None = None
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: InterpolationName | None = None
    labels: str | Path | Sequence[str] | None = None
    channel_order: ChannelOrder | None = None
    scale: float | None = None
    activation: SaidActivation | None = None
    output: str | None = None
    input_layout: InputLayout | None = None
    declared: DeclaredPreprocessing | None = None
    partial: bool = False

    def preprocessing(self, height: int, width: int) -> Preprocessing:
        """What the user said, for an input of this size; mean and std have to be among it, unless it is partial.

        Raises:
            ExportError: values that `Preprocessing` does not take.
        """
        assert self.partial or (self.mean is not None and self.std is not None)
        try:
            return Preprocessing(
                height,
                width,
                self.resize,
                self.mean or (0.0, 0.0, 0.0),
                self.std or (1.0, 1.0, 1.0),
                self.interpolation or "bilinear",
                channel_order=self.channel_order or "rgb",
                scale=1.0 if self.scale is None else self.scale,
            )
        except OptionError as error:
            raise ExportError(str(error)) from None

    def overriding(self, declared: DeclaredPreprocessing) -> DeclaredPreprocessing:
        """A declared preprocessing with what the user said in place of its own.

        Raises:
            ExportError: values that `Preprocessing` does not take, or an input larger than the declared resize.
        """
        fields = ("resize", "mean", "std", "interpolation", "channel_order", "scale")
        changes: dict[str, Any] = {name: value for name in fields if (value := getattr(self, name)) is not None}
        base = declared.preprocessing
        if self.input_size not in (None, (base.height, base.width)):
            assert self.input_size is not None
            changes["height"], changes["width"] = self.input_size
            if self.resize is None and base.resize is not None and base.resize < max(self.input_size):
                raise ExportError(
                    f"an input of {changes['height']} x {changes['width']} is larger than the short side of "
                    f"{base.resize} that {declared.source} resizes to; say it with --resize N, too"
                )
        if not changes:
            return declared
        try:
            preprocessing = dataclasses.replace(base, **changes)
        except OptionError as error:
            raise ExportError(str(error)) from None
        return DeclaredPreprocessing(preprocessing, f"{declared.source}, with {', '.join(changes)} as given")


@dataclasses.dataclass(frozen=True)
class Source:
    """A classifier ready to be converted.

    Attributes:
        record: what the bundle says of it.
        classifier: the module in eval mode, or the `.onnx` file as read.
        preprocessing: from a photograph to the classifier's own input.
        preprocessing_source: where the preprocessing came from, in words.
        labels: one a class, or None where nobody has said what they are.
        classes: their number, where it is known before the conversion.
        notes: what was done to the classifier that its user should know, a sentence each.
    """

    record: ModelRecord
    classifier: "torch.nn.Module | OnnxFile"
    preprocessing: Preprocessing
    preprocessing_source: str
    labels: tuple[str, ...] | None
    classes: int | None = None
    notes: tuple[str, ...] = ()


def open_source(
    model: "Model",
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    spec: InputSpec | None = None,
) -> Source:
    """Load a classifier with its preprocessing and labels.

    Args:
        model: torchvision name, `package.module:callable`, path of an `.onnx` file, or a module.
        weights: "DEFAULT", a name among torchvision's weights of the model, or "none" for random ones.
        checkpoint: file with a state dict, plain or xz-compressed; loaded weights-only.
        spec: what the user says about input and classes; it overrides what the weights' metadata say.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    spec = spec or InputSpec()
    if isinstance(model, (str, Path)) and str(model).lower().endswith(".onnx"):
        if checkpoint is not None:
            check_takes_checkpoint(model)
        try:
            from ortcam_export.onnx_files import open_onnx_file  # noqa: PLC0415 - only here, as PyTorch below
        except ModuleNotFoundError as error:
            raise _needs_extra(error, str(model), "onnx") from None
        return open_onnx_file(Path(model), spec)
    try:
        # Only here, so that an `.onnx` file needs no PyTorch.
        from ortcam_export.torch_models import open_torch_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _needs_extra(error, str(model) if isinstance(model, (str, Path)) else "the module", "export") from None
    return open_torch_model(model, weights=weights, checkpoint=checkpoint, spec=spec)


def _needs_extra(error: ModuleNotFoundError, model: str, extra: str) -> ExportError:
    """The sentence that names the command which helps, for a library that the export needs and that is missing."""
    return ExportError(f'{model}: {error}; pip install "ortcam[{extra}]" brings what exporting it needs')


def said_preprocessing(spec: InputSpec, size: tuple[int, int]) -> tuple[Preprocessing, str]:
    """Preprocessing in the user's own words, or as declared with the user's changes, for an input of this size.

    Returns:
        The preprocessing, and the source in words.

    Raises:
        ExportError: mean, std or labels were neither said nor declared, or values that `Preprocessing` does not take.
    """
    known = spec.partial or spec.declared is not None
    asked = {
        "--mean R G B": known or spec.mean is not None,
        "--std R G B": known or spec.std is not None,
        "--labels FILE": spec.partial or spec.labels is not None,
    }
    if missing := [flag for flag, said in asked.items() if not said]:
        raise ExportError(f"what the model itself does not say has to be given: {', '.join(missing)}")
    if spec.declared is not None:
        declared = dataclasses.replace(spec, input_size=size).overriding(spec.declared)
        return declared.preprocessing, declared.source
    said = spec.mean is not None and spec.std is not None
    return spec.preprocessing(*size), "given by the user" if said else "not known"


def read_labels(labels: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """The labels a user gave, from their file or as they are; None where none were given.

    Raises:
        ExportError: the file cannot be read, or is neither a JSON list nor one label a line.
    """
    if labels is None:
        return None
    if not isinstance(labels, (str, Path)):
        return tuple(labels)
    path = Path(labels)
    try:
        if path.exists() and not path.is_file():
            raise ExportError(f"{path}: no regular file; accepted is a file of labels")
        with path.open("rb") as file:
            content = file.read(_MOST_OF_LABELS + 1)
        if len(content) > _MOST_OF_LABELS:
            raise ExportError(f"{path}: has more than {_MOST_OF_LABELS} bytes, the most that a file of labels may have")
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read as a file of labels: {error}") from None
    if text.lstrip().startswith(("[", "{")):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExportError(f"{path}: not JSON: {error}") from None
        if isinstance(parsed, dict):
            try:
                parsed = [parsed[str(index)] for index in range(len(parsed))]
            except KeyError as error:
                raise ExportError(
                    f"{path}: an object of labels has the keys 0 to {len(parsed) - 1}; {error} is missing"
                ) from None
    else:
        parsed = [line.strip() for line in text.splitlines() if line.strip()]
    if not parsed or not all(isinstance(item, str) for item in parsed):
        raise ExportError(f"{path}: accepted is a JSON list of strings, or one label a line")
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(parsed)):
        raise ExportError(f"{path}: has a label that is no Unicode text; accepted is a JSON list of strings")
    return tuple(parsed)


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
