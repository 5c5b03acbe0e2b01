"""`ortcam benchmark`: its flags, its table, its JSON and its plot."""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.benchmarking import DEFAULT_RUNS, DEFAULT_SECONDS, PEAK_MEMORY, Report, Row, benchmark
from ortcam.bundle.shipped import demo_image
from ortcam.cli.common import (
    add_alias,
    add_execution,
    add_force,
    add_image_reading,
    add_json,
    add_method,
    add_quiet,
    providers_of,
)
from ortcam.cli.method_names import list_methods
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import add_command
from ortcam.cli.progress import Bar
from ortcam.errors import OptionError, OutputError
from ortcam.methods import METHODS
from ortcam.support.extras import missing
from ortcam.support.files import replacing
from ortcam.support.ranges import BATCH_SIZE, RUNS, SECONDS, shown
from ortcam.support.terminal import json_text, others_aside, printable, say
from ortcam.support.unfinished import clear

__all__ = ["add_benchmark"]

_PLOTS: Final = (".png", ".svg", ".pdf")
_WIDTH: Final = 80  # columns of what is printed
_SHORT: Final = {"float32": "fp32", "float16": "fp16"}
_EXPLANATION, _BARE = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion


def add_benchmark(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "benchmark",
        _benchmark,
        help="measure how long explanations take on this device",
        description="Measure the time per explanation by method, precision and batch size, and the memory it takes.",
        examples=(
            "ortcam benchmark shapes",
            "ortcam benchmark resnet18 --batch-size 1,8,auto --plot latency.png",
        ),
    )
    add_model(parser)
    what = parser.add_argument_group("what to measure")
    list_methods(add_method(what, default=None, help="%(methods)s (default: all that the model can have)"))
    what.add_argument("--image", metavar="FILE", help="image to explain (default: a shipped one)")
    what.add_argument("--runs", type=RUNS, default=DEFAULT_RUNS, metavar="N", help="timed runs, after one to warm up")
    what.add_argument(
        "--seconds",
        type=SECONDS,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="time for all together; what takes longer is measured in part and scaled up (default: %(default)g)",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--plot", metavar="FILE", help=f"also draw them: {', '.join(_PLOTS)} (needs `ortcam[plot]`)")
    add_force(results, "replace a plot that is there")
    add_json(results)
    add_quiet(results)
    add_execution(parser, low_memory=False, several=True)
    add_image_reading(parser)
    for flag, old in (("--method", "--methods"), ("--batch-size", "--batch-sizes")):
        add_alias(parser, flag, old)


def _benchmark(options: argparse.Namespace) -> int:
    plot = None if options.plot is None else _check_plot(Path(options.plot), force=options.force)
    sizes = [_batch_size(size) for size in _names(options.batch_size) or ["auto"]]
    wanted = providers_of(options)
    bundle = open_bundle(options)
    bar: Bar | None = None

    def advance(done: int, total: int, doing: str) -> None:
        nonlocal bar
        if bar is None:
            bar = Bar("measuring", total=total, unit="cases", quiet=options.quiet)
        bar.update(done, note=doing)

    try:
        with others_aside():
            report = benchmark(
                bundle,
                options.image or demo_image(),
                methods=_names(options.method) or [method.name for method in METHODS],
                precisions=_names(options.precision),
                batch_sizes=sizes,
                providers=wanted,
                threads=options.threads,
                max_pixels=options.max_pixels,
                white=options.white,
                strict=options.strict,
                strict_providers=options.strict_providers,
                runs=options.runs,
                seconds=options.seconds,
                progress=advance,
            )
    finally:
        if bar is not None:
            bar.close()
    if options.json:
        print(json_text(dataclasses.asdict(report) | {"peak_memory": PEAK_MEMORY}))
    elif not options.quiet:
        print(_in_words(report))
    if plot is not None and report.rows:
        _draw(report, plot)
        if not options.json and not options.quiet:
            say(f"Open {plot}")
    return 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(BATCH_SIZE.parse(text))
    except ValueError:
        raise OptionError(
            f"--batch-size {shown(text)}: accepted is auto, or whole numbers {BATCH_SIZE.bounds}"
        ) from None


def _in_words(report: Report) -> str:
    """The table and how it came about, at most 80 columns wide where names allow it."""
    machine = report.machine
    several = len({row.precision for row in report.rows}) > 1
    head = ("method", "type", "batch", "passes", "median", "p95", "bare", "overhead")
    rows = [head, *(_cells(row) for row in report.rows)]
    if not several:
        rows = [(row[0], *row[2:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * len(widths) - 2 <= _WIDTH else " "
    table = [
        gap.join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    providers_used = ", ".join(dict.fromkeys(row.providers[0] for row in report.rows if row.providers))
    precision = "" if several or not report.rows else f"{report.rows[0].precision}, "
    legend = [
        "median, p95: time per explanation, from the image file to the map.",
        "bare: the same number of forward passes alone, in float32. overhead: what an explanation takes beyond these.",
    ]
    if any(_is_scaled(row) for row in report.rows):
        legend.append("~ scaled up: only a part of the passes was measured. A larger --seconds measures more of them.")
    if any(row.head_passes for row in report.rows):
        legend.append("head: passes of the head alone, which are cheap.")
    legend += report.notes
    facts = [
        f"model: {report.model} ({report.bundle['path']})",
        f"image: {report.image}",
        f"runs: {report.runs} per row, after one to warm up",
        f"on: {providers_used}, {precision}threads {report.threads or 'automatic'}",
        f"machine: {machine['processor']}, {machine['logical_cores']} logical cores, {machine['system']}",
        f"versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}",
    ]
    if report.peak_memory_bytes is not None:
        facts.append(f"peak memory: {report.peak_memory_bytes / 1e6:.0f} MB of this process so far, with all methods")
    wrapped = [
        line
        for text in [*legend, "", *facts]
        for line in (textwrap.wrap(printable(text), _WIDTH, subsequent_indent="  ", break_long_words=False) or [""])
    ]
    return "\n".join([*map(printable, table), "", *wrapped])


def _is_scaled(row: Row) -> bool:
    return row.passes < row.all_passes


def _cells(row: Row) -> tuple[str, ...]:
    about = "~" if _is_scaled(row) else ""
    passes = f"{row.passes}/{row.all_passes}" if about else str(row.passes)
    if row.head_passes:
        passes = f"{row.head_passes} head"
    bare = None if row.bare_seconds is None else row.bare_seconds * row.all_passes
    return (
        row.method,
        _SHORT.get(row.precision, row.precision),
        str(row.batch_size),
        passes,
        f"{about}{_seconds(row.median)}",
        f"{about}{_seconds(row.p95)}",
        "-" if bare is None else f"{about}{_seconds(bare)}",
        "-" if row.overhead is None else f"{100 * row.overhead:+.0f} %",
    )


def _seconds(value: float) -> str:
    """A time in three digits or so.

    Example:
        >>> [_seconds(value) for value in (0.0042, 0.42, 4.2, 42, 420)]
        ['4.2 ms', '420 ms', '4.20 s', '42.0 s', '420 s']
    """
    if value < 1:
        return f"{1e3 * value:.1f} ms" if value < 0.1 else f"{1e3 * value:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _check_plot(path: Path, *, force: bool) -> Path:
    """Find out before the work that a plot cannot be drawn or written.

    Raises:
        OptionError: no matplotlib, or a format that is not known.
        OutputError: no such folder, or a file that is there.
    """
    if path.suffix.lower() not in _PLOTS:
        raise OptionError(f"--plot {path}: accepted is a file that ends in {', '.join(_PLOTS)}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--plot {path}: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise OutputError(f"--plot {path}: is a folder; accepted is a file that ends in {', '.join(_PLOTS)}")
    if not force and (path.exists() or path.is_symlink()):
        raise OutputError(f"--plot {path}: is there already; --force replaces it")
    try:
        import matplotlib as mpl  # noqa: PLC0415 - serving does not need it
    except ImportError as error:
        raise OptionError(missing("--plot", "plot", error)) from None
    mpl.use("Agg")
    return path


def _draw(report: Report, path: Path) -> None:
    """Write a plot: per row a dot at the median with its value, a line to the 95th percentile, and the bare passes.

    A dot that is hollow, with "~" before its value, is scaled up from a part of the passes. Time is logarithmic.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    rows: Sequence[Row] = report.rows
    height = 1.7 + 0.32 * len(rows)
    figure, axis = plt.subplots(figsize=(8, height), layout="constrained")
    for scaled in (False, True):
        some = [(place, row) for place, row in enumerate(rows) if _is_scaled(row) == scaled]
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
    bare = [(place, row.bare_seconds * row.all_passes) for place, row in enumerate(rows) if row.bare_seconds]
    if bare:
        axis.scatter(
            [seconds for _, seconds in bare],
            [place for place, _ in bare],
            marker="|",
            s=180,
            linewidths=2,
            color=_BARE,
            zorder=3,
            label="its forward passes alone",
        )
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    # Room on the right for the values, which stand behind the last mark of their row.
    axis.set_xlim(low / 1.5, high * max(1.5, (high / low) ** 0.22))
    for place, row in enumerate(rows):
        end = max([row.p95, *(seconds for at, seconds in bare if at == place)])
        value = f"{'~' if _is_scaled(row) else ''}{_seconds(row.median)}"
        axis.annotate(value, (end, place), (9, 0), textcoords="offset points", va="center", fontsize=9, weight="bold")
    several = len({row.precision for row in rows}) > 1
    axis.set_yticks(
        range(len(rows)),
        [
            ", ".join(
                [
                    row.method,
                    *([row.precision] if several else []),
                    *([f"batch {row.batch_size}"] if row.passes else []),
                ]
            )
            for row in rows
        ],
    )
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
    providers_used = ", ".join(dict.fromkeys(row.providers[0].removesuffix("ExecutionProvider") for row in rows))
    precision = "" if several else f"{rows[0].precision}, "
    figure.suptitle(f"Time per explanation: {_plain(report.model)}", fontsize=13, weight="bold")
    runs = f"{report.runs} run" if report.runs == 1 else f"{report.runs} runs"
    axis.set_title(
        _plain(f"{report.machine['processor']}; {providers_used}, {precision}{runs}"),
        fontsize=9,
        color="#555555",
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    try:
        clear(path.parent)
        with replacing(path, durable=True) as partial:
            figure.savefig(partial, dpi=130, facecolor="white", format=path.suffix[1:].lower())
    except OSError as error:
        raise OutputError(f"--plot {path}: cannot be written: {error.strerror or error}") from None
    finally:
        plt.close(figure)


def _plain(text: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return printable(text).replace("$", r"\$")
