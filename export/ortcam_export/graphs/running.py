"""Running parts of a graph while exporting, in ONNX Runtime on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam_export.errors import ExportError
from ortcam_export.graphs.surgery import saved

__all__ = ["run_each", "run_part"]


def run_part(part: ir.Model, folder: Path, feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Run a model whose weights are in a file of `folder`, in ONNX Runtime on the CPU.

    Raises:
        ExportError: ONNX Runtime does not run it.
    """
    return run_each(part, folder, [feeds])[0]


def run_each(
    part: ir.Model, folder: Path, feeds: Sequence[dict[str, NDArray[np.float32]]]
) -> list[list[NDArray[np.float32]]]:
    """Run a model as `run_part` does, on one input after another.

    Raises:
        ExportError: ONNX Runtime does not run it.
    """
    with saved(part, folder) as path:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            outputs: list[list[NDArray[np.float32]]] = [session.run(None, inputs) for inputs in feeds]
        except Exception as error:
            raise ExportError(f"ONNX Runtime does not run the graph: {str(error).strip().splitlines()[0]}") from error
    return outputs
