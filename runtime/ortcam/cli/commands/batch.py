"""`ortcam batch`: its flags, its progress and what it prints."""

import argparse
from typing import TYPE_CHECKING, Any, Final, TextIO

from ortcam.bundle import read_bundle
from ortcam.cli.asked import limits_of, methods_of
from ortcam.cli.common import (
    EXIT_BAD_INPUT,
    Terminated,
    add_execution,
    add_image_reading,
    add_json,
    add_limits,
    add_method,
    add_option,
    add_output,
    add_quiet,
    add_rendering,
    add_score,
    add_targets,
    providers_of,
    rendering,
)
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import Rare, add_command
from ortcam.cli.progress import Bar
from ortcam.cli.ray_cluster import add_ray, ray_options
from ortcam.errors import OptionError, OrtcamError, OutputError, TargetError
from ortcam.request import Score, class_indices
from ortcam.support.extras import missing
from ortcam.support.ranges import GALLERY, GALLERY_IMAGES, LIMIT
from ortcam.support.terminal import complain, json_text, others_aside, printable, say
from ortcam.support.words import counted, duration

if TYPE_CHECKING:
    from ortcam.batch.progress import Snapshot
    from ortcam.batch.running import BatchReport

__all__ = ["add_batch"]

_MOST_TOLD: Final = 20  # failures that are printed as they come; all are in OUTPUT

# Flags that `run` takes as they are.
_AS_GIVEN: Final = (
    *("engine", "resume", "retry_failed", "limit", "maps", "overlays", "gallery", "processes", "threads", "precision"),
    *("max_pixels", "white", "strict", "strict_providers", "memory_limit"),
)


def add_batch(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "batch",
        _batch,
        help="explain millions of images into a table of maps",
        description="Explain many images, from a folder or a bucket, into a table of maps (Parquet). What was "
        "interrupted goes on with --resume. Needs the extra `batch`.",
        examples=(
            "ortcam batch shapes photos/ -o maps/",
            "ortcam batch resnet18 s3://photos/2026/ -o s3://maps/2026/ --budget 12%",
        ),
    )
    add_model(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="folder, 'glob', list (.txt, .csv, .parquet), Parquet with images, tar shards; paths or URLs",
    )
    what = parser.add_argument_group("what to explain")
    add_method(what, several=False)
    add_option(what)
    add_targets(what)
    add_score(what)
    what.add_argument("--limit", type=LIMIT, metavar="N", help="take the first N images of INPUT (default: all)")
    add_limits(parser)
    _add_results(parser.add_argument_group("results"))
    add_ray(parser).add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=Rare("option of the file system (fsspec), such as endpoint_url=http://127.0.0.1:9000 for s3"),
    )
    add_execution(parser, low_memory=False, processes=True)
    add_image_reading(parser)


def _add_results(group: Any) -> None:
    add_output(group, metavar="OUTPUT", help="new folder or URL for the parts of the table", required=True)
    group.add_argument("--resume", action="store_true", help="go on with OUTPUT; what is finished is kept")
    group.add_argument("--retry-failed", action="store_true", help="go on with OUTPUT, and explain again what failed")
    group.add_argument(
        "--maps", choices=("low", "full"), default="low", help="full: also maps at the size of the model's input"
    )
    group.add_argument(
        "--overlays", choices=("none", "jpeg"), default="none", help="jpeg: also images with the map drawn over them"
    )
    group.add_argument(
        "--gallery",
        type=GALLERY,
        nargs="?",
        const=GALLERY_IMAGES,
        metavar="N",
        help=f"also a page of N images with their maps, at random (without N: {GALLERY_IMAGES})",
    )
    add_rendering(group)
    add_json(group)
    add_quiet(group)


def _batch(options: argparse.Namespace) -> int:
    with others_aside() as ours:
        report = _run(options, ours)
    if options.json:
        print(json_text(report.record()))
    return 0 if report.succeeded else EXIT_BAD_INPUT


def _run(options: argparse.Namespace, ours: TextIO) -> "BatchReport":
    """Explain, and say what was done.

    Raises:
        OrtcamError: what is wrong with the whole command.
    """
    methods = methods_of(options.method, options.option)
    if len(methods) > 1:
        raise OptionError(f"--method {options.method}: accepted is one method; use an OUTPUT per method")
    if options.target is not None and options.top_k is not None:
        raise TargetError(f"--top-k {options.top_k} with -t {' -t '.join(options.target)}: give one or the other")
    wanted = providers_of(options)
    ray = ray_options(options, "ortcam batch")
    try:
        from ortcam.batch.running import run  # noqa: PLC0415 - only this command needs what it loads
        from ortcam.batch.storage import is_in_memory, parsed_options  # noqa: PLC0415
    except ImportError as error:
        raise OrtcamError(missing("`ortcam batch`", "batch", error)) from None
    if is_in_memory(options.output):
        raise OutputError(
            f"{printable(options.output)}: is gone when the command ends; accepted is a folder or a bucket"
        )
    ((method, settings),) = methods
    score = Score.of(options.score)  # what is wrong with it is said before a model is exported
    bundle = read_bundle(open_bundle(options))
    targets = None if options.target is None else class_indices(options.target, bundle.manifest.labels)
    arguments = {"method": method, "target": targets, **limits_of(options, method), **settings}
    if score is not None:
        arguments["score"] = score
    with _Watch(quiet=options.quiet) as watch:
        try:
            report = run(
                bundle,
                options.input,
                options.output,
                **{name: getattr(options, name) for name in _AS_GIVEN},
                rendering=rendering(options),
                providers=wanted,
                ray=ray,
                storage_options=parsed_options(options.storage_option),
                progress=watch.update,
                on_failure=watch.fail,
                tell=watch.tell,
                **arguments,
            )
        except (KeyboardInterrupt, Terminated) as error:
            watch.close()
            for note in getattr(error, "__notes__", ()):
                complain(note)
            raise
    if not options.quiet and not options.json:
        say(_in_words(report), ours)
        if report.gallery is not None:
            say(f"Open {printable(report.gallery)}", ours)
    return report


def _in_words(report: "BatchReport") -> str:
    """The line at the end."""
    parts = [f"{counted(report.images, 'image')} in {duration(report.seconds)}"]
    if report.images and report.seconds:
        parts[0] += f" ({report.images / report.seconds:.1f} images/s)"
    if report.skipped:
        parts.append(f"{report.skipped} finished before")
    if report.failures:
        parts.append(f"{report.failures} failed (--retry-failed tries them again)")
    return f"{', '.join(parts)}: {printable(report.output)}"


class _Watch:
    """Shows how far a batch is, and the first failures."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._closed = False
        self._told = 0

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, now: "Snapshot") -> None:
        """Say how much is done. Whoever still counts INPUT when the batch has ended says it to nobody."""
        if self._closed:
            return
        if self._bar is None:
            self._bar = Bar("explaining", total=now.total, unit="images", quiet=self._quiet)
        self._bar.expect(now.total)
        failed = f", {now.failures} failed" if now.failures else ""
        self._bar.update(now.images, note=f"{now.images_per_second:.1f} images/s{failed}")

    def fail(self, name: str, error: str) -> None:
        """Print a failure, unless there were many."""
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._say(f"{name}: {error}")
        if self._told == _MOST_TOLD:
            self._say("further failures are not printed; OUTPUT has them in its column `error`")

    def tell(self, line: str) -> None:
        """Print a line that is no error."""
        if not self._quiet:
            self._say(line)

    def close(self) -> None:
        """Take the bar away, for good."""
        self._closed = True
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, line: str) -> None:
        complain(line) if self._bar is None else self._bar.say(line)
