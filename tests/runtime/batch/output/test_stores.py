"""Where an output lies: file systems that rename, and disks that are full."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.common.batches import same
from tests.runtime.batch.output.test_parts import RECORD, part, rows_of

from ortcam.batch.output.parts import RECORD_NAME, Output
from ortcam.errors import OutputError


class Renaming(MemoryFileSystem):
    """A file system that renames, as SFTP's does, and writes a file bit by bit."""

    protocol = "renaming"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    written: ClassVar[list[str]] = []
    broken = False

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        type(self).written.append(path)
        super().pipe_file(path, value[: len(value) // 2], **options)
        if type(self).broken:
            raise ConnectionError("the line is dead")
        super().pipe_file(path, value, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        self.store[self._strip_protocol(path2)] = self.store.pop(self._strip_protocol(path1))


@pytest.fixture
def renaming() -> Iterator[type[Renaming]]:
    fsspec.register_implementation("renaming", Renaming, clobber=True)
    yield Renaming
    Renaming.store.clear()
    Renaming.written.clear()
    Renaming.broken = False


def test_where_files_are_renamed_they_are_written_beside_their_place(renaming: type[Renaming]) -> None:
    output = Output("renaming://out")
    output.begin(RECORD, resume=False)
    name = output.write_part(part(rows_of("a", error="x")))
    assert all(path.rpartition("/")[2].startswith(".ortcam-") for path in renaming.written)
    renaming.broken = True
    with pytest.raises(OutputError, match="renaming://out: cannot write: the line is dead"):
        output.write_part(part(rows_of("b", 1)))
    with pytest.raises(OutputError, match="the line is dead"):
        output.replace_part(name, part(rows_of("a", 1)))
    assert {path.rpartition("/")[2] for path in renaming.store} == {name, RECORD_NAME}
    assert same(output.read_part(name), part(rows_of("a", error="x")))
    renaming.broken = False
    output.replace_part(name, part(rows_of("a", 1)))
    assert same(output.read_part(name), part(rows_of("a", 1)))


WRITE_UNTIL_FULL = """
import resource, signal, sys
from ortcam.batch.output.parts import Output
from ortcam.errors import OutputError
from tests.runtime.batch.output.test_parts import RECORD, part, rows_of
output = Output(sys.argv[1])
output.begin(RECORD, resume=False)
output.write_part(part(rows_of("a", 1)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    output.write_part(part(*(rows_of(str(k), k / 7) for k in range(1000))))
except OutputError as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_is_one_sentence_and_leaves_the_other_parts(tmp_path: Path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, "-c", WRITE_UNTIL_FULL, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{place}: cannot write: {os.strerror(errno.EFBIG)}\n"
    (name,) = Output(place).parts()
    assert {path.name for path in place.iterdir()} == {name, RECORD_NAME, "_lock"}
