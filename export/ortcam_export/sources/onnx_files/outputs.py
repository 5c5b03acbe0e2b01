"""Which outputs of an `.onnx` graph are explained: those that a user names, or the only one that may be meant."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import onnx_ir as ir

from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError
from ortcam_export.sources.given.output_names import several_names
from ortcam_export.sources.onnx_files.arithmetic import FLOATS
from ortcam_export.sources.onnx_files.file import describe

__all__ = ["HOW_TO_TAKE_VALUES", "chosen_output", "joined_outputs", "refuse_maps", "refuse_picked"]

HOW_TO_TAKE_VALUES: Final = (
    "takes its values, and `ortcam explain --score 'output[...]'` explains one of them or the mean of some"
)
# What makes a tensor as long as the image says.
_PICKS: Final = ("NonMaxSuppression", "NonZero", "Unique")
_JOINED: Final = "ortcam/joined_outputs"  # the node that puts several outputs into one row
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def chosen_output(graph: ir.Graph, name: str | None, path: Path, *, raw: bool) -> ir.Value:
    """The output to explain: the one named, which may be any tensor of the graph, or the only one of floats.

    Several that are named, with commas between, are made one row, one behind the other; see `joined_outputs`.

    Raises:
        ExportError: none of this name, one that holds no floats, or several without a name.
    """
    if name is not None:
        several = () if name in _tensors(graph) else several_names(name, raw=raw)
        return _joined(graph, [_named(graph, item, path) for item in several]) if several else _named(graph, name, path)
    values = [value for value in graph.outputs if _may_be_floating(value)]
    if len(values) == 1:
        return values[0]
    kind = "values, floating [N,...]" if raw else "logits, floating [N,classes]"
    listed = ", ".join(map(describe, graph.outputs))
    if not values:
        raise ExportError(f"{path}: its outputs are {listed}; accepted is one of {kind}")
    more = f"; several: --model-output {','.join(value.name or '' for value in values)}" if raw else ""
    raise ExportError(
        f"{path}: name the output of the {'values' if raw else 'logits'} with --model-output; its outputs are "
        f"{listed}{more}"
    )


def joined_outputs(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """The outputs that were made one row, in their order; none where there is one output."""
    node = graph.outputs[0].producer()
    if node is None or node.name != _JOINED:
        return ()
    return tuple(_before(_before(value, "Flatten"), "Cast") for value in node.inputs if value is not None)


def _joined(graph: ir.Graph, values: list[ir.Value]) -> ir.Value:
    """Put outputs [N,...] one behind the other into one [N,elements]."""
    mixed = len({value.dtype for value in values}) > 1
    rows = []
    for number, value in enumerate(values):
        kept = value
        if mixed:
            kept = _append(graph, "Cast", [value], f"{_JOINED}/cast_{number}", to=int(ir.DataType.FLOAT))
            kept.type = ir.TensorType(ir.DataType.FLOAT)
        rows.append(_append(graph, "Flatten", [kept], f"{_JOINED}/rows_{number}", axis=1))
        rows[-1].type = kept.type
    joined = _append(graph, "Concat", rows, _JOINED, axis=1)
    joined.type = rows[0].type
    return joined


def _append(graph: ir.Graph, operator: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
    node = ir.node(operator, inputs, attributes, name=name)
    node.outputs[0].name = name
    graph.append(node)
    return node.outputs[0]


def _before(value: ir.Value | None, operator: str) -> ir.Value:
    """What an operator of `_joined` was given; the value itself where another made it."""
    assert value is not None
    node = value.producer()
    if node is None or node.op_type != operator or not (node.name or "").startswith(_JOINED):
        return value
    assert node.inputs[0] is not None
    return node.inputs[0]


def _tensors(graph: ir.Graph) -> dict[str, ir.Value]:
    return {value.name or "": value for node in graph for value in node.outputs}


def _named(graph: ir.Graph, name: str, path: Path) -> ir.Value:
    made = _tensors(graph)
    found = next((value for value in graph.outputs if value.name == name), made.get(name))
    if found is None:
        hint = did_you_mean(name, made)
        raise ExportError(
            f"{path}: no output {name!r}{hint}; its outputs are {', '.join(map(describe, graph.outputs))}"
        )
    if not _may_be_floating(found):
        raise ExportError(f"{path}: its output is {describe(found)}; accepted is one of logits, floating")
    return found


def _may_be_floating(value: ir.Value) -> bool:
    return value.dtype in (*FLOATS, None)


def refuse_maps(output: ir.Value, path: Path) -> None:
    """Refuse what is not one row of classes an image.

    Raises:
        ExportError: it is not; the message says what would work.
    """
    if output.shape is not None and len([side for side in list(output.shape)[1:] if side != 1]) > 1:
        raise ExportError(
            f"{path}: its output is {describe(output)}, which is not one row of classes an image (a segmenter or a "
            f"detector?); accepted is [N,classes]; `--activation identity` {HOW_TO_TAKE_VALUES}"
        )


def refuse_picked(graph: ir.Graph, path: Path) -> None:
    """Refuse an output that is as long as the image says: boxes that are picked from many.

    Raises:
        ExportError: it is one; the message names the tensor in front, where there is one.
    """
    output = graph.outputs[0]
    behind = _behind(output)
    node = next((node for node in reversed(list(graph)) if node.op_type in _PICKS and node in behind), None)
    if node is None or not any(value in graph.inputs for item in _behind_node(node) for value in item.inputs):
        return
    raw = _raw_output(graph, node)
    works = f"; `--activation identity --model-output {raw}` {HOW_TO_TAKE_VALUES}" if raw else ""
    raise ExportError(
        f"{path}: its output {output.name!r} is as long as the image says, since {node.op_type} {node.name!r} picks "
        f"from its scores; accepted is an output of one shape{works}"
    )


def _raw_output(graph: ir.Graph, node: ir.Node) -> str | None:
    """The tensor that boxes and scores are both taken from without weights between, or that of the scores."""
    if node.op_type != "NonMaxSuppression":
        return None
    boxes, scores = node.inputs[0], node.inputs[1]
    if boxes is None or scores is None:
        return None
    both = _unweighted(boxes) & _unweighted(scores)
    common = [value for item in graph for value in item.outputs if value in both and _may_be_floating(value)]
    return common[-1].name if common else scores.name


def _unweighted(value: ir.Value) -> set[ir.Value]:
    """A tensor and those in front of it, up to what operators with weights make, and without constants."""
    found, queue = {value}, [value]
    while queue:
        node = queue.pop().producer()
        if node is None or node.op_type in _WEIGHTED:
            continue
        new = {other for other in node.inputs if other is not None and not other.is_initializer()} - found
        found |= new
        queue += new
    return found


def _behind(value: ir.Value) -> set[ir.Node]:
    node = value.producer()
    return set() if node is None else set(_behind_node(node))


def _behind_node(node: ir.Node) -> Iterator[ir.Node]:
    """A node and all that it computes from."""
    seen, queue = {node}, [node]
    while queue:
        current = queue.pop()
        yield current
        new = set(_producers(value for value in current.inputs if value is not None)) - seen
        seen |= new
        queue += new


def _producers(values: Iterable[ir.Value]) -> Iterator[ir.Node]:
    for value in values:
        node = value.producer()
        if node is not None:
            yield node
