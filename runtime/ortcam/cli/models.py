"""MODEL on the command line: what it may be, the flags that describe it, and the bundle that it is or becomes."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.cli.parsers import Rare
from ortcam.engine import SessionOptions, resolve_providers
from ortcam.engine.providers import Provider
from ortcam.explainer import Explainer, load_with
from ortcam.images.presets import PRESETS
from ortcam.models.export_options import EXPORT_OPTIONS
from ortcam.models.opening import bundle_of, is_bundle
from ortcam.support.ranges import (
    BASELINE_VALUE,
    DISPLAY,
    IMAGE_CHANNELS,
    LOGIT_BIAS,
    LOGIT_SCALE,
    MEAN,
    OPSET,
    RESIZE,
    SCALE,
    SIDE,
    STATIC_BATCH,
    STD,
    VALUE_RANGE,
)
from ortcam.support.terminal import complain, others_aside, printable

__all__ = [
    "MODEL_HELP",
    "OF_THE_MODEL",
    "add_graph_input",
    "add_input",
    "add_model",
    "flag_of",
    "given_flags",
    "open_bundle",
    "open_explainer",
]

MODEL_HELP: Final = "bundle, shapes (shipped), torchvision name, FILE.onnx, FILE.pt2, or package.module:callable"

# Flags of a model, as `ortcam_export` calls them.
OF_THE_MODEL: Final = (*EXPORT_OPTIONS, "precision")

# Where the flag is not the option's own name.
_FLAGS: Final = {"output": "--model-output", "display": "--display-bands", "inputs": "--input"}

_PREFIX: Final = "model_"  # of their names in the options of a command that is no export


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add MODEL, `--labels` and `--preset`, and the other flags of `ortcam export`, which `--help-all` shows.

    Args:
        parser: of a command.
        several: take any number of models, none included; `options.model` is a list then.
    """
    if several:
        parser.add_argument("model", nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; without one: shapes")
    else:
        parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group("MODEL, if it is no bundle (exported once, then kept: `ortcam cache`)")
    add = _prefixed(group)
    add("--labels", **_LABELS)
    add("--preset", **_PRESET)
    rare = _prefixed(group, rare=True)
    rare("--input-size", **_INPUT_SIZE)
    rare("--input-layout", **_INPUT_LAYOUT)
    rare("--channels", **_CHANNELS)
    _add_pixels(rare)
    _add_outputs(rare)
    _add_logits(rare)
    _add_weights(rare)


def open_bundle(options: argparse.Namespace) -> Path:
    """The bundle of MODEL, exported into the user's cache if need be, which a line on standard error says.

    Args:
        options: of a command whose parser `add_model` completed. `precision` and `quiet` count where they are there.

    Raises:
        OrtcamError: no such model, or it cannot be exported.
    """
    given = {name: value for name in EXPORT_OPTIONS if (value := getattr(options, _PREFIX + name, None)) is not None}
    if is_bundle(options.model):
        return bundle_of(options.model, {flag_of(name): value for name, value in given.items()})
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


def open_explainer(
    options: argparse.Namespace, providers: Sequence[Provider] | None, *, masks: bool = True
) -> Explainer:
    """What explains with MODEL, by the flags that `add_model`, `add_execution` and `add_image_reading` added.

    Args:
        options: of the command.
        providers: that `--provider` names.
        masks: whether images will be masked, which a memory limit has to leave room for.

    Raises:
        OrtcamError: as `open_bundle` and `ortcam.load`.
    """
    opening = SessionOptions(
        resolve_providers(providers),
        options.threads,
        options.low_memory,
        options.strict_providers,
        options.memory_limit,
    )
    reading = {name: getattr(options, name) for name in ("max_pixels", "white", "strict")}
    precision = getattr(options, "precision", None)
    return load_with(opening, open_bundle(options), reading, precision=precision, masks=masks)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ortcam export`, in groups."""
    pixels = parser.add_argument_group("from an image to the model's input, where the model does not say").add_argument
    pixels("--preset", **_PRESET)
    pixels("--input-size", **_INPUT_SIZE)
    pixels("--input-layout", **_INPUT_LAYOUT)
    pixels("--channels", **_CHANNELS)
    _add_pixels(pixels)
    outputs = parser.add_argument_group("classes").add_argument
    outputs("--labels", **_LABELS)
    _add_outputs(outputs)
    _add_logits(outputs)
    weights = parser.add_argument_group("weights, layer and graphs").add_argument
    _add_weights(weights)


def add_graph_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide which graph a model becomes, and its classes, for `inspect`."""
    add = parser.add_argument_group("a model that is no bundle").add_argument
    add("--input-size", **_INPUT_SIZE)
    add("--input-layout", **_INPUT_LAYOUT)
    add("--channels", **_CHANNELS)
    add("--labels", **_LABELS)
    _add_outputs(add)


_Add = Callable[..., Any]

_LABELS: Final[dict[str, Any]] = {
    "metavar": "FILE",
    "help": "file of class names (default: the model's own)",
}
_PRESET: Final[dict[str, Any]] = {
    "choices": tuple(PRESETS),
    "metavar": "NAME",
    "help": f"usual preprocessing: {', '.join(PRESETS)}",
}
_INPUT_SIZE: Final[dict[str, Any]] = {"type": SIDE, "metavar": "H,W", "help": "of the model's input, such as 224"}
_INPUT_LAYOUT: Final[dict[str, Any]] = {
    "choices": ("nchw", "nhwc"),
    "help": Rare("of an .onnx file whose input does not tell"),
}

_CHANNELS: Final[dict[str, Any]] = {
    "type": IMAGE_CHANNELS,
    "metavar": "C",
    "help": "of the model's input, such as 1 (default: what the model's first layer takes)",
}


class _Inputs(argparse.Action):
    """`--input NAME=FILE|VALUE`, as often as there are inputs: a dictionary."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        name, equals, value = str(values).partition("=")
        given = dict(getattr(namespace, self.dest) or {})
        if not name or not equals or not value:
            raise argparse.ArgumentError(
                self, f"{values!r}: accepted is NAME=VALUE, such as size=1.5, or NAME=FILE.npy"
            )
        if name in given:
            raise argparse.ArgumentError(self, f"{name!r} is given twice: {given[name]!r} and {value!r}")
        setattr(namespace, self.dest, given | {name: value})


def _add_pixels(add: _Add) -> None:
    add("--resize", type=RESIZE, metavar="N", help="short side before the centre crop (default: straight to the size)")
    add("--scale", type=SCALE, metavar="S", help="value of white before mean and std: 1 or 255 (default: 1)")
    add(
        "--mean",
        type=MEAN,
        metavar="V[,V...]",
        help="per channel, or one for all, of pixels in [0,S], such as .5,.5,.5",
    )
    add("--std", type=STD, metavar="V[,V...]", help="per channel, or one for all, of pixels in [0,S]")
    add(
        "--channel-order",
        choices=("rgb", "bgr", "grey", "grey-opencv", "bands"),
        help="what the channels are (default: rgb of 3, grey of 1, else the bands of the file)",
    )
    add(
        "--value-range",
        type=VALUE_RANGE,
        metavar="LOW,HIGH",
        help="samples keep their depth; LOW becomes 0 and HIGH S, such as 0,65535 (default: 8-bit levels)",
    )
    add(
        "--display-bands",
        dest="display",
        type=DISPLAY,
        metavar="B[,B,B]",
        help=Rare("bands that overlays are drawn over, from 0: one, or red,green,blue (default: the first)"),
    )
    add(
        "--baseline-value",
        type=BASELINE_VALUE,
        metavar="mean|zero|V[,V...]",
        help=Rare("what masks hide to, of pixels in [0,S] (default: mean)"),
    )
    add("--interpolation", choices=("bilinear", "bicubic"), help=Rare("of the resize (default: bilinear)"))


def _add_outputs(add: _Add) -> None:
    add("--model-output", dest="output", metavar="NAME", help="output to explain, of several; A,B keeps several")
    add(
        "--activation",
        choices=("softmax", "sigmoid", "probabilities", "identity"),
        help="from outputs to probabilities; sigmoid: per class; identity: outputs are values, no classes "
        "(default: what the graph ends in, else softmax)",
    )
    add(
        "--input",
        dest="inputs",
        action=_Inputs,
        metavar="NAME=V",
        help="fixed value of another input of the model: a number, a JSON list, FILE.npy or FILE.npz",
    )
    add(
        "--classes",
        metavar="FILE.npy",
        help="embeddings [K,D], one per class: logits are cosines with the model's output, as in CLIP",
    )


def _add_logits(add: _Add) -> None:
    add(
        "--logit-scale",
        type=LOGIT_SCALE,
        metavar="S",
        help=Rare("of --classes: what cosines are multiplied by (default: 100)"),
    )
    add("--logit-bias", type=LOGIT_BIAS, metavar="B", help=Rare("of --classes: what is added after that (default: 0)"))


def _add_weights(add: _Add) -> None:
    add("--checkpoint", metavar="FILE", help="weights to load: .pth, .pth.xz or .safetensors")
    add("--weights", metavar="NAME", help="of torchvision: a name, or none for random ones (default: DEFAULT)")
    add(
        "--layer",
        metavar="NAME[,...]",
        help="where maps are taken: names or indices that `ortcam inspect MODEL` lists (default: the one marked *)",
    )
    add("--calibration", metavar="DIR", help="pictures for int8, like those that will be explained")
    add(
        "--static-batch",
        type=STATIC_BATCH,
        metavar="N",
        help=Rare("fix all shapes, at N rows per run, for processors that take no dynamic ones, such as 8"),
    )
    add("--opset", type=OPSET, metavar="N", help=Rare("ONNX operator set, for models from PyTorch (default: 20)"))


def _prefixed(group: Any, *, rare: bool = False) -> _Add:
    """`add_argument` of a group, under names in the options that no command has itself."""

    def add(flag: str, **settings: Any) -> None:
        name = settings.get("dest", flag.removeprefix("--").replace("-", "_"))
        text = settings["help"]
        group.add_argument(flag, **settings | {"dest": _PREFIX + name, "help": Rare(text) if rare else text})

    return add


def given_flags(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the flags that were given; what was not is left to the function's own default."""
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def flag_of(name: str) -> str:
    """The flag of an option of the export."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


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
