"""How methods and baselines look in all plots of the page: colours, dashes and marks."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from ortcam.evaluation.results import Results

__all__ = ["MARKS", "Look", "looks_of"]

# Okabe and Ito's colours without black and yellow, as in all plots of this project, and paler ones for a dark page.
_COLOURS: Final = (
    ("#0072B2", "#4DA6E8"),
    ("#D55E00", "#F0803C"),
    ("#009E73", "#2BBF94"),
    ("#CC79A7", "#E09BC3"),
    ("#E69F00", "#E69F00"),
    ("#56B4E9", "#8CCBF0"),
)
_GREYS: Final = (("#3C4148", "#D5D9DF"), ("#6E747C", "#A9AFB8"), ("#92989F", "#858B94"))  # of baselines
_DASHES: Final = ("none", "8 3", "2 2.5", "9 3 2 3", "5 2.5", "12 3 2 3 2 3", "1 3")
# Outlines around (0,0): circle, square, triangle, diamond, triangle upside down, plus, cross.
MARKS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.6 3.4H-4.6z",
    "M0-5.2L5.2 0L0 5.2L-5.2 0z",
    "M0 4.8L4.6-3.4H-4.6z",
    "M-1.6-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "M-4.6-2.4L-2.4-4.6L0-2.2L2.4-4.6L4.6-2.4L2.2 0L4.6 2.4L2.4 4.6L0 2.2L-2.4 4.6L-4.6 2.4L-2.2 0z",
)


@dataclasses.dataclass(frozen=True)
class Look:
    """An entry, and its look in all plots.

    Attributes:
        number: its place among the entries.
        name: of the entry.
        title: of the entry.
        baseline: whether it is a baseline.
        colour: on a light page.
        pale: colour on a dark page.
        dash: of its line, as SVG has it.
        mark: place of its mark in `MARKS`.
    """

    number: int
    name: str
    title: str
    baseline: bool
    colour: str
    pale: str
    dash: str
    mark: int


def looks_of(results: Results) -> Iterator[Look]:
    """The look of every entry, in the order of the results."""
    count = {True: 0, False: 0}
    for number, entry in enumerate(results.variants):
        baseline = entry.baseline is not None
        colours = _GREYS if baseline else _COLOURS
        # Past the last colour they begin again, with other dashes and marks.
        again, place = divmod(count[baseline], len(colours))
        count[baseline] += 1
        yield Look(
            number,
            entry.name,
            entry.title,
            baseline,
            *colours[place],
            _DASHES[(place + again + baseline) % len(_DASHES)],
            (place + 2 * again + 4 * baseline) % len(MARKS),
        )
