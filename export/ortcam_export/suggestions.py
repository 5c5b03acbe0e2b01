"""Names that a user may have meant, compared by their words (resnet-18 is resnet18), and only then by their letters."""

import difflib
import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "suggest"]


def suggest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The names closest to one that is not known, best first.

    A name that is the same but for case and punctuation stands alone. Then come the names that begin with this one, and
    those that share most of its words, where letters and digits are words of their own; last those of similar letters.

    Args:
        name: as the user wrote it.
        known: the names there are.
        most: how many to return at most.
    """
    names = sorted(known)
    plain = _plain(name)
    if same := [other for other in names if _plain(other) == plain]:
        return same[:most]
    close = difflib.get_close_matches(name, names, n=most)
    if plain and (family := [other for other in names if _plain(other).startswith(plain)]):
        return family[:most]
    words = set(_words(name))
    shared = {other: len(words & set(_words(other))) for other in names}
    # A number alone, as the 18 of resnet18, says nothing.
    shared = {other: count for other, count in shared.items() if count and not _only_numbers(words, other)}
    best = sorted(shared, key=lambda other: (-shared[other], other not in close, abs(len(other) - len(name)), other))
    return [*dict.fromkeys([*best, *close])][:most]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`suggest` as a question, or None where nothing is close."""
    close = suggest(name, known)
    return f"did you mean {', '.join(close)}?" if close else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    """Runs of letters and runs of digits, in lower case; camelCase is taken apart."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+|[0-9]+", parted.lower())


def _only_numbers(words: set[str], other: str) -> bool:
    return all(word.isdigit() or len(word) == 1 for word in words & set(_words(other)))
