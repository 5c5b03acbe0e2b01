"""`ortcam demo`: the shipped picture explained with all masked methods."""

import argparse
from typing import Any, Final

from ortcam.cli.common import check_nothing_is_lost, progress_bar
from ortcam.cli.printing import print_explanation
from ortcam.errors import OutputError
from ortcam.explainer import load
from ortcam.files import write_whole
from ortcam.image import encode_png
from ortcam.methods import MASKED_METHODS
from ortcam.result_folders import ResultFolders, check_output, file_digest
from ortcam.sheet import sheet as comparison
from ortcam.shipped import bundle_path, demo_picture
from ortcam.unfinished import clear

__all__ = ["add_demo"]

# Fewer noise samples than the default 35, so that a newcomer need not wait; the figure says how many passes were made.
_DEMO_OPTIONS: Final[dict[str, dict[str, Any]]] = {"sscam": {"num_samples": 10}}


def add_demo(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = commands.add_parser("demo", help="explain a shipped picture with all four methods", allow_abbrev=False)
    parser.set_defaults(run=_demo)
    parser.add_argument("-o", "--output", default="ortcam-demo", metavar="DIR", help="default: ortcam-demo")
    parser.add_argument("--force", action="store_true", help="replace what is there")


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
        check_nothing_is_lost([(folder / given["method"], explainer.check(**given) | image) for given in arguments])
    explanations = []
    for method, given in zip(MASKED_METHODS, arguments, strict=True):
        with progress_bar(method.title, quiet=False) as progress:
            explanation = explainer.explain(picture, progress=progress, **given)
        saved = explanation.save(folder / method.name, force=options.force)
        print_explanation(picture.name, explanation, saved)
        explanations.append(explanation)
    try:
        write_whole(path, encode_png(comparison(explanations)), durable=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    print(f"\n{path}")
    return 0
