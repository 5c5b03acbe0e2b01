"""Signatures: a method that hands its keyword arguments on shows the names of those that the other function takes."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["taking"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def taking(other: Callable[..., Any], *, after: str) -> Callable[[_Function], _Function]:
    """Show the keyword arguments of another function in place of `**arguments`.

    So `inspect.signature` and `help` name them, and they are written once.

    Args:
        other: takes keyword arguments alone.
        after: the argument that they stand behind.
    """

    def taken(function: _Function) -> _Function:
        own, others = inspect.signature(function), inspect.signature(other).parameters.values()
        shown = []
        for parameter in own.parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD:
                shown.append(parameter)
            if parameter.name == after:
                shown += [item for item in others if item.kind is item.KEYWORD_ONLY]
        shown += [item for item in others if item.kind is item.VAR_KEYWORD]
        function.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
        return function

    return taken
