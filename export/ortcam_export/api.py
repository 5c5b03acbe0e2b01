"""What users call, `export` and `inspect_model`: they check a request before they import PyTorch or ONNX."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ortcam.bundle import Bundle
from ortcam.images.presets import PresetName
from ortcam_export.request import (
    ExportRequest,
    StageReport,
    check_bundle_path,
    check_calibration,
    check_checkpoint,
    check_layers,
    check_name,
    check_opset,
    check_static_batch,
    check_takes,
    choose_precisions,
    spec_of,
    with_declared,
)
from ortcam_export.sources.types import (
    DEFAULT_OPSET,
    DEFAULT_WEIGHTS,
    ChannelOrder,
    InputLayout,
    InterpolationName,
    SaidActivation,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ortcam_export.inspection import Inspection
    from ortcam_export.sources.types import Model

__all__ = ["export", "inspect_model"]


def export(
    model: "Model",
    bundle: str | os.PathLike[str],
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    layer: str | Sequence[str] | None = None,
    opset: int = DEFAULT_OPSET,
    force: bool = False,
    input_size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
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
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    display: int | Sequence[int] | None = None,
    baseline_value: Literal["mean", "zero"] | float | Sequence[float] | None = None,
    inputs: Mapping[str, object] | None = None,
    classes: "str | Path | NDArray[np.floating] | None" = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    static_batch: int | None = None,
) -> Bundle:
    """Export a classifier as a bundle.

    Args:
        model: torchvision name, path of an `.onnx` file, a module, or `package.module:callable` that returns one, alone
            or in a pair with a `preprocessing`. A module may be an `nn.Module`, which stays as it is, an
            ExportedProgram, or TorchScript; the last two may be files, too: `.pt2`, and `.pt` of `torch.jit.save`.
        bundle: folder to write; it appears only when the bundle is complete and has passed its parity check.
        weights: torchvision weights by name, "DEFAULT", or "none" for random ones.
        checkpoint: file with a state dict: `.pth`, plain or xz-compressed, or `.safetensors`.
        layer: module path, tensor name, or index in `inspect_model`'s list; None takes the default layer. Several, as a
            list or with commas between them, give a bundle of several layers: the deepest is its primary one, and
            gradient methods can use each of them.
        opset: version of the ONNX operator set, for models that come from PyTorch.
        force: replace a bundle that is there.
        input_size: (height, width) of the model's input, or its side.
        resize: length of the short side before the crop; None resizes straight to `input_size`, unless torchvision's
            metadata say otherwise.
        mean: of each channel in `channel_order`, or one for all, of pixels in [0, scale].
        std: standard deviation of each channel in `channel_order`, or one for all, of pixels in [0, scale].
        interpolation: "bilinear" or "bicubic".
        labels: the labels, "imagenet", or a file of them (`sources.labels.parse_labels`). None takes the model's
            own, or those that lie beside its file, or else the index of each class.
        report: told the stages.
        channel_order: what the channels of the model's input are: "rgb" (of three where nothing else is known) or
            "bgr"; "grey" (of one), weighed from red, green and blue as Pillow does, or "grey-opencv", as OpenCV does;
            "bands" (of any other number): those of the file or array, in their order.
        scale: what white becomes before mean and std; 1 where nothing else is known, 255 for models that take bytes.
        activation: how logits become probabilities: "softmax", or "sigmoid" for classes that do not exclude each other
            and for one logit; None takes what the graph ends in, else softmax. Of a graph that ends in Sigmoid,
            "softmax" is that of the logits in front of it; one that ends in a softmax has no "sigmoid".
            "probabilities": the model gives probabilities, and logits are made of them: an ensemble, say, or one
            softmax per group of classes. "identity": the outputs are values, such as those of a regression, an
            embedding, or the raw output of a detector; a `score` says what of them is explained.
        output: the model's output to explain, where it has several; "A,B" keeps several, of "identity" alone.
        input_layout: "nchw" or "nhwc", for an `.onnx` file whose input does not tell.
        preprocessing: a timm data config, a transformers image processor, or an `ortcam.Preprocessing`;
            None takes what the model says of itself, as torchvision's and timm's do. `input_size`, `resize`, `mean`,
            `std`, `interpolation`, `channel_order` and `scale` override parts of it.
        precision: what the masked passes can compute in, beside float32, which is always there: "fp16", "int8",
            and "qnn": uint16 activations and int8 weights, by the rules of Qualcomm's NPUs. Features, head and the
            logits of the clean image are float32 in all of them.
        calibration: for int8 and qnn, a folder with images of the kind that will be explained; the first 64 by name are
            read. None takes the few that ortcam ships. On some of them each precision's maps are compared with
            float32's.
        preset: the usual scale, mean, std and channel order by name, `ortcam.images.presets`; each of them can be
            given, too, and then counts. With another `channel_order` its mean and std are in that order.
        channels: of the model's input, 1 to 64; None takes what its first convolution or its graph says.
        value_range: (low, high): samples of images keep their depth, 16-bit or float; low becomes 0 and high `scale`.
            None: 8-bit levels, of which 255 becomes `scale`; of "bands" that is (0, 255).
        display: the bands that overlays are drawn over, from 0: one, or three for red, green and blue. None takes the
            only band, the first of two, or the first three.
        baseline_value: what masks hide to: "mean" (None stands for it), "zero", or a value per channel or for all, in
            units of `mean`, that is of pixels in [0, scale].
        inputs: fixed values of the model's further inputs, by name: a number, a list, an array, or a `.npy` or `.npz`
            file. The image is the input that is left.
        classes: embeddings of the classes, float [K,D], an array or a `.npy` file: the model's output is an image's
            embedding, and the logits are its cosines with these, times `logit_scale`, plus `logit_bias`.
        logit_scale: see `classes`; None stands for 100, CLIP's.
        logit_bias: see `classes`; None stands for 0. SigLIP has one, and `activation="sigmoid"`.
        static_batch: fix every dimension of the graphs, for processors that take no dynamic shapes: scorers and head
            run this many rows at a time, features and gradient one. None leaves the batch open.

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
    said = locals()  # every argument under its own name
    destination = check_bundle_path(bundle, force=force)
    variants = choose_precisions(precision)[1:]
    check_takes(model, checkpoint)
    spec = spec_of(said)
    checked = check_checkpoint(checkpoint), check_layers(layer), check_opset(opset)
    folder, static = check_calibration(calibration, variants), check_static_batch(static_batch)
    report = report or (lambda _: None)
    request = ExportRequest(model, destination, force, weights, *checked, spec, variants, folder, static, report)
    check_name(model)
    request = dataclasses.replace(request, spec=with_declared(spec, preprocessing))
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
    channels: int | None = None,
    inputs: Mapping[str, object] | None = None,
    classes: "str | Path | NDArray[np.floating] | None" = None,
) -> "Inspection":
    """What a model is, and the layers it can be cut at; weights of torchvision's models are random by default.

    Example:
        ```python
        print(ortcam_export.inspect_model("model.onnx").classes)
        ```

    Raises:
        ExportError: the model cannot be loaded or converted.
    """
    spec = spec_of(locals() | {"partial": True})
    check_name(model)
    from ortcam_export.inspection import inspect_source  # noqa: PLC0415 - only here: it imports what takes long

    return inspect_source(model, weights=weights, spec=spec, opset=check_opset(opset))
