"""What several commands read from the command line in the same way."""

import argparse
from collections.abc import Sequence

from ortcam.errors import OptionError
from ortcam.explainer import BatchSize
from ortcam.session import Provider

__all__ = ["batch_size", "budget", "pairs_of", "providers"]


def batch_size(text: str) -> BatchSize:
    """Masked images a run, or "auto"; a type of argparse."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: accepted is a whole number from 1, or auto")
    return int(text)


def budget(text: str) -> float | int:
    """A share where there is a point or a percent sign, else a number of channels."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        message = f"{text!r}: accepted is a share of the channels (0.12, 12%) or a number of them"
        raise argparse.ArgumentTypeError(message) from None


def providers(names: str | None, pairs: Sequence[str]) -> list[Provider] | None:
    """Execution providers in the order given, the first with its options; None where none was named.

    Raises:
        OptionError: options without a provider, or not of the form KEY=VALUE.
    """
    if not names:
        if pairs:
            raise OptionError("--provider-option: goes with --provider NAME, whose option it is")
        return None
    first, *others = names.split(",")
    given = pairs_of("--provider-option", pairs)
    return [(first, given) if given else first, *others]


def pairs_of(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE pairs.

    Raises:
        OptionError: not of that form.
    """
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise OptionError(f"{flag} {pair!r}: accepted is KEY=VALUE")
        given[key.strip()] = value.strip()
    return given
