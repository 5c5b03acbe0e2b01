"""MODEL on the command line: what it may be, the flags that describe it, and the bundle that it is or becomes."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ortcam.cli.parsers import Rare
from ortcam.engine.providers import Provider
from ortcam.explainer import Explainer, load
from ortcam.images.presets import PRESETS
from ortcam.models.export_options import EXPORT_OPTIONS
from ortcam.models.opening import bundle_of, is_bundle
from ortcam.support.ranges import MEAN, OPSET, RESIZE, SCALE, SIDE, STD
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
    _add_pixels(rare)
    _add_outputs(rare)
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


def open_explainer(options: argparse.Namespace, providers: Sequence[Provider] | None) -> Explainer:
    """What explains with MODEL, by the flags that `add_model`, `add_execution` and `add_image_reading` added.

    Raises:
        OrtcamError: as `open_bundle` and `ortcam.load`.
    """
    return load(
        open_bundle(options),
        providers=providers,
        threads=options.threads,
        max_pixels=options.max_pixels,
        white=options.white,
        strict=options.strict,
        low_memory=options.low_memory,
        precision=getattr(options, "precision", None),
        strict_providers=options.strict_providers,
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ortcam export`, in groups."""
    pixels = parser.add_argument_group("from an image to the model's input, where the model does not say").add_argument
    pixels("--preset", **_PRESET)
    pixels("--input-size", **_INPUT_SIZE)
    pixels("--input-layout", **_INPUT_LAYOUT)
    _add_pixels(pixels)
    outputs = parser.add_argument_group("classes").add_argument
    outputs("--labels", **_LABELS)
    _add_outputs(outputs)
    weights = parser.add_argument_group("weights, layer and graphs").add_argument
    _add_weights(weights)


def add_graph_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide which graph a model becomes, and its classes, for `inspect`."""
    add = parser.add_argument_group("a model that is no bundle").add_argument
    add("--input-size", **_INPUT_SIZE)
    add("--input-layout", **_INPUT_LAYOUT)
    add("--labels", **_LABELS)
    _add_outputs(add)


_Add = Callable[..., Any]

_LABELS: Final[dict[str, Any]] = {
    "metavar": "FILE",
    "help": "class names: a text, CSV or JSON file, or `imagenet` (default: the model's own, else class 0, 1 ...)",
}
_PRESET: Final[dict[str, Any]] = {
    "choices": tuple(PRESETS),
    "metavar": "NAME",
    "help": f"usual preprocessing: {', '.join(PRESETS)}",
}
_INPUT_SIZE: Final[dict[str, Any]] = {"type": SIDE, "metavar": "H,W", "help": "of the model's input, such as 224"}
_INPUT_LAYOUT: Final[dict[str, Any]] = {
    "choices": ("nchw", "nhwc"),
    "help": "of an .onnx file whose input does not tell",
}


def _add_pixels(add: _Add) -> None:
    add("--resize", type=RESIZE, metavar="N", help="short side before the centre crop (default: straight to the size)")
    add("--scale", type=SCALE, metavar="S", help="value of white before mean and std: 1 or 255 (default: 1)")
    add("--mean", type=MEAN, metavar="R,G,B", help="per channel, of pixels in [0,S], such as .5,.5,.5")
    add("--std", type=STD, metavar="R,G,B", help="per channel, of pixels in [0,S]")
    add("--channel-order", choices=("rgb", "bgr"), help="of the model's input, of mean and std (default: rgb)")
    add("--interpolation", choices=("bilinear", "bicubic"), help="of the resize (default: bilinear)")


def _add_outputs(add: _Add) -> None:
    add("--model-output", dest="output", metavar="NAME", help="output to explain, where the model has several")
    add(
        "--activation",
        choices=("softmax", "sigmoid", "probabilities"),
        help="from outputs to probabilities; sigmoid: per class (default: what the graph ends in, else softmax)",
    )


def _add_weights(add: _Add) -> None:
    add("--checkpoint", metavar="FILE", help="weights to load: .pth, .pth.xz or .safetensors")
    add("--weights", metavar="NAME", help="of torchvision: a name, or none for random ones (default: DEFAULT)")
    add(
        "--layer",
        metavar="NAME[,...]",
        help="where maps are taken: names or indices that `ortcam inspect MODEL` lists (default: the one marked *)",
    )
    add("--calibration", metavar="DIR", help="pictures for int8, like those that will be explained")
    add("--opset", type=OPSET, metavar="N", help="ONNX operator set, for models from PyTorch (default: 20)")


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
    return "--model-output" if name == "output" else f"--{name.replace('_', '-')}"


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
