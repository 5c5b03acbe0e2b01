"""What a graph of a stranger may ask for: functions and loops that end, and constants that fit into memory.

A file of a kilobyte can call functions that call each other 2^28 times, loop for ever, or make a tensor of a terabyte,
and every library that shortens or runs the graph would do as it says. So this is looked at before any of them does.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ortcam_export.errors import ExportError

__all__ = ["MOST_ELEMENTS", "check_limits"]

Body = onnx.GraphProto | onnx.FunctionProto
_Name = tuple[str, str, str]

_MOST_NODES: Final = 1_000_000  # once all functions are inlined; a large transformer has ten thousand
_MOST_TURNS: Final = 100_000  # of a loop, those of the loops around it counted
MOST_ELEMENTS: Final = 2**28  # of a tensor that a graph makes of constants alone: 1 GB of float32
_MOST_INDICES: Final = 2**20  # of a constant that is looked at

# Which inputs of an operator say how large its output is; each read as numbers.
_SIZED_BY: Final[Mapping[str, tuple[int, ...]]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "OneHot": (1,),
    "Resize": (3,),
    "Range": (0, 1, 2),
    "Pad": (1,),
}
_RANDOM: Final = ("RandomNormal", "RandomUniform")


def check_limits(model: onnx.ModelProto) -> None:
    """Refuse a graph that need not end, or is far larger than it looks.

    Raises:
        ExportError: functions that call themselves or become too many nodes, a loop without a fixed and moderate number
            of turns, or a constant that is too large.
    """
    _check_functions(model)
    for body in (model.graph, *model.functions):
        _check_body(body, {}, turns=1)


def _check_functions(model: onnx.ModelProto) -> None:
    """Count the nodes of the graph with all functions inlined, one function after another."""
    functions: dict[_Name, onnx.FunctionProto] = {}
    for function in model.functions:
        functions[function.domain, function.name, function.overload] = function
    sizes: dict[_Name, int] = {}
    open_: set[_Name] = set()
    waiting = list(functions)
    while waiting:
        name = waiting[-1]
        if name in sizes:
            waiting.pop()
            continue
        called = [other for other in dict.fromkeys(_calls(functions[name], functions)) if other not in sizes]
        if not called:
            sizes[name] = min(_nodes(functions[name], functions, sizes), _MOST_NODES + 1)
            open_.discard(name)
            waiting.pop()
            continue
        if name in open_:
            raise ExportError(f"its function {name[1]!r} calls itself; accepted are functions that can be inlined")
        open_.add(name)
        waiting += called
    if _nodes(model.graph, functions, sizes) > _MOST_NODES:
        raise ExportError(
            f"its functions call each other until it has more than {_MOST_NODES} nodes, the most accepted"
        )


def _nodes(body: Body, functions: Mapping[_Name, onnx.FunctionProto], sizes: Mapping[_Name, int]) -> int:
    return sum(1 for _ in _all_nodes(body)) + sum(sizes[name] for name in _calls(body, functions))


def _calls(body: Body, functions: Mapping[_Name, onnx.FunctionProto]) -> Iterator[_Name]:
    names = ((node.domain, node.op_type, node.overload) for node in _all_nodes(body))
    return (name for name in names if name in functions)


def _all_nodes(body: Body) -> Iterator[onnx.NodeProto]:
    waiting: list[Body] = [body]
    while waiting:
        for node in waiting.pop().node:
            yield node
            waiting += _subgraphs(node)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_body(body: Body, around: Mapping[str, NDArray[np.generic]], *, turns: int) -> None:
    """Check a graph and those inside it, which protobuf nests a hundred deep at most.

    Args:
        body: the graph or function.
        around: constants of the graphs around it.
        turns: how often it is run.
    """
    constants = {**around, **dict(_constants(body))}
    for node in body.node:
        inner = turns
        if node.domain in ("", "ai.onnx"):
            if node.op_type == "Loop":
                inner = turns * _turns(node, constants)
                if inner > _MOST_TURNS:
                    raise ExportError(f"its Loop {node.name!r} has {inner} turns; accepted are {_MOST_TURNS} at most")
            _check_size(node, constants)
        for graph in _subgraphs(node):
            _check_body(graph, constants, turns=inner)


def _turns(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> int:
    count = constants.get(node.input[0]) if node.input else None
    if count is None or count.size != 1:
        raise ExportError(
            f"its Loop {node.name!r} has no constant number of turns and might never end; accepted is one that has"
        )
    return max(int(count.reshape(-1)[0]), 0)


def _check_size(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> None:
    said: list[NDArray[np.generic] | None] = []
    if node.op_type in _RANDOM:
        said = [np.array(attribute.ints, np.int64) for attribute in node.attribute if attribute.name == "shape"]
    elif node.op_type in _SIZED_BY:
        places = _SIZED_BY[node.op_type]
        said = [constants.get(node.input[place]) if place < len(node.input) else None for place in places]
    numbers = [
        [float(number) for number in np.asarray(item, np.float64).reshape(-1)] for item in said if item is not None
    ]
    if not numbers or len(numbers) < len(said):
        return
    if node.op_type == "Range":
        (start, *_), (limit, *_), (step, *_) = numbers
        count = (limit - start) / step if step else math.inf
    elif node.op_type == "Pad":
        count = sum(abs(number) for number in numbers[0])
    else:
        count = math.prod(numbers[0])
    if not count <= MOST_ELEMENTS:
        raise ExportError(
            f"its {node.op_type} {node.name!r} makes a tensor of {count:.1e} elements; accepted are {MOST_ELEMENTS}"
        )


def _constants(body: Body) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Small constants by name: initializers, and what Constant nodes make."""
    if isinstance(body, onnx.GraphProto):
        for tensor in body.initializer:
            yield from _as_array(tensor.name, tensor)
    for node in body.node:
        if node.op_type != "Constant" or not node.output:
            continue
        for attribute in node.attribute:
            if attribute.name == "value":
                yield from _as_array(node.output[0], attribute.t)
            elif attribute.name in ("value_int", "value_ints"):
                numbers = list(attribute.ints) if attribute.name == "value_ints" else [attribute.i]
                yield node.output[0], np.array(numbers, np.int64)
            elif attribute.name in ("value_float", "value_floats"):
                floats = list(attribute.floats) if attribute.name == "value_floats" else [attribute.f]
                yield node.output[0], np.array(floats, np.float64)


def _as_array(name: str, tensor: onnx.TensorProto) -> Iterator[tuple[str, NDArray[np.generic]]]:
    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if tensor.data_type not in integers or onnx.external_data_helper.uses_external_data(tensor):
        return
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > _MOST_INDICES:
        return
    try:
        yield name, onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError):  # its bytes do not fit its dimensions: told where it is read
        return
