"""Embeddings of classes, with which an encoder of images becomes a classifier: logits are cosines, scaled."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import file_sha256
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.arrays import as_numbers, read_array
from ortcam_export.sources.types import DEFAULT_LOGIT_SCALE, InputSpec

__all__ = ["ClassEmbeddings", "embeddings_of"]


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


def embeddings_of(spec: InputSpec) -> ClassEmbeddings | None:
    """What a user said of classes by embeddings; None where nothing was said.

    Raises:
        ExportError: a file that cannot be read, another shape than [K,D], rows of zeros, values that are not finite, or
            a scale, a bias or an activation that does not go with them.
    """
    if spec.classes is None:
        for name in ("logit_scale", "logit_bias"):
            if getattr(spec, name) is not None:
                raise ExportError(f"--{name.replace('_', '-')} goes with --classes, embeddings of the classes")
        return None
    if isinstance(spec.classes, ClassEmbeddings):
        return spec.classes
    if spec.activation in ("identity", "probabilities"):
        raise ExportError(
            f"--activation {spec.activation}: does not go with --classes, whose cosines are logits; accepted is "
            "softmax or sigmoid"
        )
    scale = DEFAULT_LOGIT_SCALE if spec.logit_scale is None else float(spec.logit_scale)
    bias = float(spec.logit_bias or 0.0)
    if not np.isfinite([scale, bias]).all() or scale <= 0:
        raise ExportError(
            f"--logit-scale {scale:g} --logit-bias {bias:g}: accepted are finite numbers, a scale above 0"
        )
    if isinstance(spec.classes, str | Path):
        path = Path(spec.classes)
        what = f"--classes {path}"
        rows, digest = read_array(path, "classes", what), file_sha256(path)
    else:
        what = "--classes"
        rows = as_numbers(spec.classes, what)
        digest = hashlib.sha256(np.ascontiguousarray(rows, np.float32).tobytes()).hexdigest()
    return ClassEmbeddings(_unit_rows(rows, what), scale, bias, digest, what)


def _unit_rows(rows: NDArray[np.generic], what: str) -> NDArray[np.float32]:
    if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape:
        raise ExportError(f"{what}: is {rows.dtype} {list(rows.shape)}; accepted is floating [K,D], one row per class")
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not norms.all():
        raise ExportError(
            f"{what}: row {int(np.argmin(norms))} is zero, which has no direction; accepted is an embedding per class"
        )
    return (exact / norms).astype(np.float32)
