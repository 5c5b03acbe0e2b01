"""Names in a graph: unique ones, those reserved for a bundle's inputs and outputs, and the paths of modules."""

import ast
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

from ortcam_export.graphs.dataflow import all_values

__all__ = [
    "NAME_SCOPES",
    "fresh_name",
    "module_path",
    "name_nodes",
    "rename",
    "scopes_in_name",
    "set_aside_reserved_names",
    "taken_names",
]

# The metadata in which torch's new exporter records the modules around a node.
NAME_SCOPES: Final = "pkg.torch.onnx.name_scopes"

# Names of the inputs and outputs of a bundle's graphs, which no other tensor may have.
_RESERVED: Final = (
    *("image", "features", "logits", "all_logits", "probabilities", "maps", "channels", "targets", "scale"),
    *("noise", "sigma", "keep", "baseline", "logit_softmax", "partial_maps", "score"),
)


def fresh_name(name: str, taken: set[str | None]) -> str:
    """A name that is not taken yet; from now on it is."""
    stem, number = name, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def taken_names(graph: ir.Graph) -> set[str | None]:
    """The names of what the nodes of a graph make, and of its initializers."""
    return {value.name for node in graph for value in node.outputs} | set(graph.initializers)


def name_nodes(nodes: Iterable[ir.Node], names: Iterable[str]) -> None:
    """Name nodes that have one output each. The output gets the same name."""
    for node, name in zip(nodes, names, strict=True):
        node.outputs[0].name = node.name = name


def rename(value: ir.Value, name: str, graph: ir.Graph) -> None:
    """Give a tensor a name. Another tensor that has it is renamed."""
    for node in graph:
        for other in node.outputs:
            if other is not value and other.name == name:
                other.name = f"{name}_inner"
    for other in graph.inputs:
        if other is not value and other.name == name:
            other.name = f"{name}_inner"
    value.name = name


def set_aside_reserved_names(graph: ir.Graph) -> None:
    """Rename every tensor that has a reserved name, also in graphs inside nodes."""
    values = list(all_values(graph))
    taken = {value.name for value in values}
    for value in values:
        if value.name in _RESERVED:
            value.name = fresh_name(f"{value.name}_inner", taken)


def module_path(node: ir.Node) -> tuple[str, ...]:
    """Paths of the modules around a node, outermost first. Empty if the graph does not tell."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(NAME_SCOPES, "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    # The first entry is the root, the last the operator's own name.
    return tuple(str(path) for path in scopes[1:-1] if path) if isinstance(scopes, list) else ()


def scopes_in_name(name: str | None) -> str | None:
    """Read the module paths off a node's name, as other exporters write it, in the form of torch's new exporter.

    torch's old exporter writes "/features/features.3/conv/conv.0/Conv", where each part that repeats the one before
    continues it: features.3.conv.0. TensorFlow's scopes "model/block_1/Relu" are paths as they stand.
    """
    if name is None or "/" not in name:
        return None
    parts = name.split("/")
    if parts[0] != "":
        return repr(["", *("/".join(parts[: index + 1]) for index in range(len(parts) - 1)), parts[-1]])
    scopes: list[str] = []
    previous = ""
    for part in parts[1:-1]:
        own = part.removeprefix(f"{previous}.") if previous else part
        scopes.append(f"{scopes[-1]}.{own}" if scopes else own)
        previous = part
    return repr(["", *scopes, parts[-1]])
