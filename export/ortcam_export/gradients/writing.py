"""Write the gradient graph of a bundle in the making, or say why it gets none."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Cut, Gradient
from ortcam.engine import open_session
from ortcam.errors import OrtcamError
from ortcam_export.errors import ExportError, first_line
from ortcam_export.gradients.attention import differentiate_with_attention, find_attention
from ortcam_export.gradients.integers import floating_copy
from ortcam_export.gradients.measuring import Autograd, Measured, measure_gradient
from ortcam_export.graphs.gradient import NoDerivativeError
from ortcam_export.graphs.running import cpu_options, run_part
from ortcam_export.graphs.weights import WeightsFile

__all__ = ["Opened", "write_gradient"]

_GRAPH = "gradient.onnx"


@dataclasses.dataclass(frozen=True)
class Opened:
    """A classifier that has a floating tensor at each of its cuts, its features graph written.

    Attributes:
        model: image -> logits.
        features: file name of the features graph, whose outputs are the cuts.
        cuts: name of an output -> the cut; the primary one comes first.
        integers: whether the model computes in 8-bit integers.
    """

    model: ir.Model
    features: str
    cuts: dict[str, Cut]
    integers: bool


def write_gradient(
    opened: Opened, weights: WeightsFile, folder: Path, images: NDArray[np.float32], autograd: Autograd | None
) -> tuple[Gradient | None, str | None]:
    """Differentiate the logits, write the graph, and measure it.

    Args:
        opened: the classifier.
        weights: the file that its weights are in.
        folder: of the bundle.
        images: float32 [N,C,H,W], preprocessed, to measure on.
        autograd: PyTorch's gradients, where the model came from there.

    Returns:
        The gradient, and None; or None, and why there is none, as part of a sentence.
    """
    tensors = {name: cut.tensor for name, cut in opened.cuts.items()}
    quantized = any(node.op_type == "DequantizeLinear" for node in opened.model.graph)
    try:
        model = floating_copy(opened.model, tensors.values()) if opened.integers or quantized else opened.model
    except NoDerivativeError as error:
        return None, error.reason
    features = open_session(folder / opened.features, cpu_options()).run({"image": images}, [*tensors])
    feeds = {tensors["features"]: features[0][:1], "image": images[:1]}
    attention = find_attention(
        model, tensors["features"], opened.cuts["features"], feeds, lambda part, given: run_part(part, folder, given)
    )
    named = dict(zip(tensors, features, strict=True))
    ready = Measured(folder / _GRAPH, (), model, tensors, named, images, autograd, attention)
    gradient, why = _write_measured(ready, weights)
    if gradient is None and attention is not None:
        return _write_measured(dataclasses.replace(ready, attention=None), weights)
    return gradient, why


def _write_measured(what: Measured, weights: WeightsFile) -> tuple[Gradient | None, str | None]:
    """Write the graph, measure it, and take it away again if it misses its tolerance.

    Until then its new weights are in the graph itself: the file of weights only grows, and should hold none in vain.
    """
    try:
        graph = _built(what)
    except NoDerivativeError as error:
        return None, error.reason
    ir.save(graph, what.path)
    taken = [value.name for value in graph.graph.inputs]
    inputs = tuple(name for name in (*what.tensors, "image") if name in taken)
    try:
        parity = measure_gradient(dataclasses.replace(what, inputs=inputs))
    except ExportError as error:
        what.path.unlink()
        return None, f"its derivative could not be measured: {error}"
    worst = max(parity.differences, parity.autograd or 0.0)
    if worst == float("inf"):
        what.path.unlink()
        return None, "its derivative could not be compared with central differences: it has kinks nearly everywhere"
    if not worst <= parity.tolerance:
        what.path.unlink()
        other = "central differences" if parity.differences == worst else "PyTorch's autograd"
        said = f"its derivative differs from {other} by {worst:.1e} relative"
        return None, f"{said}, and accepted is {parity.tolerance:.0e}"
    weights.add(graph)
    ir.save(graph, what.path)
    heads = None if what.attention is None else what.attention.heads
    return Gradient(_GRAPH, inputs, parity, heads), None


def _built(what: Measured) -> ir.Model:
    """The gradient graph.

    Raises:
        NoDerivativeError: an operator has no derivative, or the graph cannot be built: the rest of a bundle works.
    """
    try:
        return differentiate_with_attention(what.model, [*what.tensors.values()], what.attention)
    except (OrtcamError, MemoryError):
        raise
    except Exception as error:  # onnx, onnx-ir and ONNX Runtime raise their own types
        raise NoDerivativeError(f"its derivative could not be built: {first_line(error)}") from error
