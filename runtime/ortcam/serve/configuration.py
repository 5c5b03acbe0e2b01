"""Where settings come from besides flags: a TOML file, and a token of a file or of the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ortcam.errors import OptionError
from ortcam.models.opening import SHIPPED
from ortcam.serve.models.found import ServedBundle, bundle_at
from ortcam.support.ranges import shown

__all__ = ["TOKEN_VARIABLE", "read_config", "read_token"]

TOKEN_VARIABLE: Final = "ORTCAM_TOKEN"  # noqa: S105 - a name, not a token


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration: settings of `Settings`, a table `bundles` of name = path, a table `limits`, `token_file`.

    Paths in it are relative to its folder.

    Args:
        path: of a TOML file.

    Returns:
        What it says, for `Settings.of`; `bundles` as a tuple of `ServedBundle`, `token` for `token_file`.

    Raises:
        OptionError: it cannot be read, or is no TOML, or a table is none.
    """
    place = Path(path)
    try:
        given = tomllib.loads(place.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--config {place}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"--config {place}: no TOML: {error}") from None
    for name in ("bundles", "limits"):
        if not isinstance(given.get(name, {}), dict):
            raise OptionError(f"--config {place}: {name}: accepted is a table, such as [{name}]")
    bundles = {}
    for name, bundle in given.pop("bundles", {}).items():
        if not isinstance(bundle, str) or not bundle:
            raise OptionError(f"--config {place}: bundles.{name}={shown(bundle)}: accepted is the path of a bundle")
        bundles[name] = bundle
    for name in ("token_file", "log_file"):
        if isinstance(given.get(name), str):
            given[name] = str(place.parent / given[name])
    if "token" in given:
        raise OptionError(f"--config {place}: token: accepted is token_file, the path of a file that holds it")
    if (token_file := given.pop("token_file", None)) is not None:
        if not isinstance(token_file, str):
            raise OptionError(f"--config {place}: token_file={shown(token_file)}: accepted is the path of a file")
        given["token"] = read_token(token_file)
    if bundles:
        given["bundles"] = tuple(
            ServedBundle(name, bundle_at(bundle if bundle == SHIPPED else place.parent / bundle))
            for name, bundle in bundles.items()
        )
    return given


def read_token(path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token that requests need: from a file, or else from ORTCAM_TOKEN; None where there is neither.

    Args:
        path: of a file with the token in its first line.
        environment: of the process.

    Raises:
        OptionError: the file cannot be read, or holds none.
    """
    if path is None:
        return environment.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"token file {path}: cannot be read: {getattr(error, 'strerror', None) or 'no text'}"
        ) from None
    if not token:
        raise OptionError(f"token file {path}: is empty; accepted is a file that holds the token")
    return token
