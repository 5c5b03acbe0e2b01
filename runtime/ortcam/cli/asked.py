"""Which methods `ortcam explain` is asked for, and the options and limits that go with each."""

import argparse
from collections.abc import Sequence
from typing import Any

from ortcam.cli.common import pairs_of
from ortcam.methods import AUTO_METHOD, COMMON_OPTIONS, resolve_method
from ortcam.request import LIMITS

__all__ = ["limits_of", "methods_of"]


def limits_of(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """The batch size, the number of classes, and the limits that go with a method.

    Limits that go with none of the methods are there, too, for the error they deserve.
    """
    given = {"batch_size": options.batch_size, "top_k": 1 if options.top_k is None else options.top_k}
    for name in LIMITS:
        value = getattr(options, name)
        if value is not None and (_is_limited(method, name) or not _any_limited(options, name)):
            given[name] = value
    return given


def _is_limited(method: str, name: str) -> bool:
    """Whether a limit goes with a method: some mask no image, some take no samples."""
    found = resolve_method(method, {}).method
    if name == "sampling_error":
        return found.samples > 1
    return found.masks_image or found is AUTO_METHOD


def _any_limited(options: argparse.Namespace, name: str) -> bool:
    return any(_is_limited(method.strip(), name) for method in options.method.split(","))


def methods_of(names: str, pairs: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Methods in the order given, each with those of the options that it knows.

    Raises:
        OptionError: an unknown method, an option that none of them knows, or a value that is not accepted.
    """
    given: dict[str, object] = {key.replace("-", "_"): value for key, value in pairs_of("--option", pairs).items()}
    chosen = [resolve_method(name.strip(), {}).method for name in names.split(",")]
    common = {option.name for option in COMMON_OPTIONS}
    known = common | {option.name for method in chosen for option in method.options}
    methods = []
    for method in dict.fromkeys(chosen):
        own = common | {option.name for option in method.options}
        # A key that no method knows goes to the first, whose error says what is accepted.
        settings = {key: value for key, value in given.items() if key in own or key not in known}
        resolve_method(method.name, settings)
        methods.append((method.name, settings))
    return methods
