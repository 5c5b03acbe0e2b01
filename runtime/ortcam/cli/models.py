"""MODEL on the command line: what it may be, the flags that describe it, and the bundle that it is or becomes."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.export_options import EXPORT_OPTIONS
from ortcam.models import bundle_of, is_bundle
from ortcam.presets import PRESETS
from ortcam.ranges import MEAN, OPSET, RESIZE, SCALE, SIDE, STD
from ortcam.terminal import complain, others_aside, printable

__all__ = [
    "MODEL_HELP",
    "OF_THE_GRAPH",
    "OF_THE_MODEL",
    "add_graph_input",
    "add_input",
    "add_model",
    "add_weights",
    "extra_for",
    "given_flags",
    "open_bundle",
]

MODEL_HELP: Final = (
    "bundle, `shapes` (the shipped model), torchvision name, package.module:callable, FILE.onnx, or FILE.pt2"
)

# Flags of a model, as `ortcam_export` calls them.
OF_THE_GRAPH: Final = ("input_size", "input_layout", "output", "activation")
OF_THE_MODEL: Final = (*EXPORT_OPTIONS, "precision")

_PREFIX: Final = "model_"  # of their names in the options of a command that is no export
_LABELS_HELP: Final = "class names: `imagenet`, or a file (text, CSV, JSON); default: the model's own, or the index"
_PRESET_HELP: Final = "usual preprocessing, where the model does not say its own: %(choices)s"


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add MODEL, `--labels` and `--preset`; the other flags of `ortcam export` are taken and not shown.

    Args:
        parser: of a command.
        several: take any number of models, none included; `options.model` is a list then.
    """
    if several:
        parser.add_argument("model", nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; without one: shapes")
    else:
        parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group(
        "a MODEL that is no bundle", "It is exported once and kept (`ortcam cache`). All flags of `ortcam export` work."
    )
    group.add_argument("--labels", dest=f"{_PREFIX}labels", metavar="FILE", help=_LABELS_HELP)
    group.add_argument("--preset", dest=f"{_PREFIX}preset", choices=tuple(PRESETS), metavar="NAME", help=_PRESET_HELP)
    hidden = _Hidden(group)
    _add_graph_input(hidden, "--model-output")
    _add_preprocessing(hidden)
    add_weights(hidden)


def open_bundle(options: argparse.Namespace) -> Path:
    """The bundle of MODEL, exported into the user's cache if need be, which a line on standard error says.

    Args:
        options: of a command whose parser `add_model` completed. `precision` and `quiet` count where they are there.

    Raises:
        OrtcamError: no such model, or it cannot be exported.
    """
    given = {name: value for name in EXPORT_OPTIONS if (value := getattr(options, _PREFIX + name, None)) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if is_bundle(options.model):
        return bundle_of(options.model, _as_flags(given))
    quiet = bool(getattr(options, "quiet", False))
    with others_aside(), _stages(options.model, quiet=quiet) as stage:
        said: list[str] = []
        bundle = bundle_of(
            options.model,
            given,
            precision=getattr(options, "precision", None),
            doing="ortcam",
            stage=stage,
            announce=said.append,
        )
    if not quiet:
        for line in said:
            complain(line)
    return bundle


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a model does not: its input, output and labels."""
    group = parser.add_argument_group("input, output and labels, where the model does not say (callable, .onnx)")
    add_graph_input(group)
    group.add_argument("--preset", choices=tuple(PRESETS), metavar="NAME", help=_PRESET_HELP)
    _add_preprocessing(group)
    group.add_argument("--labels", metavar="FILE", help=_LABELS_HELP)


def add_graph_input(group: Any) -> None:
    """What decides which graph a model becomes, so that `inspect` needs it, too."""
    _add_graph_input(group, "--output")


def add_weights(group: Any) -> None:
    """Where weights come from, where the model is cut, and what it is written with."""
    group.add_argument("--weights", help="torchvision weights: DEFAULT, a name, or none (random)")
    group.add_argument("--checkpoint", metavar="FILE", help="state dict to load, .pth, .pth.xz or .safetensors")
    group.add_argument("--layer", metavar="NAME", help="module path, tensor, or index from `ortcam inspect MODEL`")
    group.add_argument("--opset", type=OPSET, metavar="N", help="ONNX operator set for models from PyTorch")
    group.add_argument("--calibration", metavar="DIR", help="pictures for int8, of the kind that will be explained")


def _add_graph_input(group: Any, output: str) -> None:
    group.add_argument("--input-size", type=SIDE, nargs=2, metavar=("H", "W"), help="of the model's input")
    group.add_argument("--input-layout", choices=("nchw", "nhwc"), help="of an .onnx file whose input does not tell")
    group.add_argument(output, metavar="NAME", help="of the model's outputs, the one to explain")
    group.add_argument(
        "--activation",
        choices=("softmax", "sigmoid", "probabilities"),
        help="from logits to probabilities; sigmoid: class by class; probabilities: the model gives them",
    )


def _add_preprocessing(group: Any) -> None:
    group.add_argument(
        "--resize", type=RESIZE, metavar="N", help="short side before the centre crop; else straight to size"
    )
    group.add_argument("--scale", type=SCALE, metavar="S", help="what white becomes before mean and std: 1 or 255")
    group.add_argument("--mean", type=MEAN, nargs=3, metavar="M", help="a channel, of pixels in [0,S]")
    group.add_argument("--std", type=STD, nargs=3, metavar="D", help="a channel, of pixels in [0,S]")
    group.add_argument("--channel-order", choices=("rgb", "bgr"), help="of the model's input, of mean and std")
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of the resize")


class _Hidden:
    """A group of flags that work and are not in the help; their names in the options begin with `model_`."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def add_argument(self, flag: str, **settings: Any) -> None:
        """Add a flag."""
        name = "output" if flag == "--model-output" else flag.removeprefix("--").replace("-", "_")
        self._group.add_argument(flag, **settings | {"dest": _PREFIX + name, "help": argparse.SUPPRESS})


def extra_for(model: str) -> str:
    """The extra that exporting a model needs: a file in ONNX's format needs no PyTorch."""
    return "onnx" if model.endswith(".onnx") else "export"


def given_flags(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the flags that were given; what was not is left to the function's own default."""
    values = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _as_flags(given: dict[str, Any]) -> dict[str, Any]:
    """The same by the names of the flags, for a message."""
    flags = {name: f"--{name.replace('_', '-')}" for name in given} | {"output": "--model-output"}
    return {flags[name]: value for name, value in given.items()}


@contextlib.contextmanager
def _stages(model: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what an export is doing, in one line that is gone at the end."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    started = time.perf_counter()
    shown = False

    def show(text: str) -> None:
        nonlocal shown
        line = f"exporting {printable(model)}: {time.perf_counter() - started:.0f} s, {printable(text)}"
        with contextlib.suppress(OSError):
            print(f"\r\x1b[K{line[:79]}", end="", file=sys.stderr, flush=True)
        shown = True

    try:
        yield show
    finally:
        if shown:
            with contextlib.suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
