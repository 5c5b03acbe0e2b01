"""Graphs whose dimensions are all fixed, as `ortcam export --static-batch` writes them: split, pad, run, join.

A caller hands in any number of rows, as for any other graph. Each run has as many as the graph says; the last is
padded. A scorer has two such sizes: rows of masked images, and targets.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.base import BoundSession, Providers
from ortcam.errors import BundleError

__all__ = ["FixedBoundSession", "FixedShapes"]

# Inputs of a scorer with a value per masked image, and those with a value per target.
_PER_ROW: Final = ("channels", "scale", "sigma", "keep")
_PER_TARGET: Final = ("targets", "baseline")
_SUMMED: Final = "partial_maps"  # [K,H,W], a sum over the rows

Arrays = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class _Part:
    """What one run takes: some rows and, of a scorer, some targets."""

    rows: slice
    targets: slice


@dataclasses.dataclass(frozen=True)
class FixedShapes:
    """The inputs of a graph that has no open dimension.

    Attributes:
        inputs: name -> shape.
    """

    inputs: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, inputs: Mapping[str, Sequence[int | str | None]]) -> Self | None:
        """Of a graph's inputs, in which an open dimension is no number; None if there is one."""
        fixed = {name: tuple(side for side in shape if isinstance(side, int)) for name, shape in inputs.items()}
        if not inputs or any(len(fixed[name]) < len(shape) for name, shape in inputs.items()):
            return None
        return cls(fixed)

    @property
    def _is_scorer(self) -> bool:
        return "channels" in self.inputs

    @property
    def rows(self) -> int:
        """Rows of a run."""
        if self._is_scorer:
            return self.inputs["channels"][0]
        return max((shape[0] for shape in self.inputs.values() if shape), default=1)

    def is_whole(self, name: str, value: NDArray[Any]) -> bool:
        """Whether an input is the same in every run."""
        if self._is_scorer:
            return name not in (*_PER_ROW, *_PER_TARGET)
        shape = self.inputs[name]
        return shape[:1] in ((), (1,)) and value.shape == shape

    def run(
        self,
        given: Arrays,
        outputs: Sequence[str],
        run: Callable[[Arrays], Sequence[NDArray[Any]]],
    ) -> tuple[NDArray[Any], ...]:
        """Run a graph as often as the inputs need it.

        Args:
            given: the inputs that the graph has, with any number of rows and targets.
            outputs: names of what `run` returns.
            run: runs the graph once, on inputs of its shapes.

        Returns:
            The outputs for all rows and targets.

        Raises:
            BundleError: an input whose other sides are not the graph's.
        """
        parts = [*self._parts(given)]
        made = [run({name: self._part_of(name, value, part) for name, value in given.items()}) for part in parts]
        return tuple(self._joined(name, [values[i] for values in made], parts) for i, name in enumerate(outputs))

    def _parts(self, given: Arrays) -> Iterator[_Part]:
        if not self._is_scorer:
            count = max((len(value) for value in given.values() if value.ndim), default=1)
            yield from (_Part(rows, slice(0, 1)) for rows in _slices(count, self.rows))
            return
        targets = _slices(len(given["targets"]), self.inputs["targets"][0])
        rows = _slices(len(given["channels"]), self.rows)
        yield from (_Part(some, which) for some, which in itertools.product(rows, targets))

    def _part_of(self, name: str, value: NDArray[Any], part: _Part) -> NDArray[Any]:
        """What a run gets of an input, padded with its last row; padding does not count in `keep`."""
        shape = self.inputs[name]
        if not self.is_whole(name, value):
            value = value[part.targets if name in _PER_TARGET else part.rows]
            missing = shape[0] - len(value)
            if missing > 0:
                last = np.zeros_like(value[-1:]) if name == "keep" else value[-1:]
                value = np.concatenate([value, np.repeat(last, missing, axis=0)])
        if value.shape != shape:
            raise BundleError(f"this graph takes {name!r} as {list(shape)} alone; it is {list(value.shape)}")
        return value

    def _joined(self, name: str, values: Sequence[NDArray[Any]], parts: Sequence[_Part]) -> NDArray[Any]:
        if not self._is_scorer:
            real = [value[: _count(part.rows)] for value, part in zip(values, parts, strict=True)]
            return real[0] if len(real) == 1 else np.concatenate(real)
        rows: dict[int, list[NDArray[Any]]] = {}
        for value, part in zip(values, parts, strict=True):
            targets = slice(0, _count(part.targets))
            real_part = value[targets] if name == _SUMMED else value[: _count(part.rows), targets]
            rows.setdefault(part.rows.start, []).append(real_part)
        axis = 0 if name == _SUMMED else 1
        joined = [some[0] if len(some) == 1 else np.concatenate(some, axis=axis) for some in rows.values()]
        if len(joined) == 1:
            return joined[0]
        return np.sum(joined, axis=0) if name == _SUMMED else np.concatenate(joined)


class FixedBoundSession:
    """A bound session of a graph with fixed shapes: it takes any number of rows and targets, as others do.

    What is the same in every run is put on the device once.
    """

    def __init__(self, bound: BoundSession, shapes: FixedShapes, outputs: Sequence[str]) -> None:
        """Place nothing yet.

        Args:
            bound: of the same graph.
            shapes: of it.
            outputs: of each run, in the order of the bound session.
        """
        self._bound = bound
        self._shapes = shapes
        self._outputs = tuple(outputs)
        self._given: dict[str, NDArray[Any]] = {}

    @property
    def providers(self) -> Providers:
        """(name, options) of the execution providers that run, in order."""
        return self._bound.providers

    @property
    def on_gpu(self) -> bool:
        """Whether inputs lie in a GPU's memory."""
        return self._bound.on_gpu

    @property
    def fixed_shape(self) -> bool:
        """That shorter runs are padded."""
        return True

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Take a copy of an input. It stays until it is put again. Ignored if the graph lacks it.

        Raises:
            OutOfMemoryError: it does not fit into memory.
            BundleError: it has another shape than the graph takes.
        """
        if name not in self._shapes.inputs:
            return
        value = np.asarray(value)
        if not self._shapes.is_whole(name, value):
            self._given[name] = value.copy()
            return
        if value.shape != (shape := self._shapes.inputs[name]):
            raise BundleError(f"this graph takes {name!r} as {list(shape)} alone; it is {list(value.shape)}")
        self._given.pop(name, None)
        self._bound.put(name, value)

    def run(self) -> tuple[NDArray[Any], ...]:
        """Run on the inputs in place, as often as they need it.

        Raises:
            OutOfMemoryError: a run did not fit into memory.
            ProviderError: whatever else ONNX Runtime could not do.
        """

        def run(inputs: Arrays) -> tuple[NDArray[Any], ...]:
            for name, value in inputs.items():
                self._bound.put(name, value)
            return self._bound.run()

        return self._shapes.run(self._given, self._outputs, run)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _count(part: slice) -> int:
    return int(part.stop - part.start)
