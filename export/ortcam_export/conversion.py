"""From a PyTorch module or an `.onnx` file to one tidy ONNX IR model, image [N,3,H,W] -> logits [N,classes]."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.errors import ExportError
from ortcam_export.graphs import tidy

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_OPSET", "fix_input_size", "from_onnx", "from_torch", "input_size_of", "probe_images"]

DEFAULT_OPSET: Final = 20
_OLDEST_OPSET: Final = 18


def from_torch(module: "torch.nn.Module", *, height: int, width: int, opset: int) -> ir.Model:
    """Convert a module with torch's exporter, the batch dimension left open.

    Raises:
        ExportError: torch cannot convert it, or it does not return one tensor [N,classes].
    """
    import torch  # noqa: PLC0415

    example = torch.zeros(2, 3, height, width)
    with torch.inference_mode():
        try:
            output = module(example)
        except Exception as error:
            raise ExportError(
                f"the model does not take an image [N,3,{height},{width}]: {_first_line(error)}"
            ) from error
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != 2:
        what = f"a tensor {list(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ExportError(f"the model returns {what}; a classifier returns one tensor [N,classes]")
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=["logits"],
                verbose=False,
            )
        except Exception as error:
            raise ExportError(f"torch.onnx.export cannot convert the model: {_first_line(error)}") from error
    assert program is not None
    model = program.model
    tidy(model)
    return model


def from_onnx(path: Path) -> ir.Model:
    """Read an `.onnx` file and check that it is an image classifier with an open batch dimension.

    Raises:
        ExportError: not ONNX, or not one image [N,3,H,W] in and one tensor [N,classes] out.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # noqa: BLE001 - protobuf raises its own types
        raise ExportError(f"{path}: cannot be read as ONNX: {_first_line(error)}") from None
    graph = model.graph
    opset = graph.opset_imports.get("", 0)
    if opset < _OLDEST_OPSET:
        raise ExportError(f"{path}: opset {opset}; accepted is {_OLDEST_OPSET} or newer")
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    if len(inputs) != 1 or len(graph.outputs) != 1:
        raise ExportError(
            f"{path}: {len(inputs)} inputs and {len(graph.outputs)} outputs; accepted is one image and one of logits"
        )
    image, logits = inputs[0], graph.outputs[0]
    if image.dtype != ir.DataType.FLOAT or image.shape is None or len(image.shape) != 4 or image.shape[1] != 3:
        raise ExportError(f"{path}: input {image.name!r} is {image.type} {image.shape}; accepted is float32 [N,3,H,W]")
    if isinstance(image.shape[0], int):
        raise ExportError(
            f"{path}: the batch size is fixed at {image.shape[0]}; export it with an open batch dimension"
        )
    if logits.shape is None or len(logits.shape) != 2:
        raise ExportError(f"{path}: output {logits.name!r} is {logits.shape}; accepted is [N,classes]")
    graph.inputs[:] = inputs
    tidy(model)
    return model


def input_size_of(model: ir.Model) -> tuple[int, int] | None:
    """(H, W) of the model's input, or None where the graph leaves them open."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    height, width = shape[2], shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def fix_input_size(model: ir.Model, height: int, width: int) -> None:
    """Give the image its size in the graph."""
    image = model.graph.inputs[0]
    assert image.shape is not None
    image.shape = ir.Shape((image.shape[0], 3, height, width))


def probe_images(
    count: int, height: int, width: int, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """Preprocessed pictures to measure with, always the same: colours that change smoothly, edges, and a little noise.

    Returns:
        float32 [count,3,height,width].
    """
    generator = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    frequency = generator.uniform(-12, 12, (2, count, 3, 6, 1, 1))
    phase = generator.uniform(0, 2 * np.pi, (count, 3, 6, 1, 1))
    waves = np.sin(frequency[0] * rows + frequency[1] * columns + phase)
    edges = np.where(waves[:, :, 0] > 0.3, 0.25, 0)
    noise = generator.normal(0, 0.03, edges.shape)
    pixels = np.clip(0.5 + edges + waves[:, :, 1:].sum(axis=2) / 12 + noise, 0, 1)
    normalised = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    probe: NDArray[np.float32] = normalised.astype(np.float32)
    return probe


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress and warnings off the terminal; errors are raised all the same."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
