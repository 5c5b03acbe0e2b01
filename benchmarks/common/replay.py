"""Explain a photograph in many ways, each masked pass made once: for what is not timed.

The scores of a masked image do not depend on the run that it is part of, beyond rounding. So where only the maps count,
a scorer that was asked for a row before, the same channel of the same photograph with the same factor and noise,
answers from memory: budgets and tolerances cost nothing beyond the exact map.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ortcam
from ortcam.engine import BoundSession, Engine, OnnxEngine, Session, SessionOptions, resolve_providers

__all__ = ["RememberingEngine", "load_remembering"]

_ROWS = ("channels", "scale", "sigma", "keep")

Outputs = tuple[NDArray[Any], ...]
# What all rows of a run share -> row -> its outputs.
Memory = dict[Any, dict[Any, Outputs]]


def load_remembering(
    bundle: str | os.PathLike[str], *, threads: int | None = None, precision: str | None = None
) -> ortcam.Explainer:
    """Open a bundle on the CPU, for explanations that remember the passes of the last photograph.

    Methods that sum gated maps cannot be explained: such a sum is one of a whole run.
    """
    read = ortcam.read_bundle(Path(bundle))
    options = SessionOptions(resolve_providers(["cpu"]), threads)
    engine = RememberingEngine(OnnxEngine(read, options, precision=precision))
    return ortcam.Explainer(read, options, precision=precision, engine=engine)


class RememberingEngine:
    """Another engine, whose scorers answer from memory what they were asked before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory: Memory = {}

    @property
    def providers(self) -> tuple[str, ...]:
        """Of the other engine."""
        return self._engine.providers

    @property
    def speed_key(self) -> Sequence[object] | None:
        """None: times of runs that are answered from memory are not to be remembered."""
        return None

    def open(self, graph: str) -> "_RememberingSession":
        """Open a graph with the other engine."""
        return _RememberingSession(graph, self._engine.open(graph), self._memory)

    def close(self) -> None:
        """Close the other engine."""
        self._memory.clear()
        self._engine.close()


class _RememberingSession:
    def __init__(self, graph: str, session: Session, memory: Memory) -> None:
        self._graph = graph
        self._session = session
        self._memory = memory
        self.providers, self.on_gpu, self.fixed_shape = session.providers, session.on_gpu, session.fixed_shape
        self.run = session.run

    @contextlib.contextmanager
    def bind(self, outputs: Sequence[str]) -> Iterator[BoundSession]:
        assert "partial_maps" not in outputs  # a sum over a run
        with self._session.bind(outputs) as bound:
            yield _Remembering(self._graph, bound, self._memory) if "probabilities" in outputs else bound


class _Remembering:
    """A scorer with inputs in place, which runs only the rows that are new."""

    def __init__(self, graph: str, bound: BoundSession, memory: Memory) -> None:
        self._bound = bound
        self._memory = memory
        self._given: dict[str, NDArray[Any]] = {}
        self._shared: dict[str, object] = {"graph": graph}
        self.providers, self.on_gpu, self.fixed_shape = bound.providers, bound.on_gpu, bound.fixed_shape

    def put(self, name: str, value: NDArray[Any]) -> None:
        if name in _ROWS:
            self._given[name] = value
        else:
            self._bound.put(name, value)
            self._shared[name] = hash(value.tobytes())

    def run(self) -> Outputs:
        image = self._shared["image"]
        for key in [key for key in self._memory if key[0] != image]:
            del self._memory[key]
        known = self._memory.setdefault((image, *self._shared.items()), {})
        rows = list(zip(*(value.tolist() for value in self._given.values()), strict=True))
        missing = {row: index for index, row in enumerate(rows) if row not in known}
        if missing:
            for name, value in self._given.items():
                self._bound.put(name, value[list(missing.values())])
            for row, *values in zip(missing, *self._bound.run(), strict=True):
                known[row] = tuple(values)
        return tuple(np.stack(values) for values in zip(*(known[row] for row in rows), strict=True))
