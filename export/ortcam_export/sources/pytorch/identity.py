"""What a module computes, as a hash: its weights, its parts, and the source of the code that is nobody's package."""

import functools
import hashlib
import importlib.metadata
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.fx

from ortcam.models.identity import plain_form
from ortcam_export.sources.pytorch.callables import returned_by

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = ["identity_of"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def identity_of(model: "Model") -> str | None:
    """The hash of a module, or of what `package.module:callable` returns; None where it cannot be told.

    What counts: each part with all that it holds (parameters, buffers, other tensors and arrays, settings, functions);
    the versions of the packages that the parts come from; and the source of every loaded module that is in no package
    folder, since a part may call functions of any of them.

    Args:
        model: a module, or `package.module:callable`, which is imported and called.

    Raises:
        ExportError: there is no such callable, or it fails.
    """
    found = returned_by(str(model)) if isinstance(model, (str, Path)) else (model,)
    digest = hashlib.sha256()
    for item in found:
        if not isinstance(item, torch.nn.Module):
            plain = plain_form("preprocessing", item)
            if plain is None:
                return None
            digest.update(repr(plain).encode())
            continue
        if any(isinstance(part, torch.jit.ScriptModule) for part in item.modules()):
            return None
        try:
            for part in _parts(item):
                digest.update(len(part).to_bytes(8, "little") + part)
        except Exception:  # noqa: BLE001 - of objects that let nobody look into them, of tensors without values
            return None
    return digest.hexdigest()


def _parts(module: torch.nn.Module) -> Iterator[bytes]:
    yield from _content(module)
    kinds = {base for part in module.modules() for base in type(part).__mro__}
    for library in sorted({kind.__module__.partition(".")[0] for kind in kinds}):
        try:
            yield f"{library} {importlib.metadata.version(library)}".encode()
        except importlib.metadata.PackageNotFoundError:
            yield library.encode()
    for path in _own_sources():
        yield path.read_bytes()


def _content(value: Any) -> Iterator[bytes]:
    """What a value is made of, down to numbers and texts; each thing once, without the addresses of any."""
    met: dict[int, tuple[int, Any]] = {}  # kept, so that no other gets its place in memory
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, _PLAIN):
            yield repr((type(item).__qualname__, item)).encode()
            continue
        if id(item) in met:
            yield f"again {met[id(item)][0]}".encode()
            continue
        met[id(item)] = len(met), item
        own, below = _taken_apart(item)
        yield f"{type(item).__module__}.{type(item).__qualname__} {len(below)}".encode()
        yield own
        left += reversed(below)


def _taken_apart(item: Any) -> tuple[bytes, list[Any]]:
    """The content of one thing itself, and the things in it."""
    if isinstance(item, torch.Tensor):
        data = item.detach().cpu().contiguous().flatten()
        return data.view(torch.uint8).numpy().tobytes() if data.numel() else b"", [str(item.dtype), *item.shape]
    if isinstance(item, (np.ndarray, np.generic)):
        values = np.asarray(item)
        below = [values.dtype.str, *values.shape]
        return (b"", [*below, *values.flat]) if values.dtype.hasobject else (values.tobytes(), below)
    if isinstance(item, (types.CodeType, types.FunctionType, types.MethodType, functools.partial)):
        return b"", _parts_of_code(item)
    if isinstance(item, torch.fx.Graph):
        return str(item).encode(), []
    if isinstance(item, (type, types.BuiltinFunctionType, types.ModuleType)):
        return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', item.__name__)}".encode(), []
    if isinstance(item, (torch.dtype, torch.device, torch.memory_format, torch.layout, PurePath, range, slice)):
        return repr(item).encode(), []
    inside: list[Any] = []
    if isinstance(item, Mapping):
        inside = [part for pair in item.items() for part in pair]
    elif isinstance(item, (set, frozenset)):
        inside = sorted(item, key=repr)
    elif isinstance(item, (list, tuple, deque)):
        inside = list(item)
    slots = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(item, name)]
    return b"", [
        *inside,
        *(getattr(item, name) for name in slots),
        *(vars(item) if hasattr(item, "__dict__") else {}).items(),
    ]


def _parts_of_code(item: Any) -> list[Any]:
    if isinstance(item, types.CodeType):
        return [item.co_code, item.co_names, item.co_consts]
    if isinstance(item, types.MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, functools.partial):
        return [item.func, item.args, item.keywords]
    cells = [cell.cell_contents for cell in item.__closure__ or () if cell != types.CellType()]
    return [item.__module__, item.__qualname__, item.__code__, item.__defaults__, item.__kwdefaults__, *cells]


def _own_sources() -> list[Path]:
    """The files of all loaded modules that are neither Python's nor in a folder of packages."""
    packages = {Path(folder).resolve() for folder in sysconfig.get_paths().values()}
    found = set()
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] in ("ortcam", "ortcam_export"):  # their versions and sources count elsewhere
            continue
        file = getattr(loaded, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or "site-packages" in file:
            continue
        path = Path(file).resolve()
        if not any(path.is_relative_to(folder) for folder in packages) and path.is_file():
            found.add(path)
    return sorted(found)
