"""`ortcam inspect`: what is in a bundle or a model, parity measured again, and signatures."""

import argparse
from pathlib import Path
from typing import Any

from ortcam.bundle import MANIFEST_NAME, Bundle, read_bundle
from ortcam.cli.models import OF_THE_GRAPH, add_graph_input, extra_for, given_flags
from ortcam.cli.printing import parity_figures, print_bundle, print_inspection
from ortcam.errors import BundleError, OptionError
from ortcam.exporter import import_exporter
from ortcam.signature import verify_signature
from ortcam.terminal import others_aside, printable
from ortcam.verification import parity_failure, verify, verify_variants

__all__ = ["add_inspect"]


def add_inspect(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
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
    add_graph_input(parser.add_argument_group("of a model"))


def _inspect(options: argparse.Namespace) -> int:
    path = Path(options.model)
    given = given_flags(options, OF_THE_GRAPH)
    if (path / MANIFEST_NAME).exists() or path.suffix == ".ortcam" or path.is_dir():
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(f"{flags}: goes with a model; {path} is a bundle, whose input is known")
        bundle = read_bundle(path)
        comment = _signed(bundle, options)
        print_bundle(bundle)
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
    exporter = import_exporter(f"`ortcam inspect {options.model}`", extra_for(options.model))
    with others_aside():
        inspection = exporter.inspect_model(options.model, **given)
    print_inspection(inspection)
    return 0


def _signed(bundle: Bundle, options: argparse.Namespace) -> str | None:
    """The trusted comment of a bundle's signature; None where it need not have one.

    Raises:
        BundleError: it is not signed with this key.
    """
    if options.verify_signature != (options.public_key is not None):
        raise OptionError("--verify-signature and --public-key FILE: give both or neither; nobody's key is built in")
    return verify_signature(bundle, options.public_key) if options.verify_signature else None


def _verify(bundle: Bundle) -> None:
    """Measure a bundle's parity again and print it beside what was recorded.

    Raises:
        BundleError: it is beyond the tolerance recorded at export, or cannot be measured.
    """
    manifest = bundle.manifest
    measured = verify(bundle)
    print(f"verified       the sizes and hashes of {len(manifest.files)} files, and parity:")
    print(f"  recorded     {parity_figures(manifest.parity, manifest.graphs)}")
    print(f"  measured     {parity_figures(measured, manifest.graphs)}")
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
