"""What the commands share: exit codes, given flags, limits, the progress bar."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.errors import OutputError
from ortcam.saved import lost
from ortcam.scoring import Progress
from ortcam.terminal import printable

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "check_nothing_is_lost",
    "progress_bar",
]

EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143


def check_nothing_is_lost(wanted: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Find out whether results that are there would be replaced by others.

    Args:
        wanted: folders, and manifests of what is to be saved there.

    Raises:
        OutputError: some would.
    """
    losses = [loss for folder, manifest in wanted if (loss := lost(folder, manifest)) is not None]
    if losses:
        others = f" (the same of {len(losses) - 1} more)" if len(losses) > 1 else ""
        raise OutputError(f"{losses[0]}{others}")


@contextlib.contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A progress bar for what takes longer than a second; none when quiet or when nobody watches a terminal."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 - the library's users do not need it
    except ImportError:
        yield None
        return
    bar = tqdm(desc=printable(label), unit="pass", delay=1, leave=False, disable=True if quiet else None)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield update
