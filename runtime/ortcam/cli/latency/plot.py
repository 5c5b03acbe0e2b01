"""The plot of `ortcam benchmark`, drawn with matplotlib, which is imported only here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.benchmarking import Row, Timings
from ortcam.errors import OptionError, OutputError
from ortcam.support.extras import missing
from ortcam.support.files import replacing
from ortcam.support.terminal import printable
from ortcam.support.unfinished import clear
from ortcam.support.words import counted, measured_time

__all__ = ["PLOTS", "check_plot", "draw"]

PLOTS: Final = (".png", ".svg", ".pdf")
_EXPLANATION, _BARE = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion


def check_plot(path: Path, *, force: bool) -> Path:
    """Find out before the work that a plot cannot be drawn or written.

    Raises:
        OptionError: no matplotlib, or a format that is not known.
        OutputError: no such folder, or a file that is there.
    """
    if path.suffix.lower() not in PLOTS:
        raise OptionError(f"--plot {path}: accepted is a file that ends in {', '.join(PLOTS)}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--plot {path}: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise OutputError(f"--plot {path}: is a folder; accepted is a file that ends in {', '.join(PLOTS)}")
    if not force and (path.exists() or path.is_symlink()):
        raise OutputError(f"--plot {path}: is there already; --force replaces it")
    try:
        import matplotlib as mpl  # noqa: PLC0415 - serving does not need it
    except ImportError as error:
        raise OptionError(missing("--plot", "plot", error)) from None
    mpl.use("Agg")
    return path


def draw(timings: Timings, path: Path) -> None:
    """Write a plot: per row a dot at the median with its value, a line to the 95th percentile, and the bare passes.

    A dot that is hollow, with "~" before its value, is scaled up from a part of the passes. Time is logarithmic.

    Raises:
        OutputError: it cannot be written.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    rows = timings.rows
    figure, axis = plt.subplots(figsize=(8, 1.7 + 0.32 * len(rows)), layout="constrained")
    _draw_explanations(axis, rows)
    bare = {place: row.bare_seconds * row.all_passes for place, row in enumerate(rows) if row.bare_seconds}
    _draw_bare(axis, bare)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    # Room on the right for the values, which stand behind the last mark of their row.
    axis.set_xlim(low / 1.5, high * max(1.5, (high / low) ** 0.22))
    for place, row in enumerate(rows):
        end = max([row.p95, *([bare[place]] if place in bare else [])])
        value = f"{'~' if row.is_scaled else ''}{measured_time(row.median)}"
        axis.annotate(value, (end, place), (9, 0), textcoords="offset points", va="center", fontsize=9, weight="bold")
    _label_axes(axis, rows)
    _title(figure, axis, timings)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    try:
        clear(path.parent)
        with replacing(path, durable=True) as partial:
            figure.savefig(partial, dpi=130, facecolor="white", format=path.suffix[1:].lower())
    except OSError as error:
        raise OutputError(f"--plot {path}: cannot be written: {error.strerror or error}") from None
    finally:
        plt.close(figure)


def _draw_explanations(axis: Any, rows: Sequence[Row]) -> None:
    for scaled in (False, True):
        some = [(place, row) for place, row in enumerate(rows) if row.is_scaled == scaled]
        if some:
            axis.errorbar(
                [row.median for _, row in some],
                [place for place, _ in some],
                xerr=([0] * len(some), [row.p95 - row.median for _, row in some]),
                linestyle="none",
                marker="o",
                markersize=7,
                markerfacecolor="white" if scaled else _EXPLANATION,
                color=_EXPLANATION,
                capsize=3,
                label="scaled up from a part of the passes" if scaled else "explanation: median, line to p95",
            )


def _draw_bare(axis: Any, bare: dict[int, float]) -> None:
    """Draw the seconds of the bare passes, by row."""
    if bare:
        axis.scatter(
            list(bare.values()),
            list(bare),
            marker="|",
            s=180,
            linewidths=2,
            color=_BARE,
            zorder=3,
            label="its forward passes alone",
        )


def _label_axes(axis: Any, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - as above

    several = len({row.precision for row in rows}) > 1
    names = [
        [
            row.method,
            *([row.precision] if several else []),
            *([f"batch {row.batch_size}"] if row.passes else []),
        ]
        for row in rows
    ]
    axis.set_yticks(range(len(rows)), [", ".join(name) for name in names])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,)))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{1e3 * value:g} ms")
    )
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("time per explanation (logarithmic)")
    axis.grid(visible=True, axis="x", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _title(figure: Any, axis: Any, timings: Timings) -> None:
    rows = timings.rows
    providers = ", ".join(dict.fromkeys(row.providers[0].removesuffix("ExecutionProvider") for row in rows))
    precision = "" if len({row.precision for row in rows}) > 1 else f"{rows[0].precision}, "
    runs = counted(timings.runs, "run")
    figure.suptitle(f"Time per explanation: {_plain(timings.model)}", fontsize=13, weight="bold")
    axis.set_title(
        _plain(f"{timings.machine['processor']}; {providers}, {precision}{runs}"), fontsize=9, color="#555555"
    )


def _plain(text: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return printable(text).replace("$", r"\$")
