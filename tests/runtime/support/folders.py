"""Folders that tests make, age and move into place."""

import os
import time
from pathlib import Path

from ortcam.support.files import move_folder
from ortcam.support.unfinished import workspace

DAY = 24 * 60 * 60


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(folder: Path, content: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text(content)
    return folder


def age(path: Path, seconds: float) -> None:
    for item in [*path.rglob("*"), path]:
        os.utime(item, (time.time() - seconds,) * 2)


def move(folder: Path) -> None:
    with workspace(folder) as own:
        move_folder(make(own / "made", "new"), folder / "x", own)
