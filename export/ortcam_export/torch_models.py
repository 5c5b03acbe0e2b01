"""Classifiers from PyTorch: a torchvision name, a callable that returns a module, or the module itself."""

import dataclasses
import difflib
import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torchvision

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.preprocessing import Preprocessing
from ortcam_export.checkpoints import class_count, load_state, read_checkpoint
from ortcam_export.errors import ExportError, first_line
from ortcam_export.library_modules import (
    declared_input_size,
    declared_labels,
    declared_preprocessing,
    image_argument,
)
from ortcam_export.library_preprocessing import DeclaredPreprocessing, read_declared
from ortcam_export.sources import DEFAULT_WEIGHTS, InputSpec, Source, read_labels, said_preprocessing
from ortcam_export.torch_outputs import as_classifier

__all__ = ["open_torch_model"]

# Built without their own initialisation, which takes long, and without auxiliary heads, which serve training alone.
_INCEPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_SEED: Final = 0


def open_torch_model(
    model: str | Path | torch.nn.Module, *, weights: str, checkpoint: str | Path | None, spec: InputSpec
) -> Source:
    """Load a classifier from PyTorch, with its preprocessing and labels; see `sources.open_source`.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    if spec.input_layout is not None:
        raise ExportError(f"--input-layout {spec.input_layout}: goes with an .onnx file; a PyTorch model takes nchw")
    if not isinstance(model, (str, Path)):
        return _from_module(model, f"{type(model).__module__}:{type(model).__qualname__}", checkpoint, spec)
    name = str(model)
    if ":" not in name:
        return _from_torchvision(name, weights, checkpoint, spec)
    returned = _call(name)
    if isinstance(returned, tuple) and len(returned) == 2:
        returned, declared = returned
        if spec.declared is None:
            spec = dataclasses.replace(spec, declared=read_declared(declared, spec.input_size))
    return _from_module(returned, name, checkpoint, spec)


def _from_module(module: Any, name: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            f"{name}: returned {type(module).__name__}, not a torch.nn.Module, or one and its preprocessing"
        )
    argument = image_argument(module)
    weights, digest = None, None
    if checkpoint is not None:
        path = Path(checkpoint)
        load_state(module, read_checkpoint(path), path)
        weights, digest = path.name, file_sha256(path)
    spec = _with_declarations(module, spec)
    if spec.input_size is None:
        raise ExportError(f"{name}: the size of its input is not known; say it with --input-size H W")
    preprocessing, said = said_preprocessing(spec, spec.input_size)
    classifier = as_classifier(
        module.eval(),
        height=preprocessing.height,
        width=preprocessing.width,
        output=spec.output,
        argument=argument,
    )
    record = ModelRecord(name, "torch", weights, digest)
    return Source(record, classifier, preprocessing, said, read_labels(spec.labels))


def _with_declarations(module: torch.nn.Module, spec: InputSpec) -> InputSpec:
    """The user's words, completed by what a module of timm or transformers says of itself."""
    declared = spec.declared or declared_preprocessing(module, spec.input_size)
    size = spec.input_size
    if size is None and declared is not None:
        size = declared.preprocessing.height, declared.preprocessing.width
    return dataclasses.replace(
        spec,
        declared=declared,
        input_size=size or declared_input_size(module),
        labels=declared_labels(module) if spec.labels is None else spec.labels,
    )


def _call(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does, so that a file beside the user is found
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"{name}: {error}; accepted is package.module:callable") from None
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{name}: calling it raised {type(error).__name__}: {first_line(error)}") from error


def _from_torchvision(name: str, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    _check_name(name)
    entry = _weights_entry(name, weights, checkpoint)
    labels = read_labels(spec.labels)
    preset = entry.transforms()
    recipe = Preprocessing(
        height=preset.crop_size[0],
        width=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    declared = spec.overriding(spec.declared or DeclaredPreprocessing(recipe, f"torchvision {entry}"))
    preprocessing = declared.preprocessing
    size = preprocessing.height, preprocessing.width
    loaded: str | None
    digest: str | None = None
    if checkpoint is not None:
        path = Path(checkpoint)
        module = _from_checkpoint(name, path, size)
        loaded, digest = path.name, file_sha256(path)
    elif weights == "none":
        module, loaded = _with_random_weights(name, size), None
    else:
        module, loaded = _with_released_weights(name, entry), entry.name
    classifier = as_classifier(
        module.eval(), height=preprocessing.height, width=preprocessing.width, output=spec.output
    )
    return Source(
        ModelRecord(name, "torchvision", loaded, digest),
        classifier,
        preprocessing,
        declared.source,
        labels or tuple(entry.meta["categories"]),
    )


def _check_name(name: str) -> None:
    models = torchvision.models
    known = models.list_models(module=models)
    if name in known:
        return
    for module, kind in (
        (models.detection, "detection"),
        (models.segmentation, "segmentation"),
        (models.video, "video"),
        (models.optical_flow, "optical flow"),
        (models.quantization, "quantized"),
    ):
        if name in models.list_models(module=module):
            article = "an" if kind[0] in "aeiou" else "a"
            raise ExportError(
                f"{name} is {article} {kind} model; accepted is a classifier of images in float32, say resnet50"
            )
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "torchvision.models.list_models() lists the names"
    raise ExportError(
        f"unknown model {name!r}: accepted is a torchvision name, package.module:callable, or FILE.onnx; {hint}"
    )


def _from_checkpoint(name: str, path: Path, size: tuple[int, int]) -> torch.nn.Module:
    """The model with a checkpoint's weights and as many classes as it has."""
    state = read_checkpoint(path)
    auxiliary = _INCEPTIONS.get(name, ())
    state = {key: value for key, value in state.items() if not key.startswith(auxiliary)} if auxiliary else state
    module = _build(name, size, trained=True)
    classes = class_count(module, state)
    if classes not in (None, class_count(module, module.state_dict())):
        module = _build(name, size, trained=True, classes=classes)
    load_state(module, state, path)
    return module


def _with_released_weights(name: str, entry: Any) -> torch.nn.Module:
    try:
        module: torch.nn.Module = torchvision.models.get_model(name, weights=entry)
    except OSError as error:
        raise ExportError(
            f"{name}: the weights {entry.name} cannot be downloaded ({error}); --checkpoint FILE loads a local "
            "file, --weights none leaves them random"
        ) from None
    return module


def _with_random_weights(name: str, size: tuple[int, int]) -> torch.nn.Module:
    """The model with random weights, such that the logits depend on the image.

    Two kinds of models would have constant logits: ViTs start their last layer at zero, and in GoogLeNet and Inception
    v3 without their own slow initialisation the image fades from layer to layer. A last layer of zeros gets small
    random values, and the convolutions of these two He's initialisation; both are always the same.
    """
    module = _build(name, size, trained=False)
    generator = torch.Generator().manual_seed(_SEED)
    if name in _INCEPTIONS:
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    heads = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1:]
    for head in heads:
        if not head.weight.any():
            torch.nn.init.normal_(head.weight, std=1 / math.sqrt(head.in_features), generator=generator)
    return module


def _build(name: str, size: tuple[int, int], *, trained: bool, classes: int | None = None) -> torch.nn.Module:
    """A torchvision model before its weights; torch's global random state stays as it was.

    Args:
        name: torchvision's.
        size: (H, W) of its input, which ViT and MaxViT are built for.
        trained: whether real weights will be loaded. Those of GoogLeNet and Inception v3 expect pixels in [-1,1] and
            their models convert to it from ImageNet's mean and std, as torchvision's loader sets them up to.
        classes: their number, None for the model's own.
    """
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name.startswith("vit_"):
        options["image_size"] = _side(name, size)
    if name.startswith("maxvit_"):
        options["input_size"] = size
    if name in _INCEPTIONS:
        options |= {"init_weights": False, "aux_logits": False, "transform_input": trained}
    with torch.random.fork_rng(devices=[]):
        module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return module


def _side(name: str, size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise ExportError(f"{name}: --input-size {size[0]} {size[1]}: accepted is a square for this model")
    return size[0]


def _weights_entry(name: str, weights: str, checkpoint: str | Path | None) -> Any:
    """The weights whose metadata give preprocessing and labels.

    With a checkpoint and no word on its recipe this is the first entry, the one with the model's original recipe: newer
    entries were trained for other sizes.
    """
    entries = torchvision.models.get_model_weights(name)
    if weights in ("none", DEFAULT_WEIGHTS):
        return next(iter(entries)) if checkpoint is not None else entries.DEFAULT
    if weights not in entries.__members__:
        raise ExportError(f"{name}: unknown weights {weights!r}; accepted: none, {', '.join(entries.__members__)}")
    return entries[weights]
