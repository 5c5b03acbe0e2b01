"""Checkpoints: a file with a state dict, read without running code from it, and laid into a module."""

import lzma
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ortcam_export.errors import ExportError

__all__ = ["load_state", "read_checkpoint"]


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict, plain or xz-compressed, as float32; weights-only, so that no code in it runs.

    Raises:
        ExportError: no such file, pickled objects, or anything but a dict of tensors.
    """
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise ExportError(
            f"{path}: not a plain state dict: it holds pickled Python objects (or is not a checkpoint), which could "
            "run code when loaded; save `model.state_dict()` instead"
        ) from None
    except (OSError, EOFError, RuntimeError, lzma.LZMAError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()) or not state:
        raise ExportError(f"{path}: not a state dict of tensors")
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Give a module the weights of a state dict; `path` is named in errors.

    Raises:
        ExportError: keys or shapes that do not fit.
    """
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes that differ
        details = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ExportError(f"{path}: does not fit {type(module).__name__}: {details}") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    problems = [f"{word} {_some(keys)}" for word, keys in (("lacks", missing), ("also has", unexpected)) if keys]
    if problems:
        raise ExportError(f"{path}: does not fit {type(module).__name__}: the checkpoint {' and '.join(problems)}")


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + rest
