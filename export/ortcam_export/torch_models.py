"""Classifiers from PyTorch: a torchvision name, a callable that returns a module, or the module itself."""

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from ortcam.bundle import ModelRecord, file_sha256
from ortcam.preprocessing import Preprocessing
from ortcam_export.checkpoints import load_state, read_checkpoint
from ortcam_export.errors import ExportError
from ortcam_export.sources import DEFAULT_WEIGHTS, InputSpec, Source, read_labels, said_preprocessing

__all__ = ["open_torch_model"]


def open_torch_model(
    model: str | Path | torch.nn.Module, *, weights: str, checkpoint: str | Path | None, spec: InputSpec
) -> Source:
    """Load a classifier from PyTorch, with its preprocessing and labels; see `sources.open_source`.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    if not isinstance(model, (str, Path)):
        return _from_module(model, f"{type(model).__module__}:{type(model).__qualname__}", checkpoint, spec)
    name = str(model)
    if ":" in name:
        return _from_module(_call(name), name, checkpoint, spec)
    return _from_torchvision(name, weights, checkpoint, spec)


def _from_module(module: Any, name: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{name}: returned {type(module).__name__}, not a torch.nn.Module")
    weights, digest = None, None
    if checkpoint is not None:
        state = read_checkpoint(Path(checkpoint))
        load_state(module, state, Path(checkpoint))
        weights, digest = Path(checkpoint).name, file_sha256(Path(checkpoint))
    if spec.input_size is None:
        raise ExportError(f"{name}: the size of its input is not known; say it with --input-size H W")
    return Source(
        ModelRecord(name, "torch", weights, digest),
        module.eval(),
        *said_preprocessing(spec, spec.input_size),
        read_labels(spec.labels),
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
        raise ExportError(f"{name}: calling it raised {type(error).__name__}: {error}") from error


def _from_torchvision(name: str, weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    models = torchvision.models
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"torchvision has {', '.join(known)}"
        raise ExportError(
            f"unknown model {name!r}: accepted is a torchvision name, package.module:callable, or FILE.onnx; {hint}"
        )
    entry = _weights_entry(name, weights, checkpoint)
    labels = read_labels(spec.labels)
    loaded: str | None
    digest: str | None = None
    if checkpoint is not None:
        path = Path(checkpoint)
        state = read_checkpoint(path)
        module = models.get_model(name, weights=None, **_classes_of(state))
        load_state(module, state, path)
        loaded, digest = path.name, file_sha256(path)
    else:
        loaded = None if weights == "none" else entry.name
        try:
            module = models.get_model(name, weights=None if loaded is None else entry)
        except OSError as error:
            raise ExportError(
                f"{name}: the weights {entry.name} cannot be downloaded ({error}); --checkpoint FILE loads a local "
                "file, --weights none leaves them random"
            ) from None
    preset = entry.transforms()
    preprocessing = Preprocessing(
        height=preset.crop_size[0],
        width=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    said = f"torchvision {entry}"
    changes = spec.changes()
    if changes:
        preprocessing = dataclasses.replace(preprocessing, **changes)
        said += f", with {', '.join(changes)} as given"
    return Source(
        ModelRecord(name, "torchvision", loaded, digest),
        module.eval(),
        preprocessing,
        said,
        labels or tuple(entry.meta["categories"]),
    )


def _weights_entry(name: str, weights: str, checkpoint: str | Path | None) -> Any:
    """The weights whose metadata give preprocessing and labels.

    With a checkpoint and no word on its recipe this is the first entry, the one with the model's original recipe: newer
    entries were trained for other sizes.
    """
    entries = torchvision.models.get_model_weights(name)
    if weights in ("none", DEFAULT_WEIGHTS):
        return next(iter(entries)) if checkpoint is not None else entries.DEFAULT
    if weights not in entries.__members__:
        raise ExportError(
            f"{name}: unknown weights {weights!r}; accepted: DEFAULT, none, {', '.join(entries.__members__)}"
        )
    return entries[weights]


def _classes_of(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """num_classes where the checkpoint's last layer has another number than the 1000 of ImageNet."""
    last = list(state.values())[-1]
    return {} if last.ndim == 0 or last.shape[0] == 1000 else {"num_classes": int(last.shape[0])}
