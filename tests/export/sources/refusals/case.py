"""What a case of a refusal is: a file, what is said of it, and the message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

# A file, and the arguments that differ from ARGUMENTS; None takes one away.
Case = Callable[[Path], tuple[Path, dict[str, Any]]]


def enter(cases: dict[str, tuple[Case, str]]) -> Callable[[str], Callable[[Case], Case]]:
    """A decorator that enters a file to be refused with a message (a regular expression)."""

    def refused(message: str) -> Callable[[Case], Case]:
        def decorate(case: Case) -> Case:
            cases[case.__name__] = case, message
            return case

        return decorate

    return refused
