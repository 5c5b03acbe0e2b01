"""Names of methods in help texts, listed when a help is shown: only then are installed packages asked for theirs."""

import argparse
from collections.abc import Callable

from ortcam.methods import METHODS, Method

__all__ = ["list_methods"]


def list_methods(action: argparse.Action, wanted: Callable[[Method], bool] = lambda _: True) -> None:
    """Let the help of a flag say `%(methods)s`.

    Args:
        action: the flag.
        wanted: tells which methods the flag is about.
    """
    vars(action)["methods"] = _Names(wanted)  # argparse formats a help with the attributes of its flag


class _Names:
    """A text that is made when it is printed."""

    def __init__(self, wanted: Callable[[Method], bool]) -> None:
        self._wanted = wanted

    def __str__(self) -> str:
        return ", ".join(method.name for method in METHODS if self._wanted(method))
