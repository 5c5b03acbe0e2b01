"""The server of the page that explains in the browser: the built page and bundles, on this machine alone.

It knows every address that it answers before it starts, so no request can name another file. It answers only requests
whose `Host` is this machine: a site elsewhere that makes its name point here (DNS rebinding) is refused.
"""

import dataclasses
import errno
import gzip
import hashlib
import http
import http.server
import io
import json
import os
import shutil
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from ortcam._version import __version__
from ortcam.bundle import MANIFEST_NAME, Bundle
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.errors import BundleError, OptionError
from ortcam.support.terminal import complain

__all__ = ["PageServer", "Resource", "Site", "page_folder", "site_of"]

ADDRESS: Final = "127.0.0.1"
_HOSTS: Final = ("127.0.0.1", "localhost")
_INDEX: Final = "index.html"
_HEADERS: Final = "_headers"
_SITE: Final = "site.json"
_SAMPLES: Final = "samples/"
# What the build names after its content, so that it never changes.
_HASHED: Final = "assets/"
_COMPRESSED: Final = ".gz"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_PATIENCE: Final = 60.0  # seconds for which a connection may say nothing


@dataclasses.dataclass(frozen=True)
class Resource:
    """What the server answers at one address.

    Attributes:
        content: a file, or the bytes themselves.
        media_type: for the header `Content-Type`.
        compressed: whether the file is compressed by gzip and its reader is to see what is inside.
        lasting: whether the content never changes, so that a browser need not ask again.
    """

    content: Path | bytes
    media_type: str
    compressed: bool = False
    lasting: bool = False

    def open(self) -> tuple[BinaryIO, int, str]:
        """The content to read, its size in bytes, and a tag that changes with it.

        Raises:
            OSError: the file is gone.
        """
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content), len(self.content), hashlib.sha256(self.content).hexdigest()
        file = self.content.open("rb")
        found = os.fstat(file.fileno())
        return file, found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}"


@dataclasses.dataclass(frozen=True)
class Site:
    """All that the server answers.

    Attributes:
        resources: path of an address, without the first slash -> what is there.
        headers: sent with every answer.
    """

    resources: Mapping[str, Resource]
    headers: Mapping[str, str]


def page_folder() -> Path:
    """The built page, which comes with ortcam.

    Raises:
        BundleError: this installation lacks it.
    """
    folder = Path(__file__).parent / "page"
    if not (folder / _INDEX).is_file():
        raise BundleError(f"the page is not in this installation ({folder}); in a checkout, `make page` builds it")
    return folder


def site_of(bundles: Sequence[tuple[str, Bundle]]) -> Site:
    """The page with bundles for it to offer, the first one at once.

    Args:
        bundles: each with the name that the page shows.

    Raises:
        BundleError: this installation lacks the page.
    """
    folder = page_folder()
    resources = {_address(path, folder): _of_the_page(path, folder) for path in sorted(folder.rglob("*"))}
    resources = {address: resource for address, resource in resources.items() if resource is not None}
    photographs = [address for address in resources if address.startswith(_SAMPLES) and address.endswith(".jpg")]
    drawings = {f"{_SAMPLES}shapes/{path.name}": path for path in sample_images()}
    offered = []
    for number, (name, bundle) in enumerate(bundles):
        address = f"bundles/{number}/{bundle.path.name}"
        for file in (MANIFEST_NAME, *bundle.manifest.files):
            resources[f"{address}/{file}"] = Resource(bundle.path / file, _type(file, "application/octet-stream"))
        samples = photographs
        if bundle.path == bundle_path().resolve():
            samples = list(drawings)
            resources |= {place: Resource(path, _type(path.name)) for place, path in drawings.items()}
        offered.append({"name": name, "address": f"{urllib.parse.quote(address)}/", "samples": samples})
    index = {"ortcam": __version__, "bundles": offered}
    resources[_SITE] = Resource(json.dumps(index).encode(), _type(_SITE))
    resources[""] = resources[_INDEX]
    return Site({place: found for place, found in resources.items() if found is not None}, _headers(folder))


def _address(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().removesuffix(_COMPRESSED)


def _of_the_page(path: Path, folder: Path) -> Resource | None:
    """A file of the page; None for what is none, or not for readers of the page."""
    address = _address(path, folder)
    if not path.is_file() or path.suffix == ".md" or address in (_HEADERS, _SITE):
        return None
    lasting = address.startswith(_HASHED)
    return Resource(path, _type(address), compressed=path.suffix == _COMPRESSED, lasting=lasting)


def _type(name: str, otherwise: str = "application/octet-stream") -> str:
    return _TYPES.get(Path(name).suffix, otherwise)


def _headers(folder: Path) -> dict[str, str]:
    """The headers that the build says the page needs: a line each, below a line with the addresses."""
    lines = (folder / _HEADERS).read_text("utf-8").splitlines()
    pairs = (line.strip().partition(": ") for line in lines if line.startswith(" "))
    return {name: value for name, _, value in pairs}


class PageServer(http.server.ThreadingHTTPServer):
    """Serves a site on 127.0.0.1 until it is told to stop.

    Example:
        >>> from ortcam.bundle import read_bundle
        >>> from ortcam.bundle.shipped import bundle_path
        >>> with PageServer(site_of([("shapes", read_bundle(bundle_path()))])) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """

    daemon_threads = True
    # On Windows the option would let two servers have one port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, site: Site, port: int = 0) -> None:
        """Take the port, so that requests wait until they are served.

        Args:
            site: what is answered.
            port: 0 takes one that is free.

        Raises:
            OptionError: the port is in use, or not for this user.
        """
        self.site = site
        try:
            super().__init__((ADDRESS, port), _Answers)
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else f"refused ({error.strerror})"
            raise OptionError(f"port={port} is {why}: accepted is another port, or 0 for any free one") from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's names
        """Say in one line what went wrong with a request; a reader that left is nothing wrong."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            complain(f"a request from {client_address[0]} failed: {error}")


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = f"ortcam/{__version__}"
    sys_version = ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Answer with content."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Print no line per request."""

    def _answer(self, *, with_body: bool) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in _HOSTS:
            self._refuse(http.HTTPStatus.MISDIRECTED_REQUEST, f"Accepted is a Host of {' or '.join(_HOSTS)}.")
            return
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).removeprefix("/")
        resource = self.server.site.resources.get(path)
        if resource is None:
            self._refuse(http.HTTPStatus.NOT_FOUND, "Nothing is here.")
            return
        try:
            file, size, tag = resource.open()
        except OSError:
            self._refuse(http.HTTPStatus.NOT_FOUND, "The file is gone.")
            return
        with file:
            self._send(resource, file, size, tag, with_body=with_body)

    def _send(self, resource: Resource, file: BinaryIO, size: int, tag: str, *, with_body: bool) -> None:
        encoded = resource.compressed and "gzip" in self.headers.get("Accept-Encoding", "")
        if resource.compressed and not encoded:
            file = io.BytesIO(gzip.decompress(file.read()))
            size = file.getbuffer().nbytes
        unchanged = self.headers.get("If-None-Match") == f'"{tag}"'
        self.send_response(http.HTTPStatus.NOT_MODIFIED if unchanged else http.HTTPStatus.OK)
        self._send_headers("public, max-age=31536000, immutable" if resource.lasting else "no-cache")
        self.send_header("ETag", f'"{tag}"')
        if not unchanged:
            self.send_header("Content-Type", resource.media_type)
            self.send_header("Content-Length", str(size))
        if resource.compressed:
            self.send_header("Vary", "Accept-Encoding")
        if encoded and not unchanged:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body and not unchanged:
            shutil.copyfileobj(file, self.wfile)

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        content = f"{message}\n".encode()
        self.send_response(status)
        self._send_headers("no-store")
        self.send_header("Content-Type", _TYPES[".txt"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_headers(self, caching: str) -> None:
        for name, value in self.server.site.headers.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", caching)
