"""One look for all plots: small multiples on white, colours and marks that colour-blind readers can tell apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which white swallows; each goes with a mark of its own.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")


def panels(count: int, *, columns: int, size: tuple[float, float] = (4.2, 3.4)) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` panels in rows of `columns`; `size` is a panel's, in inches."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, layout="constrained"
    )
    flat = list(axes.ravel())
    for axis in flat[count:]:
        axis.set_visible(False)
    for axis in flat[:count]:
        axis.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, flat[:count]


def style(index: int) -> dict[str, Any]:
    """Colour and mark of the series at this place in the legend."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKS[index % len(MARKS)]}


def nines(correlations: Sequence[float], *, top: float = 5.0) -> "np.typing.NDArray[np.float64]":
    """Correlations as -log10(1 - r): 0.9 is 1, 0.99 is 2; drawn no lower than 0 and no higher than `top` nines."""
    distance = np.clip(1 - np.asarray(correlations, np.float64), 10.0**-top, 1)
    return np.asarray(-np.log10(distance))


def label_nines(axis: "Axes", *, top: int = 5) -> None:
    """Label a vertical axis of `nines` with the correlations themselves."""
    axis.set_yticks(range(top + 1), ["≤ 0", *(f"{1 - 10.0**-n:.{n}f}" for n in range(1, top)), "1"])


def legend_below(figure: "Figure", axis: "Axes", *, columns: int) -> None:
    """One legend for all panels, under them, with the entries of one panel."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def plain_numbers(axis: "Axis") -> None:
    """Label a logarithmic axis with numbers as people write them."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG and forget the figure."""
    import matplotlib.pyplot as plt

    from ortcam.support.files import make_folder, replacing

    make_folder(path.parent)
    with replacing(path, durable=True) as partial:
        figure.savefig(partial, dpi=130, facecolor="white", format=path.suffix[1:])
    plt.close(figure)
