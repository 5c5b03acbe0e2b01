"""Globs and braces in INPUT: `photos/**/*.jpg`, `train-{000..099}.tar`."""

import re
from collections.abc import Iterator
from typing import Final

from ortcam.errors import DatasetError

__all__ = ["Pattern", "expanded", "has_braces", "is_glob"]

_WILDCARD: Final = re.compile(r"[*?\[]")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_NUMBERS: Final = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_MOST_EXPANDED: Final = 1_000_000


class Pattern:
    """A glob, split into the folder that is fixed and what is matched below it.

    Attributes:
        base: the part before the first wildcard, up to its last slash; "" if there is none.
        start: what the names below `base` begin with, as far as that is fixed.
    """

    def __init__(self, text: str) -> None:
        first = _WILDCARD.search(text)
        end = len(text) if first is None else first.start()
        cut = text.rfind("/", 0, end) + 1
        self.base = text[:cut]
        self.start = text[cut:end]
        self._parts = [part for part in text[cut:].split("/") if part]
        self._components = [None if part == "**" else _component(part) for part in self._parts]
        self._whole = re.compile(_whole(self._parts), re.DOTALL)

    def matches(self, name: str) -> bool:
        """Tell whether a file below `base` is meant, by its path relative to that."""
        return self._whole.fullmatch(name) is not None

    def may_hold(self, folder: str) -> bool:
        """Tell whether files below a folder may be meant, by its path relative to `base`."""
        for index, part in enumerate(folder.split("/")):
            if index >= len(self._components) - 1 and None not in self._components:
                return False
            component = self._components[index] if index < len(self._components) else None
            if component is None:  # `**`
                return True
            if not component.fullmatch(part):
                return False
        return True


def is_glob(text: str) -> bool:
    """Tell whether a text has a wildcard."""
    return _WILDCARD.search(text) is not None


def has_braces(text: str) -> bool:
    """Tell whether a text has braces that `expanded` resolves.

    Example:
        >>> has_braces("train-{00..12}.tar"), has_braces("{a}.tar")
        (True, False)
    """
    return any("," in found[1] or _NUMBERS.fullmatch(found[1]) for found in _BRACES.finditer(text))


def expanded(text: str) -> list[str]:
    """Every name that braces stand for, in order.

    Raises:
        DatasetError: more than a million.

    Example:
        >>> expanded("{train,test}-{08..10}.tar")[:4]
        ['train-08.tar', 'train-09.tar', 'train-10.tar', 'test-08.tar']
    """
    names = [""]
    end = 0
    for found in _BRACES.finditer(text):
        if (choices := list(_choices(found[1]))) == [found[0]]:
            continue
        before = text[end : found.start()]
        if len(names) * len(choices) > _MOST_EXPANDED:
            raise DatasetError(f"{text}: stands for more than {_MOST_EXPANDED} files; accepted are fewer")
        names = [name + before + choice for name in names for choice in choices]
        end = found.end()
    return [name + text[end:] for name in names]


def _choices(inner: str) -> Iterator[str]:
    numbers = _NUMBERS.fullmatch(inner)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        is_padded = any(len(end) > 1 and end.startswith("0") for end in numbers.groups())
        width = max(map(len, numbers.groups())) if is_padded else 0
        if abs(last - first) >= _MOST_EXPANDED:
            raise DatasetError(f"{{{inner}}}: stands for more than {_MOST_EXPANDED} files; accepted are fewer")
        step = 1 if last >= first else -1
        yield from (f"{number:0{width}d}" for number in range(first, last + step, step))
    elif "," in inner:
        yield from inner.split(",")
    else:
        yield f"{{{inner}}}"


def _whole(parts: list[str]) -> str:
    """One regular expression for a path."""
    text = ""
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if part == "**":
            text += ".*" if is_last else "(?:[^/]+/)*"
        else:
            text += _component(part).pattern + ("" if is_last else "/")
    return text


def _component(part: str) -> re.Pattern[str]:
    """A regular expression for one part between slashes."""
    text, index = "", 0
    while index < len(part):
        character = part[index]
        index += 1
        if character == "*":
            text += "[^/]*"
        elif character == "?":
            text += "[^/]"
        elif character == "[" and (end := part.find("]", index + 1 + (part[index : index + 1] == "!"))) > 0:
            inner = part[index:end].replace("\\", "\\\\").replace("[", "\\[")
            text += f"(?!/)[{'^' + inner[1:] if inner.startswith('!') else inner.replace('^', chr(92) + '^')}]"
            index = end + 1
        else:
            text += re.escape(character)
    try:
        return re.compile(text, re.DOTALL)
    except re.error:  # a range from z to a
        return re.compile(re.escape(part))
