"""An S3 server on this machine, by moto, and what a process needs to find it."""

import contextlib
import os
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

s3fs = pytest.importorskip("s3fs")  # tests that import this module are skipped without it
moto_server = pytest.importorskip("moto.server")

__all__ = ["ObjectStore", "object_store"]

_KEY, _SECRET = "somebody", "something"


@dataclass(frozen=True)
class ObjectStore:
    """A server with one bucket, `archive`.

    Attributes:
        url: of the server.
        files: of the bucket, as s3fs sees them.
    """

    url: str
    files: Any

    def environment(self) -> dict[str, str]:
        """The variables of a process that shall use it, those of this process included."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        given = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET, "AWS_ENDPOINT_URL": self.url}
        return {**others, **given, "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def object_store(images: Mapping[str, Path]) -> Iterator[ObjectStore]:
    """Serve a bucket `archive` with images below `photographs/`.

    Args:
        images: files by their name there.
    """
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        files = s3fs.S3FileSystem(key=_KEY, secret=_SECRET, endpoint_url=url, skip_instance_cache=True)
        # The state of moto is that of this process, whatever the port.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        files.mkdir("archive")
        for name, path in images.items():
            files.pipe_file(f"archive/photographs/{name}", path.read_bytes())
        yield ObjectStore(url, files)
    finally:
        server.stop()
