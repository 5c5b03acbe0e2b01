"""`ortcam web`: the page that explains in the browser, served on this machine alone."""

import argparse
import contextlib
import os
import sys
import webbrowser
from typing import Any, Final

from ortcam.bundle import read_bundle
from ortcam.cli.parsers import HelpWithEpilog
from ortcam.page_server import PageServer, site_of
from ortcam.ranges import PORT
from ortcam.shipped import bundle_path
from ortcam.terminal import printable

__all__ = ["add_web"]

_EXAMPLES: Final = """\
examples:
  ortcam web                            the shipped model
  ortcam web resnet18.ortcam            your own
  ortcam web old.ortcam new.ortcam      several: the page lets you choose
"""


def add_web(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = commands.add_parser(
        "web",
        help="explain images in the browser, on this machine",
        description="Open a page that explains images in the browser. Images do not leave the browser, and only this "
        "machine can open the page.",
        epilog=_EXAMPLES,
        formatter_class=HelpWithEpilog,
        allow_abbrev=False,
    )
    parser.set_defaults(run=_web)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="bundles; default: shapes, the shipped model")
    parser.add_argument("--port", type=PORT, default=0, metavar="N", help="of 127.0.0.1; default: 0, any free port")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")


def _web(options: argparse.Namespace) -> int:
    bundles = [(model, read_bundle(bundle_path() if model == "shapes" else model)) for model in options.models or ["shapes"]]
    with PageServer(site_of(bundles), options.port) as server:
        print(printable(f"{server.url}  (Ctrl-C ends it)"), flush=True)
        if not options.no_browser:
            _open_browser(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _open_browser(address: str) -> None:
    """Open the page where there is a screen: a browser for terminals would take this one's keyboard."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
