"""Fix every dimension of a graph, for processors that take no dynamic shapes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ortcam.bundle import Gradient, Graphs, Variant
from ortcam_export.errors import ExportError
from ortcam_export.graphs.batch_axis.extent import Extent, extent_of_constant
from ortcam_export.graphs.batch_axis.inference import compute, infer

__all__ = ["TARGETS", "fix_graphs", "fix_shapes", "open_dimensions"]

# Targets of a run of a scorer: all that is asked for mostly, and a small part of a pass.
TARGETS: Final = 8

# Elements of a tensor that becomes a constant because all that it is computed from is known.
_MOST_ELEMENTS: Final = 2**20
# Operators whose outputs are as long as the values of their inputs make them.
_BY_VALUE: Final = ("Compress", "NonMaxSuppression", "NonZero", "StringSplit", "Unique")
# Operators that mark integers: weights computed to float32 would no longer be any.
_MARKS: Final = ("DequantizeLinear", "QuantizeLinear")


def fix_graphs(
    folder: Path, graphs: Graphs, gradient: Gradient | None, variants: Mapping[str, Variant], *, batch: int
) -> None:
    """Rewrite the graphs of a bundle with fixed shapes, in place.

    A run of the features, the classifier or the gradient has one row; of the head and the scorers `batch`. Scorers give
    `TARGETS` targets and one score.

    Args:
        folder: of the bundle.
        graphs: in it.
        gradient: in it, if there is one.
        variants: in it.
        batch: rows of a run.

    Raises:
        ExportError: a dimension that depends on more than the sizes of the inputs.
    """
    rows: dict[str, int] = {graphs.features: 1}
    if graphs.head is not None:
        rows[graphs.head] = batch
    if graphs.classifier is not None:
        rows[graphs.classifier] = 1
    if gradient is not None:
        rows[gradient.graph] = 1
    scorers = [*graphs.scorers.values(), *(name for item in variants.values() for name in item.scorers.values())]
    sizes = {name: {"N": count, "K": 1, "": count} for name, count in rows.items()}
    sizes |= {name: {"B": batch, "K": TARGETS, "S": 1} for name in scorers}
    for name, of_graph in sizes.items():
        path = folder / name
        model = ir.load(path)
        try:
            fix_shapes(model, of_graph)
        except ExportError as error:
            raise ExportError(f"static_batch={batch}: {name}: {error}. Nothing was written") from None
        ir.save(model, path)


def fix_shapes(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Give every tensor of a graph a shape of numbers, and compute what depends on shapes alone.

    Args:
        model: any graph without inner ones. It is changed.
        sizes: of the open dimensions of its inputs, by their names; "" stands for all others.

    Raises:
        ExportError: a tensor whose shape is still not known.
    """
    graph = model.graph
    known: dict[ir.Value, Extent] = {value: extent_of_constant(value) for value in graph.initializers.values()}
    for value in graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = tuple(side if isinstance(side, int) else _size(str(side.value), sizes) for side in value.shape)
        value.shape = ir.Shape(shape)
        known[value] = Extent(value.dtype, (shape, shape))
    for node in graph:
        _visit(model, node, known)
    for value in graph.outputs:  # before constants take the place of some
        _declare(value, known)
    for node in list(graph):
        _fold(graph, node, known)
    common_passes.RemoveUnusedNodesPass()(model)
    for node in graph:
        for value in node.outputs:
            _declare(value, known)
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(ordered)


def open_dimensions(model: ir.Model) -> list[str]:
    """The tensors of a graph whose shapes are not all numbers, by name."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs if value.name)]
    return [
        value.name or ""
        for value in values
        if value.shape is None or not all(isinstance(side, int) for side in value.shape)
    ]


def _size(symbol: str, sizes: Mapping[str, int]) -> int:
    found = sizes.get(symbol, sizes.get(""))
    if found is None:
        raise ExportError(f"an input has the open dimension {symbol!r}, whose size is not known")
    return found


def _visit(model: ir.Model, node: ir.Node, known: dict[ir.Value, Extent]) -> None:
    """Find the shapes of a node's outputs, and their values where they depend on shapes alone."""
    inputs = [value for value in node.inputs if value is not None]
    if missing := [value.name for value in inputs if value not in known]:
        raise ExportError(f"the shape of {missing[0]!r} is not known")
    if node.op_type == "Shape" and node.domain == "":
        shape = known[inputs[0]].shapes[0]
        sides = np.array(
            shape[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))], np.int64
        )
        known[node.outputs[0]] = Extent(ir.DataType.INT64, (sides.shape, sides.shape), values=(sides, sides))
        return
    if node.op_type not in _MARKS and all(known[value].values is not None for value in inputs):
        results = compute(node, known, 0)
        if results is not None:
            for output, result in zip(node.outputs, results, strict=False):
                dtype = ir.DataType.from_numpy(result.dtype)
                known[output] = Extent(dtype, (result.shape, result.shape), values=(result, result))
            return
    integers = any(known[value].values is None and known[value].dtype.is_integer() for value in inputs)
    by_value = node.op_type in _BY_VALUE
    inferred = None if by_value else infer(model, node, known, 0, by_running=not integers or node.domain != "")
    for value in node.outputs:
        if not value.name:
            continue
        if inferred is None or value.name not in inferred:
            raise ExportError(f"the shape of {value.name!r}, an output of {node.op_type}, depends on values")
        dtype, shape = inferred[value.name]
        known[value] = Extent(dtype, (shape, shape))


def _fold(graph: ir.Graph, node: ir.Node, known: Mapping[ir.Value, Extent]) -> None:
    """Put constants in the place of outputs whose values are known."""
    for value in node.outputs:
        extent = known.get(value)
        if extent is None or extent.values is None or value.is_graph_output():
            continue
        if math.prod(extent.shapes[0]) > _MOST_ELEMENTS:
            continue
        tensor = ir.tensor(np.ascontiguousarray(extent.values[0]).reshape(extent.shapes[0]), name=value.name)
        constant = ir.Value(
            name=value.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        value.replace_all_uses_with(constant)
        value.name = f"{value.name}_computed"
        graph.register_initializer(constant)


def _declare(value: ir.Value, known: Mapping[ir.Value, Extent]) -> None:
    if value in known:
        value.dtype, value.shape = known[value].dtype, ir.Shape(known[value].shapes[0])
