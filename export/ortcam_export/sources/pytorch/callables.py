"""`package.module:callable`: what a user's name finds, and what the callable returns."""

import importlib
import pkgutil
import sys
from typing import Any

import torch

from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.model_names import look_beside_user
from ortcam_export.sources.pytorch.programs import is_program

__all__ = ["find", "is_model", "returned_by"]


def returned_by(name: str) -> tuple[Any, ...]:
    """What `package.module:callable` returns, or is: a model, and its preprocessing if it comes with one.

    Raises:
        ExportError: there is no such callable, or it fails.
    """
    found = find(name)
    returned = found if is_model(found) else _called(name, found)
    return returned if isinstance(returned, tuple) and len(returned) == 2 else (returned,)


def is_model(value: object) -> bool:
    """Whether a value is a model itself, and not a callable that returns one."""
    return isinstance(value, torch.nn.Module) or is_program(value)


def find(name: str) -> Any:
    """What `package.module:callable` names.

    Raises:
        ExportError: there is no such module, it cannot be imported, or it has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    look_beside_user()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ExportError(
            f"{name}: {_not_importable(module_name, error)}; accepted is package.module:callable"
        ) from None
    except Exception as error:
        raise ExportError(
            f"{name}: importing {module_name} raised {type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        there = [key for key in dir(module) if not key.startswith("_") and callable(getattr(module, key, None))]
        hint = did_you_mean(attribute, there) or f"; {_some_of(there)}"
        raise ExportError(
            f"{name}: {module_name} has no {attribute!r}; accepted is package.module:callable{hint}"
        ) from None


def _not_importable(module_name: str, error: ImportError) -> str:
    parent, _, last = module_name.rpartition(".")
    if not isinstance(error, ModuleNotFoundError) or error.name != module_name or parent not in sys.modules:
        return first_line(error)
    there = [found.name for found in pkgutil.iter_modules(getattr(sys.modules[parent], "__path__", []))]
    hint = did_you_mean(last, there) or f"; {_some_of(there)}"
    return f"{first_line(error)}{hint}"


def _some_of(names: list[str]) -> str:
    if not names:
        return "it has none"
    return f"it has {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"


def _called(name: str, factory: Any) -> Any:
    if not callable(factory):
        raise ExportError(f"{name}: is {type(factory).__name__}; accepted is a module, or a callable that returns one")
    try:
        return factory()
    except Exception as error:
        raise ExportError(
            f"{name}: calling it raised {type(error).__name__}: {first_line(error)}; accepted is a callable that "
            "returns a module and needs no arguments"
        ) from error
