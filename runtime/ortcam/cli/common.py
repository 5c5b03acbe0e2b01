"""What the commands share: exit codes, flags that several have, what was given, what may be overwritten."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from ortcam.cli.method_names import list_methods
from ortcam.cli.parsers import Rare
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.errors import OptionError, OutputError
from ortcam.images.limits import DEFAULT_MAX_PIXELS
from ortcam.images.rendering import BLENDS, COLORMAPS, Rendering
from ortcam.methods import AUTO_METHOD
from ortcam.request import read_batch_size, read_budget
from ortcam.results.saved import lost
from ortcam.scoring.limits import Completion
from ortcam.support.ranges import (
    ALPHA,
    DEADLINE,
    MAX_PIXELS,
    MEMORY_LIMIT,
    PROCESSES,
    SAMPLING_ERROR,
    THREADS,
    TOLERANCE,
    TOP_K,
    WHITE,
    shown,
)

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "PRECISION_WORDS",
    "Terminated",
    "add_alias",
    "add_execution",
    "add_force",
    "add_image_reading",
    "add_json",
    "add_limits",
    "add_memory_limit",
    "add_method",
    "add_option",
    "add_output",
    "add_quiet",
    "add_rendering",
    "add_score",
    "add_targets",
    "check_nothing_is_lost",
    "pairs_of",
    "providers_of",
    "rendering",
]

EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

PRECISION_WORDS: Final = "fp32, fp16, int8, qnn"


def providers_of(options: argparse.Namespace) -> list[Provider] | None:
    """The execution providers that were asked for, once it is clear that they exist; None where none was named.

    Raises:
        OptionError: `--provider-option` without a provider, or not KEY=VALUE.
        ProviderError: a provider that this ONNX Runtime does not have.
    """
    wanted = _providers(options.provider, options.provider_option)
    resolve_providers(wanted)
    return wanted


def _providers(names: str | None, pairs: Sequence[str]) -> list[Provider] | None:
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


class Terminated(BaseException):
    """SIGTERM, as an exception, so that what is half made is removed."""


def add_method(
    parser: Any,
    *,
    default: str | None = AUTO_METHOD.name,
    several: bool = True,
    metavar: str = "",
    help: str = "",  # noqa: A002 - as argparse calls it
) -> argparse.Action:
    """Add `-m/--method`.

    Args:
        parser: or a group of one.
        default: the methods where none is given; None: `help` says which.
        several: whether methods may be given with commas between them.
        metavar: instead of METHODS or METHOD.
        help: instead of the usual words.

    Returns:
        The flag, for `list_methods`.
    """
    words = "methods with commas between, such as auto,scorecam++" if several else "method, such as scorecam"
    action: argparse.Action = parser.add_argument(
        "-m",
        "--method",
        default=default,
        metavar=metavar or ("METHODS" if several else "METHOD"),
        help=help or f"{words} (default: %(default)s)",
    )
    return action


def add_option(parser: Any) -> None:
    """Add `--option KEY=VALUE`, of a method."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of a method (see `ortcam methods NAME`)",
    )


def add_targets(parser: Any) -> None:
    """Add `-t/--target` and `--top-k`, which exclude each other."""
    parser.add_argument(
        "-t",
        "--target",
        action="append",
        metavar="CLASSES",
        help="labels or indices, such as dog,3",
    )
    parser.add_argument("--top-k", type=TOP_K, metavar="K", help="the K most probable classes (default: 1)")


def add_score(parser: Any) -> None:
    """Add `--score`, which `ortcam.Score` reads."""
    parser.add_argument(
        "--score",
        metavar="SCORE",
        help="such as logit, 'mug - key', entropy, output[3]",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the flags that limit the passes of methods that mask the image."""
    group = parser.add_argument_group("fewer passes, of methods that mask the image (default: score every channel)")
    group.add_argument(
        "--budget", type=read_budget, metavar="B", help="channels to score: a share such as 12%%, or a number"
    )
    group.add_argument(
        "--deadline",
        type=DEADLINE,
        metavar="MS",
        help="milliseconds per map; what fits depends on the machine",
    )
    group.add_argument(
        "--tolerance", type=TOLERANCE, metavar="E", help="stop once the estimated error is below, such as 0.05"
    )
    group.add_argument(
        "--completion",
        choices=get_args(Completion),
        default="gaussian-process",
        help=Rare("how the weights of channels that were not scored are predicted"),
    )
    sampling = group.add_argument(
        "--sampling-error",
        type=SAMPLING_ERROR,
        metavar="E",
        help=Rare("%(methods)s: stop sampling a channel once the standard error of its weight is below this share"),
    )
    list_methods(sampling, lambda method: method.samples > 1)


def add_output(
    parser: Any,
    *,
    default: str | None = None,
    metavar: str = "DIR",
    help: str,  # noqa: A002 - as argparse calls it
    required: bool = False,
) -> None:
    """Add `-o/--output`: the file or folder that the command writes."""
    parser.add_argument("-o", "--output", default=default, metavar=metavar, help=help, required=required)


def add_force(parser: Any, what: str = "replace what is there") -> None:
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help=what)


def add_json(parser: Any) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def add_quiet(parser: Any) -> None:
    """Add `--quiet`: errors and warnings alone are printed."""
    parser.add_argument("--quiet", action="store_true", help="print errors and warnings alone")


def add_rendering(parser: Any) -> None:
    """Add `--colormap`, `--blend` and `--alpha`: how maps are drawn over images."""
    parser.add_argument(
        "--colormap", choices=COLORMAPS, default="turbo", metavar="NAME", help=f"of the map: {', '.join(COLORMAPS)}"
    )
    parser.add_argument(
        "--blend",
        choices=BLENDS,
        default="rising",
        help=Rare("rising: opacity grows with the map; flat: the same everywhere, as in papers (--colormap jet)"),
    )
    parser.add_argument(
        "--alpha",
        type=ALPHA,
        metavar="A",
        help=Rare("opacity where the map is highest, from 0 to 1 (default: 0.65; 0.5 with --blend flat)"),
    )


def rendering(options: argparse.Namespace) -> Rendering:
    """How maps are drawn, as the flags of `add_rendering` say."""
    return Rendering(options.colormap, options.blend, options.alpha)


def add_execution(
    parser: argparse.ArgumentParser,
    *,
    low_memory: bool = True,
    several: bool = False,
    passes: bool = True,
    processes: bool = False,
) -> Any:
    """Add the flags that say what computes, and how: providers, threads, batch size, precision.

    Args:
        parser: of the command.
        low_memory: whether `--low-memory` is among them.
        several: whether `--batch-size` and `--precision` take several values, with commas between them.
        passes: whether the command makes masked passes, which `--batch-size` and `--precision` are of.
        processes: whether it scores in processes, which `--processes` are.

    Returns:
        The group, for flags that belong there.
    """
    group = parser.add_argument_group("execution")
    group.add_argument("--provider", metavar="NAMES", help="execution providers, such as cuda,cpu (default: the best)")
    group.add_argument(
        "--provider-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=Rare("option of the first provider, such as precision=bf16 for openvino"),
    )
    group.add_argument(
        "--strict-provider",
        action="store_true",
        dest="strict_providers",
        help=Rare("refuse a provider that cannot start, such as cuda without a driver, instead of warning"),
    )
    if processes:
        group.add_argument(
            "--processes", type=PROCESSES, metavar="N", help="scoring processes (default: one per core, or GPU)"
        )
        group.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads per process (default: 1)")
    else:
        group.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads (default: physical cores)")
    if passes and several:
        group.add_argument(
            "--batch-size", default="auto", metavar="SIZES", help="masked images per run, such as 1,16,auto"
        )
        group.add_argument(
            "--precision", metavar="NAMES", help=f"of the masked passes: {PRECISION_WORDS} (default: the bundle's own)"
        )
    elif passes:
        group.add_argument(
            "--batch-size", type=read_batch_size, default="auto", metavar="N", help="masked images per run"
        )
        group.add_argument(
            "--precision",
            metavar="NAME",
            help=Rare(f"of the masked passes, where the bundle has it: {PRECISION_WORDS}"),
        )
    if low_memory:
        group.add_argument("--low-memory", action="store_true", help=Rare("use less memory, for small devices; slower"))
    add_memory_limit(group, of="each process that scores" if processes else "the process")
    return group


def add_memory_limit(group: Any, *, of: str = "the process") -> None:
    """Add `--memory-limit`: the most memory of a process, under which precision, arena and batch size are chosen.

    Args:
        group: of a parser.
        of: which process.
    """
    group.add_argument(
        "--memory-limit",
        type=MEMORY_LIMIT,
        metavar="MB",
        help=Rare(f"most memory of {of}, such as 200: takes what fits, or says what is needed"),
    )


def add_image_reading(parser: argparse.ArgumentParser) -> Any:
    """Add the flags that say which images are read, and how.

    Returns:
        The group, for flags that belong there.
    """
    group = parser.add_argument_group("reading images")
    group.add_argument(
        "--max-pixels",
        type=MAX_PIXELS,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help=Rare("refuse images of more pixels, or that take more than about 12 N bytes of memory"),
    )
    group.add_argument("--strict", action="store_true", help=Rare("refuse damaged images that can be read in part"))
    group.add_argument(
        "--white", type=WHITE, metavar="N", help=Rare("white in 16-bit PNG, TIFF, PNM, such as 4095 for 12 bits")
    )
    return group


def add_alias(parser: Any, flag: str, old: str) -> None:
    """Let a flag be given by an older spelling, too, which help does not show."""
    action = parser._option_string_actions[flag]
    parser._option_string_actions[old] = action


def check_nothing_is_lost(wanted: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Find out whether results that are there would be replaced by others.

    Args:
        wanted: folders, and manifests of what is to be saved there.

    Raises:
        OutputError: some would.
    """
    losses = [loss for folder, manifest in wanted if (loss := lost(folder, manifest)) is not None]
    if losses:
        others = f" (the same of {len(losses) - 1} more)" if len(losses) > 1 else ""
        raise OutputError(f"{losses[0]}{others}")
