"""Batch sizes: the search finds the fastest size by timing runs, remembers it, and halves what does not fit."""

from pathlib import Path

import pytest

import ortcam
from ortcam.tuning import ChunkSizes, recall, remember

CANDIDATES = (2, 4, 8, 16, 32)


def search(sizes: ChunkSizes, seconds: dict[int, float], runs: int = 30) -> list[int]:
    """Let a search time runs whose seconds an image are given; returns the sizes that it ran."""
    ran = []
    for _ in range(runs):
        size, padded = sizes.next(1000)
        assert size == padded
        sizes.record(size, seconds[size] * size)
        ran.append(size)
    return ran


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({2: 1.0, 4: 0.8, 8: 0.7, 16: 0.9, 32: 1.0}, 8),
        ({2: 1.0, 4: 0.9, 8: 0.8, 16: 0.7, 32: 0.6}, 32),
        ({2: 1.0, 4: 1.1, 8: 0.1, 16: 0.1, 32: 0.1}, 2),  # one that is worse ends the search
        ({2: 1.0, 4: 0.99, 8: 0.5, 16: 0.5, 32: 0.5}, 2),  # not worth the memory
    ],
)
def test_the_search_ends_at_the_fastest_size(seconds: dict[int, float], best: int) -> None:
    found: list[int] = []
    sizes = ChunkSizes(CANDIDATES, fixed_shape=False, found=found.append)
    ran = search(sizes, seconds)
    assert sizes.settled
    assert sizes.size == best
    assert found == [best]
    assert set(ran[15:]) == {best}


def test_on_a_gpu_the_first_run_of_a_size_is_not_timed() -> None:
    sizes = ChunkSizes((16, 32), fixed_shape=True)
    sizes.record(16, 100.0)
    for _ in range(3):
        sizes.record(16, 1.6)
    for seconds in (100.0, 6.4, 6.4, 6.4):
        sizes.record(32, seconds)
    assert sizes.size == 16


def test_the_last_run_is_padded_only_where_shapes_are_fixed() -> None:
    assert ChunkSizes([8], fixed_shape=True).next(3) == (3, 8)
    assert ChunkSizes([8], fixed_shape=False).next(3) == (3, 3)


def test_a_size_larger_than_what_is_left_is_not_tried() -> None:
    sizes = ChunkSizes(CANDIDATES, fixed_shape=False)
    search(sizes, dict.fromkeys(CANDIDATES, 1.0), runs=2)
    assert sizes.next(3) == (2, 2)


def test_what_does_not_fit_is_halved_down_to_one() -> None:
    sizes = ChunkSizes([8], fixed_shape=True)
    for expected in (4, 2, 1):
        sizes.halve(2 * expected)
        assert sizes.next(100) == (expected, expected)
    with pytest.raises(ortcam.OrtcamError, match="single masked image"):
        sizes.halve(1)


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "new" / "sizes.json"))
    assert recall("a") is None
    remember("a", 8)
    remember("b", 16)
    assert (recall("a"), recall("b"), recall("c")) == (8, 16, None)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": "many"}', '{"a": -4}', '{"a": 100000}', "\0"])
def test_a_broken_memory_is_as_good_as_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(content)
    monkeypatch.setenv("ORTCAM_CACHE", str(path))
    assert recall("a") is None
    remember("a", 4)
    assert recall("a") == 4


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "file" / "sizes.json"))
    remember("a", 4)
    assert recall("a") is None


def test_an_explainer_asks_the_memory_and_tells_it(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    searching = ortcam.load(tiny_bundle, providers=["cpu"])
    for _ in range(12):
        found = searching.explain(photograph, method="iscam").stats.batch_size
    assert (tmp_path / "sizes.json").exists()
    assert ortcam.load(tiny_bundle, providers=["cpu"]).explain(photograph, method="iscam").stats.batch_size == found
