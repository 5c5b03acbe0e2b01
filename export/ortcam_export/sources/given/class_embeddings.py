"""What a user says of classes by their embeddings, read and checked."""

import hashlib
from pathlib import Path

import numpy as np

from ortcam.bundle import file_sha256
from ortcam.support.ranges import LOGIT_BIAS, LOGIT_SCALE
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.arrays import as_numbers, read_array
from ortcam_export.sources.given.embeddings import ClassEmbeddings, unit_rows
from ortcam_export.sources.types import DEFAULT_LOGIT_SCALE, InputSpec

__all__ = ["embeddings_of"]


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
    if not (LOGIT_SCALE.holds(scale) and LOGIT_BIAS.holds(bias)):
        raise ExportError(
            f"--logit-scale {scale:g} --logit-bias {bias:g}: accepted are numbers {LOGIT_SCALE.bounds} and "
            f"{LOGIT_BIAS.bounds}"
        )
    if isinstance(spec.classes, str | Path):
        path = Path(spec.classes)
        what = f"--classes {path}"
        rows, digest = read_array(path, "classes", what), file_sha256(path)
    else:
        what = "--classes"
        rows = as_numbers(spec.classes, what)
        digest = hashlib.sha256(np.ascontiguousarray(rows, np.float32).tobytes()).hexdigest()
    return ClassEmbeddings(unit_rows(rows, what), scale, bias, digest, what)
