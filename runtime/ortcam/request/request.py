"""What several commands read from the command line in the same way."""

import argparse
from collections.abc import Sequence

from ortcam.engine.session import Provider
from ortcam.errors import OptionError
from ortcam.explainer import BatchSize
from ortcam.scoring.budget import Limits
from ortcam.support.ranges import BATCH_SIZE, CHANNELS, SHARE, shown

__all__ = ["batch_size", "budget", "pairs_of", "providers"]


def batch_size(text: str) -> BatchSize:
    """Masked images per run, or "auto"; a type of argparse.

    Raises:
        ArgumentTypeError: neither.
        OptionError: a number that is not accepted.
    """
    if text == "auto":
        return "auto"
    return int(BATCH_SIZE(text))


def budget(text: str) -> float | int:
    """A share where there is a point or a percent sign, else a number of channels; a type of argparse.

    Raises:
        ArgumentTypeError: neither.
        OptionError: a number that is not accepted.
    """
    try:
        value: float | int
        if text.endswith("%"):
            value = SHARE.read(text[:-1]) / 100
        else:
            value = (SHARE if set(text) & set(".eE") else CHANNELS).read(text)
    except ValueError:
        message = f"{shown(text)}: accepted is a share of the channels (0.12, 12%) or a number of them"
        raise argparse.ArgumentTypeError(message) from None
    Limits(budget=value)
    return value


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
            raise OptionError(f"{flag} {shown(pair)}: accepted is KEY=VALUE")
        given[key.strip()] = value.strip()
    return given
