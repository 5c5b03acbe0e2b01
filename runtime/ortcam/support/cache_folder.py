"""The folder of what ortcam keeps for later processes: batch sizes that it found, bundles that it exported."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["VARIABLE", "batch_sizes_file", "bundles_folder"]

# Names the folder, or is "off". A path that ends in .json, or that is a file, names the file of batch sizes; the rest
# is kept beside it.
VARIABLE: Final = "ORTCAM_CACHE"
_BATCH_SIZES: Final = "batch-sizes.json"


def batch_sizes_file() -> Path | None:
    """The file of batch sizes; None where nothing is kept."""
    named = _named()
    if named is not None and _is_file(named):
        return named
    folder = _folder()
    return None if folder is None else folder / _BATCH_SIZES


def bundles_folder() -> Path | None:
    """The folder of exported bundles; None where nothing is kept."""
    folder = _folder()
    return None if folder is None else folder / "bundles"


def _folder() -> Path | None:
    value = os.environ.get(VARIABLE)
    if value is not None:
        named = _named()
        return None if named is None else named.parent if _is_file(named) else named
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # no home folder
        folder = Path(base) if base else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        return folder / "ortcam"
    return None


def _named() -> Path | None:
    value = os.environ.get(VARIABLE)
    return None if value in (None, "", "off") else Path(value or "")


def _is_file(path: Path) -> bool:
    return path.suffix == ".json" or (path.exists() and not path.is_dir())
