"""Names of the classes: the user's, as a file or a list, or those of ImageNet."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam_export.errors import ExportError

__all__ = ["IMAGENET", "by_index", "imagenet_labels", "names_by_index", "parse_labels", "read_labels"]

IMAGENET: Final = "imagenet"

_MOST_OF_LABELS: Final = 2**24  # bytes; the 21,000 of ImageNet take half a million
_FILE: Final = Path(__file__).with_name("imagenet_labels.txt")
_ACCEPTED: Final = (
    "accepted is one name a line, CSV with an index and a name, a JSON list, or a JSON object of indices and names"
)
# "0 name", "0: name", as Teachable Machine and others write a line.
_NUMBERED: Final = re.compile(r"(\d{1,9})\s*[:\s]\s*(\S.*)", re.ASCII)
_INDEX: Final = re.compile(r"\d{1,9}", re.ASCII)
_DELIMITERS: Final = ",;\t"


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ImageNet, in the order that all common models have."""
    lines = _FILE.read_text("utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def by_index(count: int, what: str = "class") -> tuple[str, ...]:
    """Names for classes, or outputs, that nobody has named.

    Example:
        >>> by_index(2)
        ('class 0', 'class 1')
    """
    return tuple(f"{what} {index}" for index in range(count))


def read_labels(labels: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """The labels a user gave, from their file or as they are; None where none were given.

    Args:
        labels: "imagenet", a file as `parse_labels` takes it, or the labels.

    Raises:
        ExportError: the file cannot be read, or holds no labels in any form that is accepted.
    """
    if labels is None:
        return None
    if not isinstance(labels, (str, Path)):
        return tuple(labels)
    path = Path(labels)
    if str(labels) == IMAGENET and not path.exists():
        return imagenet_labels()
    try:
        if not path.exists():
            raise ExportError(f"--labels {path}: no such file; accepted is `{IMAGENET}`, or a file of names")
        if not path.is_file():
            raise ExportError(f"{path}: no regular file; accepted is a file of labels")
        with path.open("rb") as file:
            content = file.read(_MOST_OF_LABELS + 1)
        if len(content) > _MOST_OF_LABELS:
            raise ExportError(f"{path}: has more than {_MOST_OF_LABELS} bytes, the most that a file of labels may have")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read as a file of labels: {error}") from None
    return parse_labels(text, path)


def parse_labels(text: str, path: Path) -> tuple[str, ...]:
    r"""The labels in a text, in the order of their classes.

    1. JSON: a list of names, or an object: index -> name, name -> index, or one with such an object under `id2label`.
    2. CSV: an index and a name in each row, in any order, with or without a header.
    3. Lines that all begin with their number, "0 cat", as Teachable Machine writes them.
    4. Else one name a line.

    Args:
        text: of the file.
        path: of the file, for messages.

    Raises:
        ExportError: none of these, or indices that are not 0, 1, 2 and so on.

    Example:
        >>> parse_labels("index,name\n1,dent\n0,scratch\n", Path("labels.csv"))
        ('scratch', 'dent')
    """
    if text.lstrip().startswith(("[", "{")):
        try:
            parsed = _from_json(json.loads(text), path)
        except (ValueError, RecursionError) as error:
            raise ExportError(f"{path}: not JSON: {error}") from None
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        parsed = _from_table(lines, path) or _from_numbered(lines) or lines
    if not parsed or not all(isinstance(item, str) for item in parsed):
        raise ExportError(f"{path}: holds no labels; {_ACCEPTED}")
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(parsed)):
        raise ExportError(f"{path}: has a label that is no Unicode text; {_ACCEPTED}")
    return tuple(parsed)


def names_by_index(names: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The names of a mapping index -> name, in order; None where its keys are not 0, 1, 2 and so on."""
    try:
        found = {int(index): name for index, name in names.items()}
    except (TypeError, ValueError, OverflowError):
        return None
    if sorted(found) != list(range(len(names))) or not names:
        return None
    ordered = [found[index] for index in range(len(found))]
    # Keras' class index has pairs of a WordNet number and a name.
    ordered = [name[-1] if isinstance(name, list) and name else name for name in ordered]
    return tuple(ordered) if all(isinstance(name, str) for name in ordered) else None


def _from_json(parsed: Any, path: Path) -> Sequence[Any]:
    if isinstance(parsed, dict) and isinstance(parsed.get("id2label"), dict):
        parsed = parsed["id2label"]
    if not isinstance(parsed, dict):
        return parsed if isinstance(parsed, list) else []
    turned = {index: name for name, index in parsed.items() if isinstance(index, int) and not isinstance(index, bool)}
    names = names_by_index(parsed) or (names_by_index(turned) if len(turned) == len(parsed) else None)
    if names is None:
        raise ExportError(f"{path}: an object of labels has the indices 0 to {len(parsed) - 1}, each once; {_ACCEPTED}")
    return names


def _from_table(lines: Sequence[str], path: Path) -> Sequence[str] | None:
    """The names of a table with a column of indices; None where it is none."""
    delimiter = next((item for item in _DELIMITERS if lines and all(item in line for line in lines)), None)
    if delimiter is None:
        if path.suffix.lower() == ".csv" and any(item in line for line in lines for item in _DELIMITERS):
            raise ExportError(f"{path}: not every row of it has an index and a name; {_ACCEPTED}")
        return None
    try:
        rows = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise ExportError(f"{path}: cannot be read as CSV: {error}") from None
    for start in (0, 1):  # with a header, perhaps
        for column in (0, -1):
            body = rows[start:]
            if body and all(len(row) >= 2 and _INDEX.fullmatch(row[column]) for row in body):
                name = 1 if column == 0 else 0
                indices = [int(row[column]) for row in body]
                if sorted(indices) == list(range(len(body))):
                    return [row[name] for _, row in sorted(zip(indices, body, strict=True))]
                raise ExportError(
                    f"{path}: its indices go from {min(indices)} to {max(indices)} in {len(indices)} rows; accepted is "
                    f"each from 0 to {len(indices) - 1} once"
                )
    if path.suffix.lower() == ".csv":
        raise ExportError(f"{path}: no column of it has the indices of the classes; {_ACCEPTED}")
    return None


def _from_numbered(lines: Sequence[str]) -> Sequence[str] | None:
    found = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = [(int(match[1]), match[2]) for match in found if match is not None]
    if len(numbered) < len(lines) or [index for index, _ in numbered] != list(range(len(lines))):
        return None
    return [name for _, name in numbered]
