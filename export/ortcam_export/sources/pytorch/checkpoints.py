"""Checkpoints: a file with a state dict, read without running code from it, and laid into a module."""

import contextlib
import lzma
import pickle
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import torch

from ortcam_export.errors import ExportError, first_line

__all__ = [
    "ALWAYS_ACCEPTED",
    "check_archive",
    "class_count",
    "differing_classes",
    "head_note",
    "load_state",
    "read_checkpoint",
    "with_classes",
]

State = dict[str, torch.Tensor]

# Where training scripts (torchvision's, timm's, Lightning's) put the state dict; plain weights before averaged ones.
_NESTED: Final = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "module"),
)
# What DistributedDataParallel, wrappers of the classifier, and torch.compile put before each key.
_PREFIXES: Final = ("module.", "model.", "_orig_mod.", "backbone.", "net.", "network.")
# How deep a state dict may lie in others; one that contains itself has no end.
_DEEPEST: Final = 16
# Bytes that a checkpoint of any size may take, and how many times its own size a larger one may: a kilobyte can say
# that it is a tensor of a terabyte.
ALWAYS_ACCEPTED: Final = 2**30
_TIMES: Final = 64
_IN_MEMORY: Final = 2**26  # of an unpacked one; what is beyond goes to the disk
_BYTEARRAY: Final = b"\nbytearray\n"  # as a pickle names it
# Counters beside the weights that evaluation does not use: BatchNorm's (which old checkpoints lack), AveragedModel's.
_BATCH_COUNTER: Final = "num_batches_tracked"
_AVERAGE_COUNTER: Final = "n_averaged"


def read_checkpoint(path: Path, *, always: int = ALWAYS_ACCEPTED) -> State:
    """Read a state dict as float32, without running code from it: weights-only where the format could hold code.

    Accepted are PyTorch files, plain or xz-compressed, and `.safetensors`; a state dict nested under `state_dict`,
    `model_state_dict`, `model` or `net` is found, else one of averaged weights.

    Args:
        path: of the file.
        always: bytes that its tensors may take however small the file is.

    Raises:
        ExportError: no such file, pickled objects, or anything but a dict of tensors.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, always)
    for depth in range(_DEEPEST + 1):
        if not isinstance(state, Mapping):
            break
        nested = next((state[key] for key in _NESTED if isinstance(state.get(key), Mapping)), None)
        if nested is None:
            break
        if depth == _DEEPEST:
            raise ExportError(f"{path}: its state dict is nested more than {_DEEPEST} deep, or contains itself")
        state = nested
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    ):
        raise ExportError(f"{path}: not a state dict of tensors")
    _check_size(state, path, always)
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
    expected = module.state_dict()
    found = _fitting(state, module).get(list(expected)[-1])
    return None if found is None or found.ndim == 0 else int(found.shape[0])


def differing_classes(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> int | None:
    """How many classes a checkpoint has where that number is all that it differs in from a module; else None.

    Every weight that does not fit then has the module's classes as its first size, and the checkpoint's in their place.
    """
    pairs = {(mine.shape, theirs.shape) for _, mine, theirs in _differing(module, state)}
    counts = {(mine[0], theirs[0]) for mine, theirs in pairs if mine and theirs and mine[1:] == theirs[1:]}
    if len(counts) != 1 or any(mine[1:] != theirs[1:] for mine, theirs in pairs):
        return None
    [(mine, theirs)] = counts
    return int(theirs) if mine == class_count(module, module.state_dict()) else None


def with_classes(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The module, its last layers replaced by ones for a checkpoint's classes where those are plain layers.

    Args:
        module: changed in place.
        state: a checkpoint that `differing_classes` knows the number of.
    """
    for key, _, theirs in _differing(module, state):
        path, _, tensor_name = key.rpartition(".")
        layer = module.get_submodule(path)
        if isinstance(layer, torch.nn.Linear):
            layer.out_features = theirs.shape[0]
        elif isinstance(layer, torch.nn.Conv2d) and layer.groups == 1:
            layer.out_channels = theirs.shape[0]
        else:
            continue  # load_state says what does not fit
        setattr(layer, tensor_name, torch.nn.Parameter(torch.empty_like(theirs)))
    return module


def head_note(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """A sentence for the user where a checkpoint's last layer has another place than the module's."""
    renamed = _renamed_head(_without_prefixes(state, module.state_dict()), module)
    if renamed is None:
        return ()
    theirs, mine = renamed
    before = "; what stood before it there has no weights, and is taken for dropout" if theirs.endswith(".1") else ""
    return (f"the checkpoint's last layer is {theirs}: it is taken for {mine}{before}",)


def _differing(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor]
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(key, the module's tensor, the checkpoint's) where the shapes are not the same."""
    expected = module.state_dict()
    found = _fitting(state, module)
    return [
        (key, mine, found[key]) for key, mine in expected.items() if key in found and found[key].shape != mine.shape
    ]


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Give a module the weights of a state dict; `path` is named in errors.

    Raises:
        ExportError: keys or shapes that do not fit.
    """
    fitting = _fitting(state, module)
    _refuse_other_channels(module, fitting, path)
    try:
        missing, unexpected = module.load_state_dict(fitting, strict=False)
    except RuntimeError as error:  # shapes that differ
        details = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ExportError(f"{path}: does not fit {type(module).__name__}: {details}") from None
    missing = [key for key in missing if not key.endswith(_BATCH_COUNTER)]
    problems = [f"{word} {_some(keys)}" for word, keys in (("lacks", missing), ("also has", unexpected)) if keys]
    if problems:
        hint = ""
        if missing and unexpected and _is_other_head(missing, unexpected):
            hint = (
                "; its head has other layers than this model's, and a checkpoint does not say which: name a callable "
                "that builds the model as it was trained"
            )
        raise ExportError(
            f"{path}: does not fit {type(module).__name__}: the checkpoint {' and '.join(problems)}{hint}"
        )


def _refuse_other_channels(module: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a checkpoint whose first convolution takes another number of channels than the module's.

    Raises:
        ExportError: it does.
    """
    for key, mine in module.state_dict().items():
        if mine.ndim != 4:
            continue
        theirs = state.get(key)
        if theirs is not None and theirs.ndim == 4 and theirs.shape[1] != mine.shape[1]:
            same = theirs.shape[0] == mine.shape[0] and theirs.shape[2:] == mine.shape[2:]
            if same:
                raise ExportError(
                    f"{path}: its first convolution {key.removesuffix('.weight')} takes images of {theirs.shape[1]} "
                    f"channel{'s' * (theirs.shape[1] > 1)}, and that of {type(module).__name__} {mine.shape[1]}; name "
                    "a callable that builds the model as it was trained: ortcam export package.module:callable"
                )
        return


def _check_size(state: Mapping[str, torch.Tensor], path: Path, always: int) -> None:
    """Refuse tensors that repeat their elements more often than memory allows, before they are copied."""
    needed = sum(4 * value.numel() for value in state.values())
    allowed = _allowed(path, always)
    if needed > allowed:
        raise ExportError(f"{path}: its tensors would take {needed:.1e} bytes; accepted are {allowed:.1e} for its size")


def _allowed(path: Path, always: int) -> int:
    return max(always, _TIMES * path.stat().st_size)


def _check_regular(path: Path) -> None:
    if not path.exists():
        raise ExportError(f"{path}: no such checkpoint")
    if not path.is_file():
        raise ExportError(f"{path}: no regular file; accepted is a file with a state dict")


@contextlib.contextmanager
def _opened(path: Path, always: int) -> Iterator[IO[bytes]]:
    """The file, unpacked where it is packed.

    Raises:
        ExportError: what it unpacks to is out of all proportion.
    """
    if path.suffix != ".xz":
        check_archive(path, always=always)
        with path.open("rb") as file:
            yield file
        return
    allowed = _allowed(path, always)
    with lzma.open(path) as packed, tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        while part := packed.read(2**20):
            file.write(part)
            if file.tell() > allowed:
                raise ExportError(f"{path}: unpacks to more than {allowed:.1e} bytes, the most accepted for its size")
        file.seek(0)
        yield file


def check_archive(path: Path, *, always: int = ALWAYS_ACCEPTED) -> None:
    """Refuse a ZIP archive, as PyTorch writes them, whose files unpack to far more than it takes.

    Args:
        path: of the file; one that is no archive passes.
        always: bytes that it may unpack to however small it is.

    Raises:
        ExportError: they do.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    allowed = _allowed(path, always)
    if unpacked > allowed:
        raise ExportError(f"{path}: unpacks to {unpacked:.1e} bytes; accepted are {allowed:.1e} for its size")


def _refuse_bytearrays(file: IO[bytes], path: Path) -> None:
    """Refuse pickles that make a bytearray: torch.load makes it as large as they say, and no weights need one."""
    is_archive = file.read(4) == b"PK\x03\x04"  # as torch.load tells
    file.seek(0)
    if is_archive:
        with zipfile.ZipFile(file) as archive:
            pickles = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".pkl")]
            found = any(_holds(archive.open(entry), _BYTEARRAY) for entry in pickles)
    else:
        found = _holds(file, _BYTEARRAY)
    if found:
        raise ExportError(f"{path}: holds a bytearray; accepted is a state dict of tensors")
    file.seek(0)


def _holds(file: IO[bytes], text: bytes) -> bool:
    end = b""
    while part := file.read(2**20):
        if text in end + part:
            return True
        end = (end + part)[-len(text) :]
    return False


def _read_torch(path: Path, always: int) -> Any:
    _check_regular(path)
    try:
        with _opened(path, always) as file:
            _refuse_bytearrays(file, path)
            return torch.load(file, map_location="cpu", weights_only=True)
    except ExportError:
        raise
    except FileNotFoundError:
        raise ExportError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise ExportError(
            f"{path}: not a plain state dict: it holds pickled Python objects (or is not a checkpoint), which could "
            "run code when loaded; save `model.state_dict()` instead"
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged file makes torch raise whatever it comes to
        raise ExportError(f"{path}: cannot be read as a PyTorch checkpoint: {first_line(error)}") from None


def _read_safetensors(path: Path) -> State:
    try:
        # Of the export extra's libraries none brings it; timm and transformers do.
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError:
        raise ExportError(f"{path}: reading it needs the library safetensors (`pip install safetensors`)") from None
    _check_regular(path)
    try:
        state: State = load_file(path)
    except Exception as error:  # noqa: BLE001 - SafetensorError, and what a damaged file comes to
        raise ExportError(f"{path}: cannot be read as safetensors: {first_line(error)}") from None
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


def _fitting(state: Mapping[str, torch.Tensor], module: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """The state under the keys of a module, as far as wrappers and another place of the last layer explain others."""
    plain = _without_prefixes(state, module.state_dict())
    renamed = _renamed_head(plain, module)
    if renamed is None:
        return plain
    theirs, mine = (f"{path}." for path in renamed)
    return {mine + key.removeprefix(theirs) if key.startswith(theirs) else key: plain[key] for key in plain}


def _renamed_head(state: Mapping[str, torch.Tensor], module: torch.nn.Module) -> tuple[str, str] | None:
    """(path in the state, path in the module) of a last layer that training put elsewhere: fc.1 for fc. Else None.

    Known are a layer that became the first or second of a Sequential, before which only dropout is usual, and one that
    took the place of a Sequential of dropout and itself.
    """
    expected = module.state_dict()
    missing = {key for key in expected if key not in state and not key.endswith(_BATCH_COUNTER)}
    others = {key for key in state if key not in expected}
    mine = {key.rpartition(".")[0] for key in missing}
    theirs = {key.rpartition(".")[0] for key in others}
    same = {key.rpartition(".")[2] for key in missing} == {key.rpartition(".")[2] for key in others}
    if len(mine) != 1 or len(theirs) != 1 or not same:
        return None
    [head], [other] = mine, theirs
    if head and other in (f"{head}.0", f"{head}.1"):
        return other, head
    parent = head.rpartition(".")[0]
    holder = module.get_submodule(parent) if parent else None
    if not isinstance(holder, torch.nn.Sequential) or other not in (parent, f"{parent}.0", f"{parent}.1"):
        return None
    beside = [part for part in holder if part is not module.get_submodule(head)]
    return (other, head) if all(isinstance(part, torch.nn.Dropout | torch.nn.Identity) for part in beside) else None


def _is_other_head(missing: Sequence[str], unexpected: Sequence[str]) -> bool:
    heads = {key.rpartition(".")[0] for key in missing}
    return len(heads) == 1 and all(key.startswith(f"{head}.") for head in heads for key in unexpected)


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + rest
