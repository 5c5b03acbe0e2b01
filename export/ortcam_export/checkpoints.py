"""Checkpoints: a file with a state dict, read without running code from it, and laid into a module."""

import lzma
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from ortcam_export.errors import ExportError

__all__ = ["class_count", "load_state", "read_checkpoint"]

State = dict[str, torch.Tensor]

# Where training scripts (torchvision's, timm's, Lightning's) put the state dict; plain weights before averaged ones.
_NESTED: Final = ("state_dict", "model", "state_dict_ema", "model_ema", "ema")
# What DistributedDataParallel, wrappers of the classifier, and torch.compile put before each key.
_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
# Counters beside the weights that evaluation does not use: BatchNorm's (which old checkpoints lack), AveragedModel's.
_BATCH_COUNTER: Final = "num_batches_tracked"
_AVERAGE_COUNTER: Final = "n_averaged"


def read_checkpoint(path: Path) -> State:
    """Read a state dict as float32, without running code from it: weights-only where the format could hold code.

    Accepted are PyTorch files, plain or xz-compressed, and `.safetensors`; a state dict nested under `state_dict`,
    `model`, `state_dict_ema`, `model_ema` or `ema` is found in this order.

    Raises:
        ExportError: no such file, pickled objects, or anything but a dict of tensors.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(state, Mapping):
        nested = next((state[key] for key in _NESTED if isinstance(state.get(key), Mapping)), None)
        if nested is None:
            break
        state = nested
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    ):
        raise ExportError(f"{path}: not a state dict of tensors")
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key != _AVERAGE_COUNTER
    }


def class_count(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> int | None:
    """How many classes a checkpoint was trained for, or None where its keys are not the module's.

    Args:
        module: of the checkpoint's architecture, for any number of classes; its last weights are those of the classes.
        state: the checkpoint; the order of its keys does not matter, as some formats sort them.
    """
    last = list(module.state_dict())[-1]
    found = _without_prefixes(state, module.state_dict()).get(last)
    return None if found is None or found.ndim == 0 else int(found.shape[0])


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Give a module the weights of a state dict; `path` is named in errors.

    Raises:
        ExportError: keys or shapes that do not fit.
    """
    fitting = _without_prefixes(state, module.state_dict())
    try:
        missing, unexpected = module.load_state_dict(fitting, strict=False)
    except RuntimeError as error:  # shapes that differ
        details = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ExportError(f"{path}: does not fit {type(module).__name__}: {details}") from None
    missing = [key for key in missing if not key.endswith(_BATCH_COUNTER)]
    problems = [f"{word} {_some(keys)}" for word, keys in (("lacks", missing), ("also has", unexpected)) if keys]
    if problems:
        raise ExportError(f"{path}: does not fit {type(module).__name__}: the checkpoint {' and '.join(problems)}")


def _read_torch(path: Path) -> Any:
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise ExportError(
            f"{path}: not a plain state dict: it holds pickled Python objects (or is not a checkpoint), which could "
            "run code when loaded; save `model.state_dict()` instead"
        ) from None
    except (OSError, EOFError, RuntimeError, lzma.LZMAError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from None


def _read_safetensors(path: Path) -> State:
    try:
        # Of the export extra's libraries none brings it; timm and transformers do.
        from safetensors import SafetensorError  # noqa: PLC0415
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError:
        raise ExportError(f"{path}: reading it needs the library safetensors (`pip install safetensors`)") from None
    try:
        state: State = load_file(path)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such checkpoint") from None
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path}: cannot be read as safetensors: {error}") from None
    return state


def _without_prefixes(state: Mapping[str, torch.Tensor], expected: Collection[str]) -> Mapping[str, torch.Tensor]:
    """The state without the prefixes that all its keys carry, where the keys then fit; else as it is."""
    stripped = state
    while not any(key in expected for key in stripped):
        prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in stripped)), None)
        if prefix is None:
            return state
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
    return stripped


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + rest
