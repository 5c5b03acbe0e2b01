"""Fetching: again after what may pass, never for long after what will not, and within a bound of bytes."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ortcam.batch.items import FilePlace, MemberPlace, NoPlace
from ortcam.batch.sources.fetching import Fetcher
from ortcam.bundle.shipped import sample_images
from ortcam.errors import ImageError
from ortcam.images import encoded


class Shaky(MemoryFileSystem):
    """A store that fails as often as it is told to."""

    protocol = "shaky"
    store: dict[str, Any] = {}  # noqa: RUF012
    failures: list[BaseException] = []  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.asked.append(path)
        if self.failures:
            raise self.failures.pop(0)
        return super().cat_file(path, start, end, **options)


@pytest.fixture(autouse=True)
def _a_shaky_store() -> None:
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    Shaky.failures.clear()
    Shaky.asked.clear()
    Shaky().pipe_file("/b/a.jpg", b"image")


def test_a_failure_that_passes_is_tried_again_after_longer_and_longer() -> None:
    waited: list[float] = []
    Shaky.failures += [OSError("503 Slow Down"), TimeoutError(), ConnectionResetError("reset")]
    assert Fetcher(wait=waited.append).fetch(FilePlace("shaky://b/a.jpg")) == b"image"
    assert len(waited) == 3
    assert waited[0] < waited[1] < waited[2]  # each doubles, and chance changes it by a quarter at most


def test_a_failure_that_stays_is_an_error_of_the_image() -> None:
    Shaky.failures += [OSError("503 Slow\nDown")] * 4
    with pytest.raises(ImageError, match=r"image 'shaky://b/a.jpg' cannot be fetched: 503 Slow Down \(4 attempts\)"):
        Fetcher(wait=lambda _: None).fetch(FilePlace("shaky://b/a.jpg"))
    assert len(Shaky.asked) == 4
    Shaky.failures += [OSError("503")]
    with pytest.raises(ImageError, match=r"503$"):
        Fetcher(attempts=1, wait=lambda _: None).fetch(FilePlace("shaky://b/a.jpg"))


LASTING = {
    "it does not exist": FileNotFoundError(),
    "access is denied": PermissionError("403 forbidden"),
    "Is a directory": IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)),
}


@pytest.mark.parametrize("why", LASTING)
def test_a_failure_that_no_attempt_changes_is_not_repeated(why: str) -> None:
    Shaky.failures += [LASTING[why]]
    with pytest.raises(ImageError, match=f"cannot be fetched: {why}$"):
        Fetcher(wait=lambda _: pytest.fail("it waits")).fetch(FilePlace("shaky://b/a.jpg"))
    assert len(Shaky.asked) == 1


def test_no_more_is_fetched_than_an_image_may_have() -> None:
    Shaky().pipe_file("/b/long.jpg", bytes(31_000_000))
    with pytest.raises(ImageError, match=r"'shaky://b/long.jpg' has 30000007 bytes or more"):
        Fetcher(max_pixels=1).fetch(FilePlace("shaky://b/long.jpg"))
    Shaky().pipe_file("/b/shard.tar", bytes(100))
    with pytest.raises(ImageError, match="has 31000000 bytes or more"):
        Fetcher(max_pixels=1).fetch(MemberPlace("shaky://b/shard.tar", 10, 31_000_000))
    assert "shaky://b/shard.tar" not in Shaky.asked
    assert Fetcher().fetch(MemberPlace("shaky://b/shard.tar", 10, 20)) == bytes(20)
    with pytest.raises(ImageError, match="the archive ends 10 bytes too early"):
        Fetcher().fetch(MemberPlace("shaky://b/shard.tar", 90, 20))


def test_an_empty_file_is_empty_although_its_store_knows_no_range_of_it() -> None:
    Shaky().pipe_file("/b/empty.jpg", b"")
    Shaky.failures += [OSError("416 InvalidRange")]
    assert Fetcher(wait=lambda _: pytest.fail("it waits")).fetch(FilePlace("shaky://b/empty.jpg")) == b""


def test_secrets_of_an_address_are_in_no_message() -> None:
    with pytest.raises(ImageError, match=r"image 'nonsense://host/a.jpg' cannot be fetched") as caught:
        Fetcher().fetch(FilePlace("nonsense://me:secret@host/a.jpg"))
    assert "secret" not in str(caught.value)


def test_local_files_are_read_as_explain_reads_them(tmp_path: Path) -> None:
    image = sample_images()[0]
    assert Fetcher().fetch(FilePlace(str(image))) == image.read_bytes()
    with pytest.raises(ImageError, match="is a folder"):
        Fetcher().fetch(FilePlace(str(tmp_path)))
    with pytest.raises(ImageError, match="does not exist"):
        Fetcher().fetch(FilePlace(str(tmp_path / "gone.jpg")))
    with pytest.raises(ImageError, match="ends too early"):
        Fetcher().fetch(NoPlace("the shard ends too early"))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders on Windows")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is a pipe"):
        Fetcher().fetch(FilePlace(str(tmp_path / "a.jpg")))


def test_a_disk_that_fails_for_a_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    image = sample_images()[0]
    failures = [OSError(errno.ESTALE, os.strerror(errno.ESTALE)), OSError(errno.EIO, os.strerror(errno.EIO))]
    fstat = os.fstat

    def failing(descriptor: int) -> os.stat_result:
        if failures:
            raise failures.pop(0)
        return fstat(descriptor)

    monkeypatch.setattr(encoded.os, "fstat", failing)
    waited: list[float] = []
    assert Fetcher(wait=waited.append).fetch(FilePlace(str(image))) == image.read_bytes()
    assert len(waited) == 2
