"""`ortcam demo`: the shipped image explained by default and with all masked methods, and what to try next."""

import argparse
import shlex
import time
from pathlib import Path
from typing import Any, Final

from ortcam import gallery
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli.common import add_force, add_output, check_nothing_is_lost
from ortcam.cli.parsers import add_command
from ortcam.cli.printing import print_image
from ortcam.cli.progress import Bar
from ortcam.explainer import load
from ortcam.images.rendering import Rendering
from ortcam.results.folders import ResultFolders, check_output, file_digest
from ortcam.results.sheet import save as save_sheet
from ortcam.support.terminal import say
from ortcam.support.unfinished import clear

__all__ = ["DEMO_OPTIONS", "add_demo"]

# What is shown, and how. So that a newcomer need not wait, methods that mask the image score the important channels
# alone, and the image says so.
DEMO_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "auto": {},
    "scorecam": {"budget": 256},
    "scorecam++": {"budget": 256},
    "sscam": {"num_samples": 4, "budget": 64},
    "iscam": {"budget": 48},
}


def add_demo(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        help="explain a shipped image with five methods",
        description="Explain a shipped image with a shipped model and five methods, in a few seconds.",
        examples=("ortcam demo", "ortcam demo -o /tmp/demo"),
    )
    add_output(parser, default="ortcam-demo", help="folder to write to")
    add_force(parser)


def _demo(options: argparse.Namespace) -> int:
    output = check_output(options.output)
    gallery.check(output)
    clear(output)
    explainer = load(bundle_path())
    image = demo_image()
    folder = ResultFolders(output).give(str(image), lambda: file_digest(str(image)))
    arguments = [{"method": name, "top_k": 2, **given} for name, given in DEMO_OPTIONS.items()]
    records = [explainer.check(**given) for given in arguments]
    if not options.force:
        known = {"image": {"sha256": file_digest(str(image))}, "rendering": Rendering().record()}
        check_nothing_is_lost([(folder / record["method"], record | known) for record in records])
    say("Explaining a drawn mug and umbrella with the shipped model, which knows six things.")
    explanations = []
    started = time.perf_counter()
    with Bar("explaining", total=len(arguments), quiet=False) as bar:
        for done, given in enumerate(arguments):

            def progress(made: int, total: int, done: int = done, name: str = given["method"]) -> None:
                bar.update(done + made / max(1, total), note=name)

            explanation = explainer.explain(image, progress=progress, **given)
            explanation.save(folder / explanation.method, force=options.force)
            explanations.append(explanation)
    print_image(image.name, explanations, None)
    sheet = save_sheet(folder, explanations)
    page = gallery.write(output)
    print()
    say(f"Done in {time.perf_counter() - started:.0f} s. Open:")
    longest = max(len(str(path)) for path in (sheet, page))
    say(f"  {sheet!s:<{longest}}  all in one picture")
    say(f"  {page!s:<{longest}}  to leaf through, in a browser")
    print()
    say("Try next:")
    for line in _next(image):
        say(f"  {line}")
    return 0


def _next(image: Path) -> list[str]:
    """Three commands that work after the demo."""
    other = shlex.quote(str(image.with_name("fish.png")))
    return [
        f"ortcam explain shapes {other}",
        "ortcam explain YOUR_MODEL.onnx YOUR_IMAGE.jpg",
        "ortcam methods",
    ]
