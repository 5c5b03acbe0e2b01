"""Loading an `.onnx` file of a stranger: within limits, its weights beside it, its sparse tensors made dense."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from ortcam_export.errors import ExportError, first_line
from ortcam_export.sources.onnx_files.arithmetic import tensors_of
from ortcam_export.sources.onnx_files.limits import MOST_ELEMENTS, check_limits

__all__ = ["CLASS_NAMES", "load_model"]

# What ONNX Runtime takes for an address in its own process, whatever files there are.
_IN_MEMORY: Final = "_ORT_MEM_ADDR_"
# What the metadata of every fused file have.
_FUSED: Final = "ortcam.method"
# Where the classes of a ZipMap are kept while a graph is looked at.
CLASS_NAMES: Final = "class_names"


def load_model(path: Path) -> ir.Model:
    """Read a file; the classes of a ZipMap at its end are under `CLASS_NAMES` in the model's `meta`.

    Raises:
        ExportError: not ONNX, a fused file, larger than it looks, or weights that are not beside it.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
        check_limits(proto)
        class_names = _unzip(proto.graph)
        for graph in _graphs(proto):
            _fill_in_sparse(graph)
        model = ir.from_proto(proto)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - protobuf raises its own types
        raise ExportError(f"{path}: cannot be read as ONNX: {first_line(error)}") from None
    model.meta[CLASS_NAMES] = class_names
    if not model.graph.outputs:
        raise ExportError(f"{path}: cannot be read as ONNX: it has no graph with an output")
    if _FUSED in model.metadata_props:
        raise ExportError(
            f"{path}: a file of `ortcam fuse` explains by itself: run it with ONNX Runtime, or give the model or "
            "bundle that it was made from"
        )
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.inputs:
            if value is not None and not (value.producer() or value.is_graph_input() or value.is_initializer()):
                raise ExportError(f"{path}: cannot be read as ONNX: {node.op_type} reads {value.name!r}, made by none")
    for tensor in tensors_of(model):
        if isinstance(tensor, ir.ExternalTensor):
            _find_weights(tensor, path)
    return model


def _find_weights(tensor: ir.ExternalTensor, path: Path) -> None:
    """Tell a tensor where its file of weights is, which has to be in the folder of the model and whole."""
    if _IN_MEMORY in str(tensor.location):
        raise ExportError(
            f"{path}: its weights {tensor.location!s} are an address in memory; accepted is a file beside it"
        )
    place = (path.parent / tensor.location).resolve()
    if not place.is_relative_to(path.parent.resolve()):
        raise ExportError(
            f"{path}: its weights {tensor.location!s} lie outside its folder; accepted is a file beside it"
        )
    if not place.is_file():
        raise ExportError(f"{path}: its file of weights {tensor.location!s} is missing; put it beside the model")
    offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else tensor.nbytes
    if offset < 0 or not 0 <= tensor.nbytes <= length:
        raise ExportError(
            f"{path}: cannot be read as ONNX: {tensor.name!r} takes {tensor.nbytes} bytes, and it says that "
            f"{length} at {offset} of {tensor.location!s} are its"
        )
    if place.stat().st_size < offset + length:
        raise ExportError(
            f"{path}: its file of weights {tensor.location!s} is truncated; {offset + length} bytes are needed"
        )
    tensor.base_dir = path.parent


def _unzip(graph: onnx.GraphProto) -> tuple[str, ...] | None:
    """Give out the tensor of scores that a ZipMap, in wrappers of scikit-learn's kind, makes a list of dictionaries.

    Returns:
        The names of the classes in it, if it has any.
    """
    names = None
    for node in graph.node:
        if node.op_type != "ZipMap":
            continue
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None))
        for attribute in node.attribute:
            if attribute.name == "classlabels_strings":
                names = tuple(name.decode("utf-8", "replace") for name in attribute.strings) or None
        node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output, name=node.name))
    return names


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph of a file, its functions, and all graphs inside their nodes."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _fill_in_sparse(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Make dense tensors of sparse ones: initializers, and the values of Constant nodes.

    Raises:
        ValueError: indices that do not fit, or values in a file of their own.
    """
    if isinstance(graph, onnx.GraphProto):
        graph.initializer.extend(_dense(tensor, tensor.values.name) for tensor in graph.sparse_initializer)
        graph.ClearField("sparse_initializer")
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                tensor = _dense(attribute.sparse_tensor, node.output[0])
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    if onnx.external_data_helper.uses_external_data(sparse.values):
        raise ValueError(f"the sparse tensor {name!r} has its values in another file, which is not supported")
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    if any(side < 0 for side in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(
            f"the sparse tensor {name!r} has {math.prod(shape):.1e} elements; {MOST_ELEMENTS} are accepted"
        )
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), shape)
    dense = np.zeros(shape, values.dtype)
    dense.reshape(-1)[indices.reshape(-1)] = values.reshape(-1)
    return onnx.numpy_helper.from_array(dense, name)
