"""Take the activation at the end of a graph out, and check that it was one."""

import dataclasses

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam.engine.features import to_probabilities
from ortcam_export.errors import ExportError
from ortcam_export.graphs.endings.operators import ACTIVATIONS, DECLARE, ONLY_FOR_PROBABILITIES, PASSING, Declared

__all__ = ["Ending", "check_ending", "take_ending"]


@dataclasses.dataclass(frozen=True)
class Ending:
    """What stood at the end of a graph.

    Attributes:
        operator: the activation that was taken out, or None.
        bounding: without one, the operator that keeps the output between 0 and 1, or None.
        ranking: the operator that sorted the scores, whose input was taken, or None.
    """

    operator: str | None
    bounding: str | None
    ranking: str | None = None

    @property
    def activation(self) -> Activation | None:
        """The operator as an activation of a bundle."""
        return None if self.operator is None else ACTIVATIONS[self.operator]


def take_ending(graph: ir.Graph, *, said: Declared | None = None) -> Ending:
    """Make the input of the activation at the end of a graph its output.

    If the user said that the outputs are probabilities, a softmax stays unless it clearly runs over the classes. There
    may be several, for example one per group of classes.
    """
    (output,) = graph.outputs
    if said == "probabilities" and not _is_over_classes(output):
        return Ending(None, None)
    chain: list[ir.Node] = []
    node = output.producer()
    while node is not None and node.op_type in (*PASSING, *ONLY_FOR_PROBABILITIES):
        chain.append(node)
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node is not None and (powers := _spelled_out_softmax(node)) is not None:
        source = powers.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        return Ending("Softmax", None)
    if node is not None and node.op_type in ACTIVATIONS and node.domain in ("", "com.microsoft"):
        if node.op_type.startswith("QLinear"):
            dequantizer = chain[-1] if chain and chain[-1].op_type == "DequantizeLinear" else None
            if dequantizer is None:
                return Ending(None, node.op_type)
            for position in (0, 1, 2):
                dequantizer.replace_input_with(position, node.inputs[position])
        else:
            for passed in (node, *(item for item in chain if item.op_type in ONLY_FOR_PROBABILITIES)):
                _bypass(graph, passed)
        return Ending(node.op_type, None)
    clip = next((item for item in chain if item.op_type == "Clip"), None)
    if clip is not None:
        return Ending(None, clip.op_type)
    if node is not None and (
        node.op_type in ("HardSigmoid", "Reciprocal") or (node.op_type == "Div" and not _is_constant(node.inputs[1]))
    ):
        return Ending(None, node.op_type)
    return Ending(None, None)


def _is_over_classes(output: ir.Value) -> bool:
    """Whether an output [N,classes] comes straight from a Sigmoid, or from a Softmax over its classes."""
    node = output.producer()
    if node is None or output.shape is None or len(output.shape) != 2:
        return False
    return node.op_type == "Sigmoid" or (node.op_type == "Softmax" and node.attributes.get_int("axis", -1) in (-1, 1))


def _spelled_out_softmax(node: ir.Node) -> ir.Node | None:
    """The Exp of exp(x) / sum exp(x), whose powers may overflow where a Softmax would not."""
    if node.op_type != "Div" or None in node.inputs:
        return None
    powers, total = (value.producer() for value in node.inputs if value is not None)
    if powers is None or total is None or powers.op_type != "Exp" or total.op_type != "ReduceSum":
        return None
    return powers if total.inputs[0] is node.inputs[0] else None


def _bypass(graph: ir.Graph, node: ir.Node) -> None:
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def check_ending(
    model: str, ending: Ending, logits: NDArray[np.float32], outputs: NDArray[np.float32], *, tolerance: float
) -> None:
    """See that the activation which was taken out is the one that a bundle puts back.

    Args:
        model: its name, for the error.
        ending: with an activation.
        logits: float32 [N,classes], of the graph without it.
        outputs: float32 [N,classes], of the graph with it.
        tolerance: max |difference| of a probability.

    Raises:
        ExportError: it is not: a Softmax over something else than all classes of an image, say.
    """
    assert ending.activation is not None
    found = np.exp(outputs) if ending.operator == "LogSoftmax" else outputs
    expected = to_probabilities(logits, ending.activation)
    if found.shape != expected.shape or not np.abs(found - expected).max() <= tolerance:
        raise ExportError(
            f"{model}: the {ending.operator} at its end does not give the {ending.activation} of its "
            f"{expected.shape[1]} logits for an image; accepted is one over all classes, and nothing behind it that "
            f"changes the probabilities; {DECLARE}"
        )
