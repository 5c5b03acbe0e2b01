"""Manifests, shards and images that a plain web server has, with a signature in their addresses and without."""

import functools
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.sources.opening import open_source
from ortcam.bundle.shipped import sample_images
from ortcam.errors import DatasetError, ImageError

pytestmark = pytest.mark.long

IMAGE = sample_images()[0].read_bytes()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, whole ones alone."""

    def do_GET(self) -> None:
        """Serve a file, or nothing for as long as the client waits."""
        if self.path == "/silent.png":
            self.connection.recv(1)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("web")
    write(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def write(folder: Path) -> None:
    (folder / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "photos" / name).write_bytes(IMAGE)
    (folder / "list.csv").write_text("path,id\nphotos/a.png,x\nphotos/gone.png,y\n")
    pq.write_table(pa.table({"path": ["photos/a.png"]}), folder / "m.parquet")
    with tarfile.open(folder / "s-0.tar", "w") as archive:
        for name in ("1.png", "2.png"):
            info = tarfile.TarInfo(name)
            info.size = len(IMAGE)
            archive.addfile(info, io.BytesIO(IMAGE))


def test_lists_folders_and_images_are_read(server: str) -> None:
    fetcher = Fetcher(wait=lambda _: pytest.fail("it waits"))
    for address, ids in {
        "photos/": ["a.png", "b.png"],
        "photos/b.png": ["b.png"],
        "photos/b.png?signature=/secret": ["b.png"],
        "m.parquet?signature=/secret": ["photos/a.png"],
        "photos/{a,b}.png": ["a.png", "b.png"],
    }.items():
        source = open_source(f"{server}/{address}")
        found = list(source.items())
        assert [item.id for item in found] == ids
        assert [fetcher.fetch(item.place) for item in found] == [IMAGE] * len(ids)
        assert "secret" not in f"{source.name}{source.record}"
    there, gone = open_source(f"{server}/list.csv").items()
    assert (there.id, fetcher.fetch(there.place)) == ("x", IMAGE)
    with pytest.raises(ImageError, match=r"gone.png' cannot be fetched: it does not exist"):
        fetcher.fetch(gone.place)
    with pytest.raises(DatasetError, match="does not exist"):
        open_source(f"{server}/gone.csv")


def test_a_server_that_is_silent_is_not_waited_for_forever(server: str) -> None:
    patience = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_read=0.2)}}
    (item,) = open_source(f"{server}/silent.png").items()
    with pytest.raises(ImageError, match=r"silent.png' cannot be fetched: .*\(2 attempts\)"):
        Fetcher(patience, attempts=2, wait=lambda _: None).fetch(item.place)


def test_a_server_without_ranges_gives_no_member_rather_than_a_wrong_one(server: str) -> None:
    found = list(open_source(f"{server}/s-{{0..0}}.tar").items())
    assert [item.id for item in found] == ["s-0.tar/1.png", "s-0.tar/2.png"]
    with pytest.raises(ImageError, match="the server gives no part of a file"):
        Fetcher().fetch(found[1].place)
