"""The command line: `ortcam export | inspect | fuse | explain | evaluate | benchmark | demo`."""

import argparse
import contextlib
import functools
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, get_args

from ortcam._version import __version__
from ortcam.allocation import Completion
from ortcam.arguments import batch_size, budget, pairs_of, providers
from ortcam.benchmark_cli import add_benchmark
from ortcam.bundle import MANIFEST_NAME, Bundle, Graphs, Parity, Variant, read_bundle
from ortcam.errors import (
    BundleError,
    OptionError,
    OrtcamError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    TargetError,
)
from ortcam.evaluate_cli import add_evaluate
from ortcam.explainer import Explainer, load, resolve_task
from ortcam.explanation import Explanation, comparison
from ortcam.exporter import import_exporter, timed_report
from ortcam.files import FULL, write_whole
from ortcam.fuse_cli import add_fuse
from ortcam.image import DEFAULT_MAX_PIXELS, encode_png
from ortcam.methods import MASKED_METHODS, METHODS, Plan, resolve_method
from ortcam.ranges import (
    ALPHA,
    DEADLINE,
    MAX_PIXELS,
    MEAN,
    OPSET,
    RESIZE,
    SAMPLING_ERROR,
    SCALE,
    SIDE,
    STD,
    THREADS,
    TOLERANCE,
    TOP_K,
    WHITE,
    Range,
)
from ortcam.rendering import COLORMAPS
from ortcam.result_folders import ResultFolders, check_output, file_digest
from ortcam.saved import OccupiedError, image_sha256, lost
from ortcam.scoring import Progress
from ortcam.shipped import bundle_path, demo_picture
from ortcam.signature import verify_signature
from ortcam.suggestions import did_you_mean
from ortcam.targets import class_indices
from ortcam.terminal import complain, guarded_output, json_text, others_aside, printable, say
from ortcam.unfinished import clear
from ortcam.verification import graphs_in_words, parity_failure, verify, verify_variants

__all__ = ["main"]

_EXIT_BAD_INPUT: Final = 2
_EXIT_INTERRUPTED: Final = 130
_EXIT_TERMINATED: Final = 143

# Fewer noise samples than the default 35, so that a newcomer need not wait; the figure says how many passes were made.
_DEMO_OPTIONS: Final[dict[str, dict[str, Any]]] = {"sscam": {"num_samples": 10}}

# Flags of a model, as `ortcam_export` calls them.
_OF_THE_GRAPH: Final = ("input_size", "input_layout", "output", "activation")
_OF_THE_MODEL: Final = (
    *_OF_THE_GRAPH,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input."""
    warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
    with guarded_output() as conclude:
        try:
            code = _run(arguments)
        except SystemExit as ended:  # of argparse: --help, --version, or wrong arguments
            code = ended.code if isinstance(ended.code, int) else _EXIT_BAD_INPUT
            if _concluded(conclude, code) == code:
                raise
            return _EXIT_BAD_INPUT
        return _concluded(conclude, code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        with _orderly_termination():
            code: int = options.run(options)
    except OrtcamError as error:
        complain(str(error))
        return _EXIT_BAD_INPUT
    except MemoryError:
        complain(
            "there is not enough memory for this; accepted are smaller images, fewer pixels or a smaller --batch-size"
        )
        return _EXIT_BAD_INPUT
    except OSError as error:  # a path that the system refuses: too long, or below a folder that is closed to the user
        complain(f"{error.filename or 'a file'}: cannot be looked at: {error.strerror or error}")
        return _EXIT_BAD_INPUT
    except _Terminated:
        complain("terminated")
        return _EXIT_TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return _EXIT_INTERRUPTED
    return code


def _concluded(conclude: Callable[[], None], code: int) -> int:
    """The exit code, once it is known whether everything could be printed."""
    try:
        conclude()
    except OutputError as error:
        complain(str(error))
        return code or _EXIT_BAD_INPUT
    return code


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that what is half made is removed."""


@contextlib.contextmanager
def _orderly_termination() -> Iterator[None]:
    """Raise `_Terminated` where SIGTERM arrives, which containers and `timeout` stop a process with."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Help(argparse.HelpFormatter):
    """Says of an option of numbers which ones it accepts."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        kind = action.type
        return f"{action.help}; accepted: {kind.bounds}" if isinstance(kind, Range) else action.help


class _HelpWithEpilog(_Help, argparse.RawDescriptionHelpFormatter):
    """The same with an epilog whose lines stay as they are."""


class _Parser(argparse.ArgumentParser):
    """A parser whose messages are safe for a terminal, and that knows what an unknown flag may have meant."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Help} | named)

    commands: Mapping[str, argparse.ArgumentParser] = types.MappingProxyType({})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            chosen = next((word for word in (sys.argv[1:] if args is None else args) if word in self.commands), None)
            flags = [] if chosen is None else list(self.commands[chosen]._option_string_actions)
            hints = "".join(did_you_mean(word.partition("=")[0], flags) for word in unknown[:1] if word[:1] == "-")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hints}")
        return options

    def error(self, message: str) -> Any:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ortcam", description="Explain image classifiers with ONNX Runtime, without PyTorch.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"ortcam {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_export(commands)
    _add_inspect(commands)
    add_fuse(commands)
    _add_explain(commands)
    add_evaluate(commands)
    add_benchmark(commands)
    _add_demo(commands)
    parser.commands = commands.choices
    return parser


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export", help="make a bundle from a classifier (needs `ortcam[export]`)", allow_abbrev=False
    )
    parser.set_defaults(run=_export)
    parser.add_argument("model", help="torchvision name, package.module:callable, FILE.onnx, or FILE.pt2")
    parser.add_argument("-o", "--bundle", required=True, metavar="BUNDLE", help="folder to write, say resnet18.ortcam")
    parser.add_argument("--weights", help="torchvision weights: DEFAULT, a name, or none (random)")
    parser.add_argument("--checkpoint", metavar="FILE", help="state dict to load, .pth, .pth.xz or .safetensors")
    parser.add_argument("--layer", metavar="NAME", help="module path, tensor, or index from `ortcam inspect MODEL`")
    parser.add_argument("--opset", type=OPSET, metavar="N", help="ONNX operator set for models from PyTorch")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")
    parser.add_argument(
        "--precision", metavar="P[,P...]", help="what masked passes can compute in: fp32 (always), fp16, int8"
    )
    parser.add_argument("--calibration", metavar="DIR", help="pictures for int8, of the kind that will be explained")
    _add_input(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input, output and labels, where the model does not say (callable, .onnx)")
    _add_graph_input(group)
    group.add_argument(
        "--resize", type=RESIZE, metavar="N", help="short side before the centre crop; else straight to size"
    )
    group.add_argument("--scale", type=SCALE, metavar="S", help="what white becomes before mean and std: 1 or 255")
    group.add_argument("--mean", type=MEAN, nargs=3, metavar="M", help="a channel, of pixels in [0,S]")
    group.add_argument("--std", type=STD, nargs=3, metavar="D", help="a channel, of pixels in [0,S]")
    group.add_argument("--channel-order", choices=("rgb", "bgr"), help="of the model's input, of mean and std")
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of the resize")
    group.add_argument("--labels", metavar="FILE", help="JSON list, or one label a line")


def _add_graph_input(group: Any) -> None:
    """What decides which graph a model becomes, so that `inspect` needs it, too."""
    group.add_argument("--input-size", type=SIDE, nargs=2, metavar=("H", "W"), help="of the model's input")
    group.add_argument("--input-layout", choices=("nchw", "nhwc"), help="of an .onnx file whose input does not tell")
    group.add_argument("--output", metavar="NAME", help="of the model's outputs, the one to explain")
    group.add_argument(
        "--activation",
        choices=("softmax", "sigmoid", "probabilities"),
        help="from logits to probabilities; sigmoid: class by class; probabilities: the model gives them",
    )


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser("inspect", help="what is in a bundle or a model", allow_abbrev=False)
    parser.set_defaults(run=_inspect)
    parser.add_argument("model", metavar="MODEL|BUNDLE")
    parser.add_argument(
        "--verify", action="store_true", help="of a bundle: measure parity again, on the pictures stored in it"
    )
    parser.add_argument(
        "--verify-signature",
        action="store_true",
        help="of a bundle: verify the minisign signature of its bundle.json, bundle.json.minisig",
    )
    parser.add_argument("--public-key", metavar="FILE", help="for --verify-signature, say minisign.pub")
    _add_graph_input(parser.add_argument_group("of a model"))


def _add_explain(commands: Any) -> None:
    methods = ", ".join(method.name for method in METHODS)
    parser = commands.add_parser(
        "explain",
        help="explain images with a bundle",
        allow_abbrev=False,
        formatter_class=_HelpWithEpilog,
        epilog=_option_help(),
    )
    parser.set_defaults(run=_explain)
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument(
        "-m", "--method", default="scorecam++", metavar="METHOD[,METHOD...]", help=f"{methods} (default: scorecam++)"
    )
    parser.add_argument(
        "-t",
        "--target",
        action="append",
        metavar="TARGET[,TARGET...]",
        help="classes by index or label, say -t 3,dog; repeatable; index:3 and label:3 say which is meant",
    )
    parser.add_argument("--top-k", type=TOP_K, metavar="K", help="the K most probable classes (default 1)")
    parser.add_argument("-o", "--output", default="explanations", metavar="DIR", help="default: explanations")
    parser.add_argument("--force", action="store_true", help="replace results of the same image with other settings")
    parser.add_argument(
        "--batch-size",
        type=batch_size,
        default="auto",
        metavar="N",
        help="masked images a run, 65536 at most (default: auto)",
    )
    parser.add_argument("--provider", metavar="NAME[,NAME...]", help="execution providers, say cuda,cpu")
    parser.add_argument(
        "--provider-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the first provider, say precision=bf16 for openvino",
    )
    parser.add_argument("--precision", metavar="P", help="of the masked passes, where the bundle has it: fp16, int8")
    parser.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads (default: physical cores)")
    parser.add_argument("--low-memory", action="store_true", help="for small devices: less memory, slower")
    _add_limits(parser.add_argument_group("fewer passes (default: every channel is scored and the map is exact)"))
    parser.add_argument(
        "--max-pixels",
        type=MAX_PIXELS,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="refuse images of more pixels, or that take more than about 12 N bytes of memory (default %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="refuse damaged images, even if a part can be read")
    parser.add_argument("--white", type=WHITE, metavar="N", help="white in 16-bit PNG, TIFF, PNM: 4095 for 12 bits")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the methods; see below")
    parser.add_argument("--colormap", choices=COLORMAPS, default="jet")
    parser.add_argument("--alpha", type=ALPHA, default=0.5, metavar="A", help="weight of the heatmap in the overlay")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def _add_limits(group: Any) -> None:
    group.add_argument("--budget", type=budget, metavar="B", help="channels to score: 0.12, 12%%, or a number")
    group.add_argument(
        "--deadline",
        type=DEADLINE,
        metavar="MS",
        help="milliseconds for an explanation; maps then depend on the machine's load",
    )
    group.add_argument("--tolerance", type=TOLERANCE, metavar="E", help="stop when the map is likely to be this exact")
    group.add_argument(
        "--completion",
        choices=get_args(Completion),
        default="gaussian-process",
        help="of the weights that were not scored",
    )
    group.add_argument(
        "--sampling-error",
        type=SAMPLING_ERROR,
        metavar="E",
        help="of SS-CAM and IS-CAM: stop sampling a channel when its standard error is below this share",
    )


def _option_help() -> str:
    lines = ["options of the methods (KEY: accepted, default first; what it does):"]
    for method in METHODS:
        lines.append(f"\n  {method.name}")
        lines += [f"    {option.name}: {option.accepted}; {option.help}" for option in method.options]
    return "\n".join(lines).replace("%", "%%")


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="explain a shipped picture with all four methods", allow_abbrev=False)
    parser.set_defaults(run=_demo)
    parser.add_argument("-o", "--output", default="ortcam-demo", metavar="DIR", help="default: ortcam-demo")
    parser.add_argument("--force", action="store_true", help="replace what is there")


def _export(options: argparse.Namespace) -> int:
    exporter = import_exporter(f"`ortcam export {options.model}`", _extra_for(options.model))
    given = _given(options, _OF_THE_MODEL)
    with others_aside():
        bundle = exporter.export(options.model, options.bundle, force=options.force, report=timed_report(), **given)
    _print_bundle(bundle)
    return 0


def _extra_for(model: str) -> str:
    """The extra that exporting a model needs: a file in ONNX's format needs no PyTorch."""
    return "onnx" if model.endswith(".onnx") else "export"


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the flags that were given; what was not is left to the function's own default."""
    values = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _inspect(options: argparse.Namespace) -> int:
    path = Path(options.model)
    given = _given(options, _OF_THE_GRAPH)
    if (path / MANIFEST_NAME).exists() or path.suffix == ".ortcam" or path.is_dir():
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(f"{flags}: goes with a model; {path} is a bundle, whose input is known")
        bundle = read_bundle(path)
        comment = _signed(bundle, options)
        _print_bundle(bundle)
        if comment is not None:
            print(f"signature      of bundle.json, valid, by the key of {options.public_key}: {printable(comment)}")
        if options.verify:
            _verify(bundle)
        return 0
    for flag, said in (
        ("--verify", options.verify),
        ("--verify-signature", options.verify_signature),
        ("--public-key", options.public_key is not None),
    ):
        if said:
            raise OptionError(f"{flag}: goes with a bundle; {options.model} is none")
    exporter = import_exporter(f"`ortcam inspect {options.model}`", _extra_for(options.model))
    with others_aside():
        inspection = exporter.inspect_model(options.model, **given)
    _print_inspection(inspection)
    return 0


def _signed(bundle: Bundle, options: argparse.Namespace) -> str | None:
    """The trusted comment of a bundle's signature; None where it need not have one.

    Raises:
        BundleError: it is not signed with this key.
    """
    if options.verify_signature != (options.public_key is not None):
        raise OptionError("--verify-signature and --public-key FILE: give both or neither; nobody's key is built in")
    return verify_signature(bundle, options.public_key) if options.verify_signature else None


def _print_inspection(inspection: Any) -> None:
    _print_preprocessing(inspection.source.preprocessing, inspection.source.preprocessing_source)
    for note in inspection.notes:
        say(f"note           {note}")
    print(f"graph          {inspection.nodes} nodes, {_millions(inspection.macs)} multiply-adds for an image")
    passed = "every path from image to logits passes these"
    if not inspection.layers:
        print("layers         none that every path from image to logits passes; name one inside a branch with --layer")
    elif inspection.default is None:
        print(f"layers         {passed}; none is a good default, name one with --layer")
    else:
        print(f"layers         {passed}; * is the default")
    rows = [("", "", "module", "tensor", "layout", "maps [C,h,w]", "behind it")]
    for index, layer in enumerate(inspection.layers):
        mark = "*" if layer == inspection.default else ""
        rows.append((mark, str(index), *_described(layer), _millions(layer.macs_behind)))
    if inspection.layers:
        _print_table(rows)
    if inspection.branches:
        print("branches       data reach the logits around these; --layer takes them by module or tensor")
        _print_table(
            [
                ("", "", "module", "tensor", "layout", "maps [C,h,w]", ""),
                *(("", "-", *_described(layer), "") for layer in inspection.branches),
            ]
        )


def _described(layer: Any) -> tuple[str, str, str, str]:
    """Module, tensor, layout and shape of a layer."""
    cut = layer.cut
    layout = f"{cut.layout} int8" if layer.quantized else cut.layout
    return cut.module or "-", cut.tensor, layout, f"[{cut.channels},{cut.height},{cut.width}]"


def _millions(macs: int | None) -> str:
    return "?" if macs is None else f"{macs / 1e6:.1f} M"


def _print_bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    cut, parity = manifest.cut, manifest.parity
    size = sum(record.size for record in manifest.files.values())
    prefix = f", {cut.prefix_tokens} prefix tokens" if cut.prefix_tokens else ""
    say(f"bundle         {bundle.path} ({size / 1e6:.1f} MB, schema {bundle.schema})")
    print(f"sha256         {bundle.sha256}")
    weights = manifest.model.weights or (
        "random" if manifest.model.source == "torchvision" else "as the module had them"
    )
    say(f"model          {manifest.model.name} ({manifest.model.source}), weights {weights}")
    more = " ..." if len(manifest.labels) > 6 else ""
    labels = printable(", ".join(manifest.labels[:6]))
    say(f"classes        {len(manifest.labels)}: {labels}{more}; {manifest.activation}")
    _print_preprocessing(manifest.preprocessing, manifest.preprocessing_source)
    shape = f"[{cut.channels},{cut.height},{cut.width}]"
    say(f"cut            {cut.module or cut.tensor} ({cut.tensor}), maps {shape}, {cut.layout}{prefix}")
    if manifest.graphs.head is None:
        works = ", ".join(method.name for method in METHODS if not method.needs_head)
        words = f"no head of its own, only the whole model; methods that work: {works}"
        print(f"{'':15}inside a branch: {words}")
    say(f"parity         {_parity_figures(parity, manifest.graphs)} against {parity.reference}")
    probe = "none (schema 1); it cannot be verified" if manifest.probe is None else f"{parity.inputs} pictures"
    print(f"probe          {probe}")
    say(f"graphs         opset {manifest.opset}, {manifest.precision}; scorers {', '.join(manifest.graphs.scorers)}")
    for name, variant in manifest.variants.items():
        _print_variant(name, variant)
    say(f"made with      {', '.join(f'{tool} {version}' for tool, version in manifest.versions.items())}")


def _print_variant(name: str, variant: Variant) -> None:
    fidelity = variant.fidelity
    pictures = f"{fidelity.images} {'held-out ' if fidelity.held_out else ''}pictures"
    calibrated = f"; calibrated on {variant.calibration}" if variant.calibration else ""
    say(f"variant        {name}: scorers {variant.parity:.1e} from float32's, relative{calibrated}")
    print(f"{'':15}maps against float32's on {pictures}, at most {fidelity.channels} channels:")
    for method, like in fidelity.maps.items():
        print(
            f"{'':15}{printable(method)}: Pearson {like.pearson_mean:.4f} (least {like.pearson_min:.4f}), "
            f"Spearman {like.spearman_mean:.4f} (least {like.spearman_min:.4f})"
        )
    print(f"{'':15}same most probable class in {fidelity.top1:.1%} of the passes")


def _parity_figures(parity: Parity, graphs: Graphs) -> str:
    return (
        f"{parity.logits:.1e} for {graphs_in_words(graphs)}, {parity.scorer:.1e} for the scorers, relative, on "
        f"{parity.inputs} pictures; accepted {parity.tolerance:.0e}, {parity.scorer_tolerance:.0e}"
    )


def _verify(bundle: Bundle) -> None:
    """Measure a bundle's parity again and print it beside what was recorded.

    Raises:
        BundleError: it is beyond the tolerance recorded at export, or cannot be measured.
    """
    manifest = bundle.manifest
    measured = verify(bundle)
    print(f"verified       the sizes and hashes of {len(manifest.files)} files, and parity:")
    print(f"  recorded     {_parity_figures(manifest.parity, manifest.graphs)}")
    print(f"  measured     {_parity_figures(measured, manifest.graphs)}")
    if failure := parity_failure(measured, manifest.graphs):
        raise BundleError(f"{bundle.path}: {failure}")
    for name, difference in verify_variants(bundle).items():
        variant = manifest.variants[name]
        print(f"  {name:<13}scorers {difference:.1e} from float32's; recorded {variant.parity:.1e}, ", end="")
        print(f"accepted {variant.tolerance:.1e}")
        if not difference <= variant.tolerance:
            raise BundleError(
                f"{bundle.path}: the scorers in {name} differ from float32's by {difference:.1e} relative here; "
                f"accepted is {variant.tolerance:.1e}. This machine computes otherwise than the one of the export"
            )


def _print_preprocessing(preprocessing: Any, source: str) -> None:
    p = preprocessing
    sides = f"short side to {p.resize}" if p.keep_aspect else f"to {p.resize} x {p.resize}"
    resize = f"{sides}, centre crop {p.height} x {p.width}" if p.resize else f"to {p.height} x {p.width}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    order = "" if p.channel_order == "rgb" else f"channels {p.channel_order}, "
    scale = "" if p.scale == 1 else f"scale {p.scale:g}, "
    say(f"preprocessing  {resize}, {p.interpolation}; {order}{scale}mean {mean}, std {std} ({source})")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _explain(options: argparse.Namespace) -> int:
    with others_aside() as ours:
        results, errors = _explained(options, ours)
    if options.json:
        print(json_text({"explanations": results, "errors": errors}))
    return _EXIT_BAD_INPUT if errors else 0


def _explained(options: argparse.Namespace, ours: TextIO) -> tuple[list[dict[str, Any]], list[dict[str, str | None]]]:
    """Explain and save.

    Args:
        options: of the command.
        ours: where results are printed.

    Returns:
        What `--json` prints of each explanation, and the images with what was wrong with each.

    Raises:
        OrtcamError: what is wrong with the whole command.
    """
    # What is wrong with the whole command is found before any image is read, and said once.
    methods = _methods(options.method, options.option)
    if options.target is not None and options.top_k is not None:
        raise TargetError(f"--top-k {options.top_k} with -t {' -t '.join(options.target)}: give one or the other")
    output = check_output(options.output)
    wanted = providers(options.provider, options.provider_option)
    explainer = load(
        options.bundle,
        providers=wanted,
        threads=options.threads,
        max_pixels=options.max_pixels,
        white=options.white,
        strict=options.strict,
        low_memory=options.low_memory,
        precision=options.precision,
    )
    targets = None if options.target is None else class_indices(options.target, explainer.labels)
    arguments = [
        {"method": method, "target": targets, **_limits(options, method), **settings} for method, settings in methods
    ]
    for given in arguments:
        resolve_task(**given)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str | None]] = []

    def report(image: str | None, error: OrtcamError) -> None:
        errors.append({"image": image, "error": str(error)})
        complain(str(error))

    work = _checked(explainer, arguments, report)
    folders = ResultFolders(output)
    places = _places(options, folders, [record for _, record in work])
    # The photographs come in the order of the images, less those that were reported.
    waiting = iter(zip(options.images, places, strict=True))

    def skip(_: object, error: OrtcamError) -> None:
        image, _place = next(waiting)
        report(image, error)

    for photograph in explainer.read_many(options.images if work else (), on_error=skip):
        image, folder = next(waiting)
        for given, record in list(work):
            method = given["method"]
            try:
                with _progress(f"{Path(image).name} {method}", quiet=options.quiet) as progress:
                    explanation = explainer.explain(photograph, progress=progress, **given)
                saved = _save(explanation, image, folder, folders, options)
            except OrtcamError as error:
                report(image, error)
                if _is_full(error):
                    work = []
                    break
                if _fails_for_all(error):
                    work = [item for item in work if item[1] is not record]
                continue
            if options.json:
                results.append({"folder": str(saved), **explanation.summary()})
            elif not options.quiet:
                _print_explanation(image, explanation, saved, ours)
        if not work:
            break
    return results, errors


_Work = list[tuple[dict[str, Any], dict[str, Any]]]


def _checked(
    explainer: Explainer, arguments: Sequence[dict[str, Any]], report: Callable[[str | None, OrtcamError], None]
) -> _Work:
    """The arguments of each method that this bundle allows, and what its manifests will say of it.

    Raises:
        TargetError: a class, or a number of classes, that the model does not have.
    """
    work: _Work = []
    for given in arguments:
        try:
            work.append((given, explainer.check(**given)))
        except OptionError as error:  # the other methods are worth having
            report(None, error)
    return work


def _places(options: argparse.Namespace, folders: ResultFolders, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The folder of each image, once it is clear that saving there loses nothing, or is forced.

    Args:
        options: of the command.
        folders: below the output folder.
        records: of each method, what its manifests will say.

    Raises:
        OutputError: results of the same images with other settings are there.
    """
    digest = functools.cache(file_digest)
    places = [folders.give(image, functools.partial(digest, image)) for image in options.images]
    if not options.force:
        rendering = {"colormap": options.colormap, "alpha": options.alpha}
        _check_nothing_is_lost(
            [
                (
                    place / record["method"],
                    {**record, "image": {"sha256": digest(image), "white": options.white}, "rendering": rendering},
                )
                for image, place in zip(options.images, places, strict=True)
                if place.exists()
                for record in records
            ]
        )
    return places


def _check_nothing_is_lost(wanted: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
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


def _save(
    explanation: Explanation, image: str, folder: Path, folders: ResultFolders, options: argparse.Namespace
) -> Path:
    """Save an explanation in the folder of its image, or in the next one if another command was faster.

    Where `--force` replaces something, it is of the same image or of nobody's.
    """
    rendering = {"colormap": options.colormap, "alpha": options.alpha}

    def digest() -> str | None:
        return image_sha256(explanation.provenance["image"])

    while True:
        try:
            return explanation.save(folder / explanation.method, **rendering)
        except OccupiedError:
            if options.force and folders.is_free(folder, digest):
                return explanation.save(folder / explanation.method, force=True, **rendering)
            folder = folders.give(image, digest)


def _is_full(error: OrtcamError) -> bool:
    """Whether the disk takes no more results: what has no room for one has none for the next."""
    return isinstance(error, OutputError) and getattr(error.__cause__, "errno", None) in FULL


def _fails_for_all(error: OrtcamError) -> bool:
    """Whether the method would meet the same error with the next image."""
    of_the_bundle = isinstance(error, (BundleError, OptionError, ProviderError, TargetError))
    return of_the_bundle and not isinstance(error, OutOfMemoryError)


def _limits(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """The limits that go with a method; those that go with none of the methods, too, for the error they deserve."""
    given = {"batch_size": options.batch_size, "top_k": 1 if options.top_k is None else options.top_k}
    for name in ("budget", "deadline", "tolerance", "completion", "sampling_error"):
        value = getattr(options, name)
        if value is not None and (_is_limited(method, name) or not _any_limited(options, name)):
            given[name] = value
    return given


def _is_limited(method: str, name: str) -> bool:
    """Whether a limit goes with a method: some mask no image, some take no samples."""
    plan = resolve_method(method, {}).plan
    return isinstance(plan, Plan) and (name != "sampling_error" or plan.samples > 1)


def _any_limited(options: argparse.Namespace, name: str) -> bool:
    return any(_is_limited(method.strip(), name) for method in options.method.split(","))


def _methods(names: str, pairs: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Methods in the order given, each with those of the options that it knows.

    Raises:
        OptionError: an unknown method, an option that none of them knows, or a value that is not accepted.
    """
    given: dict[str, object] = {key.replace("-", "_"): value for key, value in pairs_of("--option", pairs).items()}
    chosen = [resolve_method(name.strip(), {}).method for name in names.split(",")]
    known = {option.name for method in chosen for option in method.options}
    methods = []
    for method in dict.fromkeys(chosen):
        own = {option.name for option in method.options}
        # A key that no method knows goes to the first, whose error says what is accepted.
        settings = {key: value for key, value in given.items() if key in own or key not in known}
        resolve_method(method.name, settings)
        methods.append((method.name, settings))
    return methods


@contextlib.contextmanager
def _progress(label: str, *, quiet: bool) -> Iterator[Progress | None]:
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


def _print_explanation(image: str, explanation: Explanation, folder: Path, ours: TextIO | None = None) -> None:
    stats = explanation.stats
    say(
        f"{image}  {explanation.method}  {stats.passes_in_words} of {stats.channels} channels, "
        f"{stats.seconds:.2f} s, {stats.providers[0]}",
        ours,
    )
    if stats.scored_channels < stats.live_channels:
        scored = f"{stats.scored_channels} of {stats.live_channels} channels scored"
        error = "" if stats.estimated_error is None else f", map likely within {max(stats.estimated_error):.3f}"
        say(f"  {scored}, {stats.energy_covered:.0%} of the energy{error}", ours)
    for what in stats.simplified:
        say(f"  simplified to meet the deadline: {what}", ours)
    if stats.seconds_late > 0:
        say(f"  the deadline was missed by {1000 * stats.seconds_late:.0f} ms", ours)
    if stats.standard_error is not None:
        most = max(stats.standard_error)
        say(f"  fewer samples than the method has: standard error of a weight at most {most:.1%}", ours)
    for target, label, probability, flat in zip(
        explanation.targets, explanation.labels, explanation.probabilities, explanation.flat, strict=True
    ):
        note = "  (flat map: nothing speaks for this class)" if flat else ""
        overlay = printable(str(folder / f"class-{target}-overlay.png"))
        say(f"  {target:5d}  {printable(label):<24}  {probability:7.2%}  {overlay}{note}", ours)


def _demo(options: argparse.Namespace) -> int:
    output = check_output(options.output)
    clear(output)
    explainer = load(bundle_path())
    picture = demo_picture()
    folder = ResultFolders(output).give(str(picture), lambda: file_digest(str(picture)))
    path = output / "demo.png"
    arguments = [{"method": method.name, "top_k": 2, **_DEMO_OPTIONS.get(method.name, {})} for method in MASKED_METHODS]
    if not options.force:
        if path.exists() and not folder.exists():
            raise OutputError(f"{path}: is there already and of no earlier demo; --force replaces it")
        image = {"image": {"sha256": file_digest(str(picture))}, "rendering": {"colormap": "jet", "alpha": 0.5}}
        _check_nothing_is_lost([(folder / given["method"], explainer.check(**given) | image) for given in arguments])
    explanations = []
    for method, given in zip(MASKED_METHODS, arguments, strict=True):
        with _progress(method.title, quiet=False) as progress:
            explanation = explainer.explain(picture, progress=progress, **given)
        saved = explanation.save(folder / method.name, force=options.force)
        _print_explanation(picture.name, explanation, saved)
        explanations.append(explanation)
    try:
        write_whole(path, encode_png(comparison(explanations)), durable=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
