"""Saving that is killed, or done by several processes at once: a manifest of what is there."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.results.saving import manifest_of, state, write

from ortcam.errors import OutputError
from ortcam.support import files

posix = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and killed by signals")


KILLED = """
import json, os, signal, sys
from pathlib import Path
from ortcam.support import files
from ortcam.results import saved
sys.path.insert(0, sys.argv[2])
from tests.runtime.results.saving import contents, summary

folder, force = Path(sys.argv[1]), sys.argv[3] != "add"
if sys.argv[3] == "force without exchange":
    files.swap_function = lambda: None
events = ("open", "os.rename", "os.remove", "os.mkdir")
states = []
for number in range(1, 100):
    for path in folder.iterdir():
        path.unlink()
    saved.save(folder, summary(1, 2), contents(1, 2, content=b"old"), force=False)
    child = os.fork()
    if not child:
        left = number
        def hook(event, arguments):
            global left
            if event in events and str(arguments[0]).startswith(str(folder)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        image, content = ("other", b"new") if force else ("i", b"old")
        saved.save(folder, summary(2, 3, image=image), contents(2, 3, content=content), force=force)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    files = {path.name: path.read_bytes().decode() for path in folder.iterdir() if not path.name.startswith(".")}
    states.append(json.loads(files.pop("manifest.json")) if "manifest.json" in files else None)
    if states[-1] is not None:
        is_new = states[-1]["image"]["sha256"] == "other"
        assert {files[name] for name in states[-1]["files"]} == {"new" if is_new else "old"}
    saved.save(folder, summary(4), contents(4), force=True)
    left = [path for place in (folder, folder.parent) for path in place.glob(".ortcam-*")]
    assert not left, "what the kill left is gone"
    if not killed:
        break
print(json.dumps([None if s is None else [t["index"] for t in s["targets"]] for s in states]))
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize("force", ["force", "force without exchange", "add"])
def test_a_kill_at_any_moment_leaves_a_manifest_of_what_is_there(tmp_path: Path, force: str) -> None:
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(root), force],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert result.returncode == 0, result.stderr
    states = json.loads(result.stdout)
    old, new = [1, 2], [2, 3, 1] if force == "add" else [2, 3]
    assert states[0] == old
    assert states[-1] == new
    # Where the system cannot exchange folders there is a moment without a manifest; else it is the old or the new one.
    may_be_missing = force == "force without exchange" or (force == "force" and sys.platform not in ("linux", "darwin"))
    assert all(item in (old, new) or (item is None and may_be_missing) for item in states)
    assert len(states) > 8, "every step was killed"


def _save_often(folder: Path, target: int, image: str, force: bool) -> None:
    for _ in range(60):
        write(folder, target, image=image, force=force)


@pytest.mark.long
@posix
@pytest.mark.parametrize("images", [("i", "i"), ("one", "two")])
def test_two_processes_that_save_to_one_folder_leave_a_manifest_of_what_is_there(
    tmp_path: Path, images: tuple[str, str]
) -> None:
    context = multiprocessing.get_context("fork")
    same = images[0] == images[1]
    writers = [
        context.Process(target=_save_often, args=(tmp_path, target, image, not same))
        for target, image in zip((1, 2), images, strict=True)
    ]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        try:
            manifest = manifest_of(tmp_path)
        except FileNotFoundError:
            continue
        if same:
            assert all((tmp_path / name).exists() for name in manifest["files"])
        seen += 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen > 0
    targets = {target["index"] for target in state(tmp_path)[0]["targets"]}
    assert targets == {1, 2} if same else len(targets) == 1


@posix
def test_a_folder_that_another_process_does_not_leave_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with files.alone_in(tmp_path), pytest.raises(OutputError, match="another process is writing there"):
        write(tmp_path, 1)
    write(tmp_path, 1)
