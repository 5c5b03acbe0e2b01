"""The server of the page that explains in the browser: the built page and bundles, on this machine alone.

It knows every address that it answers before it starts, so no request can name another file. It answers only requests
whose `Host` is this machine: a site elsewhere that makes its name point here (DNS rebinding) is refused.
"""

import errno
import gzip
import http
import http.server
import io
import os
import shutil
import sys
import urllib.parse
from typing import Any, BinaryIO, Final

from ortcam._version import __version__
from ortcam.errors import OptionError
from ortcam.support.terminal import complain
from ortcam.web.site import PLAIN_TEXT, Resource, Site

__all__ = ["PageServer"]

ADDRESS: Final = "127.0.0.1"
_HOSTS: Final = ("127.0.0.1", "localhost")
_PATIENCE: Final = 60.0  # seconds for which a connection may say nothing


class PageServer(http.server.ThreadingHTTPServer):
    """Serves a site on 127.0.0.1 until it is told to stop.

    Example:
        >>> from ortcam.bundle import read_bundle
        >>> from ortcam.bundle.shipped import bundle_path
        >>> from ortcam.web.site import site_of
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
        self._send_headers(resource.caching)
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
        self.send_header("Content-Type", PLAIN_TEXT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_headers(self, caching: str) -> None:
        for name, value in self.server.site.headers.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", caching)
