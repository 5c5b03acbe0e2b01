"""Fixed values for the further inputs of a model: read as a user gave them, and fitted to what an input takes."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import FixedInput
from ortcam.support.terminal import shortened
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.arrays import ARRAY_SUFFIXES, as_numbers, read_array

__all__ = ["GivenInput", "read_inputs", "record_of"]

Side = int | str | None

_SHOWN: Final = 80  # characters of a value


@dataclasses.dataclass(frozen=True)
class GivenInput:
    """The value of an input, as a user gave it.

    Attributes:
        name: of the input.
        text: the value as it was typed; None of a file or an array.
        values: any shape; booleans, integers or floating numbers.
    """

    name: str
    text: str | None
    values: NDArray[Any]

    @property
    def in_words(self) -> str:
        """The input with its value, as errors name it."""
        shown = self.text if self.text is not None else f"{self.values.dtype} {list(self.values.shape)}"
        return f"--input {self.name}={shown}"

    def cast(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The values in another type.

        Raises:
            ExportError: it does not hold them: halves in integers, other numbers than 0 and 1 as booleans.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            cast = self.values.astype(dtype)
            exact = dtype.kind not in "biu" or bool((cast.astype(self.values.dtype) == self.values).all())
        if not exact or not np.isfinite(cast.astype(np.float64)).all():
            raise ExportError(f"{self.in_words}: the input is of {dtype}, which does not hold its values")
        return cast

    def fitted(self, sides: Sequence[Side], *, batched: bool, taken: str) -> NDArray[Any]:
        """The values in the shape that an input has for one image.

        A number fills the whole input. A value without the batch dimension gets one.

        Args:
            sides: of the input; those that are no numbers are open.
            batched: whether the first side is that of the batch, and then open or 1.
            taken: the input in words, for errors.

        Raises:
            ExportError: a shape that does not fit.
        """
        wanted = [1, *sides[1:]] if batched else list(sides)
        values = self.values
        if values.ndim == 0 and wanted:
            if not all(isinstance(side, int) for side in wanted):
                raise ExportError(f"{self.in_words}: the input is {taken}, whose open sides a number leaves open")
            return np.full([side for side in wanted if isinstance(side, int)], values)
        if values.ndim == len(wanted) - 1 and wanted[0] in (None, 1, *_symbols(wanted[:1])):
            values = values[None]
        fits = values.ndim == len(wanted) and all(
            there == side or not isinstance(side, int) for there, side in zip(values.shape, wanted, strict=True)
        )
        if not fits:
            raise ExportError(
                f"{self.in_words}: the value is {list(self.values.shape)}, and the input is {taken}; accepted is "
                f"one value for it all, or one of this shape{', for one image' if batched else ''}"
            )
        return values


def read_inputs(given: Mapping[str, object]) -> dict[str, GivenInput]:
    """The values that a user gave, by the name of the input.

    A text is the name of a `.npy` or `.npz` file, a number, or a list of numbers in JSON.

    Raises:
        ExportError: a file that cannot be read, or what is none of these.
    """
    return {name: value if isinstance(value, GivenInput) else _read(name, value) for name, value in given.items()}


def _read(name: str, value: object) -> GivenInput:
    what = f"--input {name}"
    if isinstance(value, str | Path):
        text = str(value).strip()
        if isinstance(value, Path) or text.lower().endswith(ARRAY_SUFFIXES):
            return GivenInput(name, None, read_array(Path(value), name, f"{what}={value}"))
        said = f"{what}={shortened(text, _SHOWN)}"
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            raise ExportError(
                f"{said}: accepted is a number, a list of numbers such as [0.5,1], or a .npy or .npz file"
            ) from None
        return GivenInput(name, text, as_numbers(parsed, said))
    array = as_numbers(value, what)
    return GivenInput(name, str(value) if isinstance(value, bool | int | float) else None, array)


def record_of(given: GivenInput, values: NDArray[Any]) -> FixedInput:
    """What a bundle says of an input, whose values have been brought into its type and shape."""
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return FixedInput(str(values.dtype), values.shape, given.text, digest)


def _symbols(sides: Sequence[Side]) -> list[Side]:
    return [side for side in sides if not isinstance(side, int)]
