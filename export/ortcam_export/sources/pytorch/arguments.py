"""What a PyTorch module is called with: images, and fixed values for its other arguments."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
import torch

from ortcam.bundle import FixedInput
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.fixed_inputs import GivenInput, record_of

__all__ = ["Arguments", "arguments_of", "missing_arguments"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How a module is called.

    Attributes:
        image: the name of its argument for the images; None passes them by position.
        fixed: its other arguments, by name: tensors, or Python's numbers.
    """

    image: str | None = None
    fixed: Mapping[str, torch.Tensor | bool | float] = dataclasses.field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether the module takes images alone, and first."""
        return self.image is None and not self.fixed

    def readings(self) -> Iterator["Arguments"]:
        """The same, as it may be meant: as given, numbers as tensors [], with a batch in front, integers as float32."""
        tensors = {name: torch.as_tensor(value) for name, value in self.fixed.items()}
        batched = {
            name: value if value.ndim == 0 or value.shape[0] == 1 else value[None] for name, value in tensors.items()
        }
        floating = {name: value.float() for name, value in batched.items()}
        seen: list[Mapping[str, Any]] = []
        for fixed in (self.fixed, tensors, batched, floating):
            if not any(_are_the_same(fixed, other) for other in seen):
                seen.append(fixed)
                yield dataclasses.replace(self, fixed=fixed)

    def records(self, given: Mapping[str, GivenInput]) -> dict[str, FixedInput]:
        """What a bundle says of the fixed arguments, whose values were given so."""
        return {name: record_of(given[name], np.asarray(value)) for name, value in self.fixed.items()}

    def call(self, module: torch.nn.Module, images: torch.Tensor) -> Any:
        """What a module returns for images [N,C,H,W]; values of one image are repeated for all."""
        named = {
            name: value.expand(images.shape[0], *value.shape[1:]) if _is_of_one_image(value) else value
            for name, value in self.fixed.items()
        }
        return module(images, **named) if self.image is None else module(**{self.image: images}, **named)


def _is_of_one_image(value: object) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == 1


def _are_the_same(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(
        isinstance(value, torch.Tensor) == isinstance(others[name], torch.Tensor)
        and getattr(value, "dtype", None) == getattr(others[name], "dtype", None)
        and getattr(value, "shape", None) == getattr(others[name], "shape", None)
        for name, value in some.items()
    )


def arguments_of(module: torch.nn.Module, image: str | None, given: Mapping[str, GivenInput]) -> Arguments:
    """The arguments of a module, with the values that a user gave.

    Floating values become float32, and integers int64, as PyTorch's own defaults are.

    Args:
        module: any.
        image: the name of its argument for the images, where it is known not to be the first.
        given: values by name.

    Raises:
        ExportError: the module has no such argument, or none is left for the image.
    """
    if not given:
        return Arguments(image)
    parameters = _parameters(module)
    named = {key: parameter for key, parameter in parameters.items() if parameter.kind in _NAMED}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in given:
        if name not in named and not takes_any:
            hint = did_you_mean(name, named)
            raise ExportError(f"--input {name}: the model has no such argument{hint}; {_in_words(parameters)}")
    left = [key for key in named if key not in given]
    if image is None and named and not left:
        raise ExportError(f"--input for all of the model's arguments; {_in_words(parameters)}; one is the image's")
    if image is None and left and next(iter(named)) in given:
        image = left[0]  # by its name, as the first argument is another
    fixed: dict[str, torch.Tensor | bool | float] = {}
    for name, value in given.items():
        kind = {"b": np.bool_, "f": np.float32}.get(value.values.dtype.kind, np.int64)
        array = value.cast(np.dtype(kind))
        fixed[name] = torch.from_numpy(np.array(array)) if array.ndim else array.item()
    return Arguments(image, fixed)


def missing_arguments(module: torch.nn.Module, arguments: Arguments) -> str | None:
    """What a user has to give beside the image, as a sentence; None where nothing is missing."""
    parameters = _parameters(module)
    needed = [
        key
        for key, parameter in parameters.items()
        if parameter.kind in (*_NAMED, inspect.Parameter.POSITIONAL_ONLY)
        and parameter.default is inspect.Parameter.empty
        and key not in arguments.fixed
    ]
    image = arguments.image or next(iter(needed), None)
    missing = [key for key in needed if key != image]
    if not missing:
        return None
    flags = " ".join(f"--input {name}=FILE|VALUE" for name in missing)
    return f"the model takes more than an image: {_in_words(parameters)}; fix the others, say {flags}"


def _parameters(module: torch.nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def _in_words(parameters: Mapping[str, inspect.Parameter]) -> str:
    return f"its arguments are {', '.join(map(str, parameters.values())) or 'none'}"
