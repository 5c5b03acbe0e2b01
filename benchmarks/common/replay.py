"""Explain a photograph in many ways, each masked pass made once: for what is not timed.

The scores of a masked image do not depend on the run that it is part of, beyond rounding. So where only the maps count,
a scorer that was asked for a row before, the same channel of the same photograph with the same factor and noise,
answers from memory: budgets and tolerances cost nothing beyond the exact map.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import ortcam.explainer
from ortcam.engine.session import Bound, Session

__all__ = ["passes_made_once"]

_ROWS = ("channels", "scale", "sigma", "keep")

# What all rows of a run share -> row -> its outputs.
Memory = dict[Any, dict[Any, tuple[NDArray[Any], ...]]]


@contextlib.contextmanager
def passes_made_once() -> Iterator[None]:
    """Explanations in this context remember the passes of the last photograph; no explanation of gated sums."""
    memory: Memory = {}
    with mock.patch.object(ortcam.explainer, "Bound", functools.partial(_Remembering, memory=memory)):
        yield


class _Remembering(Bound):
    def __init__(self, session: Session, *, outputs: tuple[str, ...], memory: Memory) -> None:
        super().__init__(session, outputs=outputs)
        self._memory = memory
        self._given: dict[str, NDArray[Any]] = {}
        self._shared: dict[str, int] = {"session": id(session)}
        self._masks = "channels" in self._inputs
        assert "partial_maps" not in outputs  # a sum over a run

    def put(self, name: str, value: NDArray[Any]) -> None:
        if not self._masks:
            super().put(name, value)
        elif name in self._inputs and name in _ROWS:
            self._given[name] = value
        elif name in self._inputs:
            super().put(name, value)
            self._shared[name] = hash(value.tobytes())

    def run(self) -> tuple[NDArray[Any], ...]:
        if not self._masks:
            return super().run()
        image = self._shared["image"]
        for key in [key for key in self._memory if key[0] != image]:
            del self._memory[key]
        known = self._memory.setdefault((image, *self._shared.items()), {})
        rows = list(zip(*(value.tolist() for value in self._given.values()), strict=True))
        missing = {row: index for index, row in enumerate(rows) if row not in known}
        if missing:
            for name, value in self._given.items():
                super().put(name, value[list(missing.values())])
            for row, *values in zip(missing, *super().run(), strict=True):
                known[row] = tuple(values)
        return tuple(np.stack(values) for values in zip(*(known[row] for row in rows), strict=True))
