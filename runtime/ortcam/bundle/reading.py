"""Reading a bundle: everything is checked before ONNX Runtime touches anything of it."""

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from ortcam.bundle.contents import Content, check_file, read_file
from ortcam.bundle.folder import Bundle
from ortcam.bundle.graph_contents import GraphReader
from ortcam.bundle.manifest import LARGEST_MANIFEST, MANIFEST_NAME, graph_files
from ortcam.bundle.parsing import parse_manifest
from ortcam.bundle.plausibility import check_graphs, check_manifest, check_weights
from ortcam.errors import BundleError

__all__ = ["open_bundle", "read_bundle"]

_P = ParamSpec("_P")
_Read = TypeVar("_Read")
_TRIES: Final = 10  # more often nobody replaces a bundle while it is read


def _again_if_replaced(read: Callable[_P, _Read]) -> Callable[_P, _Read]:
    """Read a bundle again if another one has taken its place meanwhile: the result is the old or the new one."""

    @functools.wraps(read)
    def again(*args: _P.args, **kwargs: _P.kwargs) -> _Read:
        path = args[0] if args else kwargs.get("path")
        for _ in range(_TRIES):
            before = _stamp(path)
            try:
                return read(*args, **kwargs)
            except BundleError:
                if _stamp(path) == before:
                    raise
        return read(*args, **kwargs)

    return again


def _stamp(path: Any) -> tuple[int, ...] | None:
    """Tell whether the bundle.json in a folder is still the same file."""
    try:
        found = (Path(os.fsdecode(path)) / MANIFEST_NAME).stat()
    except (OSError, ValueError, TypeError, RuntimeError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@_again_if_replaced
def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle: schema, names, sizes, hashes and graphs, before ONNX Runtime touches anything of it.

    Files may be links, as in a cache of models; their content is checked. To deploy a new version, write it into a
    folder of its own, then switch a link or rename the folder. Never write into files that a process may be reading. A
    process that has loaded the old version keeps it.

    Raises:
        BundleError: not a bundle, a newer schema, a missing, truncated or altered file, a name that leaves the folder,
            a manifest beyond its bounds, or a graph that is not what the manifest says or could do harm (SECURITY.md).
    """
    bundle, _ = _read_graphs(_read_manifest(path), ())
    for name, record in bundle.manifest.files.items():
        if name not in bundle.weights:  # the graphs have been checked
            check_file(bundle.path, name, record)
    return bundle


@_again_if_replaced
def open_bundle(path: str | os.PathLike[str], precision: str | None = None) -> tuple[Bundle, dict[str, Content]]:
    """Read a bundle, and hold what the graphs of a precision need. Each file is read once, and kept as it was checked.

    Args:
        path: of the folder.
        precision: "float32", "float16", "int8" or "qnn"; None takes that of the bundle's own graphs.

    Returns:
        The bundle and what `Bundle.hold` gives.

    Raises:
        OptionError: no precision of this name.
        BundleError: as `read_bundle`, or the bundle has no scorers in this precision.
    """
    bundle = _read_manifest(path)
    files, precision = bundle.manifest.files, bundle.check_precision(precision)
    bundle, graphs = _read_graphs(bundle, graph_files(bundle.manifest, precision))
    # Not `content`, which looks at no file whose hash is known: what lies on the disk is to be checked.
    held = {name: graphs.get(name) or read_file(bundle.path, name, files[name]) for name in bundle.files_of(precision)}
    for name, record in files.items():
        if name not in held and name not in bundle.weights:
            check_file(bundle.path, name, record)
    return bundle, held


def _read_manifest(path: str | os.PathLike[str]) -> Bundle:
    """Read bundle.json, before any other file is opened."""
    try:
        folder = Path(os.fsdecode(path))
    except TypeError:
        raise BundleError(f"bundle {path!r}: accepted is the path of a folder") from None
    try:
        resolved = folder.resolve()
        mode = (resolved / MANIFEST_NAME).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would wait for a writer
            raise BundleError(f"{folder / MANIFEST_NAME}: is no regular file")
        with (resolved / MANIFEST_NAME).open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
    except FileNotFoundError:
        what = "it has no bundle.json" if folder.is_dir() else "there is no such folder"
        raise BundleError(f"{folder}: not an ortcam bundle, {what}; `ortcam export` makes one") from None
    except NotADirectoryError:
        raise BundleError(f"{folder}: not an ortcam bundle but a file; a bundle is a folder with bundle.json") from None
    except (OSError, RuntimeError) as error:  # of links in a circle the latter, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"{folder / MANIFEST_NAME}: cannot be read: {reason}") from None
    except ValueError as error:  # a null character
        raise BundleError(f"bundle {str(folder)!r}: cannot be read: {error}") from None
    if len(text) > LARGEST_MANIFEST:
        raise BundleError(f"{folder / MANIFEST_NAME}: longer than {LARGEST_MANIFEST} bytes, the most that are accepted")
    schema, manifest = parse_manifest(text, folder)
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None
    return Bundle(resolved, manifest, schema, hashlib.sha256(text).hexdigest(), {})


def _read_graphs(bundle: Bundle, keep: Collection[str]) -> tuple[Bundle, dict[str, Content]]:
    """Check all graphs of a bundle before anything else reads them.

    Args:
        bundle: whose manifest has been read.
        keep: names of the graphs whose bytes are needed.

    Returns:
        The bundle, with the weights that each graph names, and the bytes of the graphs in `keep`.

    Raises:
        BundleError: a graph is missing, altered, not what the manifest says, or could do harm; see `GraphReader`.
    """
    manifest, kept, contents = bundle.manifest, {}, {}
    reader = GraphReader({name: record.size for name, record in manifest.files.items()})
    for name in graph_files(manifest, *manifest.variants, manifest.precision):
        content = read_file(bundle.path, name, manifest.files[name])
        contents[name] = reader.read(content.data, bundle.path / name)
        if name in keep:
            kept[name] = content
    try:
        check_graphs(manifest, contents)
        check_weights(manifest, contents)
    except BundleError as error:
        raise BundleError(f"{bundle.path}: its graphs do not fit its bundle.json: {error}") from None
    return dataclasses.replace(bundle, weights={name: found.files for name, found in contents.items()}), kept
