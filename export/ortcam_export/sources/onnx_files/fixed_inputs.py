"""Further inputs of an `.onnx` graph, fixed to values that its user gave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import FixedInput
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import add_constant
from ortcam_export.graphs.names import name_nodes
from ortcam_export.sources.given.fixed_inputs import GivenInput, record_of
from ortcam_export.sources.onnx_files.file import describe

__all__ = ["fix_inputs", "used_inputs"]


def fix_inputs(graph: ir.Graph, given: Mapping[str, GivenInput], path: Path) -> dict[str, FixedInput]:
    """Put values in the place of inputs, which the graph then has no more.

    Where an input's first side is the batch of the image, the value of one image is repeated for all.

    Args:
        graph: changed in place.
        given: values by the name of the input.
        path: of the file, for errors.

    Returns:
        What was fixed, by the name of the input.

    Raises:
        ExportError: no input of this name, none left for the image, or a value that does not fit.
    """
    if not given:
        return {}
    used = used_inputs(graph)
    listed = ", ".join(map(describe, used))
    by_name = {value.name or "": value for value in used}
    for name in given:
        if name not in by_name:
            hint = did_you_mean(name, by_name)
            raise ExportError(f"{path}: --input {name}: it has no such input{hint}; its inputs are {listed}")
    left = [value for value in used if value.name not in given]
    if not left:
        raise ExportError(f"{path}: --input for all of its inputs, {listed}; one of them has to be left for the image")
    return {name: _fix(graph, by_name[name], value, left[0], path) for name, value in given.items()}


def used_inputs(graph: ir.Graph) -> list[ir.Value]:
    """The inputs that anything in the graph reads."""
    return [value for value in graph.inputs if value.uses() or value.is_graph_output()]


def _fix(graph: ir.Graph, target: ir.Value, given: GivenInput, image: ir.Value, path: Path) -> FixedInput:
    if target.dtype is None or target.dtype == ir.DataType.STRING or not isinstance(target.type, ir.TensorType):
        raise ExportError(f"{path}: --input {given.name}: the input is {describe(target)}; accepted is one of numbers")
    dtype: np.dtype[Any] = np.dtype(target.dtype.numpy())
    sides: list[Any] = [None] if target.shape is None else [_side(side) for side in target.shape]
    batched = target.shape is not None and _follows_batch(sides, image)
    values = given.values if target.shape is None else given.fitted(sides, batched=batched, taken=describe(target))
    # Types that numpy does not have hold what float32 does, rounded.
    plain = dtype if dtype.kind in "biuf" else np.dtype(np.float32)
    cast = _cast(given, values, plain)
    name = target.name or "input"
    target.name = f"{name}_given"
    constant = add_constant(graph, cast.astype(dtype), name)
    repeated = _repeated(graph, constant, image) if batched and not isinstance(sides[0], int) else constant
    target.replace_all_uses_with(repeated, replace_graph_outputs=True)
    graph.inputs.remove(target)
    return record_of(given, cast)


def _cast(given: GivenInput, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return GivenInput(given.name, given.text, values).cast(dtype)


def _side(side: object) -> int | str | None:
    if isinstance(side, int):
        return side if side > 0 else None  # what some exporters write for an open side
    text = getattr(side, "value", None)
    return None if text is None else str(text)


def _follows_batch(sides: list[int | str | None], image: ir.Value) -> bool:
    """Whether the first side of an input is the batch of the image: open as that is, or 1 as that is."""
    if not sides or image.shape is None or len(image.shape) != 4:
        return False
    batch, first = _side(image.shape[0]), sides[0]
    if isinstance(first, int) or isinstance(batch, int):
        return first == 1 and batch in (1, None)
    return first is None or batch is None or first == batch


def _repeated(graph: ir.Graph, value: ir.Value, image: ir.Value) -> ir.Value:
    """A value [1,...] for each image of the batch."""
    assert value.shape is not None
    tape = ir.tape.Tape()
    zero = add_constant(graph, np.zeros(1, np.int64), f"{value.name}_zero")
    batch = tape.op("Gather", [tape.op("Shape", [image]), zero], {"axis": 0})
    ones = add_constant(graph, np.ones(len(value.shape) - 1, np.int64), f"{value.name}_ones")
    shape = tape.op("Concat", [batch, ones], {"axis": 0})
    repeated = tape.op("Expand", [value, shape])
    name_nodes(tape.nodes, (f"{value.name}_{part}" for part in ("shape", "batch", "repeats", "repeated")))
    repeated.type = value.type
    first = next(iter(graph), None)
    graph.extend(tape.nodes) if first is None else graph.insert_before(first, tape.nodes)
    return repeated
