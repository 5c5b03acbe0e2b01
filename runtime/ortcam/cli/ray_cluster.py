"""The flags of `--engine ray`: which cluster, and what each worker takes of it."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from ortcam.cli.parsers import Rare
from ortcam.errors import OptionError, OrtcamError
from ortcam.support.extras import missing
from ortcam.support.ranges import ACTORS, CPUS, GPUS, shown

if TYPE_CHECKING:
    from ortcam.batch.job import RayOptions

__all__ = ["add_ray", "ray_options", "read_actors"]

_FLAGS: Final = {
    "--ray-address": "ray_address",
    "--actors": "actors",
    "--cpus-per-actor": "cpus_per_actor",
    "--gpus-per-actor": "gpus_per_actor",
}


def add_ray(parser: argparse.ArgumentParser) -> Any:
    """Add `--engine` and the flags of Ray, and return their group."""
    group = parser.add_argument_group("engine")
    group.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    group.add_argument(
        "--ray-address",
        metavar="A",
        help=Rare("cluster: auto or HOST:PORT (default: RAY_ADDRESS, or Ray on this machine)"),
    )
    group.add_argument(
        "--actors",
        type=read_actors,
        metavar="MIN:MAX",
        help=Rare("fewest and most workers, such as 2:64 (default: as many as fit)"),
    )
    group.add_argument("--cpus-per-actor", type=CPUS, metavar="N", help=Rare("CPUs, and threads, of each worker"))
    group.add_argument(
        "--gpus-per-actor", type=GPUS, metavar="F", help=Rare("GPUs of each worker, such as 1, or 0.25 to share one")
    )
    return group


def ray_options(options: argparse.Namespace, doing: str) -> "RayOptions | None":
    """What the flags say of Ray; None for the engine "local".

    Args:
        options: the command's.
        doing: the command, for messages.

    Raises:
        OptionError: a flag of Ray without `--engine ray`.
        OrtcamError: Ray is not installed.
    """
    if options.engine != "ray":
        for flag, name in _FLAGS.items():
            if getattr(options, name) is not None:
                raise OptionError(f"{flag} goes with --engine ray")
        return None
    try:
        import ray  # noqa: F401, PLC0415 - only this engine needs it

        from ortcam.batch.job import RayOptions  # noqa: PLC0415
    except ImportError as error:
        raise OrtcamError(missing(f"`{doing} --engine ray`", "ray", error)) from None
    return RayOptions(
        address=options.ray_address,
        actors=options.actors,
        cpus=options.cpus_per_actor,
        gpus=options.gpus_per_actor,
    )


def read_actors(text: str) -> tuple[int, int]:
    """The fewest and the most workers that "2:64", or "8", says.

    Raises:
        ArgumentTypeError: it says none.

    Example:
        >>> read_actors("2:64"), read_actors("8")
        ((2, 64), (8, 8))
    """
    low, _, high = text.partition(":")
    try:
        pair = int(ACTORS.parse(low)), int(ACTORS.parse(high if ":" in text else low))
    except ValueError:
        pair = 1, 0
    if pair[0] > pair[1]:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: accepted is MIN:MAX, such as 2:64, or one number; both {ACTORS.bounds}"
        )
    return pair
