"""What the commands share: exit codes, given flags, limits, the progress bar."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.errors import OutputError
from ortcam.ranges import MEAN, RESIZE, SCALE, SIDE, STD
from ortcam.saved import lost
from ortcam.scoring import Progress
from ortcam.terminal import printable

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "OF_THE_GRAPH",
    "OF_THE_MODEL",
    "add_graph_input",
    "add_input",
    "check_nothing_is_lost",
    "extra_for",
    "given_flags",
    "progress_bar",
]

EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

# Flags of a model, as `ortcam_export` calls them.
OF_THE_GRAPH: Final = ("input_size", "input_layout", "output", "activation")


OF_THE_MODEL: Final = (
    *OF_THE_GRAPH,
    "calibration",
    "channel_order",
    "checkpoint",
    "interpolation",
    "labels",
    "layer",
    "mean",
    "opset",
    "precision",
    "resize",
    "scale",
    "std",
    "weights",
)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a model does not: its input, output and labels."""
    group = parser.add_argument_group("input, output and labels, where the model does not say (callable, .onnx)")
    add_graph_input(group)
    group.add_argument(
        "--resize", type=RESIZE, metavar="N", help="short side before the centre crop; else straight to size"
    )
    group.add_argument("--scale", type=SCALE, metavar="S", help="what white becomes before mean and std: 1 or 255")
    group.add_argument("--mean", type=MEAN, nargs=3, metavar="M", help="a channel, of pixels in [0,S]")
    group.add_argument("--std", type=STD, nargs=3, metavar="D", help="a channel, of pixels in [0,S]")
    group.add_argument("--channel-order", choices=("rgb", "bgr"), help="of the model's input, of mean and std")
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of the resize")
    group.add_argument("--labels", metavar="FILE", help="JSON list, or one label a line")


def add_graph_input(group: Any) -> None:
    """What decides which graph a model becomes, so that `inspect` needs it, too."""
    group.add_argument("--input-size", type=SIDE, nargs=2, metavar=("H", "W"), help="of the model's input")
    group.add_argument("--input-layout", choices=("nchw", "nhwc"), help="of an .onnx file whose input does not tell")
    group.add_argument("--output", metavar="NAME", help="of the model's outputs, the one to explain")
    group.add_argument(
        "--activation",
        choices=("softmax", "sigmoid", "probabilities"),
        help="from logits to probabilities; sigmoid: class by class; probabilities: the model gives them",
    )


def extra_for(model: str) -> str:
    """The extra that exporting a model needs: a file in ONNX's format needs no PyTorch."""
    return "onnx" if model.endswith(".onnx") else "export"


def given_flags(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the flags that were given; what was not is left to the function's own default."""
    values = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


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


@contextlib.contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A progress bar for what takes longer than a second; none when quiet or when nobody watches a terminal."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 - the library's users do not need it
    except ImportError:
        yield None
        return
    bar = tqdm(desc=printable(label), unit="pass", delay=1, leave=False, disable=True if quiet else None)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield update
