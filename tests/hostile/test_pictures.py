"""Every bomb is refused in one sentence or read, within its budget of memory and CPU, in a process of its own."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.measuring import Measured, Measuring
from tests.hostile.pictures import BOMBS, MB, Bomb, write

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
    path = write(bomb, folder)
    size = path.stat().st_size - bomb.tail
    options = {"max_pixels": bomb.limit} | ({"strict": True} if bomb.strict else {})
    try:
        return size, measuring("tests.hostile.measuring:read", str(path), options)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "bomb", [pytest.param(bomb, id=bomb.name, marks=[pytest.mark.slow] * bomb.slow) for bomb in BOMBS]
)
def test_a_bomb_costs_no_more_than_its_budget(bomb: Bomb, measuring: Measuring, tmp_path: Path) -> None:
    check(bomb, *measure(bomb, measuring, tmp_path))
