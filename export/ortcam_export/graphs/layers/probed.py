"""A classifier and the images it is tried on."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.graphs.running import run_part
from ortcam_export.graphs.surgery import extract

__all__ = ["Measured", "Probed"]

# Name of a tensor -> its shape on the probe, and its element type by numpy's name.
Measured = Mapping[str, tuple[tuple[int, ...], str]]


@dataclasses.dataclass(frozen=True)
class Probed:
    """A classifier with a probe.

    Attributes:
        model: image -> logits, weights in a file of `folder`.
        folder: where the model's external data is.
        probe: float32 [N,C,H,W], N at least 2.
    """

    model: ir.Model
    folder: Path
    probe: NDArray[np.float32]

    @property
    def graph(self) -> ir.Graph:
        """The graph of the model."""
        return self.model.graph

    def measure(self, values: Iterable[ir.Value]) -> Measured:
        """The shapes and element types of tensors on the probe."""
        names = [value.name or "" for value in values]
        if not names:
            return {}
        outputs = run_part(extract(self.model, ["image"], names), self.folder, {"image": self.probe})
        return {name: (value.shape, value.dtype.name) for name, value in zip(names, outputs, strict=True)}
