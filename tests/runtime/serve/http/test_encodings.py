"""Compressed bodies: what unpacks is the content, and nothing unpacks to more than the limit."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from ortcam.serve.http.encodings import unpacked
from ortcam.serve.http.refusals import Refusal

CONTENT = bytes(range(256)) * 40
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def refused(body: bytes, encoding: str, limit: int = 2**20) -> int:
    with pytest.raises(Refusal) as error:
        unpacked(body, encoding, limit)
    return error.value.status


def test_the_content_comes_back() -> None:
    for encoding, pack in PACKERS.items():
        assert unpacked(pack(CONTENT), encoding.upper() + " ", len(CONTENT)) == CONTENT
    assert all(unpacked(CONTENT, none, 1) is CONTENT for none in (None, "", "identity"))


@pytest.mark.parametrize("encoding", list(PACKERS))
def test_what_is_not_whole_or_not_compressed(encoding: str) -> None:
    packed = PACKERS[encoding](CONTENT)
    assert {refused(body, encoding) for body in (CONTENT, b"", packed[:-1], packed + b"x", packed * 2)} == {400}
    assert refused(packed, encoding, len(CONTENT) - 1) == 413


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 5000])
def test_other_encodings(encoding: str) -> None:
    assert refused(CONTENT, encoding) == 415


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = zlib.compress(bytes(2**23))
    limit = 2**18
    tracemalloc.start()
    try:
        assert refused(bomb, "deflate", limit) == 413
        assert tracemalloc.get_traced_memory()[1] < 8 * limit
    finally:
        tracemalloc.stop()
