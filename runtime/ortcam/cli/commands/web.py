"""`ortcam web`: the page that explains in the browser, served on this machine alone."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from ortcam.bundle import Bundle, read_bundle
from ortcam.cli.models import add_model, open_bundle
from ortcam.cli.parsers import add_command
from ortcam.models.opening import SHIPPED
from ortcam.results.screen import has_screen
from ortcam.support.ranges import PORT
from ortcam.support.terminal import printable

__all__ = ["add_web"]


def add_web(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "web",
        _web,
        help="explain images in the browser, on this machine",
        description="Open a page in the browser that explains images. Your images stay in the browser, and nobody on "
        "another machine can open the page.",
        examples=("ortcam web", "ortcam web resnet18", "ortcam web old.ortcam new.ortcam --port 8173"),
    )
    add_model(parser, several=True)
    parser.add_argument("--port", type=PORT, default=0, metavar="N", help="port of 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _web(options: argparse.Namespace) -> int:
    from ortcam.web.server import PageServer  # noqa: PLC0415 - the other commands need no HTTP
    from ortcam.web.site import site_of  # noqa: PLC0415

    bundles = [_named(model, options) for model in options.model or [SHIPPED]]
    with PageServer(site_of(bundles), options.port) as server:
        print(printable(f"{server.url} (Ctrl-C ends it)"), flush=True)
        if not options.no_browser:
            _open_browser(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _named(model: str, options: argparse.Namespace) -> tuple[str, Bundle]:
    """A bundle with the name that the page shows for it: that of the file or folder, or the model's."""
    bundle = read_bundle(open_bundle(argparse.Namespace(**vars(options) | {"model": model})))
    path = Path(model)
    return (path.stem if path.suffix in (".ortcam", ".onnx", ".pt2") else path.name or model), bundle


def _open_browser(address: str) -> None:
    """Open the page where there is a screen: a browser for terminals would take the keyboard of this one."""
    if not has_screen():
        return
    import webbrowser  # noqa: PLC0415 - as above

    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
