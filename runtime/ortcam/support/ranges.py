"""Ranges: which numbers an option accepts, from a command line or a caller, checked before any work starts.

The upper bounds are far beyond what anybody needs. They refuse at once what would otherwise end hours later, or by
running out of memory.
"""

import argparse
import dataclasses
import re
from typing import Any, Final

import numpy as np

from ortcam.errors import OptionError

__all__ = [
    "ACTORS",
    "ALPHA",
    "BASELINE_VALUE",
    "BATCH_SIZE",
    "CACHE_SIZE",
    "CHANNELS",
    "CHUNK",
    "COUNT",
    "CPUS",
    "DEADLINE",
    "DISPLAY",
    "GALLERY",
    "GALLERY_IMAGES",
    "GPUS",
    "IMAGE_CHANNELS",
    "LIMIT",
    "LOGIT_BIAS",
    "LOGIT_SCALE",
    "MAX_PIXELS",
    "MEAN",
    "MEMORY_LIMIT",
    "OPSET",
    "PORT",
    "PROCESSES",
    "RANDOMIZE",
    "RESIZE",
    "RUNS",
    "SAMPLING_ERROR",
    "SCALE",
    "SECONDS",
    "SEED",
    "SHARE",
    "SHRUNK_SIDE",
    "SIDE",
    "STATIC_BATCH",
    "STD",
    "STEP",
    "THREADS",
    "TOLERANCE",
    "TOP_K",
    "VALUE_RANGE",
    "WHITE",
    "Numbers",
    "Range",
    "is_number",
    "numbers_in",
    "shown",
]

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_REAL: Final = re.compile(r"[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_LONGEST: Final = 60  # characters of a value that a message repeats


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an option accepts. Called with a text it is a type of argparse.

    Attributes:
        name: of the option, for messages; "" where argparse names it.
        least: the lowest number.
        most: the highest number.
        whole: whether only whole numbers are accepted.
        open_below: whether `least` itself is not accepted.
        open_above: whether `most` itself is not accepted.
        unit: what is counted, in words.
        otherwise: what else is accepted, in words.

    Example:
        >>> Range("threads", 1, 1024)("8"), Range("threads", 1, 1024).words
        (8, 'a whole number from 1 to 1024')
    """

    name: str
    least: float
    most: float
    whole: bool = True
    open_below: bool = False
    open_above: bool = False
    unit: str = ""
    otherwise: str = ""

    @property
    def words(self) -> str:
        """What is accepted, for a message."""
        return f"{self.unit or ('a whole number' if self.whole else 'a number')} {self.bounds}{self.otherwise}"

    @property
    def bounds(self) -> str:
        """The bounds, for a message."""
        least, most = (str(bound) if isinstance(bound, int) else f"{bound:g}" for bound in (self.least, self.most))
        if self.open_below and self.open_above:
            return f"between {least} and {most}"
        return f"above {least}, up to {most}" if self.open_below else f"from {least} to {most}"

    def __call__(self, text: str) -> Any:
        """The number that a text of a command line is.

        Raises:
            ArgumentTypeError: it is none, in ASCII digits.
            OptionError: it is not in the range.
        """
        try:
            value = self.read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{shown(text)}: accepted is {self.words}") from None
        if not self.name and not self.holds(value):
            raise argparse.ArgumentTypeError(f"{shown(text)}: accepted is {self.words}")
        return self.check(value)

    def read(self, text: str) -> float | int:
        """The number that a text is, in the range or not.

        Raises:
            ValueError: it is none, in ASCII digits.
        """
        text = text.strip()
        if self.whole:
            if not _WHOLE.fullmatch(text):
                raise ValueError(text)
            return int(text)
        if not (_REAL.fullmatch(text) or _NOT_FINITE.fullmatch(text)):  # what is not finite is in no range
            raise ValueError(text)
        return float(text)

    def check(self, value: object) -> Any:
        """The value as Python's own int or float.

        Raises:
            OptionError: it is no number, or not in the range.
        """
        if not self.holds(value):
            raise OptionError(f"{self.name}={shown(value)}: accepted is {self.words}")
        return value.item() if isinstance(value, np.generic) else value

    def parse(self, value: object) -> Any:
        """The number that a text or a value is.

        Raises:
            ValueError: it is none, or not in the range.
        """
        number = self.read(value) if isinstance(value, str) else value
        if not self.holds(number):
            raise ValueError(value)
        return number.item() if isinstance(number, np.generic) else number

    def holds(self, value: object) -> bool:
        """Whether a value is a number in the range; a bool is none."""
        kinds = (int, np.integer) if self.whole else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        number: Any = value
        above = number > self.least if self.open_below else number >= self.least
        return bool(above and (number < self.most if self.open_above else number <= self.most))


@dataclasses.dataclass(frozen=True)
class Numbers(Range):
    """Several numbers of one range in one text, with commas between them.

    Attributes:
        count: how many there are; a single one stands for all of them.
        fewest: how many there are at least, where it is not `count`; a single one stays alone then.
        named: words that are accepted in place of numbers, and stay texts.

    Example:
        >>> Numbers("mean", 0, 1, whole=False, count=3)(".5,.4,.3"), Numbers("input_size", 1, 9, count=2)("7x7")
        ((0.5, 0.4, 0.3), (7, 7))
    """

    count: int = 3
    fewest: int | None = None
    named: tuple[str, ...] = ()

    def __call__(self, text: str) -> Any:
        """The numbers that a text of a command line is, as a tuple.

        Raises:
            ArgumentTypeError: another count, or one of them is no number.
            OptionError: one of them is not in the range.
        """
        if text in self.named:
            return text
        parts = numbers_in(text)
        if len(parts) == 1 and self.fewest is None:
            parts *= self.count
        sides = "x" in text.lower() and self.fewest is not None  # "32x48" is a size; a list of values has no x
        if sides or not (self.count if self.fewest is None else self.fewest) <= len(parts) <= self.count:
            words = "".join(f"{word}, or " for word in self.named)
            count = f"{self.count}" if self.fewest in (None, self.count) else f"{self.fewest} to {self.count}"
            raise argparse.ArgumentTypeError(
                f"{shown(text)}: accepted is {words}{count} numbers {self.bounds}, with commas between them"
            )
        return tuple(super(Numbers, self).__call__(part) for part in parts)


def numbers_in(text: str) -> list[str]:
    """The parts of "1,2,3" or "224x224", empty ones left out.

    Example:
        >>> numbers_in("224x224"), numbers_in(".5,")
        (['224', '224'], ['.5'])
    """
    return [part for part in re.split(r"[,x]", text) if part] or [text]


def is_number(text: str) -> bool:
    """Whether a word of a command line is a number, or several as `numbers_in` takes them apart."""
    return all(_REAL.fullmatch(part) or _NOT_FINITE.fullmatch(part) for part in numbers_in(text))


def shown(value: object) -> str:
    """A value as a message repeats it: short, whatever its length.

    Example:
        >>> shown("auto"), shown(10**400)
        ("'auto'", '10000000000000000000... (401 digits)')
    """
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        if value.bit_length() > 10_000:  # Python refuses to write such a number in decimal
            return f"a number of {value.bit_length()} bits"
        text = str(value)
        return f"{text[:20]}... ({len(text.lstrip('-'))} digits)"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def check_flags(**values: object) -> None:
    """Refuse flags that are neither true nor false, such as texts.

    Raises:
        OptionError: one is neither.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise OptionError(f"{name}={shown(value)}: accepted is True or False")


ACTORS: Final = Range("actors", 1, 100_000)
ALPHA: Final = Range("alpha", 0, 1, whole=False)
CHUNK: Final = Range("batch_size", 1, 65536)
BASELINE_VALUE: Final = Numbers(
    "baseline_value", -1e6, 1e6, whole=False, count=64, fewest=1, named=("mean", "zero"), otherwise=", mean or zero"
)
BATCH_SIZE: Final = dataclasses.replace(CHUNK, otherwise=", or 'auto'")
CACHE_SIZE: Final = Range("ORTCAM_CACHE_SIZE", 0, 1e6, whole=False, unit="a number of gigabytes")
CHANNELS: Final = Range("budget", 1, 1_000_000)
COUNT: Final = Range("", 0, 1_000_000)
CPUS: Final = Range("cpus_per_actor", 1, 1024)
DEADLINE: Final = Range("deadline", 0, 1_000_000_000, whole=False, open_below=True, unit="milliseconds")
DISPLAY: Final = Numbers("display", 0, 63, count=3, fewest=1)
GALLERY: Final = Range("gallery", 1, 2000)
GALLERY_IMAGES: Final = 200  # where nobody says how many
GPUS: Final = Range("gpus_per_actor", 0, 64, whole=False)
IMAGE_CHANNELS: Final = Range("channels", 1, 64)
LIMIT: Final = Range("limit", 1, 1_000_000_000)
LOGIT_BIAS: Final = Range("logit_bias", -1e6, 1e6, whole=False)
LOGIT_SCALE: Final = Range("logit_scale", 0, 1e6, whole=False, open_below=True)
MAX_PIXELS: Final = Range("max_pixels", 1, 2**31 - 1)
MEAN: Final = Numbers("mean", -1e6, 1e6, whole=False, count=64, fewest=1)
MEMORY_LIMIT: Final = Range("memory_limit", 1, 1_000_000, unit="a whole number of megabytes")
OPSET: Final = Range("opset", 1, 1000)
PORT: Final = Range("port", 0, 65535)
PROCESSES: Final = Range("processes", 1, 1024)
RANDOMIZE: Final = Range("randomize", 1, 1_000_000_000)
RESIZE: Final = Range("resize", 1, 16384)
RUNS: Final = Range("runs", 1, 10_000)
SAMPLING_ERROR: Final = Range("sampling_error", 0, 1000, whole=False, open_below=True)
SCALE: Final = Range("scale", 0, 1e6, whole=False, open_below=True)
SECONDS: Final = Range("seconds", 0, 604_800, whole=False, open_below=True)
SEED: Final = Range("seed", 0, 2**53 - 1)  # the whole numbers that every reader of JSON has
SHARE: Final = Range("budget", 0, 1, whole=False, open_below=True)
SHRUNK_SIDE: Final = Range("longest_side", 1, 65535, otherwise=", or None for no limit")
SIDE: Final = Numbers("input_size", 1, 16384, count=2)
STATIC_BATCH: Final = Range("static_batch", 1, 4096)
STD: Final = Numbers("std", 1e-9, 1e6, whole=False, count=64, fewest=1)
STEP: Final = Range("step", 1, 16384**2)
THREADS: Final = Range("threads", 1, 1024)
TOLERANCE: Final = Range("tolerance", 0, 1, whole=False, open_below=True, open_above=True)
TOP_K: Final = Range("top_k", 1, 1_000_000)
VALUE_RANGE: Final = Numbers("value_range", -1e9, 1e9, whole=False, count=2, fewest=2)
WHITE: Final = Range("white", 1, 65535)
