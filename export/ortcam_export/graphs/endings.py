"""How a graph ends: an activation at its end is taken out, so that what a bundle calls logits are logits."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam.engine.model import to_probabilities
from ortcam_export.errors import ExportError
from ortcam_export.sources.types import SaidActivation

__all__ = ["Ending", "check_ending", "gives_probabilities", "refuse_ranks", "take_ending", "take_unranked"]

# What may stand between the activation at the end and the output: what only lays out, and what is not for logits.
_PASSING: Final = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_ONLY_FOR_PROBABILITIES: Final = ("Clip", "QuantizeLinear", "DequantizeLinear")
_ENDINGS: Final[dict[str, Activation]] = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "Sigmoid": "sigmoid",
    "QLinearSoftmax": "softmax",
    "QLinearSigmoid": "sigmoid",
}
# How far rounding may take probabilities out of [0,1], and their sum from 1.
_ROUNDING: Final = 1e-3
# How far the sums of float32 outputs may differ where they are the same number.
_EQUAL_SUMS: Final = 1e-5
_DECLARE: Final = "where they are probabilities already, say --activation probabilities"
# What picks elements by indices, which may be computed, and what gives indices themselves.
_PICKING: Final = ("ArrayFeatureExtractor", "Compress", "Gather", "GatherElements", "GatherND", "NonMaxSuppression")
_INDICES: Final = ("ArgMax", "ArgMin", "NonMaxSuppression")
_SORTING: Final = ("NonMaxSuppression", "TopK", "Unique")
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_ACCEPTED: Final = "accepted is one score for each class, always in the same order"


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
        return None if self.operator is None else _ENDINGS[self.operator]


def take_ending(graph: ir.Graph, *, said: SaidActivation | None = None) -> Ending:
    """Make what goes into the activation at the end of a graph its output.

    Where the user said that the outputs are probabilities, a softmax stays where it is not clearly one over the
    classes: several of them, each over a group of classes, say.
    """
    (output,) = graph.outputs
    if said == "probabilities" and not _is_over_classes(output):
        return Ending(None, None)
    chain: list[ir.Node] = []
    node = output.producer()
    while node is not None and node.op_type in (*_PASSING, *_ONLY_FOR_PROBABILITIES):
        chain.append(node)
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node is not None and (powers := _spelled_out_softmax(node)) is not None:
        source = powers.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        return Ending("Softmax", None)
    if node is not None and node.op_type in _ENDINGS and node.domain in ("", "com.microsoft"):
        if node.op_type.startswith("QLinear"):
            dequantizer = chain[-1] if chain and chain[-1].op_type == "DequantizeLinear" else None
            if dequantizer is None:
                return Ending(None, node.op_type)
            for position in (0, 1, 2):
                dequantizer.replace_input_with(position, node.inputs[position])
        else:
            for passed in (node, *(item for item in chain if item.op_type in _ONLY_FOR_PROBABILITIES)):
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


def take_unranked(graph: ir.Graph) -> str | None:
    """Make a graph that ends in scores by rank give the scores in front, of all classes in their order.

    Returns:
        The operator that sorted them and was taken out; None where they were not sorted.

    Raises:
        ExportError: an output of indices, or of scores that are picked by what the image says.
    """
    value = graph.outputs[0]
    chain: list[ir.Node] = []
    while (node := value.producer()) is not None:
        if node.op_type in _INDICES or (node.op_type == "TopK" and value is node.outputs[1]):
            raise ExportError(
                f"its output {graph.outputs[0].name!r} holds indices, which {node.op_type} gives; {_ACCEPTED}"
            )
        if node.op_type == "TopK":
            break
        picked = node.inputs[0] if node.inputs else None
        if node.op_type in _PICKING and any(other is not None and _depends(other, graph) for other in node.inputs[1:]):
            raise ExportError(
                f"{node.op_type} at its end picks the scores by indices computed from the image, so that they change "
                f"places from image to image; {_ACCEPTED}"
            )
        if picked is None or node.op_type not in (*_PASSING, *_ONLY_FOR_PROBABILITIES, *_ENDINGS, *_PICKING):
            return None
        chain.append(node)
        value = picked
    if node is None:
        return None
    scores = node.inputs[0]
    assert scores is not None
    if node.attributes.get_int("axis", -1) == 0 or any(item.op_type in ("Reshape", *_PICKING) for item in chain):
        raise ExportError(f"TopK at its end gives its scores by rank, not by class; {_ACCEPTED}")
    for item in chain:
        for output in item.outputs:
            output.shape = None  # that of fewer classes
    node.outputs[0].replace_all_uses_with(scores, replace_graph_outputs=True)
    return node.op_type


def _depends(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether a tensor is computed from the image, not from its shape alone."""
    return any(found in graph.inputs for found in _behind(value, lambda node: node.op_type in ("Shape", "Size")))


def _behind(value: ir.Value, stop: Callable[[ir.Node], bool]) -> Iterator[ir.Value]:
    """A tensor and all that it is computed from, without what goes into the nodes to stop at."""
    queue, seen = [value], {value}
    while queue:
        current = queue.pop()
        yield current
        node = current.producer()
        if node is not None and not stop(node):
            new = {other for other in node.inputs if other is not None} - seen
            seen |= new
            queue += new


def refuse_ranks(model: str, graph: ir.Graph, outputs: NDArray[np.float32]) -> None:
    """Refuse scores that are sorted for every picture, where something in the graph sorts and no weights lie behind it.

    Scores that are sorted otherwise may be meant so: the probabilities of being older than 10, 20, 30.

    Args:
        model: its name, for the error.
        graph: image -> outputs.
        outputs: float32 [N,classes], for pictures that differ.

    Raises:
        ExportError: see above.
    """
    steps = np.diff(outputs, axis=1)
    in_order = bool((steps <= 0).all() or (steps >= 0).all()) and bool((steps != 0).any(axis=1).all())
    if in_order and any(
        (node := value.producer()) is not None and node.op_type in _SORTING
        for value in _behind(graph.outputs[0], lambda node: node.op_type in _WEIGHTED)
    ):
        raise ExportError(
            f"{model}: its {outputs.shape[1]} scores are sorted for every picture, so they are by rank; {_ACCEPTED}"
        )


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
            f"changes the probabilities; {_DECLARE}"
        )


def gives_probabilities(
    model: str, ending: Ending, outputs: NDArray[np.float32], *, said: SaidActivation | None
) -> Activation | None:
    """Whether a graph gives probabilities though no known activation stands at its end.

    Args:
        model: its name, for the error.
        ending: of the graph.
        outputs: float32 [N,classes], with the activation taken out where there was one.
        said: what the user said of them.

    Returns:
        The activation that belongs to the probabilities: "softmax" where each row sums to 1, else "sigmoid", class by
        class. None for logits.

    Raises:
        ExportError: outputs that could mean several things, or that contradict what the user said.
    """
    if not np.isfinite(outputs).all():
        raise ExportError(
            f"{model}: its logits are not finite for an ordinary picture; accepted is one whose logits are"
        )
    if ending.activation == "softmax":
        _refuse_sigmoid_of_softmax(model, said)
    if ending.activation is not None:
        return None
    lowest, highest = float(outputs.min()), float(outputs.max())
    if lowest < -_ROUNDING or highest > 1 + _ROUNDING:
        if said == "probabilities":
            raise ExportError(
                f"{model}: --activation probabilities: its outputs for a picture go from {lowest:.3g} to "
                f"{highest:.3g}; accepted are outputs from 0 to 1. Say softmax or sigmoid for logits"
            )
        _refuse_multiples(model, outputs)
        return None
    if outputs.shape[1] > 1 and np.abs(outputs.astype(np.float64).sum(axis=1) - 1).max() < _ROUNDING:
        _refuse_sigmoid_of_softmax(model, said)
        return "softmax"
    if said == "probabilities":
        return "sigmoid"
    if lowest < 0 or highest > 1:
        return None
    if ending.bounding is not None:
        raise ExportError(
            f"{model}: its outputs lie between 0 and 1, where {ending.bounding} keeps them: they are no logits; "
            f"{_DECLARE}. Accepted otherwise is a model that gives logits, or ends in Softmax or Sigmoid"
        )
    if said is None and outputs.shape[1] > 1:
        raise ExportError(
            f"{model}: its outputs lie between 0 and 1 without summing to 1, and it ends in no Sigmoid: they may be "
            f"logits or not; where they are, say how they become probabilities with --activation softmax or sigmoid; "
            f"{_DECLARE}"
        )
    return None


def _refuse_multiples(model: str, outputs: NDArray[np.float32]) -> None:
    """Percentages and the like: not negative, and with the same sum for images that differ."""
    sums = outputs.astype(np.float64).sum(axis=1)
    alike = float(sums.max() - sums.min()) <= _EQUAL_SUMS * float(sums.max())
    # A model whose outputs do not depend on the image has equal sums as well.
    differ = float(np.ptp(outputs, axis=0).max()) > _ROUNDING * float(outputs.max())
    percent = bool(np.allclose(sums, 100, rtol=_EQUAL_SUMS))
    if outputs.shape[1] > 1 and outputs.min() >= 0 and alike and (differ or percent):
        raise ExportError(
            f"{model}: its outputs are not negative and sum to {sums.mean():.4g} for each picture: they are "
            f"probabilities times {sums.mean():.4g}, not logits; divide them in the model, and say "
            "--activation probabilities"
        )


def _refuse_sigmoid_of_softmax(model: str, said: SaidActivation | None) -> None:
    """A softmax knows its logits up to a constant only, on which their sigmoids would depend."""
    if said == "sigmoid":
        raise ExportError(
            f"{model}: --activation sigmoid: the graph ends in a softmax, whose classes exclude each other; accepted "
            "is softmax"
        )
