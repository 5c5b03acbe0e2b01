"""Store weights that several graphs of one ONNX file use only once in the file."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import onnx_ir as ir

from ortcam_export.graphs.weights import WeightsFile, weight_key

__all__ = ["share_in_file", "share_in_function", "share_in_outer_graph"]

_FUNCTION: Final = ("ortcam", "weights", "")
_SMALLEST: Final = 1024  # bytes; what is smaller may come twice


def share_in_function(model: ir.Model) -> None:
    """Let a function without inputs hold the weights that more than one graph of a model has.

    Its body is one Constant per weight, its outputs are the weights, and each of the graphs calls it. When runtimes
    load the file they put the body in the place of each call. To their optimizers the weights are then the graph's own.
    """
    graphs = [graph for graph in model.graphs() if graph.initializers]
    shared = _shared(graphs)
    if not shared:
        return
    constants = []
    for number, values in enumerate(shared):
        tensor = values[0][1].const_value
        assert tensor is not None
        loaded = ir.Tensor(tensor.numpy(), dtype=tensor.dtype)
        constants.append(ir.node("Constant", [], {"value": loaded}, name=f"weight_{number}"))
        constants[-1].outputs[0].name = f"weight_{number}"
    domain, name, overload = _FUNCTION
    body = ir.Graph(
        [], [node.outputs[0] for node in constants], nodes=constants, opset_imports=dict(model.graph.opset_imports)
    )
    model.functions[_FUNCTION] = ir.Function(domain, name, overload, graph=body, attributes=[])
    model.graph.opset_imports[domain] = 1
    for place, graph in enumerate(graphs):
        call = ir.Node(domain, name, [], num_outputs=len(shared), name=f"ortcam/weights_{place}")
        for output, values in zip(call.outputs, shared, strict=True):
            own = next((value for owner, value in values if owner == place), None)
            output.name = f"weights_{place}_{output.index()}"
            if own is not None:
                own.replace_all_uses_with(output)
                output.name = own.name
                del graph.initializers[str(own.name)]
        graph.insert_before(next(iter(graph)), call)


def share_in_outer_graph(model: ir.Model) -> None:
    """Let all graphs of a model use the weights that more than one of them has where the outermost graph holds them.

    For ORT format, which has no functions: a body in the place of each call would bring its weights each time.
    """
    outer = model.graph
    others = [graph for graph in model.graphs() if graph is not outer and graph.initializers]
    for number, values in enumerate(_shared([outer, *others])):
        held = next((value for place, value in values if place == 0), None)
        if held is None:
            tensor = values[0][1].const_value
            assert tensor is not None
            held = ir.Value(
                name=f"ortcam/weight_{number}",
                const_value=tensor,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
            )
            outer.register_initializer(held)
        for place, value in values:
            if value is not held:
                value.replace_all_uses_with(held)
                del (outer, *others)[place].initializers[str(value.name)]


def _shared(graphs: Sequence[ir.Graph]) -> list[list[tuple[int, ir.Value]]]:
    """The weights that graphs have in common: for each its values, and the place of the graph that has the value."""
    owners: dict[tuple[Any, ...], list[tuple[int, ir.Value]]] = defaultdict(list)
    for place, graph in enumerate(graphs):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= _SMALLEST:
                owners[weight_key(tensor)].append((place, value))
    return [values for values in owners.values() if len(values) > 1]


def share_in_file(model: ir.Model, file: WeightsFile) -> None:
    """Write the weights of a model to a file, each once. All graphs that use a weight point to the same place."""
    written: dict[tuple[Any, ...], ir.ExternalTensor] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes < _SMALLEST:
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
                continue
            key, name = weight_key(tensor), str(value.name)
            if key in written:
                first = written[key]
                value.const_value = ir.ExternalTensor(
                    first.location,
                    first.offset,
                    first.length,
                    first.dtype,
                    shape=first.shape,
                    name=name,
                    base_dir=first.base_dir,
                )
            else:
                value.const_value = written[key] = file.append(name, tensor)
