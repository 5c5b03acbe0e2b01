"""The folder of an evaluation: what is written to it, and what must not be there before."""

from pathlib import Path
from typing import Final

from ortcam.errors import OutputError

__all__ = ["JOURNAL", "check_folder"]

JOURNAL: Final = "journal.jsonl"

_RESULTS: Final = ("results.csv", "results.parquet", "summary.json", "report.html")


def check_folder(folder: Path, *, resume: bool) -> None:
    """Find out whether an evaluation can begin in a folder, or go on, without writing over anything.

    Args:
        folder: it need not be there.
        resume: go on with the evaluation in it, if there is one.

    Raises:
        OutputError: there is one and it is not to be resumed, or files of other things have the names of results.
    """
    try:
        if (folder / JOURNAL).exists():
            if not resume:
                raise OutputError(
                    f"{folder}: there is an evaluation in it; --resume goes on with it, -o DIR begins another one"
                )
            return
        taken = [name for name in _RESULTS if (folder / name).exists() or (folder / name).is_symlink()]
    except OSError as error:
        raise OutputError(f"{folder}: cannot be looked at: {error.strerror or error}") from None
    if taken:
        raise OutputError(
            f"{folder}: has {', '.join(taken)} of something else, since there is no {JOURNAL} beside; name another "
            "folder with -o"
        )
