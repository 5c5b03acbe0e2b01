"""The cache of exported bundles: made once, bounded, safe from other processes, kills and folders that are closed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ortcam.bundle.shipped import bundle_path
from ortcam.cli.main import main
from ortcam.errors import OptionError, OutputError
from ortcam.models import cache as bundle_cache
from ortcam.models.cache import CacheError, clear_cache, entries, obtain, trim
from ortcam.support.cache_folder import batch_sizes_file, bundles_folder

RECORD = {"model": "model.onnx", "options": ""}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle_cache, "in_use", {})
    return tmp_path / "cache" / "bundles"


def copy(place: Path) -> None:
    shutil.copytree(bundle_path(), place)


def refuse(_: Path) -> None:
    raise AssertionError("it was to be found")


def let_go() -> None:
    """What the end of the process does."""
    for held in bundle_cache.in_use.values():
        assert held is not None
        held.release()
    bundle_cache.in_use.clear()


def in_another_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_bundle_is_made_once() -> None:
    first, found = obtain("a1", "model", RECORD, copy)
    again, found_again = obtain("a1", "model", RECORD, refuse)
    assert (found, found_again) == (False, True)
    assert first == again
    assert [entry.model for entry in entries()] == ["model.onnx"]


def test_an_export_that_fails_leaves_nothing_behind(cache: Path) -> None:
    def fail(place: Path) -> None:
        place.mkdir()
        raise OutputError("disk full")

    with pytest.raises(OutputError, match="disk full"):
        obtain("a1", "model", RECORD, fail)
    assert list(cache.iterdir()) == []


def test_what_a_kill_left_is_made_again_and_a_truncated_bundle_too() -> None:
    place, _ = obtain("a1", "model", RECORD, copy)
    for damage in (shutil.rmtree, lambda path: (path / "weights.bin").write_bytes(b"half")):
        let_go()
        damage(place)
        assert obtain("a1", "model", RECORD, copy) == (place, False)


def test_the_least_recently_used_goes_first_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for age, key in enumerate(("new", "middle", "old")):
        place, _ = obtain(key, "model", RECORD, copy)
        stamp = place.stat().st_mtime - 1000 * age
        os.utime(place.parents[1] / "entry.json", (stamp, stamp))
    let_go()
    size = entries()[0].size
    monkeypatch.setenv("ORTCAM_CACHE_SIZE", str(2.5 * size / 1e9))
    trim()
    assert [entry.folder.name for entry in entries()] == ["new", "middle"]
    monkeypatch.setenv("ORTCAM_CACHE_SIZE", "0")
    trim()
    assert [entry.folder.name for entry in entries()] == ["new"]


@pytest.mark.slow
def test_what_another_process_uses_is_not_removed(cache: Path) -> None:
    obtain("a1", "model", RECORD, copy)  # and so locked by this process
    code = "from ortcam.models.cache import clear_cache; print(*map(len, clear_cache()))"
    assert in_another_process(code) == "0 1"
    let_go()
    assert in_another_process(code) == "1 0"
    assert list(cache.iterdir()) == []


def test_two_at_once_make_one_bundle() -> None:
    made = []
    begun = threading.Event()

    def slowly(place: Path) -> None:
        made.append(place)
        begun.set()
        waited.wait(10)
        copy(place)

    waited = threading.Event()
    results: list[tuple[Path, bool]] = []
    first = threading.Thread(target=lambda: results.append(obtain("a1", "model", RECORD, slowly)))
    first.start()
    begun.wait(10)
    results.append(obtain("a1", "model", RECORD, slowly, waiting=waited.set))
    first.join()
    assert len(made) == 1
    assert {found for _, found in results} == {True, False}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no shared locks")
def test_a_damaged_bundle_that_another_process_uses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = obtain("a1", "model", RECORD, copy)
    with monkeypatch.context() as other:
        other.setattr(bundle_cache, "in_use", {})  # as another process has it
        shutil.rmtree(place)
        with pytest.raises(CacheError, match="is damaged, and another process uses it"):
            obtain("a1", "model", RECORD, refuse)


@pytest.mark.parametrize("size", ["lots", "-1", "nan", "1e400"])
def test_a_size_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE_SIZE", size)
    with pytest.raises(OptionError, match=r"ORTCAM_CACHE_SIZE=.*accepted is a number of gigabytes"):
        obtain("a1", "model", RECORD, refuse)


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(CacheError, match="cannot be written to"):
        obtain("a1", "model", RECORD, refuse)


def test_other_folders_in_the_cache_are_left_alone(cache: Path) -> None:
    for place in ("mine/notes.txt", "project/bundle/notes.txt", "project2/entry.json"):
        (cache / place).parent.mkdir(parents=True)
        (cache / place).write_text("{}")
    obtain("a1", "model", RECORD, copy)
    let_go()
    removed, kept = clear_cache()
    assert (len(removed), len(kept)) == (1, 0)
    assert {path.name for path in cache.iterdir()} == {"mine", "project", "project2"}


def test_the_variable_names_a_folder_or_as_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "sizes.json"))
    assert (batch_sizes_file(), bundles_folder()) == (tmp_path / "sizes.json", tmp_path / "bundles")
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "folder"))
    assert batch_sizes_file() == tmp_path / "folder" / "batch-sizes.json"
    assert bundles_folder() == tmp_path / "folder" / "bundles"
    monkeypatch.setenv("ORTCAM_CACHE", "off")
    assert batch_sizes_file() is bundles_folder() is None


@pytest.mark.parametrize("off", [False, True])
def test_the_list_is_json_where_asked(
    off: bool, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain("a1", "model", RECORD, copy)
    if off:
        monkeypatch.setenv("ORTCAM_CACHE", "off")
    assert main(["cache", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["folder"] == (None if off else str(cache))
    assert [bundle["folder"] for bundle in listed["bundles"]] == ([] if off else [str(cache / "a1")])
