"""`IdSet` against Python's own set, with ids of every kind and digests that begin alike."""

import doctest
import hashlib

import numpy as np
import pyarrow as pa
import pytest

from ortcam.batch import id_set
from ortcam.batch.id_set import IdSet


def test_the_example_in_its_docstring_holds() -> None:
    assert doctest.testmod(id_set).failed == 0


def test_a_set_of_many_ids_is_pythons_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_set, "CHUNK", 100)  # several chunks, and one that is not full
    random = np.random.default_rng(0)
    names = [f"folder {number}/ä{number}.jpg" for number in random.integers(0, 700, 1000)]
    found = IdSet(pa.array(names[start : start + 37]) for start in range(0, 1000, 37))
    asked = [f"folder {number}/ä{number}.jpg" for number in range(-50, 750)] + ["", "x"]
    assert len(found) == len(set(names))
    assert found.holds(asked).tolist() == [name in set(names) for name in asked]


def test_nothing_is_in_an_empty_set() -> None:
    for empty in (IdSet(), IdSet([pa.array([], pa.string())])):
        assert len(empty) == 0
        assert empty.holds(["", "a"]).tolist() == [False, False]
        assert empty.holds([]).tolist() == []


class Ends:
    """Stands in for hashlib: digests that end in zeros, and that differ in the last byte alone."""

    def __init__(self, name: bytes, digest_size: int) -> None:
        self._digest = bytes(digest_size - 2) + bytes([1, len(name)]) if name else bytes(digest_size)

    def digest(self) -> bytes:
        return self._digest


def test_digests_that_end_in_zeros_or_differ_at_the_end_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "blake2b", Ends)
    found = IdSet([pa.array(["", "aa"])])
    assert len(found) == 2
    assert found.holds(["", "a", "aa", "aaa"]).tolist() == [True, False, True, False]


def test_large_strings_and_dictionaries_are_read_as_strings_are() -> None:
    for kind in (pa.large_string(), pa.string_view()):
        assert "b" in IdSet([pa.array(["a", "b"], kind)])
