"""What runs begin, lock and leave: others keep their hands off it, and the next run removes it or brings it back."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runtime.support.folders import DAY, age, make, move, names

from ortcam.support import files, locks, unfinished
from ortcam.support.files import exchange, replacing, write_whole
from ortcam.support.unfinished import ASIDE, clear, new_name, settle_later, workspace

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX")
exchanges = pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="exchanges names")


@posix
def test_what_nobody_works_on_is_removed_and_everything_else_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path / new_name())
    (tmp_path / new_name()).write_text("half")
    (tmp_path / ".ortcam-save-0123abcd").write_text("of an earlier version")
    (tmp_path / ".ortcam-0123abcd").write_text("of an earlier version")
    link, pipe = new_name(), new_name()
    make(tmp_path / "outside")
    (tmp_path / link).symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / pipe)
    others = (".ortcam-", ".ortcam-0123abcd.bak", new_name() + "0", new_name().upper(), ".x.ortcam.0123abcd")
    for other in others:
        make(tmp_path / other)
    clear(tmp_path)
    assert names(tmp_path) == sorted([link, pipe, "outside", *others])
    assert names(tmp_path / "outside") == ["file"]


def test_what_another_user_began_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name != "posix":
        pytest.skip("of POSIX")
    begun = make(tmp_path / new_name())
    monkeypatch.setattr(os, "geteuid", lambda: begun.stat().st_uid + 1)
    clear(tmp_path)
    assert begun.exists()


def _work(folder: Path, begun: "multiprocessing.Queue[str]") -> None:
    with workspace(folder) as own, replacing(folder / "result") as partial:
        (own / "weights").write_text("half")
        partial.write_text("half")
        begun.put(own.name)
        time.sleep(600)


@posix
def test_what_a_living_process_works_on_is_left_alone_and_removed_once_it_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    worker = context.Process(target=_work, args=(tmp_path, queue))
    worker.start()
    assert queue.get() in names(tmp_path)
    age(tmp_path, 10 * DAY)
    clear(tmp_path)
    assert len(names(tmp_path)) == 2
    worker.kill()
    worker.join()
    assert len(names(tmp_path)) == 2
    clear(tmp_path)
    assert names(tmp_path) == []


@posix
def test_what_another_machine_began_is_left_alone_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = make(tmp_path / ".ortcam-0000000012345678")
    clear(tmp_path)
    age(begun, 2 * DAY)
    (begun / "file").write_text("it works")
    clear(tmp_path)
    assert begun.exists(), "something in it is of today"
    age(begun, 2 * DAY)
    clear(tmp_path)
    assert names(tmp_path) == []


def test_without_locks_what_was_begun_is_left_alone_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    begun = make(tmp_path / new_name())
    clear(tmp_path)
    assert begun.exists()
    age(begun, 2 * DAY)
    clear(tmp_path)
    assert names(tmp_path) == []
    write_whole(tmp_path / "result", b"x")
    with workspace(tmp_path) as own:
        (own / "file").write_text("x")
    assert names(tmp_path) == ["result"]


@posix
def test_a_result_of_an_earlier_version_that_was_moved_aside_is_brought_back(tmp_path: Path) -> None:
    make(tmp_path / ".x.ortcam.0123abcd", "new")
    make(tmp_path / ".x.ortcam.89abcdef.old", "old")
    make(tmp_path / ".y.ortcam.89abcdef.old", "of another one")
    make(tmp_path / ".x.ortcam.20261126", "somebody's copy of that day")
    clear(tmp_path, former="x.ortcam")
    assert names(tmp_path) == [".x.ortcam.20261126", ".y.ortcam.89abcdef.old", "x.ortcam"]
    assert (tmp_path / "x.ortcam" / "file").read_text() == "old"
    make(tmp_path / ".x.ortcam.89abcdef.old", "older")
    clear(tmp_path, former="x.ortcam")
    assert names(tmp_path) == [".x.ortcam.20261126", ".y.ortcam.89abcdef.old", "x.ortcam"]
    assert (tmp_path / "x.ortcam" / "file").read_text() == "old"


MOVED_ASIDE = """
import os, signal, sys
from pathlib import Path
from ortcam.support import files
from tests.runtime.support.folders import move

files.swap_function = lambda: None
left = int(sys.argv[2])

def hook(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
move(Path(sys.argv[1]))
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize("rename", [1, 2])
def test_without_exchange_the_next_run_brings_the_old_result_back(tmp_path: Path, rename: int) -> None:
    make(tmp_path / "x", "old")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", MOVED_ASIDE, str(tmp_path), str(rename)]
    assert subprocess.run(command, check=False, cwd=root).returncode == -9
    assert (tmp_path / "x").exists() == (rename == 1)
    clear(tmp_path)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "old"
    move(tmp_path)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "new"


@pytest.mark.parametrize("kind", [OSError(errno.EACCES, "no"), KeyboardInterrupt()])
def test_a_move_that_fails_half_way_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    make(tmp_path / "x", "old")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == "made":
            raise kind
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(files, "swap_function", lambda: None)
    with pytest.raises(type(kind)):
        move(tmp_path)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "old"


@exchanges
def test_two_folders_exchange_their_names(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", "1"), make(tmp_path / "b", "2")
    assert exchange(first, second)
    assert [(path / "file").read_text() for path in (first, second)] == ["2", "1"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        exchange(first, tmp_path / "nowhere")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV])
def test_a_file_system_that_cannot_exchange_gets_the_new_folder_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    make(tmp_path / "x", "old")
    monkeypatch.setattr(files, "swap_function", lambda: lambda first, second: code)
    move(tmp_path)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "new"


@posix
def test_files_put_in_place_before_the_one_that_speaks_for_them_are_removed_unless_it_came(tmp_path: Path) -> None:
    for moved in (False, True):
        own = tmp_path / new_name()
        own.mkdir()
        (own / "graph").write_text("new")
        (own / "weights-2").write_text("new")
        (tmp_path / "weights-1").write_text("old")
        settle_later(own, "graph", new=[own / "weights-2"], old=[tmp_path / "weights-1"])
        (own / "weights-2").replace(tmp_path / "weights-2")
        if moved:
            (own / "graph").replace(tmp_path / "graph")
        clear(tmp_path)
        assert names(tmp_path) == (["graph", "weights-2"] if moved else ["weights-1"])


@posix
@pytest.mark.parametrize("name", ["../mine", "/etc/mine", "", "..", "sub/mine"])
def test_a_plan_names_nothing_outside_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "mine").write_text("mine")
    own = make(folder / new_name())
    state = (tmp_path / "mine").lstat()
    mark = [state.st_ino, state.st_size, state.st_mtime_ns]
    (own / "plan.json").write_text(json.dumps({"last": "x", "new": {name: mark}, "old": {name: mark}}))
    clear(folder)
    assert (tmp_path / "mine").exists()
    assert names(folder) == []


@posix
@pytest.mark.parametrize("plan", ["", "{", "[]", '{"last": 1, "new": [], "old": 3}', "[" * 100_000])
def test_a_broken_plan_is_none(tmp_path: Path, plan: str) -> None:
    own = make(tmp_path / new_name())
    (own / "plan.json").write_text(plan)
    clear(tmp_path)
    assert names(tmp_path) == []


@posix
def test_a_file_that_another_run_has_put_there_since_is_not_removed(tmp_path: Path) -> None:
    own = tmp_path / new_name()
    own.mkdir()
    (own / "weights").write_text("new")
    (own / "graph").write_text("new")
    settle_later(own, "graph", new=[own / "weights"], old=[])
    (tmp_path / "weights").write_text("of another run")
    clear(tmp_path)
    assert names(tmp_path) == ["weights"]


def test_an_interrupt_while_a_workspace_is_removed_does_not_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = unfinished.shutil.rmtree, []

    def rmtree(path: Path, **options: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(path, **options)

    monkeypatch.setattr(unfinished.shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path) as own:
        make(own / "made")
    assert names(tmp_path) == []


def test_an_aside_that_cannot_be_brought_back_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / new_name()
    make(own / ASIDE / "x", "old")

    def rename(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        clear(tmp_path)
        assert (own / ASIDE / "x" / "file").exists()
    if os.name == "posix":
        clear(tmp_path)
        assert names(tmp_path) == ["x"]
