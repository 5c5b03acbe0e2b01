"""Where a classifier comes from: a torchvision name, a callable that returns a module, or an `.onnx` file."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ortcam.bundle import ModelRecord, Precision, precision_by_name
from ortcam.errors import OptionError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.presets import presets_in_words
from ortcam.support.extras import install
from ortcam_export.errors import ExportError
from ortcam_export.sources.libraries import DeclaredPreprocessing
from ortcam_export.sources.model_names import check_takes_checkpoint

if TYPE_CHECKING:
    import torch

    from ortcam_export.sources.onnx_files.reading import OnnxFile

    # What a user may hand over as a classifier.
    Model = str | Path | torch.nn.Module | torch.export.ExportedProgram

__all__ = [
    "COMMON_SIDE",
    "DEFAULT_OPSET",
    "DEFAULT_WEIGHTS",
    "ChannelOrder",
    "InputLayout",
    "InputSpec",
    "InterpolationName",
    "SaidActivation",
    "Source",
    "assumed_of",
    "choose_precisions",
    "open_source",
    "said_preprocessing",
    "unknown_preprocessing",
]

InterpolationName = Literal["bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr"]
InputLayout = Literal["nchw", "nhwc"]
# What a user may say: how logits become probabilities, or that the model's outputs are probabilities already.
SaidActivation = Literal["softmax", "sigmoid", "probabilities"]

DEFAULT_WEIGHTS: Final = "DEFAULT"
DEFAULT_OPSET: Final = 20
# Of the input of most classifiers, (H, W), for an inspection where nothing says it.
COMMON_SIDE: Final = 224


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a user says about a model's input, output and classes; None where nothing was said.

    Attributes:
        input_size: (height, width) of the model's input.
        resize: length of the image's short side before the centre crop.
        mean: of the three channels in `channel_order`, of pixels in [0, scale].
        std: standard deviation of the three channels in `channel_order`, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: the labels, one per class.
        channel_order: "rgb" or "bgr".
        scale: what white becomes before mean and std: 1, or 255 for models that take bytes as they are.
        activation: how logits become probabilities, "softmax" or "sigmoid"; "probabilities": the model gives them.
        output: the model's output to explain: its name in a graph or a dict, its index in a tuple.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        declared: a whole preprocessing that somebody wrote down; what is said above overrides it, part by part.
        partial: whether mean and std may stay unsaid, as for an inspection; they are then 0 and 1.
        labels_source: who said the labels where it was not the user.
    """

    input_size: tuple[int, int] | None = None
    resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: InterpolationName | None = None
    labels: tuple[str, ...] | None = None
    channel_order: ChannelOrder | None = None
    scale: float | None = None
    activation: SaidActivation | None = None
    output: str | None = None
    input_layout: InputLayout | None = None
    declared: DeclaredPreprocessing | None = None
    partial: bool = False
    labels_source: str = ""

    @property
    def says_normalisation(self) -> bool:
        """Whether mean and std are known, or need not be."""
        return self.partial or self.declared is not None or (self.mean is not None and self.std is not None)

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
        labels: one per class, or None where nobody has said what they are.
        classes: their number, where it is known before the conversion.
        notes: what was done to the classifier that its user should know, a sentence each.
        labels_source: where labels that the user has not given come from; they count only where they fit.
        assumed: what was taken over without anybody saying it, a sentence each.
        metadata: what an `.onnx` file says of itself.
    """

    record: ModelRecord
    classifier: "torch.nn.Module | OnnxFile"
    preprocessing: Preprocessing
    preprocessing_source: str
    labels: tuple[str, ...] | None
    classes: int | None = None
    notes: tuple[str, ...] = ()
    labels_source: str = ""
    assumed: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
            from ortcam_export.sources.onnx_files.reading import open_onnx_file  # noqa: PLC0415 - only here, as PyTorch below
        except ModuleNotFoundError as error:
            raise _needs_extra(error, str(model), "onnx") from None
        return open_onnx_file(Path(model), spec)
    try:
        # Only here, so that an `.onnx` file needs no PyTorch.
        from ortcam_export.sources.pytorch.models import open_torch_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _needs_extra(error, str(model) if isinstance(model, (str, Path)) else "the module", "export") from None
    return open_torch_model(model, weights=weights, checkpoint=checkpoint, spec=spec)


def _needs_extra(error: ModuleNotFoundError, model: str, extra: str) -> ExportError:
    """The sentence that names the command which helps, for a library that the export needs and that is missing."""
    return ExportError(f"{model}: {error}; {install(extra)} brings what exporting it needs")


def said_preprocessing(spec: InputSpec, size: tuple[int, int], model: str) -> tuple[Preprocessing, str]:
    """Preprocessing in the user's own words, or as declared with the user's changes, for an input of this size.

    Returns:
        The preprocessing, and the source in words.

    Raises:
        ExportError: mean or std were neither said nor declared, or values that `Preprocessing` does not take.
    """
    if not spec.says_normalisation:
        raise unknown_preprocessing(model, spec)
    if spec.declared is not None:
        declared = dataclasses.replace(spec, input_size=size).overriding(spec.declared)
        return declared.preprocessing, declared.source
    said = spec.mean is not None and spec.std is not None
    return spec.preprocessing(*size), "given by the user" if said else "not known"


def assumed_of(spec: InputSpec, size: tuple[int, int]) -> tuple[str, ...]:
    """What is taken for granted where the user said mean and std, a sentence each.

    Args:
        spec: what was said.
        size: (H, W) of the model's input.
    """
    if spec.partial or spec.declared is not None:
        return ()
    assumed = []
    if spec.channel_order is None:
        assumed.append("the model takes RGB; --channel-order bgr says otherwise")
    if spec.resize is None:
        assumed.append(
            f"an image is resized straight to {size[0]} x {size[1]}; --resize N scales its short side to N, then crops"
        )
    return tuple(assumed)


def unknown_preprocessing(model: str, spec: InputSpec, *, sized: bool = True) -> ExportError:
    """The error for a model whose preprocessing nobody has said: what to say, and what the presets stand for.

    Args:
        model: its name.
        spec: what was said.
        sized: whether the size of its input is known.
    """
    needed = [f"--{name} R,G,B" for name in ("mean", "std") if getattr(spec, name) is None]
    wanted = [] if spec.says_normalisation else [f"--preset NAME, or {' and '.join(needed)}"]
    wanted += [] if sized else ["--input-size 224, or whatever its sides are"]
    error = ExportError(f"{model}: does not say how an image becomes its input; give {', and '.join(wanted)}")
    if not spec.says_normalisation:
        error.add_note(f"The presets, and the calls that they stand for:\n{presets_in_words()}")
    return error


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
