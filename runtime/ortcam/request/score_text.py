"""The grammar of `--score`: from a text to terms, before a model is known.

```text
score      := "logit" | "probability"                   of each class that is explained
            | expression                                one score, and one map
expression := ["-"] term ((" + " | " - ") term)*        + and - between spaces, since labels may have them
term       := [NUMBER "*"] item | NUMBER
item       := "logit:" CLASS | "probability:" CLASS | CLASS | "entropy" | "cosine:" ARRAY
            | OUTPUT "[" (INDEX | ":") ("," (INDEX | ":"))* "]" ["@" ARRAY] | OUTPUT
```

CLASS is read by the rule of `request.targets`, and ARRAY is the name of an array or a file. OUTPUT is `output`, or of a
model with several outputs the name of one, which stands alone where it is one number. All of them may stand in quotes.
"""

import dataclasses
import math
import re
from typing import Final, Literal

from ortcam.errors import OptionError
from ortcam.support.ranges import shown

__all__ = ["VALUES", "WORDS", "Item", "ItemKind", "parse_score"]

# The scores of classes, one map for each.
WORDS: Final = ("logit", "probability")

ItemKind = Literal["logit", "probability", "entropy", "cosine", "output", "one"]

# Where probabilities are asked for and there are none.
VALUES: Final = (
    "this model's outputs are values, not probabilities; accepted is logit, the name or the index of an output, "
    "output[I] or cosine:FILE"
)

_LONGEST: Final = 1 << 16  # characters
_NUMBER: Final = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
_FACTOR: Final = re.compile(rf"({_NUMBER})\s*\*\s*(.*)", re.ASCII | re.DOTALL)
_CONSTANT: Final = re.compile(_NUMBER, re.ASCII)
_OUTPUT: Final = re.compile(r"output\[([0-9:,\s]*)\]\s*(?:@\s*(.+))?", re.ASCII | re.DOTALL)
_NAMED: Final = re.compile(
    r"""(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<plain>[^"'].*?))\s*\[(?P<axes>[0-9:,\s]*)\]\s*(?:@\s*(?P<mask>.+))?""",
    re.ASCII | re.DOTALL,
)
_INDEX: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_QUOTES: Final = "\"'"
_EXAMPLES: Final = (
    "accepted is logit or probability, or an expression such as 'mug - key', '2*logit:mug', 'entropy', "
    "'cosine:text.npy' or 'output[3]'"
)


@dataclasses.dataclass(frozen=True)
class Item:
    """A term of a score.

    Attributes:
        kind: what is read of the outputs.
        factor: what it is multiplied by.
        text: as it was written, for messages.
        name: CLASS of a logit or a probability; ARRAY of a cosine, or the mask of an output.
        index: of an output, per axis; None for all of an axis.
        output: the name of an output. A logit has one, too, where its class is written as an element of an output is:
            which of the two is meant the model says.
    """

    kind: ItemKind
    factor: float
    text: str
    name: str | None = None
    index: tuple[int | None, ...] = ()
    output: str | None = None


def parse_score(text: str) -> tuple[Item, ...]:
    """The terms of an expression.

    Raises:
        OptionError: it is empty or too long, or a term is not accepted.

    Example:
        >>> [(item.kind, item.factor, item.name) for item in parse_score("cat - 0.5*probability:dog")]
        [('logit', 1.0, 'cat'), ('probability', -0.5, 'dog')]
    """
    if not text.strip() or len(text) > _LONGEST:
        raise OptionError(f"score={shown(text)}: {_EXAMPLES}")
    items = tuple(_item(part, sign, text) for sign, part in _split(text.strip()))
    if all(item.kind == "one" for item in items):
        number = text.strip().lstrip("-").strip()
        hint = f"; class {number} is index:{number}" if number.isdecimal() else "; a class is index:N"
        raise OptionError(f"score={shown(text)}: is a number, the same for every image{hint}")
    return items


def _split(text: str) -> list[tuple[float, str]]:
    """Signs and terms: cut at + and - between spaces that lie in no quotes and no brackets."""
    sign = 1.0
    if text.startswith("-"):
        sign, text = -1.0, text[1:].lstrip()
    parts: list[tuple[float, str]] = []
    start, quote, inside = 0, "", False
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and (place == start or text[place - 1] in " :*@"):
            quote = letter if letter in text[place + 1 :] else ""
        elif letter in "[]":
            inside = letter == "["
        elif letter in "+-" and not inside and text[place - 1 : place] == " " and text[place + 1 :][:1] in (" ", ""):
            parts.append((sign, text[start:place]))
            sign, start = (1.0 if letter == "+" else -1.0), place + 1
    parts.append((sign, text[start:]))
    return parts


def _item(part: str, sign: float, text: str) -> Item:
    """One term.

    Args:
        part: the term.
        sign: in front of it.
        text: of the whole score, for messages.
    """
    part = part.strip()
    if not part:
        raise OptionError(f"score={shown(text)}: a term is empty; {_EXAMPLES}")
    if _CONSTANT.fullmatch(part):
        return Item("one", sign * _number(part, text), part)
    factor = sign
    if found := _FACTOR.fullmatch(part):
        factor, part = sign * _number(found[1], text), found[2].strip()
        if not part:
            raise OptionError(f"score={shown(text)}: nothing to multiply; {_EXAMPLES}")
    if part.lower() == "entropy":
        return Item("entropy", factor, part)
    if part.lower().startswith("output["):
        return _output(part, factor, text)
    head, colon, rest = part.partition(":")
    kind = head.strip().lower()
    if colon and kind in ("logit", "probability", "cosine"):
        if not rest.strip():
            what = "a file or the name of an array" if kind == "cosine" else "a class"
            raise OptionError(f"score={shown(text)}: {kind}: needs {what} behind it")
        name = _array_name(rest, part, text) if kind == "cosine" else rest.strip()
        return Item(kind, factor, part, name)  # type: ignore[arg-type]
    if found := _NAMED.fullmatch(part):
        axes = [axis.strip() for axis in found["axes"].split(",")]
        if all(axis == ":" or _INDEX.fullmatch(axis) for axis in axes):
            output = found["double"] or found["single"] or found["plain"]
            if found["mask"] is not None:
                return _of_output(output, axes, found["mask"], Item("output", factor, part), text)
            return Item("logit", factor, part, part, _index(axes), output)
    return Item("logit", factor, part, part, (), _unquoted(part))


def _output(part: str, factor: float, text: str) -> Item:
    found = _OUTPUT.fullmatch(part[:6].lower() + part[6:])
    axes = [axis.strip() for axis in found[1].split(",")] if found else []
    if not found or not all(axis == ":" or _INDEX.fullmatch(axis) for axis in axes):
        raise OptionError(
            f"score={shown(text)}: {shown(part)} is not accepted; accepted is output[I, J, ...] with an index from 0 "
            "or : for each axis, and @FILE behind it for a mask"
        )
    return _of_output(part[:6], axes, found[2], Item("output", factor, part), text)


def _of_output(output: str, axes: list[str], mask: str | None, item: Item, text: str) -> Item:
    """Elements of an output, weighed by a mask if there is one."""
    mask = _array_name(mask, item.text, text) if mask else None
    if mask is not None and axes.count(":") != 2:
        raise OptionError(
            f"score={shown(text)}: a mask has two axes, and {shown(item.text)} leaves {axes.count(':')}; accepted is : "
            "for two of them"
        )
    return dataclasses.replace(item, name=mask, index=_index(axes), output=output)


def _index(axes: list[str]) -> tuple[int | None, ...]:
    return tuple(None if axis == ":" else int(axis) for axis in axes)


def _number(text: str, whole: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value > 1e30:
        raise OptionError(f"score={shown(whole)}: the number {text} is too large")
    return value


def _array_name(name: str, part: str, whole: str) -> str:
    """ARRAY without the quotes around it."""
    name = _unquoted(name.strip())
    if not name:
        raise OptionError(f"score={shown(whole)}: {shown(part)} needs a file or the name of an array, not ''")
    return name


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in _QUOTES else name
