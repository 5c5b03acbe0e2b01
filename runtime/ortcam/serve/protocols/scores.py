"""The score of a request: a text, and the arrays that it names, which come as lists of numbers and never as files."""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError
from ortcam.request import Score
from ortcam.support.ranges import shown
from ortcam.support.strict_json import parse_json

__all__ = ["take_score"]

_MOST_ARRAYS: Final = 16  # of a score
_DEEPEST: Final = 2  # dimensions of one: a vector, or a mask
_EXAMPLE: Final = '{"query": [0.1, -0.3]}'
_OF_ARRAYS: Final = f"accepted is an object of at most {_MOST_ARRAYS} lists of numbers, such as {_EXAMPLE}"


def take_score(given: dict[str, object]) -> Score | None:
    """Take the score and its arrays from the parameters. No file is read: a server opens none that a client names.

    Args:
        given: parameters by name; `score` and `score_arrays` are removed.

    Raises:
        OptionError: another text, an array that is missing, not used or none, or arrays without a score.
    """
    text, arrays = given.pop("score", None), given.pop("score_arrays", None)
    if text is None:
        if arrays is not None:
            raise OptionError("score_arrays: goes with score, which names them")
        return None
    if not isinstance(text, str):
        raise OptionError(f"score={shown(text)}: accepted is a text, such as 'mug - key'")
    return Score(text, arrays=_arrays(arrays), files=False)


def _arrays(value: object) -> dict[str, NDArray[np.float64]]:
    """The arrays of a score, as JSON has them, or as the text of an object in a query string or a form."""
    if isinstance(value, str):
        text = value
        try:
            value = parse_json(text)
        except ValueError:
            raise OptionError(f"score_arrays={shown(text[:60])}: {_OF_ARRAYS}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MOST_ARRAYS:
        raise OptionError(f"score_arrays: {_OF_ARRAYS}")
    return {name: _array(name, item) for name, item in value.items()}


def _array(name: str, value: object) -> NDArray[np.float64]:
    """One array: nested lists of numbers. Every value is looked at before numpy is, which makes arrays of anything."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and isinstance(level[0], list):
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1 or 0 in lengths or len(shape) == _DEEPEST:
            raise OptionError(f"score_arrays[{shown(name)}]: {_OF_ARRAYS}")
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    if not shape or not set(map(type, level)) <= {int, float}:
        raise OptionError(f"score_arrays[{shown(name)}]: {_OF_ARRAYS}")
    try:
        return np.fromiter(level, np.float64, len(level)).reshape(shape)
    except OverflowError:
        raise OptionError(f"score_arrays[{shown(name)}]: has a number beyond those of float64") from None
