"""What `ortcam explain` says where exact maps take long: the quicker option, and what it costs."""

import time
from typing import Final

from ortcam.bundle import Manifest
from ortcam.methods import Plan
from ortcam.support.words import duration

__all__ = ["SlowHint"]

_LONG: Final = 10.0  # seconds per explanation from which on a hint helps
_LONG_IN_ALL: Final = 120.0  # seconds for all of them
_MEASURED: Final = 1.0  # seconds of passes, after the first run, that an estimate is made from

SHARE: Final = 0.12  # of the channels: the budget that is named
# Largest |difference| from the exact map at this budget. No median is above it: calibration.md in benchmarks/results
# (scorecam: three convolutional models, 0.04 to 0.06) and calibration-scorecampp.md (scorecam++: SqueezeNet, 0.08).
_TYPICAL: Final = 0.1


class SlowHint:
    """Finds out from the first passes how long exact maps will take, and words a hint once."""

    def __init__(self, manifest: Manifest, explanations: int) -> None:
        """Nothing is known.

        Args:
            manifest: of the bundle; what a budget costs in exactness is known of convolutional models alone.
            explanations: images times methods, of which each is thought to take as long as this one.
        """
        self._manifest = manifest
        self._explanations = explanations
        self._first: tuple[int, float] | None = None
        self.is_said = False

    def begin(self) -> None:
        """Another explanation begins."""
        self._first = None

    def after(self, plan: Plan, done: int, total: int) -> str | None:
        """The hint, once it is known that this takes long and where something is quicker; else None.

        Args:
            plan: of the method.
            done: passes made.
            total: passes in all.
        """
        now = time.perf_counter()
        if self.is_said or done >= total:
            return None
        if self._first is None:  # the first run warms up
            self._first = done, now
            return None
        passes, seconds = done - self._first[0], now - self._first[1]
        if seconds < _MEASURED:
            return None
        each = total * seconds / passes
        if each <= _LONG and each * self._explanations <= _LONG_IN_ALL:
            return None
        self.is_said = True
        return _words(plan, self._manifest, each)


def _words(plan: Plan, manifest: Manifest, seconds: float) -> str:
    exact = f"an exact map takes {duration(seconds)}"
    if manifest.cut.layout == "tokens":
        other = "--tolerance 0.05 may take less" if manifest.graphs.head is None else "-m recipro-cam takes much less"
        return f"{exact}; {other}"
    quicker = f"--budget {SHARE:.0%}: {duration(SHARE * seconds)}"
    if plan.samples > 1:
        return f"{exact}; {quicker}, with an estimate of its error"
    return f"{exact}; {quicker}, typically within {_TYPICAL}"
