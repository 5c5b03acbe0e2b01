"""`ortcam inspect`: what is in a bundle or a model, parity measured again, and signatures."""

import argparse
import dataclasses
import json
from typing import Any

from ortcam.bundle import Bundle, Parity, read_bundle
from ortcam.bundle.signature import verify_signature
from ortcam.cli.commands.fuse import add_operators, check_operators, write_operators
from ortcam.cli.common import add_alias, add_json
from ortcam.cli.models import MODEL_HELP, add_graph_input, flag_of, given_flags
from ortcam.cli.parsers import Rare, add_command
from ortcam.cli.printing import parity_figures, print_bundle, print_inspection, say_wrapped
from ortcam.errors import BundleError, OptionError
from ortcam.models.export_options import refuse_with_bundle
from ortcam.models.exporter import extra_for, import_exporter
from ortcam.models.opening import bundle_of, file_of, is_bundle
from ortcam.parity import gradient_failure, parity_failure, verify, verify_gradient, verify_variants
from ortcam.support.terminal import json_text, others_aside, say

__all__ = ["add_inspect"]

_OF_A_MODEL = ("input_size", "input_layout", "channels", "inputs", "output", "activation", "classes", "labels")


def add_inspect(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "inspect",
        _inspect,
        help="show what is in a model or a bundle, and check a bundle",
        description="Show a model's inputs, outputs, classes and layers, or what is in a bundle.",
        examples=("ortcam inspect model.onnx", "ortcam inspect model.ortcam --verify"),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_json(parser)
    group = parser.add_argument_group("a bundle")
    group.add_argument(
        "--verify",
        action="store_true",
        help="measure again how near its graphs are to the original, and give a verdict",
    )
    group.add_argument(
        "--provider",
        metavar="NAME",
        help="nodes that an execution provider would not take, and why: qnn, nnapi, coreml or xnnpack",
    )
    group.add_argument(
        "--verify-signature", action="store_true", help=Rare("verify the minisign signature of its bundle.json")
    )
    group.add_argument("--public-key", metavar="FILE", help=Rare("for --verify-signature, such as minisign.pub"))
    add_operators(group)
    add_graph_input(parser)
    add_alias(parser, "--model-output", "--output")


def _inspect(options: argparse.Namespace) -> int:
    given = given_flags(options, _OF_A_MODEL)
    if is_bundle(options.model):
        refuse_with_bundle([flag_of(name) for name in given], options.model, goes_with="a model")
        _inspect_bundle(options)
        return 0
    for flag, said in (
        ("--verify", options.verify),
        ("--provider", options.provider is not None),
        ("--verify-signature", options.verify_signature),
        ("--public-key", options.public_key is not None),
        ("--required-operators", options.required_operators is not None),
        ("--operator-types", options.operator_types),
    ):
        if said:
            raise OptionError(f"{flag}: goes with a bundle; {options.model} is none")
    model = file_of(options.model)
    exporter = import_exporter(f"`ortcam inspect {options.model}`", extra_for(model))
    with others_aside():
        inspection = exporter.inspect_model(model, **given)
    if options.json:
        print(json_text(inspection.summary()))
    else:
        print_inspection(inspection)
    return 0


def _inspect_bundle(options: argparse.Namespace) -> None:
    check_operators(options)
    if options.provider is not None and options.verify:
        raise OptionError("--provider and --verify: give one of the two")
    bundle = read_bundle(bundle_of(options.model, {}))
    comment = _signed(bundle, options)
    if options.provider is not None:
        _inspect_provider(bundle, options)
    if options.required_operators is not None:
        write_operators(import_exporter("`ortcam inspect --required-operators`", "onnx"), bundle, options)
    if options.provider is not None:
        return
    if options.json:
        print(json_text(_summary(bundle, comment, verified=options.verify)))
        return
    print_bundle(bundle)
    if comment is not None:
        say(f"signature      of bundle.json, valid, by the key of {options.public_key}: {comment}")
    if options.verify:
        _verify(bundle)


def _inspect_provider(bundle: Bundle, options: argparse.Namespace) -> None:
    """Print which nodes of a bundle's graphs a provider would take."""
    exporter = import_exporter(f"`ortcam inspect {options.model} --provider {options.provider}`", "onnx")
    support = exporter.inspect_provider(bundle, options.provider)
    if options.json:
        print(json_text(support.summary()))
    else:
        _print_provider(support)


def _print_provider(support: Any) -> None:
    """Print what `inspect BUNDLE --provider` found: per graph the nodes that are taken, and those that are not."""
    say_wrapped(f"provider       {support.provider}, by {support.source}")
    say_wrapped("               a driver or a chip may refuse more")
    for graph in support.graphs:
        pieces = "1 partition" if graph.partitions == 1 else f"{graph.partitions} partitions"
        say_wrapped(f"{graph.graph}: takes {graph.taken} of {graph.nodes} nodes, in {pieces}")
        by_reason: dict[str, list[str]] = {}
        for (operator, reason), count in graph.refused.items():
            by_reason.setdefault(reason, []).append(operator if count == 1 else f"{operator} ({count})")
        for reason, operators in by_reason.items():
            say_wrapped(f"  {reason}: {', '.join(operators)}")
    for operator, words in support.conditions.items():
        say_wrapped(f"condition      {operator}: {words}")
    if any(graph.open_dimensions for graph in support.graphs):
        effect = "are refused" if support.static else "may be slow"
        say_wrapped(f"shapes         dynamic ones {effect}; `ortcam export --static-batch 8` fixes them all")


def _signed(bundle: Bundle, options: argparse.Namespace) -> str | None:
    """The trusted comment of a bundle's signature; None where it need not have one.

    Raises:
        BundleError: it is not signed with this key.
    """
    if options.verify_signature != (options.public_key is not None):
        raise OptionError("--verify-signature and --public-key FILE: give both or neither; nobody's key is built in")
    return verify_signature(bundle, options.public_key) if options.verify_signature else None


def _summary(bundle: Bundle, comment: str | None, *, verified: bool) -> dict[str, Any]:
    """What `--json` prints of a bundle.

    Raises:
        BundleError: it was to be verified, and is not what was exported.
    """
    summary: dict[str, Any] = {
        "path": str(bundle.path),
        "schema": bundle.schema,
        "sha256": bundle.sha256,
        "signature": comment,
    }
    if verified:
        measured = verify(bundle)
        _refuse(bundle, measured)
        gradient = verify_gradient(bundle)
        _refuse_gradient(bundle, gradient)
        variants = verify_variants(bundle)
        for name, difference in variants.items():
            _refuse_variant(bundle, name, difference)
        summary["verified"] = {
            "verdict": "sound",
            "parity": dataclasses.asdict(measured),
            "gradient": gradient,
            "variants": variants,
        }
    return summary | {"manifest": json.loads(bundle.manifest.to_json())}


def _verify(bundle: Bundle) -> None:
    """Measure a bundle's parity again and print it beside what was recorded, and a verdict.

    Raises:
        BundleError: it is beyond the tolerance recorded at export, or cannot be measured.
    """
    manifest = bundle.manifest
    measured = verify(bundle)
    say_wrapped(f"verified       the sizes and hashes of {len(manifest.files)} files, and parity:")
    say_wrapped(f"  recorded     {parity_figures(manifest.parity, manifest.graphs)}")
    say_wrapped(f"  measured     {parity_figures(measured, manifest.graphs)}")
    _refuse(bundle, measured)
    if (gradient := verify_gradient(bundle)) is not None:
        print(f"  gradient     {gradient:.1e} from the one at export, relative")
        _refuse_gradient(bundle, gradient)
    for name, difference in verify_variants(bundle).items():
        variant = manifest.variants[name]
        print(f"  {name:<13}scorers {difference:.1e} from float32's; recorded {variant.parity:.1e}, ", end="")
        print(f"accepted {variant.tolerance:.1e}")
        _refuse_variant(bundle, name, difference)
    say_wrapped(
        "verdict        sound: no file has changed since the export, and on this machine the graphs give the logits of "
        f"the original model (largest difference {measured.logits:.1e} relative)"
    )


def _refuse(bundle: Bundle, measured: Parity) -> None:
    if failure := parity_failure(measured, bundle.manifest.graphs):
        raise BundleError(f"{bundle.path}: not sound: {failure}")


def _refuse_gradient(bundle: Bundle, difference: float | None) -> None:
    if failure := gradient_failure(difference, bundle.manifest.gradient):
        raise BundleError(f"{bundle.path}: not sound: {failure}")


def _refuse_variant(bundle: Bundle, name: str, difference: float) -> None:
    variant = bundle.manifest.variants[name]
    if not difference <= variant.tolerance:
        raise BundleError(
            f"{bundle.path}: not sound: the scorers in {name} differ from float32's by {difference:.1e} relative here; "
            f"accepted is {variant.tolerance:.1e}. This machine computes otherwise than the one of the export"
        )
