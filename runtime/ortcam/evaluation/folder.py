"""The folder of an evaluation: which files it gets, and which must not be there before."""

from pathlib import Path
from typing import Final

from ortcam.errors import OutputError

__all__ = ["JOURNAL", "check_folder"]

JOURNAL: Final = "journal.jsonl"

_RESULTS: Final = ("results.csv", "results.parquet", "summary.json", "report.html")


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that an evaluation can begin or go on in a folder without overwriting anything.

    Args:
        folder: need not exist.
        resume: go on with the evaluation in it, if there is one.

    Raises:
        OutputError: the folder has an evaluation and `resume` is False, or has files of something else that are called
            as the results are.
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
            f"{folder}: has {', '.join(taken)} of something else, as there is no {JOURNAL}; name another folder with -o"
        )
