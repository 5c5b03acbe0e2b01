"""What a module computes, as a hash: its weights, its parts, and the source of the code that is nobody's package."""

import hashlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ortcam.model_identity import plain_form

if TYPE_CHECKING:
    from ortcam_export.sources import Model

__all__ = ["identity_of"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def identity_of(model: "Model") -> str | None:
    """The hash of a module, or of what `package.module:callable` returns; None where it cannot be told.

    What counts: all parameters and buffers; the class and the plain attributes of each part; the versions of the
    packages that the parts come from; and the source of every loaded module that is in no package folder, since a part
    may call functions of any of them.

    Args:
        model: a module, or `package.module:callable`, which is imported and called.

    Raises:
        ExportError: there is no such callable, or it fails.
    """
    from ortcam_export.torch_models import returned_by  # noqa: PLC0415 - as it imports this module's users

    found = returned_by(str(model)) if isinstance(model, (str, Path)) else (model,)
    digest = hashlib.sha256()
    for item in found:
        if isinstance(item, torch.jit.ScriptModule):
            return None
        if not isinstance(item, torch.nn.Module):
            plain = plain_form("preprocessing", item)
            if plain is None:
                return None
            digest.update(repr(plain).encode())
            continue
        for part in _parts(item):
            digest.update(part)
    return digest.hexdigest()


def _parts(module: torch.nn.Module) -> Iterator[bytes]:
    libraries = set()
    for name, part in module.named_modules(remove_duplicate=False):
        kind = type(part)
        libraries |= {base.__module__.partition(".")[0] for base in kind.__mro__}
        plain = {key: value for key, value in sorted(vars(part).items()) if _is_plain(value)}
        yield repr((name, kind.__module__, kind.__qualname__, plain)).encode()
        config = getattr(part, "config", None)  # of transformers
        yield repr(config).encode() if hasattr(config, "to_dict") else b""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        yield repr((name, tensor.dtype, tuple(tensor.shape))).encode()
        data = tensor.detach().cpu().contiguous().flatten()
        yield data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
    for library in sorted(libraries):
        try:
            yield f"{library} {importlib.metadata.version(library)}".encode()
        except importlib.metadata.PackageNotFoundError:
            yield library.encode()
    for path in _own_sources():
        yield path.read_bytes()


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


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)
