"""Places to read from and write to: local paths and the URLs that fsspec knows, with one set of options."""

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ortcam.errors import OptionError
from ortcam.support.extras import missing
from ortcam.support.ranges import shown
from ortcam.support.terminal import one_line

__all__ = [
    "absolute",
    "filesystem",
    "is_in_memory",
    "is_url",
    "joined",
    "local_path",
    "open_file",
    "parsed_options",
    "protocol_of",
    "without_query",
    "without_secrets",
]

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+)(://|::.*://)", re.ASCII | re.IGNORECASE | re.DOTALL)
_LONGEST_SILENCE: Final = 30.0  # seconds
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*", re.ASCII)


def is_url(text: str) -> bool:
    """Tell whether a text is a URL for fsspec rather than a local path. `file://` is a local path.

    Example:
        >>> is_url("s3://bucket/photos"), is_url("photos"), is_url("file:///photos")
        (True, False, False)
    """
    return "://" in text and bool(_SCHEME.match(text)) and not text.lower().startswith(("file://", "local://"))


def is_in_memory(text: str) -> bool:
    """Tell whether a place is in the memory of this process alone: `memory://`, or a chain with it.

    Example:
        >>> is_in_memory("memory://a"), is_in_memory("simplecache::memory://a"), is_in_memory("a")
        (True, True, False)
    """
    return is_url(text) and any(protocol_of(part) == "memory" for part in _chain(text))


def local_path(text: str) -> str:
    """The path of a local place: of a `file://` URL, too; `~` is the user's folder.

    Example:
        >>> local_path("file:///photos/a%20b.jpg"), local_path("photos")
        ('/photos/a b.jpg', 'photos')
    """
    lower = text.lower()
    if lower.startswith(("file://", "local://")):
        parts = urlsplit(text)
        return unquote(text[text.index("://") + 3 :] if parts.netloc in ("", ".", "..") else parts.netloc + parts.path)
    if text.startswith("~") and not os.path.lexists(text):
        return str(Path(text).expanduser())
    return text


def absolute(text: str) -> str:
    """A local path from the root, with slashes and links as they are; a URL as it is. Any process finds it."""
    if is_url(text):
        return text
    path = os.path.abspath(local_path(text))  # noqa: PTH100 - resolve() would follow links
    return path if os.sep == "/" else path.replace(os.sep, "/")


def joined(base: str, relative: str) -> str:
    """The place of a file relative to a folder, local or not.

    Example:
        >>> joined("s3://bucket/photos/", "a/b.jpg"), joined("zip://x::s3://bucket/a.zip", "b.jpg")
        ('s3://bucket/photos/a/b.jpg', 'zip://x/b.jpg::s3://bucket/a.zip')
    """
    if not is_url(base):
        return f"{base}{'' if base.endswith('/') else '/'}{relative}"
    parts = _chain(base)
    first = next((index for index, part in enumerate(parts) if "://" in part), len(parts) - 1)
    head = parts[first]
    parts[first] = head + relative if head.endswith("/") else f"{head}/{relative}"
    return "::".join(parts)


def protocol_of(url: str) -> str:
    """The protocol of a URL, such as `s3`; of a chain the first.

    Example:
        >>> protocol_of("s3://bucket/a.jpg"), protocol_of("simplecache::s3://bucket/a.jpg")
        ('s3', 'simplecache')
    """
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def filesystem(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Open the file system of a place.

    Args:
        url: a local path or a URL.
        storage_options: what fsspec takes for it, such as `endpoint_url` for s3. A key that is a protocol, say "s3",
            has the options of that protocol alone.

    Returns:
        The file system, and the path on it.

    Raises:
        OptionError: a protocol that fsspec does not know, a package that is not installed, or an option that the file
            system does not take. With an OSError as its cause: a host that does not answer now.
    """
    try:
        import fsspec  # noqa: PLC0415 - of an extra
        from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(missing("`ortcam batch`", "batch", error)) from None
    if not is_url(url):
        return LocalFileSystem(), absolute(url)
    protocol = protocol_of(url)
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise OptionError(f"{protocol}:// needs a package that is not installed: {one_line(error)}") from None
    except ValueError:
        accepted = "accepted are local paths and URLs such as s3://, gs://, memory://"
        raise OptionError(f"{shown(without_secrets(url))}: {accepted}") from None
    try:
        if len(_chain(url)) > 1:
            system, path = fsspec.core.url_to_fs(url, **(storage_options or {}))
        else:  # '::' in the name of a file is no chain
            # Host, port and user of the URL; options say otherwise.
            options = {**kind._get_kwargs_from_urls(url), **_for_protocol(protocol, storage_options)}
            system = fsspec.filesystem(protocol, **(_patient(options) if protocol in ("http", "https") else options))
            path = system._strip_protocol(url)
    except ImportError as error:  # of another link of the chain
        raise OptionError(f"{shown(without_secrets(url))} needs a package: {one_line(error)}") from None
    except OSError as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise OptionError(f"{shown(without_secrets(url))} cannot be reached: {why}") from error
    except (TypeError, ValueError) as error:
        raise OptionError(f"{protocol}:// cannot be opened with these storage options: {one_line(error)}") from None
    return system, path


def open_file(url: str, storage_options: Mapping[str, Any] | None = None, **how: Any) -> Any:
    """Open a file to read: binary, and seekable. The caller closes it.

    Args:
        url: a local path or a URL.
        storage_options: as of `filesystem`.
        how: what the file system's own `open` takes.

    Raises:
        OptionError: as `filesystem`.
        OSError: it is missing, cannot be read, or is a pipe or a device, which might never end.
    """
    system, path = filesystem(url, storage_options)
    if not is_url(url):
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return Path(path).open("rb")
    return system.open(path, "rb", **how)


def parsed_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Read storage options as a command line has them.

    Args:
        pairs: `KEY=VALUE`. Dots in a key make nested options. Numbers, true, false and null are read as such; a value
            in double quotes is a text.

    Raises:
        OptionError: a pair that is none, or a key that is given twice.

    Example:
        >>> parsed_options(["anon=true", "client_kwargs.region_name=eu-west-1"])
        {'anon': True, 'client_kwargs': {'region_name': 'eu-west-1'}}
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise OptionError(f"--storage-option {shown(key)}: accepted is KEY=VALUE, such as endpoint_url=URL")
        *above, last = key.split(".")
        here = options
        for name in above:
            here = here.setdefault(name, {})
            if not isinstance(here, dict):
                raise OptionError(f"--storage-option {key}: {name} has a value already")
        if last in here:
            raise OptionError(f"--storage-option {key}: is given twice")
        here[last] = _value(text)
    return options


def without_secrets(url: str) -> str:
    """A URL as messages and records may have it: without a user, a password or a query.

    Example:
        >>> without_secrets("https://me:secret@host/a.jpg?signature=12")
        'https://host/a.jpg'
    """
    if not is_url(url) or len(_chain(url)) > 1:
        return url
    head, _, rest = without_query(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"


def without_query(url: str) -> str:
    """A URL of the web without what follows a question mark; anything else as it is."""
    return url.partition("?")[0] if url.lower().startswith(("http://", "https://")) else url


def _value(text: str) -> Any:
    if text[:1] == '"' or text in ("true", "false", "null") or re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text, re.ASCII):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _chain(url: str) -> list[str]:
    """The links of a chained URL; one link if `::` only belongs to a name."""
    parts = url.split("::")
    is_chain = len(parts) > 1 and ("://" not in parts[0] or all("://" in part for part in parts[1:]))
    return parts if is_chain else [url]


def _for_protocol(protocol: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options for one protocol; of a machine's own memory there are none."""
    import fsspec  # noqa: PLC0415 - of an extra

    if not options or protocol == "memory":
        return {}
    known = {*fsspec.available_protocols(), *fsspec.registry}
    flat = {key: value for key, value in options.items() if not (key in known and isinstance(value, Mapping))}
    own = options.get(protocol)
    return {**flat, **(own if isinstance(own, Mapping) else {})}


def _patient(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a web server that may be silent for so long, however long a file takes."""
    import aiohttp  # noqa: PLC0415 - of fsspec's file system of the web

    waits = aiohttp.ClientTimeout(total=None, sock_connect=_LONGEST_SILENCE, sock_read=_LONGEST_SILENCE)
    return {**options, "client_kwargs": {"timeout": waits, **options.get("client_kwargs", {})}}
