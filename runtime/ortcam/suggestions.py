"""What somebody may have meant by a name that is not known: by words first, then by letters."""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["did_you_mean", "plain", "suggestions"]

_MOST: Final = 5
_LEAST_LETTERS: Final = 3  # of a word that others may begin with
_WORD: Final = re.compile(r"[^\W_]+")


def plain(text: str) -> str:
    """A name as it is compared: any case, underscores for spaces, any number of spaces, composed letters."""
    text = unicodedata.normalize("NFC", text).replace("_", " ").casefold()
    return re.sub(r" ?, ?", ", ", " ".join(text.split())).strip()


def suggestions(text: str, known: Iterable[str]) -> list[str]:
    """Names like a text, the likeliest first, at most five.

    "cat" finds "tiger cat" and "Persian cat" by their word, not "car" by its letters. Letters decide only where no word
    is shared and none begins like another.

    Example:
        >>> suggestions("cat", ["car", "tiger cat", "Persian cat"])
        ['tiger cat', 'Persian cat']
    """
    names = list(dict.fromkeys(known))
    wanted = set(_WORD.findall(plain(text)))
    words = {name: set(_WORD.findall(plain(name))) for name in names}
    shared = {name: len(words[name] & wanted) for name in names}
    if most := max(shared.values(), default=0):
        alike = [name for name in names if shared[name] == most]
        return sorted(alike, key=lambda name: len(words[name]))[:_MOST]
    begun = [name for name in names if any(_begin_alike(one, other) for one in words[name] for other in wanted)]
    if begun:
        return sorted(begun, key=lambda name: len(words[name]))[:_MOST]
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(_letters(name), name)
    close = difflib.get_close_matches(_letters(text), by_letters, n=3)
    return [by_letters[letters] for letters in close]


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean 'tiger cat', 'Persian cat'?", or nothing."""
    found = suggestions(text, known)
    return f"; did you mean {', '.join(map(repr, found))}?" if found else ""


def _begin_alike(one: str, other: str) -> bool:
    return min(len(one), len(other)) >= _LEAST_LETTERS and (one.startswith(other) or other.startswith(one))


def _letters(text: str) -> str:
    """Letters, digits and plus signs alone, so that "Score-CAM ++" is near "scorecam++"."""
    return re.sub(r"[^\w+]|_", "", plain(text))
