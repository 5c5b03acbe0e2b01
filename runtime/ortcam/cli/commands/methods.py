"""`ortcam methods`: what the methods are, what they cost, and their options."""

import argparse
import itertools
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from ortcam.cli.common import add_json
from ortcam.cli.parsers import add_command
from ortcam.methods import AUTO, AUTO_METHOD, COMMON_OPTIONS, METHODS, Method, Option, resolve_method
from ortcam.methods.auto import KINDS
from ortcam.support.terminal import columns, json_text, say

__all__ = ["add_methods"]

_SYMBOLS: Final = {
    "X": "X the image as the model takes it",
    "A": "A the features, A_k their channel k",
    "U(": "U upsampling to image size",
    "s(": "s scaling to [0,1]",
    "p(": "p(Z)[c] the probability of class c for Z",
    "n_i": "n_i noise",
    "c_i": "c_i the factor of step i",
    "k_ij": "k_ij 1 at position i, j and 0 elsewhere",
    "y": "y the class logit, y_k without channel k",
    "v_k": "v the first right singular vector of the features",
    "w_kc": "w_kc the weight of channel k for class c",
    "a_hqt": "a_hqt the attention of head h, from query q to token t",
    "g_k": "g_k the derivative of the class logit with respect to A_k",
}


def add_methods(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "methods",
        _methods,
        help="list the methods: what they do and what they cost",
        description="List the methods, with what each does, costs, and is good for; with NAME, the options of one.",
        examples=("ortcam methods", "ortcam methods auto", "ortcam methods scorecam++"),
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="show the options of this method, such as scorecam++")
    add_json(parser)


def _methods(options: argparse.Namespace) -> int:
    method = None if options.name is None else resolve_method(options.name, {}).method
    if options.json:
        print(json_text([_record(item) for item in (AUTO_METHOD, *METHODS)] if method is None else _record(method)))
    else:
        for line in _list() if method is None else _auto_page() if method is AUTO_METHOD else _page(method):
            say(line)
    return 0


def _list() -> Iterable[str]:
    for method in (AUTO_METHOD, *METHODS):
        yield from _wrapped(f"forward passes: {method.cost}", f"{method.name:<18}")
        yield from _wrapped(f"{method.summary} {method.use}", "  ")
        yield ""
    yield from _wrapped("`ortcam methods NAME` shows the options, the formula and the source of one.", "")


def _auto_page() -> Iterable[str]:
    yield f"{AUTO_METHOD.name}: {AUTO_METHOD.title}"
    yield from _wrapped(f"{AUTO_METHOD.summary} {AUTO_METHOD.use} Measured in {AUTO_METHOD.source}.", "  ")
    for row in AUTO:
        yield ""
        yield from _wrapped(KINDS[row.kind], "  ")
        yield from _wrapped(row.line, "    ")
    yield ""
    yield "options of every method: --option KEY=VALUE, in Python explain(..., KEY=VALUE)"
    yield from itertools.chain.from_iterable(map(_option, COMMON_OPTIONS))


def _page(method: Method) -> Iterable[str]:
    also = f", or {', '.join(method.aliases)}" if method.aliases else ""
    yield f"{method.name}{also}: {method.title}"
    yield from _wrapped(f"{method.summary} {method.use}", "  ")
    yield ""
    limits = "--budget, --deadline, --tolerance" if method.masks_image else "none: it is quick as it is"
    limits += ", --sampling-error" if method.samples > 1 else ""
    symbols = "; ".join(words for symbol, words in _SYMBOLS.items() if symbol in method.formula)
    for name, text in (
        ("forward passes", method.cost),
        ("limits", limits),
        ("map", f"ReLU({method.formula}), scaled to [0,1]"),
        ("", symbols),
        ("source", method.source),
    ):
        yield from _wrapped(text, f"  {name:<16}", 18)
    yield ""
    if method.options:
        yield "options: --option KEY=VALUE, in Python explain(..., KEY=VALUE)"
        yield from itertools.chain.from_iterable(map(_option, method.options))
        yield ""
    first, *others = (option.name for option in COMMON_OPTIONS)
    yield from _wrapped(
        f"Every method has the options {first} (copies of the image) and {', '.join(others)}: `ortcam methods auto` "
        "explains them.",
        "",
    )


def _option(option: Option) -> Iterable[str]:
    yield from _wrapped(option.help, f"  {option.name:<16} ", 19)
    default = "" if option.default is None else f"; default: {_shown(option)}"
    yield from _wrapped(f"accepted: {option.accepted}{default}", " " * 19)


def _wrapped(text: str, first: str, indent: int | None = None) -> list[str]:
    later = " " * (len(first) if indent is None else indent)
    return textwrap.wrap(
        text, min(columns(), 100), initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _shown(option: Option) -> str:
    """The default of an option, as it is given on a command line."""
    return str(option.default).lower() if isinstance(option.default, bool) else str(option.default)


def _record(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "aliases": list(method.aliases),
        "title": method.title,
        "summary": method.summary,
        "use": method.use,
        "forward_passes": method.cost,
        "formula": method.formula,
        "source": method.source,
        "needs_head": method.needs_head,
        "needs_gradient": method.needs_gradient,
        "needs_attention": method.needs_attention,
        "default": method is AUTO_METHOD,
        "options": [
            {"name": item.name, "default": item.default, "accepted": item.accepted, "help": item.help}
            for item in method.options
        ],
    }
