"""The outputs of a model as scores name them: `output` of one, and each by its name of several."""

import re
from typing import Final

from ortcam.bundle import Manifest, OutputPart
from ortcam.errors import OptionError
from ortcam.support.ranges import shown
from ortcam.support.suggestions import did_you_mean

__all__ = ["find_output", "first_output", "output_example", "outputs_in_words", "part_example"]

_ONE: Final = "output"  # what the output of a model is called that has one
_PLAIN: Final = re.compile(r"(?!entropy$|logit:|probability:|cosine:)[A-Za-z_][\w.:/]*", re.ASCII | re.IGNORECASE)
_SHOWN: Final = 8  # outputs in a sentence


def find_output(name: str, manifest: Manifest) -> tuple[tuple[int, ...], int]:
    """The shape of an output for one image, and where it begins among all the numbers that the graphs give.

    Raises:
        OptionError: the model has no output of this name.
    """
    if not manifest.output_parts:
        if name.lower() != _ONE:
            raise OptionError(f"{shown(name)} is no output: {outputs_in_words(manifest)}, which is called {_ONE}")
        return manifest.output_shape, 0
    first = 0
    for part in manifest.output_parts:
        if part.name == name:
            return part.shape, first
        first += part.size
    hint = did_you_mean(name, [part.name for part in manifest.output_parts])
    raise OptionError(
        f"{shown(name)} is no output{hint}; {outputs_in_words(manifest)}; accepted is NAME[...], such as "
        f"{output_example(manifest)!r}"
    )


def outputs_in_words(manifest: Manifest) -> str:
    """What a model without classes gives for an image, as part of a sentence."""
    parts = manifest.output_parts
    if not parts:
        return f"this model's output is a tensor {list(manifest.output_shape)}"
    more = ", ..." if len(parts) > _SHOWN else ""
    return f"this model's outputs are {', '.join(f'{part.name} {list(part.shape)}' for part in parts[:_SHOWN])}{more}"


def output_example(manifest: Manifest) -> str:
    """A score of a model without classes, as an example: "output[0, :, :]", the mean of some of its values."""
    return part_example(manifest.output_parts[0] if manifest.output_parts else OutputPart(_ONE, manifest.output_shape))


def first_output(manifest: Manifest) -> str:
    """The first number that a model without classes gives, as a score: "output[0, 0, 0]"."""
    part = manifest.output_parts[0] if manifest.output_parts else OutputPart(_ONE, manifest.output_shape)
    return part_example(part, rest="0")


def part_example(part: OutputPart, rest: str = ":") -> str:
    """Values of an output, as a score writes them: index 0 of its first axis, and `rest` of all others."""
    quote = '"' if "'" in part.name else "'"
    name = part.name if _PLAIN.fullmatch(part.name) else f"{quote}{part.name}{quote}"
    return f"{name}[{', '.join(['0', *[rest] * (len(part.shape) - 1)])}]" if part.shape else name
