"""Limits: when scoring may stop before every channel is scored."""

import dataclasses
import math
from typing import Final, Literal, get_args

import numpy as np

from ortcam.errors import OptionError
from ortcam.support.ranges import CHANNELS, DEADLINE, SHARE, TOLERANCE, shown

__all__ = ["Completion", "Limits"]

Completion = Literal["gaussian-process", "none"]

_COMPLETIONS: Final = get_args(Completion)


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a loop may stop before all channels are scored.

    Attributes:
        budget: channels to score: a number of them, or a share in (0,1] of those that are not flat; None: all.
        deadline: milliseconds from the call of `explain`, or from when the first map of `explain_iter` is asked for;
            None: no hurry. At least one run of the graph is made. The map depends on the machine and its load.
        tolerance: stop when the largest error of the finished map is estimated to be below this, in (0,1).
        completion: "gaussian-process" predicts the weights of the channels not scored, "none" leaves them out.
    """

    budget: float | int | None = None
    deadline: float | None = None
    tolerance: float | None = None
    completion: Completion = "gaussian-process"

    def __post_init__(self) -> None:
        """Raises OptionError for a value that is not accepted."""
        if self.deadline is not None:
            DEADLINE.check(self.deadline)
        if self.tolerance is not None:
            TOLERANCE.check(self.tolerance)
        range_ = CHANNELS if isinstance(self.budget, (int, np.integer)) else SHARE
        if self.budget is not None and not range_.holds(self.budget):
            accepted = f"a share of the channels above 0, up to 1 (100%), or a whole number of them {CHANNELS.bounds}"
            raise OptionError(f"budget={shown(self.budget)}: accepted is {accepted}")
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # a manifest holds Python's own types
                object.__setattr__(self, field.name, value.item())
        if self.completion not in _COMPLETIONS:
            raise OptionError(f"completion={self.completion!r}: accepted is {' or '.join(_COMPLETIONS)}")
        if self.tolerance is not None and self.completion == "none":
            raise OptionError("tolerance with completion='none': without completion no error can be estimated")

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that are set, for messages."""
        names = [name for name in ("budget", "deadline", "tolerance") if getattr(self, name) is not None]
        return (*names, *(["completion='none'"] if self.completion == "none" else []))

    def channels(self, active: int) -> int:
        """How many of the active channels the budget pays for."""
        if self.budget is None:
            return active
        if isinstance(self.budget, int):
            return min(self.budget, active)
        return min(math.ceil(self.budget * active), active)
