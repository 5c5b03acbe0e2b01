"""How far an evaluation is: maps that are measured, of all."""

from collections.abc import Callable

__all__ = ["Progress", "Tally"]

# Called with the maps measured and the maps in all, after each map.
Progress = Callable[[int, int], None]


class Tally:
    """Counts maps, and tells a caller."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def skip(self, maps: int) -> None:
        """Count maps that an earlier run measured."""
        self._done += maps

    def advance(self, maps: int = 1) -> None:
        """Count maps that are done now, and tell."""
        self._done += maps
        if self._progress is not None:
            self._progress(self._done, self._total)
