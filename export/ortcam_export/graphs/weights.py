"""Weights of a bundle's graphs: the file they share, a key for equal weights, and the upsampling matrices."""

import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Cut
from ortcam.scoring.upsampling import bilinear_matrix

__all__ = ["Interpolation", "WeightsFile", "weight_key"]

_INLINE_BYTES: Final = 1024  # smaller tensors stay inside the graph


class WeightsFile:
    """The one file of external data that all graphs of a bundle point into.

    Args:
        folder: of the bundle.
        name: of the file in it.
    """

    def __init__(self, folder: Path, name: str = "weights.bin") -> None:
        self._folder = folder
        self.name = name

    def store(self, model: ir.Model) -> None:
        """Move the weights of a model into the file. Parts extracted later point into it, too."""
        ir.external_data.unload_from_model(
            model, self._folder, self.name, size_threshold_bytes=_INLINE_BYTES, alignment=64, align_threshold=0
        )
        (self._folder / self.name).touch()

    def add(self, model: ir.Model) -> None:
        """Append the weights of a model that are not in the file yet, and let it point to them."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes <= _INLINE_BYTES:
                continue
            value.const_value = self.append(value.name or "", tensor)

    def append(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """Append a tensor. Returns a tensor that points to it."""
        content = tensor.tobytes()
        with (self._folder / self.name).open("ab") as file:
            file.write(bytes(-file.tell() % 64))
            offset = file.tell()
            file.write(content)
        return ir.ExternalTensor(
            self.name,
            offset,
            len(content),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self._folder,
        )


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """The two matrices of bilinear upsampling, R A C: rows float32 [H,h], columns float32 [w,W]."""

    rows: ir.ExternalTensor
    columns: ir.ExternalTensor

    @property
    def size(self) -> tuple[int, int]:
        """The height and width they upsample to."""
        return self.rows.shape.numpy()[0], self.columns.shape.numpy()[1]

    @classmethod
    def store(cls, weights: WeightsFile, cut: Cut, *, height: int, width: int) -> "Interpolation":
        """Append the matrices for a cut and an input size to the weights."""
        return cls(
            weights.append("upsample_rows", ir.tensor(bilinear_matrix(cut.height, height))),
            weights.append("upsample_columns", ir.tensor(np.ascontiguousarray(bilinear_matrix(cut.width, width).T))),
        )


def weight_key(tensor: ir.TensorProtocol) -> tuple[Any, ...]:
    """A key that equal tensors share. Tensors in files are compared by their place, without reading them."""
    key: tuple[Any, ...] = (tensor.dtype, tuple(tensor.shape.numpy()))
    if isinstance(tensor, ir.ExternalTensor):
        return (*key, str(tensor.path), tensor.offset, tensor.length)
    return (*key, tensor.tobytes())
