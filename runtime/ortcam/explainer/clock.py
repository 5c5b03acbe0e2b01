"""The clock of one explanation: wall time by stage."""

import time

__all__ = ["Clock"]


class Clock:
    """Wall time of named stages; a stage that comes again adds up.

    Attributes:
        start: what `time.perf_counter` was when the explanation began.
        laps: seconds by stage.
    """

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self._skipped = 0.0
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a stage, and begin the next."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave out what happened since the last stage: somebody looked at a preview."""
        now = time.perf_counter()
        self._skipped += now - self._last
        self._last = now

    def since_start(self) -> float:
        """Wall time since the explanation began, the callers' included."""
        return time.perf_counter() - self.start

    def total(self) -> float:
        """Wall time since the explanation began, less what was left out."""
        return time.perf_counter() - self.start - self._skipped
