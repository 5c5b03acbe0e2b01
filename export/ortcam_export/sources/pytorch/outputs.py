"""What a PyTorch module returns, made one tensor of logits [N,classes]; or an error that says what it looks like."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir
import torch

from ortcam_export.errors import ExportError, first_line

__all__ = ["LogitsOf", "as_classifier", "count_classes", "forget_adapter"]

_ACCEPTED: Final = "accepted is a classifier, which returns one tensor of logits [N,classes]"
_PROBES: Final = 2
_SCOPES: Final = "pkg.torch.onnx.name_scopes"


class LogitsOf(torch.nn.Module):
    """A module whose output is the logits of another's.

    Args:
        inner: takes images [N,3,H,W] and returns anything that holds the logits.
        path: keys and indices to the logits in what it returns.
        argument: the name of its argument for the images; None passes them by position.
    """

    def __init__(self, inner: torch.nn.Module, path: tuple[str | int, ...], argument: str | None) -> None:
        super().__init__()
        self.inner = inner
        self.path = path
        self.argument = argument

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float32 images [N,3,H,W] to logits [N,classes]; [N], [N,K,1,1] are reshaped."""
        output = self.inner(image) if self.argument is None else self.inner(**{self.argument: image})
        for key in self.path:
            output = _entry(output, key)
        logits: torch.Tensor = output
        return logits.unsqueeze(1) if logits.ndim == 1 else logits.flatten(1)


def as_classifier(
    module: torch.nn.Module, *, height: int, width: int, output: str | None, argument: str | None = None
) -> torch.nn.Module:
    """A module that returns one tensor of logits [N,classes]: the module itself where it does, else `LogitsOf` it.

    It is run once, on two images of zeros. The logits are what it returns where that is a tensor; of a dict (as
    transformers' outputs are) or a tuple they are the entry that `output` names, the entry `logits`, or the only one.

    Args:
        module: in eval mode; takes images [N,3,height,width].
        height: rows of an image.
        width: columns of an image.
        output: key of a dict, or index of a tuple, as a user writes it; None where the user said nothing.
        argument: the name of the module's argument for the images, where it is not the first.

    Raises:
        ExportError: it does not take such images, or what it returns is not a classifier's.
    """
    images = torch.zeros(_PROBES, 3, height, width)
    with torch.inference_mode():
        try:
            returned = module(images) if argument is None else module(**{argument: images})
        except Exception as error:
            raise ExportError(
                f"the model does not take an image [N,3,{height},{width}]: {first_line(error)}"
            ) from error
    path = _path_to_logits(returned, output)
    logits = returned
    for key in path:
        logits = _entry(logits, key)
    _check_logits(logits, returned)
    if not path and logits.ndim == 2 and argument is None:
        return module
    return LogitsOf(module, path, argument).eval()


def count_classes(classifier: torch.nn.Module, *, height: int, width: int) -> int | None:
    """How many classes a module of `as_classifier` tells apart; it is run once, on noise.

    None where its scores are in order for each image: they may be the best of more classes, by rank.
    """
    noise = torch.randn(_PROBES, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = classifier(noise)
    steps = logits.diff(dim=1)
    if logits.shape[1] > 1 and bool((steps <= 0).all() or (steps >= 0).all()):
        return None
    return int(logits.shape[1])


def forget_adapter(model: ir.Model) -> None:
    """Take `LogitsOf` out of the module paths of a converted graph, so that layers keep their module's own names."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        if scopes is None:
            continue
        root, *paths = ast.literal_eval(scopes)
        if paths and paths[0] == "inner":
            paths = paths[1:]  # the inner module is the root now
        node.metadata_props[_SCOPES] = repr([root, *(path.removeprefix("inner.") for path in paths)])


def _path_to_logits(returned: Any, output: str | None) -> tuple[str | int, ...]:
    if isinstance(returned, torch.Tensor):
        if output is not None:
            raise ExportError(f"--model-output {output}: the model returns one tensor; leave the flag out")
        return ()
    entries = _entries(returned)
    if output is not None:
        key = next((key for key in entries if str(key) == output), None)
        if key is None and isinstance(returned, Sequence) and output.isdecimal() and int(output) < len(returned):
            key = int(output)  # of a named tuple
        if key is None:
            raise ExportError(
                f"--model-output {output}: the model returns {_describe(returned)}; accepted is one of these"
            )
        return (key,)
    if "logits" in entries:
        return ("logits",)
    if len(entries) == 1:
        [(key, value)] = entries.items()
        if isinstance(value, torch.Tensor):
            return (key,)
    several = [key for key, value in entries.items() if isinstance(value, torch.Tensor) and _are_logits(value)]
    hint = f"; --model-output {several[0]} takes one of them" if several else ""
    raise ExportError(f"the model returns {_describe(returned)}{_looks_like(returned)}; {_ACCEPTED}{hint}")


def _entries(returned: Any) -> dict[str | int, Any]:
    """What a container holds, by key or index; empty for what is no container."""
    if isinstance(returned, Mapping):
        return {key: value for key, value in returned.items() if value is not None}
    if names := _field_names(returned):
        return {name: value for name in names if (value := getattr(returned, name)) is not None}
    if isinstance(returned, Sequence) and not isinstance(returned, str):
        return dict(enumerate(returned))
    return {}


def _field_names(returned: Any) -> tuple[str, ...]:
    """The attributes of a dataclass, a named tuple, or another plain object that hold tensors; empty for all else."""
    if isinstance(returned, torch.Tensor | type):
        return ()
    if dataclasses.is_dataclass(returned):
        return tuple(field.name for field in dataclasses.fields(returned))
    if isinstance(returned, tuple):
        return tuple(getattr(returned, "_fields", ()))
    held = getattr(returned, "__dict__", {})
    return tuple(name for name, value in held.items() if isinstance(value, torch.Tensor))


def _entry(returned: Any, key: str | int) -> Any:
    """The entry of a container that `_entries` calls so."""
    return getattr(returned, str(key)) if key in _field_names(returned) else returned[key]


def _check_logits(logits: Any, returned: Any) -> None:
    if not isinstance(logits, torch.Tensor) or not _are_logits(logits):
        looks = _looks_like(returned) or _looks_like(logits)
        raise ExportError(f"the model returns {_describe(logits)}{looks}; {_ACCEPTED}")


def _are_logits(tensor: torch.Tensor) -> bool:
    """Whether it is float [N,classes], or [N] or [N,classes,1,1], which mean the same."""
    fits = tensor.ndim in (1, 2) or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))
    return fits and tensor.shape[0] == _PROBES and tensor.is_floating_point() and tensor.numel() > 0


def _describe(value: Any) -> str:
    """A value in words, with the batch size as N."""
    if isinstance(value, torch.Tensor):
        sides = ["N" if axis == 0 and side == _PROBES else str(side) for axis, side in enumerate(value.shape)]
        kind = "a tensor" if value.is_floating_point() else f"a tensor of {str(value.dtype).removeprefix('torch.')}"
        return f"{kind} [{','.join(sides)}]"
    entries = _entries(value)
    if not entries:
        return f"{type(value).__name__}"
    named = (f"{key}: {_describe(entry).removeprefix('a tensor ')}" for key, entry in entries.items())
    return f"{type(value).__name__} of {', '.join(named)}"


def _looks_like(value: Any) -> str:
    """What kind of model returns this, as the end of a sentence's first half; empty where it cannot be told."""
    parts = list(_entries(value).values()) if not isinstance(value, torch.Tensor) else [value]
    if any(key in _entries(part) for part in (value, *parts) for key in ("boxes", "pred_boxes")):
        return ", as a detection model does"
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if tensors and all(part.ndim == 4 and part.shape[2:] != (1, 1) for part in tensors):
        return ", as a segmentation model does"
    return ""
