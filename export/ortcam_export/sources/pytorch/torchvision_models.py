"""torchvision's classifiers by name: with released weights, random ones, or a checkpoint's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torchvision

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.images.preprocessing import Preprocessing
from ortcam_export.errors import ExportError
from ortcam_export.sources.model_names import check_model
from ortcam_export.sources.pytorch.checkpoints import class_count, head_note, load_state, read_checkpoint
from ortcam_export.sources.pytorch.outputs import adapt_module
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import DEFAULT_WEIGHTS, DeclaredPreprocessing, InputSpec

__all__ = ["open_torchvision"]

# Built without their own initialisation, which takes long, and without auxiliary heads, which serve training alone.
_INCEPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_SEED: Final = 0
_CHANNELS: Final = 3  # that all of them take


def open_torchvision(name: str, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    """Load a classifier of torchvision; its weights' metadata give preprocessing and labels.

    Args:
        name: torchvision's.
        weights: "DEFAULT", a name among torchvision's weights of the model, or "none" for random ones.
        checkpoint: file with a state dict, in place of released weights.
        spec: what the user says; it overrides the metadata.

    Raises:
        ExportError: unknown model, or weights that cannot be loaded or do not fit.
    """
    check_model(name)
    spec = spec.for_channels(_CHANNELS, name)
    entry = _weights_entry(name, weights, checkpoint)
    preset = entry.transforms()
    of_weights = Preprocessing(
        height=preset.crop_size[0],
        width=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    declared = spec.overriding(spec.declared or DeclaredPreprocessing(of_weights, f"torchvision {entry}"))
    preprocessing = declared.preprocessing
    size = preprocessing.height, preprocessing.width
    loaded: str | None
    digest: str | None = None
    notes: tuple[str, ...] = ()
    if checkpoint is not None:
        path = Path(checkpoint)
        module, notes = _from_checkpoint(name, path, size)
        loaded, digest = path.name, file_sha256(path)
    elif weights == "none":
        module, loaded = _with_random_weights(name, size), None
    else:
        module, loaded = _with_released_weights(name, entry), entry.name
    adapted = adapt_module(module.eval(), spec, preprocessing)
    return Source(
        ModelRecord(name, "torchvision", loaded, digest),
        adapted.classifier,
        preprocessing,
        declared.source,
        spec.labels or tuple(entry.meta["categories"]),
        adapted.classes,
        notes,
        labels_source="" if spec.labels else f"torchvision's {entry}",
        assumed=() if checkpoint is None else _assumed_of_weights(spec, declared),
        inputs=adapted.inputs,
        embeddings=adapted.embeddings,
    )


def _assumed_of_weights(spec: InputSpec, declared: DeclaredPreprocessing) -> tuple[str, ...]:
    """What a checkpoint, which says nothing of its preprocessing, takes over from torchvision's own weights."""
    flags = [f"--{name}" for name in ("resize", "mean", "std") if getattr(spec, name) is None]
    if spec.declared is not None or not flags:
        return ()
    p = declared.preprocessing
    sentence = (
        f"the checkpoint was trained with the preprocessing of torchvision's own weights (short side to {p.resize}, "
        f"centre crop {p.height} x {p.width}, ImageNet's mean and std); {', '.join(flags)} say otherwise"
    )
    return (sentence,)


def _from_checkpoint(name: str, path: Path, size: tuple[int, int]) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The model with a checkpoint's weights and as many classes as it has, and what was done for that."""
    state = read_checkpoint(path)
    auxiliary = _INCEPTIONS.get(name, ())
    state = {key: value for key, value in state.items() if not key.startswith(auxiliary)} if auxiliary else state
    module = _build(name, size, trained=True)
    classes = class_count(module, state)
    if classes not in (None, class_count(module, module.state_dict())):
        module = _build(name, size, trained=True, classes=classes)
    load_state(module, state, path)
    return module, head_note(module, state)


def _with_released_weights(name: str, entry: Any) -> torch.nn.Module:
    try:
        module: torch.nn.Module = torchvision.models.get_model(name, weights=entry)
    except OSError as error:
        raise ExportError(
            f"{name}: its weights {entry.name} cannot be downloaded ({error}); load a file of them with "
            "--checkpoint FILE, or leave them random with --weights none"
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

    With a checkpoint and no word on its preprocessing, this is the first entry. It has the preprocessing of the model's
    original training; newer entries were trained for other sizes.
    """
    entries = torchvision.models.get_model_weights(name)
    if weights in ("none", DEFAULT_WEIGHTS):
        return next(iter(entries)) if checkpoint is not None else entries.DEFAULT
    if weights not in entries.__members__:
        raise ExportError(f"{name}: unknown weights {weights!r}; accepted: none, {', '.join(entries.__members__)}")
    return entries[weights]
