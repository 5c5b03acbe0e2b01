"""Embeddings of classes, with which an encoder of images becomes a classifier: logits are cosines, scaled."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ortcam_export.errors import ExportError

__all__ = ["ClassEmbeddings", "unit_rows"]


@dataclasses.dataclass(frozen=True)
class ClassEmbeddings:
    """The classes of a zero-shot classifier.

    Logits of an image's embedding z are scale * (z / |z|) . (e_c / |e_c|) + bias for each class c.

    Attributes:
        rows: float32 [K,D], of unit length each.
        scale: of the cosines.
        bias: of the logits.
        sha256: of the file, or of the array's bytes in float32.
        source: where they come from, in words.
    """

    rows: NDArray[np.float32]
    scale: float
    bias: float
    sha256: str
    source: str

    def check_dimension(self, dimension: int, model: str) -> None:
        """See that an encoder's embeddings have as many numbers as those of the classes.

        Raises:
            ExportError: they do not.
        """
        classes, wanted = self.rows.shape
        if dimension != wanted:
            swapped = "; they may be transposed" if classes == dimension else ""
            raise ExportError(
                f"{self.source}: the embeddings of the classes are [{classes},{wanted}], and {model} gives embeddings "
                f"of {dimension} numbers; accepted is [K,{dimension}]{swapped}"
            )

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits float32 [N,K] of embeddings [N,D], computed in float64."""
        z = embeddings.astype(np.float64)
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        logits: NDArray[np.float32] = (self.scale * (z @ self.rows.T.astype(np.float64)) + self.bias).astype(np.float32)
        return logits


def unit_rows(rows: NDArray[np.generic], what: str) -> NDArray[np.float32]:
    """Embeddings of unit length each, float32 [K,D].

    Raises:
        ExportError: another type or shape, or a row of zeros.
    """
    if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape:
        raise ExportError(f"{what}: is {rows.dtype} {list(rows.shape)}; accepted is floating [K,D], one row per class")
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not norms.all():
        raise ExportError(
            f"{what}: row {int(np.argmin(norms))} is zero, which has no direction; accepted is an embedding per class"
        )
    unit: NDArray[np.float32] = (exact / norms).astype(np.float32)
    return unit
