"""One thread for numpy's products while an image is explained: ONNX Runtime's threads are there for the passes.

OpenBLAS keeps its threads busy for milliseconds after a product, on the cores that the next pass needs; on a small
machine that doubled the time of an explanation with a budget. The limit is that of the process: of several threads that
explain only the first sets and lifts it. One that came later and saved the limit as what to go back to would leave it
behind.
"""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

try:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
except ImportError:  # it then takes longer
    ThreadpoolController = None

__all__ = ["single_threaded"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_limited = threading.Lock()  # held by the thread that set the limit


@functools.cache
def _controller() -> "ThreadpoolController":
    return ThreadpoolController()


def single_threaded(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function whose products and decompositions of matrices run on the thread that calls it."""
    if ThreadpoolController is None:
        return function

    @functools.wraps(function)
    def alone(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        if not _limited.acquire(blocking=False):
            return function(*arguments, **named)
        try:
            with _controller().limit(limits=1, user_api="blas"):
                return function(*arguments, **named)
        finally:
            _limited.release()

    return alone
