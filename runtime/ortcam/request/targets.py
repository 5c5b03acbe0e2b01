"""Which classes are to be explained: a class index or a label, read by one rule on the command line and in Python.

The rule, for one class:

1. An integer is a class index.
2. `index:N` is the class index N. `label:TEXT` is the class of that label.
3. Any other text is a label, or else a class index. A number that is the index of one class and the label of another
   is an error that says how to name either.

A label matches in any case, with underscores for spaces. One that is written exactly so goes before others that differ
from it in case. A text in quotes is a label.
"""

import collections
import dataclasses
import functools
import operator
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import TargetError
from ortcam.support.ranges import shown
from ortcam.support.suggestions import did_you_mean, plain

__all__ = ["Target", "as_targets", "as_top_k", "class_index", "class_indices", "most_probable"]

Target = int | str

_INDEX: Final = "index:"
_LABEL: Final = "label:"
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_ACCEPTED: Final = "accepted is a class index or a label"
_MOST_LISTED: Final = 10  # labels that a message lists, in at most so many letters:
_MOST_LETTERS: Final = 200


def class_index(target: object, labels: tuple[str, ...]) -> int:
    """The index of one class.

    Args:
        target: an integer, of Python, numpy or a tensor of no dimensions; or a text, read by the rule above.
        labels: of all classes.

    Raises:
        TargetError: no such class, several of this label, or a number that may mean two classes.

    Example:
        >>> class_index("Tiger_cat", ("dog", "tiger cat")), class_index("index:0", ("dog", "tiger cat"))
        (1, 0)
    """
    value = _as_python(target)
    _check_labels(labels, target)
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked(value, labels, str(value))
    if isinstance(value, str):
        return _of_text(value, _names(labels))
    raise TargetError(f"target {reprlib.repr(value)}: {_ACCEPTED}")


def class_indices(texts: Iterable[str], labels: tuple[str, ...]) -> list[int]:
    """The classes in the values of `-t`, in the order given: each a class, or several with commas between.

    A label with commas in it is one class. Where its parts are classes, too, that is an error: `label:TEXT` is the
    label, and `-t A -t B` are its parts.

    Raises:
        TargetError: as `class_index`; or nothing between two commas.

    Example:
        >>> class_indices(["dog,0", "white, striped"], ("dog", "white, striped"))
        [0, 0, 1]
    """
    texts, names = list(texts), _names(labels)
    if texts:
        _check_labels(labels, ",".join(texts))
    return [index for text in texts for index in _in_list(text, names)]


def as_targets(target: object) -> tuple[Target, ...]:
    """The classes in a `target` argument, one or several, as integers and texts that are not looked up yet.

    Args:
        target: an integer, a text, or an iterable of them: list, tuple, generator, numpy array, tensor.

    Raises:
        TargetError: nothing in it, or something else.
    """
    value = _as_python(target)
    if isinstance(value, (bytes, bytearray, memoryview, Mapping)):
        raise TargetError(f"target {reprlib.repr(value)}: {_ACCEPTED}, or several of them")
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if not items:
        raise TargetError("target is empty: accepted is a class index, a label, or several of them")
    found: list[Target] = []
    for item in map(_as_python, items):
        if isinstance(item, bool) or not isinstance(item, (int, str)):
            raise TargetError(f"target {reprlib.repr(item)}: {_ACCEPTED}, or several of them")
        found.append(item)
    return tuple(found)


def as_top_k(top_k: object, classes: int | None = None) -> int:
    """The number of classes to take, checked.

    Args:
        top_k: a whole number, of Python, numpy or a tensor of no dimensions.
        classes: of the model; None where they are not known yet.

    Raises:
        TargetError: it is none, below 1, or beyond the classes.
    """
    value = _as_python(top_k)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (classes is not None and value > classes):
        upper = "" if classes is None else f" to {classes}, the model's classes"
        raise TargetError(f"top_k={shown(value)}: accepted is a whole number from 1{upper}")
    return value


def most_probable(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The most probable classes, int64 [count]: in the order of the logits, which float32 tells apart for longer."""
    return np.argsort(-logits, kind="stable")[:count].astype(np.int64)


def _as_python(value: object) -> object:
    """What an array, a tensor or a number of another library holds, as Python has it."""
    if isinstance(value, (bool, int, str, bytes, bytearray, memoryview)):
        return str(value) if isinstance(value, str) else value
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return value


@dataclasses.dataclass(frozen=True)
class _Names:
    """Labels that can be looked up: classes by label as it is written, and as it is compared."""

    labels: tuple[str, ...]
    exact: Mapping[str, Sequence[int]]
    alike: Mapping[str, Sequence[int]]
    most_commas: int

    def find(self, text: str) -> Sequence[int]:
        """The classes of a label, or of what is in quotes."""
        inner = text.strip()
        if len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "\"'":
            return self._find(text) or self._find(inner[1:-1])
        return self._find(text)

    def _find(self, text: str) -> Sequence[int]:
        return self.exact.get(text) or self.exact.get(text.strip()) or self.alike.get(plain(text), ())


@functools.lru_cache(maxsize=16)
def _names(labels: tuple[str, ...]) -> _Names:
    exact, alike = collections.defaultdict(list), collections.defaultdict(list)
    for index, label in enumerate(labels):
        exact[label].append(index)
        alike[plain(label)].append(index)
    return _Names(labels, dict(exact), dict(alike), max((label.count(",") for label in labels), default=0))


def _in_list(text: str, names: _Names) -> Iterable[int]:
    parts = text.split(",")
    start = 0
    while start < len(parts):
        longest = min(len(parts) - start, names.most_commas + 1)
        for count in range(longest, 1, -1):
            whole = ",".join(parts[start : start + count]).strip()
            if (index := _with_commas(whole, names)) is not None:
                yield index
                start += count
                break
        else:
            yield _of_text(parts[start], names)
            start += 1


def _with_commas(text: str, names: _Names) -> int | None:
    """The class of a label with commas; None where it is none.

    Raises:
        TargetError: several have it, or its parts are classes, too.
    """
    said = text[: len(_LABEL)].lower() == _LABEL
    found = names.find(text[len(_LABEL) :]) if said else names.find(text)
    if not found:
        return None
    index = _only(found, text, names)
    if said or text[0] in "\"'":
        return index
    try:
        parts = [_of_text(part, names) for part in text.split(",")]
    except TargetError:
        return index
    raise TargetError(
        f"target {text!r}: is the label of class {index}, and a list of the classes {', '.join(map(str, parts))}; "
        f"accepted is {_LABEL}{text}, or one class each: {' '.join(f'-t {_INDEX}{part}' for part in parts)}"
    )


def _of_text(text: str, names: _Names) -> int:
    item = text.strip()
    if not item:
        raise TargetError(f"target {text!r}: is empty; {_ACCEPTED}, and {_LABEL} alone for a label of no text")
    if item[: len(_INDEX)].lower() == _INDEX:
        return _of_index(item, names)
    if item[: len(_LABEL)].lower() == _LABEL:
        return _of_label(item, names)
    found = names.find(item)
    if not _NUMBER.fullmatch(item):
        return _only(found, item, names)
    number = int(item)
    if not 0 <= number < len(names.labels):
        return _only(found, item, names) if found else _checked(number, names.labels, item)
    if not found or list(found) == [number]:
        return number
    raise TargetError(
        f"target {item!r}: is the index of class {number} ({names.labels[number]!r}) and the label of class "
        f"{', '.join(map(str, found))}; accepted is {_INDEX}{item} or {_LABEL}{item}"
    )


def _of_index(item: str, names: _Names) -> int:
    number = item[len(_INDEX) :].strip()
    if _NUMBER.fullmatch(number) and 0 <= int(number) < len(names.labels):
        return int(number)
    if found := names.find(item):
        return _only(found, item, names)
    raise TargetError(f"target {item!r}: accepted is {_INDEX} and a number from 0 to {len(names.labels) - 1}")


def _of_label(item: str, names: _Names) -> int:
    """A label behind `label:`, or one that itself begins so."""
    behind, whole = names.find(item[len(_LABEL) :]), names.find(item)
    if behind and whole:
        raise TargetError(
            f"target {item!r}: is the label of class {', '.join(map(str, whole))}, and says the label of class "
            f"{', '.join(map(str, behind))}; accepted is {_INDEX} and the number"
        )
    return _only(behind or whole, item, names)


def _only(found: Sequence[int], item: str, names: _Names) -> int:
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetError(
            f"target {item!r} names the classes {', '.join(map(str, found))}: give the index, say {_INDEX}{found[0]}"
        )
    text = item[len(_LABEL) :] if item[: len(_LABEL)].lower() == _LABEL else item
    raise TargetError(
        f"target {shown(item)}: no class of the model has this label (0 to {len(names.labels) - 1})"
        f"{did_you_mean(text, names.labels) or _all_of_few(names.labels)}"
    )


def _all_of_few(labels: Sequence[str]) -> str:
    """The labels themselves, for the end of a message, where they are few and short."""
    if len(labels) > _MOST_LISTED:
        return ""
    listed = f"; accepted: {', '.join(map(repr, labels))}"
    return listed if len(listed) <= _MOST_LETTERS else ""


def _check_labels(labels: Sequence[str], target: object) -> None:
    if not labels:
        raise TargetError(
            f"target {shown(target)}: what this model gives for an image has no classes; accepted is a score, such as "
            "output[...]"
        )


def _checked(index: int, labels: Sequence[str], said: str) -> int:
    if not 0 <= index < len(labels):
        raise TargetError(f"target {said}: the model has classes 0 to {len(labels) - 1}")
    return index
