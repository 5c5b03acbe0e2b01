"""Bundles to serve: the folders that a command line, a configuration or a container names, and their names."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ortcam.bundle import MANIFEST_NAME
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import OptionError
from ortcam.models.opening import SHIPPED
from ortcam.support.ranges import shown

__all__ = ["MOUNTED", "ServedBundle", "bundle_at", "find_bundles", "mounted_bundles", "named_bundles"]

MOUNTED: Final = Path("/mnt/models")  # where KServe puts what STORAGE_URI names
_STORAGE: Final = "STORAGE_URI"
_ENDING: Final = ".ortcam"


@dataclasses.dataclass(frozen=True)
class ServedBundle:
    """A bundle and the name that clients know it by.

    Attributes:
        name: letters, digits, dots, hyphens and underscores.
        path: of the bundle's folder.
    """

    name: str
    path: Path


def find_bundles(places: Sequence[str | os.PathLike[str]]) -> list[ServedBundle]:
    """The bundles of a command line: folders that are bundles, or that hold bundles, or "shapes".

    Each is named after its folder, without `.ortcam`.

    Raises:
        OptionError: a place is no bundle and holds none.
    """
    found = []
    for place in places:
        folder = Path(os.fsdecode(place))
        inner = [] if _is_bundle(folder) else _bundles_in(folder)
        found += [ServedBundle(_name_of(path), path) for path in inner or [bundle_at(place)]]
    return found


def named_bundles(bundles: Sequence[ServedBundle], names: Sequence[str]) -> list[ServedBundle]:
    """Bundles with other names.

    Args:
        bundles: of `find_bundles`.
        names: one for each; none keeps those that they have.

    Raises:
        OptionError: another number of names.
    """
    if not names:
        return list(bundles)
    if len(names) != len(bundles):
        raise OptionError(f"--name: {len(names)} names for {len(bundles)} bundles; accepted is one for each")
    return [ServedBundle(name, bundle.path) for name, bundle in zip(names, bundles, strict=True)]


def mounted_bundles(environment: Mapping[str, str] = os.environ, folder: Path = MOUNTED) -> list[ServedBundle]:
    """The bundles that a container finds: in /mnt/models, where KServe puts them, or where STORAGE_URI says.

    A bundle that fills the folder is named after STORAGE_URI.

    Args:
        environment: of the process.
        folder: where KServe puts them.

    Raises:
        OptionError: there are none.
    """
    uri = environment.get(_STORAGE, "")
    parts = urlsplit(uri)
    name = Path(unquote(parts.path)).name
    if not folder.is_dir() and uri and parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path))
    if not folder.is_dir():
        told = f"{_STORAGE}={uri}, but {folder} is no folder" if uri else f"there is no {folder}, either"
        raise OptionError(f"BUNDLE is missing, and {told}; such as `ortcam serve shapes`")
    if _is_bundle(folder) and name:
        return [ServedBundle(name.removesuffix(_ENDING), folder)]
    return find_bundles([folder])


def bundle_at(place: str | os.PathLike[str]) -> Path:
    """The folder of a bundle: itself, or the shipped one for "shapes".

    Raises:
        OptionError: it is no bundle.
    """
    folder = Path(os.fsdecode(place))
    if _is_bundle(folder):
        return folder
    if str(folder) == SHIPPED:
        return bundle_path()
    reason = "is no bundle and holds none" if folder.is_dir() else "there is no such folder"
    raise OptionError(f"{shown(str(folder))}: {reason}; accepted is what `ortcam export MODEL -o FOLDER` wrote")


def _is_bundle(folder: Path) -> bool:
    try:
        return (folder / MANIFEST_NAME).exists()
    except (OSError, ValueError):
        return False


def _bundles_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_bundle(path))
    except (OSError, ValueError):
        return []


def _name_of(folder: Path) -> str:
    """A link keeps its own name: it is what deployments switch from one version to the next."""
    return Path(os.path.abspath(folder)).name.removesuffix(_ENDING)  # noqa: PTH100 - `resolve` follows links
