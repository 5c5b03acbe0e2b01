"""One thread for numpy's products while an image is explained: ONNX Runtime's threads are there for the passes.

OpenBLAS keeps its threads busy for milliseconds after a product, on the cores that the next pass needs; on a small
machine that doubled the time of an explanation with a budget. The limit is that of the process: of several threads that
explain only the first sets and lifts it. One that came later and saved the limit as what to go back to would leave it
behind.
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import numpy as np

__all__ = ["single_threaded"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# What OpenBLAS calls its two functions: in numpy's wheels, and in distributions' packages.
_NAMES: Final = tuple(
    (f"{name}_get_num_threads{end}", f"{name}_set_num_threads{end}")
    for name in ("scipy_openblas", "openblas")
    for end in ("64_", "")
)

_limited = threading.Lock()  # held by the thread that set the limit


@dataclass(frozen=True)
class _Threads:
    """The two functions of numpy's OpenBLAS."""

    count: Callable[[], int]
    set: Callable[[int], None]


@functools.cache
def _threads() -> _Threads | None:
    """None where numpy has another BLAS: explanations with a budget may then take longer, and are the same."""
    for path in _libraries():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for count, limit in _NAMES:
            if hasattr(library, count) and hasattr(library, limit):
                return _Threads(getattr(library, count), getattr(library, limit))
    return None


def _libraries() -> Iterator[Path]:
    """Where to look for them: in what numpy's products are linked with; on Windows in the wheel's own folder."""
    package = Path(np.__file__).parent
    for folder in ("_core", "core"):
        yield from sorted((package / folder).glob("_multiarray_umath*.[sp][oy]*"))
    yield from sorted((package.parent / "numpy.libs").glob("*openblas*.dll"))


def single_threaded(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function whose products and decompositions of matrices run on the thread that calls it."""

    @functools.wraps(function)
    def alone(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        threads = _threads()
        if threads is None or not _limited.acquire(blocking=False):
            return function(*arguments, **named)
        try:
            before = threads.count()
            threads.set(1)
            try:
                return function(*arguments, **named)
            finally:
                threads.set(before)
        finally:
            _limited.release()

    return alone
