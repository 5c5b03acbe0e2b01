"""Every bomb is refused in one sentence or read, within its budget of memory and CPU, in a process of its own."""

import dataclasses
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.hostile.arrays import ARRAYS
from tests.hostile.images import BOMBS, LIMIT, MB, Bomb, write
from tests.hostile.measuring import Measured, Measuring

from ortcam.bundle.shipped import bundle_path
from ortcam.errors import ImageError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.reading import read_image

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="measures forked processes")

# A lack of memory is no refusal: the net of the measuring process, or the machine, has run out.
_NO_MEMORY = re.compile(
    "insufficient memory|fit into memory|bad_alloc|failed to allocate|unable to allocate|out of memory", re.IGNORECASE
)


@pytest.fixture(scope="module")
def measuring() -> Iterator[Measuring]:
    with Measuring() as measured:
        yield measured


def check(bomb: Bomb, size: int, measured: Measured) -> None:
    """What came of a bomb whose file has `size` bytes on the disk."""
    assert not measured.printed
    if measured.error:
        assert measured.error == "ImageError", measured
        check_sentence(measured.message)
        assert bomb.refused is not None, f"to be read, but: {measured.message}"
        assert re.search(bomb.refused, measured.message)
    else:
        assert bomb.shape is not None, "has to be refused"
        assert tuple(measured.result) == bomb.shape
        if bomb.warns is None:
            assert not measured.warned
        elif bomb.warns:
            assert any(re.search(bomb.warns, warning) for warning in measured.warned)
        for warning in measured.warned:
            check_sentence(warning)
    assert measured.memory <= bomb.memory_budget(size), f"{measured.memory / MB:.1f} MB: {measured}"
    assert measured.cpu <= bomb.cpu_budget(), f"{measured.cpu:.2f} s of CPU: {measured}"


def check_sentence(message: str) -> None:
    assert message
    assert message.isprintable()  # so it is one line, too
    assert len(message) < 1000
    assert not _NO_MEMORY.search(message)


def measure(bomb: Bomb, measuring: Measuring, folder: Path) -> tuple[int, Measured]:
    """Write, read and remove a bomb: the bytes that it takes on the disk, and what came of it."""
    options = {"max_pixels": bomb.limit} | ({"strict": True} if bomb.strict else {})
    options |= {"bands": bomb.bands} if bomb.bands else {}
    if bomb.given:
        first = ("tests.hostile.images:made", bomb.name)
        return 0, measuring("tests.hostile.measuring:read", options, first=first)
    path = write(bomb, folder)
    size = path.stat().st_size - bomb.tail
    try:
        return size, measuring("tests.hostile.measuring:read", str(path), options)
    finally:
        path.unlink()


@pytest.mark.sample(every=120)
@pytest.mark.parametrize(
    "bomb", [pytest.param(bomb, id=bomb.name, marks=[pytest.mark.slow] * bomb.slow) for bomb in BOMBS]
)
def test_a_bomb_costs_no_more_than_its_budget(bomb: Bomb, measuring: Measuring, tmp_path: Path) -> None:
    check(bomb, *measure(bomb, measuring, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_costs_no_more_than_a_picture(name: str, measuring: Measuring) -> None:
    measured = measuring("tests.hostile.arrays:read_array", name)
    if ARRAYS[name].pixels is None:
        assert measured.error == "ImageError", measured
        check_sentence(measured.message)
    else:
        assert not measured.error, measured
    assert not measured.printed
    large = name.startswith("at the limit")
    assert measured.memory <= (60 * MB + 12 * LIMIT if large else 6 * MB)
    assert measured.cpu <= (10 if large else 2)  # as of a picture; most of it is the kernel's, which clears 75 MB twice


_NAMES: Final = {bomb.name for bomb in BOMBS}
_LARGER: Final = (
    "webp-1024sq-65536-huffman-groups.webp",
    "avif-5000sq-420.avif",
    "avif-5000sq-444-alpha.avif",
    "avif-5000sq-12bit-444-alpha.avif",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _LARGER if name in _NAMES])
def test_the_limit_that_a_refusal_names_reads_the_picture_and_holds(
    name: str, measuring: Measuring, tmp_path: Path
) -> None:
    bomb = next(bomb for bomb in BOMBS if bomb.name == name)
    refused = measure(bomb, measuring, tmp_path)[1]
    assert refused.error == "ImageError", refused
    named = re.search(r"max_pixels=(\d+) \(--max-pixels \1\) reads it", refused.message)
    assert named, refused
    limit = int(named[1])
    larger = dataclasses.replace(bomb, limit=limit, refused=None, warns="")
    check(larger, *measure(larger, measuring, tmp_path))
    smaller = dataclasses.replace(bomb, limit=limit - 1)
    assert measure(smaller, measuring, tmp_path)[1].error == "ImageError"


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def _link(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(_pipe, "is a pipe", id="pipe"),
        pytest.param(_socket, "is a socket", id="socket"),
        pytest.param(lambda path: Path("/dev/zero"), "is a device", id="device"),
        pytest.param(lambda path: _link(path, "/dev/zero"), "is a device", id="link-to-a-device"),
        pytest.param(lambda path: Path("/dev/stdin"), "is a ", id="standard-input"),
        pytest.param(lambda path: path.parent, "is a folder", id="directory"),
        pytest.param(lambda path: _link(path, path.name), "cannot be read", id="link-to-itself"),
        pytest.param(lambda path: Path("/proc/self/mem"), "cannot be read", id="memory"),
        pytest.param(lambda path: Path("/proc/self/pagemap"), "is not an image", id="endless-file"),
        pytest.param(lambda path: path, "does not exist", id="missing"),
    ],
)
def test_no_file_that_could_wait_or_never_ends_is_read(
    make: Callable[[Path], Path], said: str, measuring: Measuring, tmp_path: Path
) -> None:
    measured = measuring("tests.hostile.measuring:read", str(make(tmp_path / "picture.png")), {})
    assert measured.error == "ImageError", measured
    check_sentence(measured.message)
    assert said in measured.message
    assert measured.memory <= 3 * MB
    assert measured.cpu <= 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"a\nb", id="line-break"),
        pytest.param(b"\x1b[31m\x07", id="escape-sequence"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param("\u202egpj.exe".encode(), id="right-to-left"),
        pytest.param(b'it\'s "so"', id="quotes"),
        pytest.param("\u2028\u0085".encode(), id="line-separators"),
        pytest.param(b"x" * 251, id="long"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a\x1b[31m\n", b"\xff\xd8\xff\xd9"])
def test_a_name_cannot_write_to_the_terminal_through_a_message(name: bytes, content: bytes, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), name + b".png")  # noqa: PTH118 - no Path is made of bytes
    Path(os.fsdecode(path)).write_bytes(content)
    with pytest.raises(ImageError) as raised:
        read_image(os.fsdecode(path))
    check_sentence(str(raised.value))
    str(raised.value).encode()


def test_a_picture_above_the_default_limit_is_refused_and_a_photograph_of_24_megapixels_is_not() -> None:
    assert 5712 * 4284 <= DEFAULT_MAX_PIXELS <= 26_000_000


# One of each way out: size, variety, damage, another format, scans, too long a file.
_TOLD_ON_THE_COMMAND_LINE = (
    "png-13376sq-rgba16.png",
    "jpg-4000sq-5000-scans.jpg",
    "jpg-no-scan.jpg",
    "tiff-duplicate-larger-behind.tiff",
    "webp-16383x10900.webp",
    "avif-16384sq.avif",
    "gif-65535sq.gif",
    "bmp-rle-13376sq.bmp",
    "refused-phone.heic",
    "refused-line-breaks.png",
    "png-sparse-100gb.png",
)


@pytest.mark.slow
def test_the_command_line_refuses_bombs_in_a_line_each_and_writes_nothing(tmp_path: Path) -> None:
    bombs = [bomb for bomb in BOMBS if bomb.name in _TOLD_ON_THE_COMMAND_LINE]
    assert len(bombs) == len(_NAMES & set(_TOLD_ON_THE_COMMAND_LINE)) >= 10
    pictures = [write(bomb, tmp_path) for bomb in bombs]
    output = tmp_path / "explanations"
    command = [sys.executable, "-m", "ortcam", "explain", str(bundle_path()), *map(str, pictures), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    for picture in pictures:
        picture.unlink()
    assert done.returncode == 2
    assert not done.stdout
    lines = done.stderr.splitlines()
    for picture in pictures:
        assert sum(picture.name in line for line in lines) == 1, f"{picture.name}: {done.stderr}"
    assert len(lines) <= len(pictures) + 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists() or not list(output.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["png-50000sq-1bit.png", "jpg-cut-at-4.jpg", "refused-zeros.bin"])
def test_the_command_line_ends_with_2_and_one_line(name: str, tmp_path: Path) -> None:
    picture = write(next(bomb for bomb in BOMBS if bomb.name == name), tmp_path)
    output = tmp_path / "explanations"
    command = [sys.executable, "-m", "ortcam", "explain", str(bundle_path()), str(picture), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert not output.exists()
