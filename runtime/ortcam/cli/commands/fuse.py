"""`ortcam fuse`: its flags, and what it says of the file that it wrote."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortcam.bundle import Bundle, read_bundle
from ortcam.cli.common import PRECISION_WORDS, add_force, add_method, add_option, add_output, add_quiet, pairs_of
from ortcam.cli.method_names import list_methods
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import Rare, add_command
from ortcam.cli.progress import stages
from ortcam.errors import OptionError, OutputError
from ortcam.models.exporter import import_exporter
from ortcam.request import fusible, read_budget, resolve_fusible
from ortcam.scoring.limits import Limits
from ortcam.support.files import write_whole
from ortcam.support.ranges import CHUNK, TOP_K
from ortcam.support.terminal import others_aside, say
from ortcam.support.unfinished import clear

__all__ = ["add_fuse", "add_operators", "check_operators", "write_operators"]


def add_fuse(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "fuse",
        _fuse,
        help="make one .onnx file that explains, for Node, C++, Triton ...",
        description="Make one ONNX file, image in and map out, that any ONNX Runtime can run: Python, Node, C++, "
        "Triton. Needs the extra `onnx`.",
        examples=(
            "ortcam fuse shapes -m grad-cam --uint8-input -o explainer.onnx",
            "ortcam fuse resnet18 -m scorecam++ --triton models --budget 25%",
        ),
    )
    add_model(parser)
    what = parser.add_argument_group("what to explain")
    list_methods(add_method(what, several=False, help="auto, or one of %(methods)s (default: %(default)s)"), fusible)
    add_option(what)
    classes = what.add_mutually_exclusive_group()
    classes.add_argument("--top-k", type=TOP_K, metavar="K", help="the K most probable classes (default: 1)")
    classes.add_argument("--runtime-targets", action="store_true", help="take the classes as an input, int64 [K]")
    what.add_argument(
        "--score", metavar="EXPR", help="explain a score: logit, 'mug - key', entropy, cosine:text.npy, 'output[3]'"
    )
    what.add_argument(
        "--uint8-input",
        action="store_true",
        help="take an image of any size: uint8 [h,w,3], or the samples float32 [h,w,C] of a model with a value range",
    )
    what.add_argument(
        "--budget", type=read_budget, metavar="B", help="channels to score, such as 25%% or 64 (default: all)"
    )
    results = parser.add_argument_group("results")
    add_output(results, metavar="FILE", help="file to write, such as explainer.onnx")
    results.add_argument("--triton", metavar="DIR", help="instead: a model repository of Triton Inference Server")
    results.add_argument("--name", metavar="NAME", help="of the model there (default: bundle and method)")
    results.add_argument("--external", action="store_true", help="write the weights to FILE.data, beside the file")
    results.add_argument(
        "--ort", action="store_true", help="write ORT format, for minimal builds of ONNX Runtime: -o explainer.ort"
    )
    results.add_argument("--no-verify", action="store_true", help="do not compare the file's maps with the runtime's")
    add_operators(results)
    add_force(results)
    add_quiet(results)
    execution = parser.add_argument_group("execution")
    execution.add_argument("--batch-size", type=CHUNK, metavar="N", help="masked images per run (default: 8)")
    execution.add_argument(
        "--precision", metavar="NAME", help=Rare(f"of the masked passes, where the bundle has it: {PRECISION_WORDS}")
    )


def _fuse(options: argparse.Namespace) -> int:
    if (options.output is None) == (options.triton is None):
        both = "give one of them" if options.output is not None else "one of them is missing"
        raise OptionError(f"-o FILE writes a file, --triton DIR a model repository: {both}")
    settings = resolve_fusible(options.method, _pairs(options.option))
    check_operators(options, output=options.output, force=options.force)
    bundle = _check(options)  # before what takes seconds to import
    exporter = import_exporter("`ortcam fuse`", "onnx")
    size: dict[str, Any] = {} if options.batch_size is None else {"batch_size": options.batch_size}
    with others_aside(), stages(quiet=options.quiet) as report:
        report("loading the packages of ONNX")
        fused = exporter.fuse(
            bundle,
            options.output,
            triton=options.triton,
            name=options.name,
            method=options.method,
            budget=options.budget,
            precision=options.precision,
            top_k=options.top_k,
            runtime_targets=options.runtime_targets,
            score=options.score,
            uint8_input=options.uint8_input,
            external=options.external,
            ort=options.ort,
            verify=not options.no_verify,
            force=options.force,
            report=report,
            **size,
            **{name: settings.options[name] for name in _pairs(options.option)},
        )
        if options.required_operators is not None:
            report("listing its operators")
            write_operators(exporter, fused.path, options)
    if not options.quiet:
        _print(fused)
    return 0


def _check(options: argparse.Namespace) -> Bundle:
    """Find out what is wrong with destination, numbers and bundle; the bundle is opened.

    Raises:
        OrtcamError: as `ortcam_export.fuse`, for whatever can be told without ONNX's packages.
    """
    Limits(budget=options.budget)
    if options.output is not None:
        path = Path(options.output)
        suffix = ".ort" if options.ort else ".onnx"
        if path.suffix != suffix:
            hint = "; --ort writes ORT format" if path.suffix == ".ort" else ""
            raise OptionError(f"-o {path}: accepted is the name of a file that ends in {suffix}{hint}")
        clear(path.parent, former=path.name)
        beside = [path.with_name(f"{path.name}.data")] if options.external else []
        for taken in [path, *beside]:
            if taken.exists() and not options.force:
                raise OutputError(f"{taken}: is there already; --force replaces it")
    folder = Path(options.triton) if options.output is None else path.parent
    if not folder.is_dir():
        raise OutputError(f"{options.output or options.triton}: the folder {folder} does not exist")
    bundle = read_bundle(open_bundle(options))
    bundle.check_precision(options.precision)
    classes = bundle.manifest.outputs
    if options.top_k is not None and options.top_k > classes:
        raise OptionError(f"top_k={options.top_k}: accepted is a whole number from 1 to {classes}, the model's classes")
    return bundle


def _pairs(pairs: Sequence[str]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in pairs_of("--option", pairs).items()}


def _print(fused: Any) -> None:
    beside = "" if fused.external is None else f", weights in {fused.external.name}"
    rows = [("method", fused.metadata["ortcam.chosen"] or fused.metadata["ortcam.method"]), ("file", str(fused.path))]
    rows += [("", f"{fused.size / 1e6:.1f} MB, opset {fused.opset}, {fused.nodes} nodes{beside}")]
    if fused.ort_format is not None:
        written_by = json.loads(fused.metadata["ortcam.versions"])["onnxruntime"]
        rows += [("", f"ORT format {fused.ort_format}, written by ONNX Runtime {written_by}")]
        rows += [("", f"as .onnx it has {fused.onnx_size / 1e6:.1f} MB")]
    for title, values in (("input", fused.inputs), ("output", fused.outputs)):
        rows += [(title, f"{name}: {kind}") for name, kind in values.items()]
    verified = (
        "no (--no-verify)" if fused.difference is None else f"maps differ from the runtime's by {fused.difference:.1e}"
    )
    for title, text in (*rows, ("verified", verified)):
        say(f"{title:<10}{text}")


def add_operators(group: Any) -> None:
    """Add the flags `--required-operators` and `--operator-types`, which `ortcam inspect` has, too."""
    group.add_argument(
        "--required-operators",
        metavar="FILE",
        help=Rare("list the operators for a small build of ONNX Runtime, as --include_ops_by_config takes them"),
    )
    group.add_argument(
        "--operator-types", action="store_true", help=Rare("for --required-operators: with the types of each")
    )


def check_operators(options: argparse.Namespace, *, output: str | None = None, force: bool | None = None) -> None:
    """Find out whether the list can be written, before any work.

    Args:
        options: of the command.
        output: what else it writes.
        force: whether a file may be replaced; None: the command has no such flag.

    Raises:
        OptionError: types without a list.
        OutputError: there is no such folder, a file is there that is not to be replaced, or it is the output.
    """
    if options.required_operators is None:
        if options.operator_types:
            raise OptionError("--operator-types: goes with --required-operators FILE")
        return
    path = Path(options.required_operators)
    if output is not None and path.resolve() == Path(output).resolve():
        raise OutputError(f"--required-operators {path}: is the file of -o, too; name another")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir() or (path.exists() and not force):
        forceable = force is not None and path.is_file()
        raise OutputError(f"{path}: is there already; {'--force replaces it' if forceable else 'name another'}")


def write_operators(exporter: Any, model: Any, options: argparse.Namespace) -> None:
    """Write the list for a bundle or a fused file, and say where it is.

    Raises:
        OrtcamError: a graph cannot be read or converted.
    """
    text = exporter.required_operators(model, types=options.operator_types)
    write_whole(Path(options.required_operators), text.encode())
    if not (getattr(options, "quiet", False) or getattr(options, "json", False)):
        say(f"wrote the operators to {options.required_operators}")
