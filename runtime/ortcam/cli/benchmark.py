"""`ortcam benchmark`: its flags, its table, its JSON and its plot."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.benchmark import DEFAULT_RUNS, DEFAULT_SECONDS, PEAK_MEMORY, Report, Row, benchmark
from ortcam.cli.models import add_model, open_bundle
from ortcam.errors import OptionError, OutputError
from ortcam.extras import missing
from ortcam.files import replacing
from ortcam.image import DEFAULT_MAX_PIXELS
from ortcam.methods import METHODS
from ortcam.ranges import BATCH_SIZE, MAX_PIXELS, RUNS, SECONDS, THREADS, shown
from ortcam.shipped import demo_picture
from ortcam.terminal import json_text, others_aside, printable
from ortcam.unfinished import clear

__all__ = ["add_benchmark"]

_PLOTS: Final = (".png", ".svg", ".pdf")


def add_benchmark(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    names = ", ".join(method.name for method in METHODS)
    parser = commands.add_parser(
        "benchmark",
        help="how long explanations take on a model and this device",
        allow_abbrev=False,
        description="Latency by method, precision and batch size, what it adds to the bare forward passes, and memory.",
    )
    parser.set_defaults(run=_benchmark)
    add_model(parser)
    parser.add_argument(
        "--methods", metavar="METHOD[,METHOD...]", help=f"of {names} (default: all that the model can have)"
    )
    parser.add_argument("--batch-sizes", default="auto", metavar="N[,N...]", help="numbers, or auto (default: auto)")
    parser.add_argument("--precision", metavar="P[,P...]", help="fp32, fp16, int8 (default: the bundle's own)")
    parser.add_argument("--provider", metavar="NAME[,NAME...]", help="execution providers, say cuda,cpu")
    parser.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads (default: physical cores)")
    parser.add_argument("--runs", type=RUNS, default=DEFAULT_RUNS, metavar="N", help="timed runs (default %(default)s)")
    parser.add_argument("--image", metavar="FILE", help="photograph to explain (default: the shipped one)")
    parser.add_argument(
        "--max-pixels",
        type=MAX_PIXELS,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="refuse an image of more pixels, or that takes more than about 12 N bytes of memory (default %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=SECONDS,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="about how long all may take (default %(default)g); longer explanations are measured in part and scaled",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--plot", metavar="FILE", help=f"also draw them, {', '.join(_PLOTS)} (needs `ortcam[plot]`)")
    parser.add_argument("--force", action="store_true", help="replace a plot that is there")


def _benchmark(options: argparse.Namespace) -> int:
    plot = None if options.plot is None else _check_plot(Path(options.plot), force=options.force)
    bundle = open_bundle(options)
    with others_aside():
        report = benchmark(
            bundle,
            options.image or demo_picture(),
            methods=_names(options.methods) or [method.name for method in METHODS],
            precisions=_names(options.precision),
            batch_sizes=[_batch_size(size) for size in _names(options.batch_sizes) or ["auto"]],
            providers=_names(options.provider),
            threads=options.threads,
            max_pixels=options.max_pixels,
            runs=options.runs,
            seconds=options.seconds,
            say=_say if sys.stderr.isatty() else None,
        )
    if options.json:
        print(json_text(dataclasses.asdict(report) | {"peak_memory": PEAK_MEMORY}))
    else:
        print(_in_words(report))
    if plot is not None:
        _draw(report, plot)
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
            f"--batch-sizes {shown(text)}: accepted is auto, or whole numbers {BATCH_SIZE.bounds}"
        ) from None


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(f"measuring {printable(line)}", file=sys.stderr, flush=True)


def _in_words(report: Report) -> str:
    machine = report.machine
    head = ("method", "precision", "batch", "passes", "median", "p95", "bare passes", "overhead")
    rows = [head, *(_cells(row) for row in report.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    providers = ", ".join(dict.fromkeys(row.providers[0] for row in report.rows if row.providers))
    lines = [
        f"{report.model} ({report.bundle['path']}), {providers}, threads {report.threads or 'automatic'}",
        f"{machine['processor']}, {machine['logical_cores']} logical cores, {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        f"{report.runs} runs each after one to warm up, {report.image}",
        "",
        *("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows),
        "",
        "bare passes: features and head alone in float32 at the same batch size, as many images; overhead: beyond them",
    ]
    if any(row.passes < row.all_passes for row in report.rows):
        lines.append("~ scaled from the passes that were made to all of them; --seconds allows for more")
    if report.peak_memory_bytes is not None:
        lines.append(f"peak memory {report.peak_memory_bytes / 1e6:.0f} MB: {PEAK_MEMORY}")
    return "\n".join(map(printable, [*lines, *report.notes]))


def _cells(row: Row) -> tuple[str, ...]:
    scaled = row.passes < row.all_passes
    about = "~" if scaled else ""
    passes = f"{row.passes} of {row.all_passes}" if scaled else str(row.passes)
    if row.head_passes:
        passes = f"{row.head_passes} head"
    bare = None if row.bare_seconds is None else row.bare_seconds * row.all_passes
    return (
        row.method,
        row.precision,
        str(row.batch_size),
        passes,
        f"{about}{_seconds(row.median)}",
        f"{about}{_seconds(row.p95)}",
        "-" if bare is None else f"{about}{_seconds(bare)}",
        "-" if row.overhead is None else f"{100 * row.overhead:+.1f} %",
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


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
    """A dot at the median, a line to the 95th percentile, a mark where the bare passes end; time is logarithmic."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    rows: Sequence[Row] = report.rows
    places = range(len(rows))
    figure, axis = plt.subplots(figsize=(7.5, 1.6 + 0.34 * len(rows)), layout="constrained")
    axis.errorbar(
        [row.median for row in rows],
        places,
        xerr=([0] * len(rows), [row.p95 - row.median for row in rows]),
        linestyle="none",
        marker="o",
        color="#0072B2",
        capsize=3,
        label="explanation (line: to the 95th percentile)",
    )
    bare = [(place, row.bare_seconds * row.all_passes) for place, row in enumerate(rows) if row.bare_seconds]
    if bare:
        axis.scatter(
            [seconds for _, seconds in bare],
            [place for place, _ in bare],
            marker="|",
            s=220,
            linewidths=2,
            color="#D55E00",
            zorder=3,
            label="its bare forward passes",
        )
    axis.set_yticks(places, [f"{row.method}, {row.precision}, batch {row.batch_size}" for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low / 2, high * 2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("seconds an explanation (logarithmic)")
    axis.set_title(f"{report.model}: {report.machine['processor']}", fontsize=10)
    axis.grid(visible=True, color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    try:
        clear(path.parent)
        with replacing(path, durable=True) as partial:
            figure.savefig(partial, dpi=130, facecolor="white", format=path.suffix[1:].lower())
    except OSError as error:
        raise OutputError(f"--plot {path}: cannot be written: {error.strerror or error}") from None
    finally:
        plt.close(figure)
