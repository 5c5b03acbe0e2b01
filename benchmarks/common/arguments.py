"""The options that benchmarks share, and how they tell whoever watches what they do."""

import argparse
import re
import sys
from pathlib import Path

from benchmarks.common.machine import physical_cores
from benchmarks.common.results import RESULTS, ROOT


def say(line: str) -> None:
    """Tell whoever watches; the results go to stdout, this does not."""
    print(line, file=sys.stderr, flush=True)


def whole_number(text: str) -> int:
    """A type for argparse: a whole number from 1 to a million."""
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: accepted is a whole number from 1 to 1000000")
    return int(text)


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """The option that says where the results go: a stem, to which .md, .json, -raw.json and .png are added."""
    default = RESULTS / name
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=default,
        metavar="STEM",
        help=f"of the files that are written, .md and .json among them (default {default.relative_to(ROOT)})",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option that says how many threads an operator may use."""
    parser.add_argument(
        "--threads", type=whole_number, default=physical_cores(), help="threads (default: physical cores, %(default)s)"
    )


def add_keep(parser: argparse.ArgumentParser) -> None:
    """The flag that asks for `earlier_models`."""
    parser.add_argument("--keep", action="store_true", help="keep what else is in the raw results")
