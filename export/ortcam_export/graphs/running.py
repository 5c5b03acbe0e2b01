"""Run graphs while exporting, in ONNX Runtime on the CPU, printing nothing."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.engine import SessionOptions, resolve_providers
from ortcam_export.errors import ExportError

__all__ = ["cpu_options", "quiet_session", "run_each", "run_part", "saved"]


def quiet_session(
    model: Path | ir.Model | onnx.ModelProto, *, optimized: bool = True, weights_folder: Path | None = None
) -> ort.InferenceSession:
    """A session on the CPU that prints nothing.

    Args:
        model: a file, or a model in memory.
        optimized: whether ONNX Runtime may fuse operators. Fused operators round differently.
        weights_folder: where the external data of a model in memory is.

    Raises:
        Exception: ONNX Runtime does not load it, in one of its own types.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if weights_folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights_folder))
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    source = model if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def cpu_options() -> SessionOptions:
    """Options for graphs that the runtime opens: on the CPU only."""
    return SessionOptions(resolve_providers(["CPUExecutionProvider"]))


@contextlib.contextmanager
def saved(model: ir.Model, folder: Path) -> Iterator[Path]:
    """Save a model in the folder of its weights, and remove the file afterwards."""
    path = folder / f".{secrets.token_hex(4)}.onnx"
    try:
        ir.save(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


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
        try:
            session = quiet_session(path)
            outputs: list[list[NDArray[np.float32]]] = [session.run(None, inputs) for inputs in feeds]
        except Exception as error:
            raise ExportError(f"ONNX Runtime does not run the graph: {str(error).strip().splitlines()[0]}") from error
    return outputs
