"""Files that no bundle can be made of, one module a kind: `CASES` maps a name to the file and the message."""

from typing import Any

from tests.export.sources.refusals import classifiers, declarations, endings, files, operators
from tests.export.sources.refusals.case import Case
from tests.export.zoo.graphs import LABELS, InputForm

__all__ = ["ARGUMENTS", "CASES"]

ARGUMENTS: dict[str, Any] = InputForm().arguments() | {"labels": list(LABELS)}

_KINDS = (classifiers, endings, operators, declarations, files)
CASES: dict[str, tuple[Case, str]] = {name: case for kind in _KINDS for name, case in kind.CASES.items()}
