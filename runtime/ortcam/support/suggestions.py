"""What somebody may have meant by a name that is not known: by words first, then by letters."""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["did_you_mean", "plain", "suggestions"]

_MOST: Final = 5
_MOST_TOLD: Final = 3
_LEAST_LETTERS: Final = 3  # of a word that others may begin with
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")  # letters and digits are words of their own: resnet18 is resnet, 18


def plain(text: str) -> str:
    """A name as it is compared: any case, underscores for spaces, any number of spaces, composed letters."""
    text = unicodedata.normalize("NFC", text).replace("_", " ").casefold()
    return re.sub(r" ?, ?", ", ", " ".join(text.split())).strip()


def suggestions(text: str, known: Iterable[str]) -> list[str]:
    """Names like a text, the likeliest first, at most five.

    The first of these rules that finds any decides. What it finds comes in the order of its likeness, letter by letter.

    1. The same letters and digits: "resnet-18" is "resnet18".
    2. The most words shared: "cat" finds "tiger cat", not "car". A number or a single letter alone is no word shared.
    3. All letters of the text come first: "mobilenetv3" finds "mobilenet_v3_large". Not for the plural of a name.
    4. A word begins like another: "cats" finds "tiger cat".
    5. Similar letters: "gatte" finds "gate".

    Example:
        >>> suggestions("cat", ["car", "tiger cat", "Persian cat"])
        ['tiger cat', 'Persian cat']
    """
    names = list(dict.fromkeys(known))
    letters = _letters(text)
    return _by_likeness(letters, _alike(letters, _words(text), names))[:_MOST] if letters else []


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean 'tiger cat', 'Persian cat'?", or nothing."""
    found = suggestions(text, known)[:_MOST_TOLD]
    return f"; did you mean {', '.join(map(repr, found))}?" if found else ""


def _alike(letters: str, wanted: set[str], names: list[str]) -> list[str]:
    """The names that the first rule finds that finds any."""
    if same := [name for name in names if _letters(name) == letters]:
        return same
    words = {name: _words(name) for name in names}
    telling = {word for word in wanted if len(word) > 1 and not word.isdigit()} or wanted
    shared = {name: len(words[name] & wanted) if words[name] & telling else 0 for name in names}
    if most := max(shared.values(), default=0):
        return [name for name in names if shared[name] == most]
    plural = any(f"{_letters(name)}s" == letters for name in names)
    if (
        not plural
        and len(letters) >= _LEAST_LETTERS
        and (family := [name for name in names if _letters(name).startswith(letters)])
    ):
        return family
    if begun := [name for name in names if any(_begin_alike(one, other) for one in words[name] for other in wanted)]:
        return begun
    by_letters = {_letters(name): name for name in reversed(names)}
    return [by_letters[close] for close in difflib.get_close_matches(letters, by_letters, n=_MOST_TOLD)]


def _by_likeness(letters: str, names: list[str]) -> list[str]:
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(letters)  # what is compared with many is analysed once

    def likeness(name: str) -> float:
        matcher.set_seq1(_letters(name))
        return -matcher.ratio()

    return sorted(names, key=likeness)


def _begin_alike(one: str, other: str) -> bool:
    return min(len(one), len(other)) >= _LEAST_LETTERS and (one.startswith(other) or other.startswith(one))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(plain(_CAMEL.sub(" ", text))))


def _letters(text: str) -> str:
    """Letters, digits and plus signs alone, so that "Score-CAM ++" is near "scorecam++"."""
    return re.sub(r"[^\w+]|_", "", plain(text))
