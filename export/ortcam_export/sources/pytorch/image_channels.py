"""How many channels the images of a module have: as said, as its graph says, or as its first convolution takes them."""

import itertools
from collections.abc import Iterator
from typing import Final

import torch

from ortcam_export.errors import ExportError
from ortcam_export.sources.given.fixed_inputs import read_inputs
from ortcam_export.sources.pytorch.arguments import Arguments, arguments_of
from ortcam_export.sources.types import InputSpec

__all__ = ["channels_of"]

_USUAL: Final = 3
_CONVOLUTION: Final = 4  # dimensions of its weights
_CONVOLUTIONS: Final = 4  # that are tried
_MOST: Final = 64


def channels_of(module: torch.nn.Module, spec: InputSpec, argument: str | None = None) -> int:
    """How many channels a module's images have.

    What its first convolution takes, where that is three or what its library declares. Else the first that it runs
    with: what is declared, three, what its convolutions take, one. A model that makes grey of RGB itself runs with
    three, and takes three.

    Args:
        module: in eval mode; TorchScript, too.
        spec: what was said; its `input_size` is known, and its `inputs` fix other arguments.
        argument: the name of the module's argument for the images, where it is not the first.
    """
    if spec.said_channels is not None:
        return spec.said_channels
    usual = _USUAL if spec.declared is None else spec.declared.preprocessing.channels
    taken = list(itertools.islice(_of_convolutions(module), _CONVOLUTIONS))
    if taken[:1] == [usual]:
        return usual
    for channels in dict.fromkeys((usual, _USUAL, *taken, 1)):
        if channels <= _MOST and _takes(module, channels, spec, argument):
            return channels
    return taken[0] if taken and taken[0] <= _MOST and usual not in taken else usual


def _of_convolutions(module: torch.nn.Module) -> Iterator[int]:
    """How many channels the convolutions of a module take, in the order of their definition."""
    if isinstance(module, torch.jit.ScriptModule):
        yield from (weight.shape[1] for weight in module.parameters() if weight.ndim == _CONVOLUTION)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            yield part.in_channels


def _takes(module: torch.nn.Module, channels: int, spec: InputSpec, argument: str | None) -> bool:
    assert spec.input_size is not None
    image = torch.zeros(1, channels, *spec.input_size)
    try:
        arguments = arguments_of(module, argument, read_inputs(spec.inputs))
    except ExportError:  # of values that do not fit, which is said where they are used
        return False
    return any(_runs(module, reading, image) for reading in arguments.readings())


def _runs(module: torch.nn.Module, arguments: Arguments, image: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            arguments.call(module, image)
    except Exception:  # noqa: BLE001 - whatever a module raises for images that are not its own
        return False
    return True
