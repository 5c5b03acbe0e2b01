"""What a user hands over, made a plain module: float32, on the CPU, in evaluation, unwrapped; theirs stays as it is."""

import copy
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch.nn.utils import parametrize, prune

from ortcam_export.errors import ExportError, first_line

__all__ = ["copied", "plain_module", "precision_notes"]

# Where the modules of quantised models come from.
_QUANTIZED: Final = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torchao.", "bitsandbytes.")
_WRAPPERS: Final = ("DataParallel", "DistributedDataParallel", "AveragedModel")


def plain_module(module: torch.nn.Module, name: str, *, own: bool) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """A module as it is exported.

    What torch.compile and DataParallel wrapped is taken out of them, weights are float32 and on the CPU, dropout and
    the like are off, and weights that each pass computes anew (weight norm, spectral norm, pruning) are computed once.

    Args:
        module: the user's; where anything has to change, it is copied first.
        name: for errors.
        own: whether the result may be changed further: it is then a copy whatever it is.

    Returns:
        The module, and what its user should know, a sentence each.

    Raises:
        ExportError: weights without values, quantised modules, or a module that cannot be copied.
    """
    module = _unwrapped(module)
    _refuse(module, name)
    notes = precision_notes(module)
    if own or notes or _changes(module):
        module = copied(module, name)
        for part in list(module.modules()):
            for child_name, child in list(part.named_children()):
                setattr(part, child_name, _unwrapped(child))
            _compute_weights_once(part)
        module = module.float().cpu().eval()
    return module, notes


def precision_notes(module: torch.nn.Module) -> tuple[str, ...]:
    """A sentence for the user where a module's weights are not all float32; empty where they are."""
    kinds = {tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()} - {torch.float32}
    words = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    return (f"weights are {words}: the model is computed in float32",) if kinds else ()


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    while True:
        inner = getattr(module, "_orig_mod", None)  # torch.compile's
        if inner is None and type(module).__name__ in _WRAPPERS and type(module).__module__.startswith("torch."):
            inner = module.module
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _refuse(module: torch.nn.Module, name: str) -> None:
    for path, part in module.named_modules():
        if f"{type(part).__module__}.".startswith(_QUANTIZED):
            raise ExportError(
                f"{name}: {path or type(part).__name__} is a quantised module of {type(part).__module__}, which has no "
                "ONNX form; export the float model it was made from, with --precision int8"
            )
    for path, tensor in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ExportError(
                f"{name}: {path} has no shape yet, as lazy modules have none before their first image; run the module "
                "once, and load its weights"
            )
        if tensor.device.type == "meta":
            raise ExportError(
                f"{name}: {path} is on the meta device and has no values; load the weights first, say by "
                "load_state_dict(state, assign=True)"
            )


def _changes(module: torch.nn.Module) -> bool:
    """Whether a module is not yet as it is exported."""
    return any(tensor.device.type != "cpu" for tensor in _tensors(module)) or any(
        part.training
        or parametrize.is_parametrized(part)
        or any(True for _ in _computing_hooks(part))
        or getattr(part, "_compiled_call_impl", None) is not None
        or any(_unwrapped(child) is not child for child in part.children())
        for part in module.modules()
    )


def copied(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """A deep copy.

    Raises:
        ExportError: the module cannot be copied.
    """
    # Tensors that a pass left behind, as weight norm does, are no leaves and do not copy themselves.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in (*vars(part).values(), *part._parameters.values(), *part._buffers.values())
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ExportError(
            f"{name}: the module cannot be copied ({first_line(error)}), which keeps yours as it is; hand it over "
            "unwrapped, in float32, on the CPU and after eval()"
        ) from error


def _computing_hooks(part: torch.nn.Module) -> Iterator[Any]:
    """The hooks that compute a weight before each pass: of the older weight norm and spectral norm, and of pruning."""
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod) or type(hook).__name__ in ("WeightNorm", "SpectralNorm"):
            yield hook


def _compute_weights_once(part: torch.nn.Module) -> None:
    part.eval()  # so that spectral norm does not iterate once more
    if parametrize.is_parametrized(part):
        for tensor_name in list(part.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(part, tensor_name, leave_parametrized=True)
    for hook in list(_computing_hooks(part)):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
        elif type(hook).__name__ == "WeightNorm":
            torch.nn.utils.remove_weight_norm(part, hook.name)
        else:
            torch.nn.utils.remove_spectral_norm(part, hook.name)
