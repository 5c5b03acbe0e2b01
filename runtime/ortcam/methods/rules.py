"""What a method has to keep to before it may stand in the table: names, options, and what it computes."""

import re
from typing import Final

from ortcam.errors import OptionError
from ortcam.methods.common import COMMON_OPTIONS
from ortcam.methods.method import Method, Option, Plan
from ortcam.support.ranges import shown

__all__ = ["RESERVED", "check_method"]

# Arguments of `explain` and its kin, and options of every method, which share one call with the options of a method.
RESERVED: Final = frozenset(option.name for option in COMMON_OPTIONS) | frozenset({
    "batch_size", "budget", "completion", "deadline", "image", "images", "method", "on_error", "path", "precision",
    "preprocessed", "progress", "sampling_error", "self", "target", "tolerance", "top_k",
})  # fmt: skip

# A name is a folder of saved explanations, and a part of `evaluate --method NAME@PRECISION:KEY=VALUE`.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+_-]*")
_OPTION_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_TEXTS: Final = ("title", "summary", "formula", "cost", "source", "use")


def check_method(method: object) -> None:
    """Refuse a method that is not well formed.

    Raises:
        OptionError: says what is wrong with it, and what is accepted.
    """
    if not isinstance(method, Method):
        raise OptionError(f"{shown(method)} is no method; accepted is an ortcam.methods.Method")
    for name in ("aliases", "options"):
        items: object = getattr(method, name)
        if not isinstance(items, tuple | list):
            raise _refusal(method, f"{name}={shown(items)}", "a tuple")
    for spelling in (method.name, *method.aliases):
        if not isinstance(spelling, str) or not _NAME.fullmatch(spelling):
            raise _refusal(method, f"the name {shown(spelling)}", "small letters, digits, +, - and _")
    for name in _TEXTS:
        text = getattr(method, name)
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise _refusal(method, f"{name}={shown(text)}", "a text of one line")
    if (method.plan is None) == (method.compute is None):
        given = "neither plan= nor compute= is" if method.plan is None else "plan= and compute= are both"
        raise OptionError(f"method {method.name!r}: {given} given; accepted is one of them")
    for function in (method.plan, method.compute):
        if function is not None and not callable(function):
            raise _refusal(method, shown(function), "a function")
    _check_needs(method)
    _check_options(method)
    if method.plan is not None:
        _check_plan(method, method.plan(method.defaults))


def _check_needs(method: Method) -> None:
    if method.needs_gradient and method.plan is not None:
        raise OptionError(f"method {method.name!r}: needs_gradient goes with compute=, which has the gradient")
    if method.needs_attention and not method.needs_gradient:
        raise OptionError(f"method {method.name!r}: needs_attention goes with needs_gradient=True, whose graph has it")


def _check_options(method: Method) -> None:
    seen: set[str] = set()
    for option in method.options:
        if not isinstance(option, Option):
            raise _refusal(method, f"the option {shown(option)}", "an ortcam.methods.Option")
        if not isinstance(option.name, str) or not _OPTION_NAME.fullmatch(option.name):
            raise _refusal(method, f"the option name {shown(option.name)}", "small letters, digits and _")
        if option.name in RESERVED or option.name in seen:
            taken = "another option of the method"
            if option.name in RESERVED:
                taken = "an option of every method" if option.name.startswith("augment") else "an argument of explain"
            raise OptionError(f"method {method.name!r}: the option name {option.name!r} is taken by {taken}")
        seen.add(option.name)
        try:
            option.parse(option.default)
        except (ValueError, TypeError, KeyError):
            raise _refusal(method, f"the default {option.name}={shown(option.default)}", option.accepted) from None


def _check_plan(method: Method, plan: object) -> None:
    if not isinstance(plan, Plan):
        raise _refusal(method, f"plan= gives {shown(plan)}, which", "an ortcam.methods.Plan")


def _refusal(method: Method, what: str, accepted: str) -> OptionError:
    return OptionError(f"method {shown(method.name)}: {what} is not accepted; accepted: {accepted}")
