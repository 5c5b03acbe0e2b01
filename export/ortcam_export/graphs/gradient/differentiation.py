"""Reverse mode, ONNX to ONNX: the graph of a classifier's logits becomes that of their derivative.

The seeds lie on the batch axis. The forward part runs on N images, the backward part on K seeds; N is 1 or K, so that
the two broadcast. K classes cost one forward pass and K backward passes, in one run.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ortcam_export.graphs.batch_axis.extent import Extent, symbolic_shape
from ortcam_export.graphs.builder import Builder
from ortcam_export.graphs.dataflow import inputs_of
from ortcam_export.graphs.gradient.backward import Backward
from ortcam_export.graphs.gradient.cleaning import clean, take_batch_from
from ortcam_export.graphs.gradient.expansion import expand_functions
from ortcam_export.graphs.gradient.extents import measure
from ortcam_export.graphs.gradient.picking import pick_early
from ortcam_export.graphs.gradient.refusals import NoDerivativeError
from ortcam_export.graphs.gradient.rules import is_thin, rule_of
from ortcam_export.graphs.names import rename, taken_names

__all__ = ["differentiate"]

# The derivative of these is 0 wherever there is one.
_FLAT: Final = frozenset({"Ceil", "Floor", "Round", "Sign", "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Hardmax"})


def differentiate(
    model: ir.Model,
    *,
    wrt: Sequence[str],
    output: str = "logits",
    also: Mapping[str, str] | None = None,
    forward: Mapping[str, str] | None = None,
) -> ir.Model:
    """Build the graph of d(sum_c seed[k,c] output[c]) / d tensor.

    Args:
        model: a classifier or its head, in float32; its weights may be in a file. It is left as it is.
        wrt: the tensors float32 [N,...] to differentiate by. They become inputs, so that each is also where the forward
            part begins: `features` for the first, `features_1`, `features_2` for further ones.
        output: the tensor [N,...] to differentiate.
        also: further tensors to differentiate by, which are computed and are no inputs -> the name of the output.
        forward: tensors of the forward part to return as well -> the name of the output.

    Returns:
        A model that shares the weights. Inputs: `seed` float32 [K,...] and those tensors, or the model's own inputs,
        that the derivative needs; of an affine function `seed` alone. N is 1, which holds for all seeds, or K. Outputs:
        `gradient` float32 [K,...], `gradient_1` and so on for `wrt`, then those named in `also` and `forward`.

    Raises:
        NoDerivativeError: an operator has no derivative; it says which.
    """
    model = model.clone()
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph = model.graph
    if not graph.name:
        graph.name = "gradient"
    ends = _values(graph, [output])
    layers, others, shown = (_values(graph, names) for names in (wrt, also or {}, forward or {}))
    expand_functions(model, lambda: measure(model, ends, layers), lambda known: _path(graph, ends[0], layers, known))
    pick_early(model, measure(model, ends, layers), {*layers, *others, *shown})
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.TopologicalSortPass()(model)
    known = measure(model, [*ends, *others, *shown, *layers], layers)
    path, reached = _path(graph, ends[0], [*layers, *others], known)
    for source in (*layers, *others):
        if source not in reached:
            _path(graph, ends[0], [source], known)  # says what stops there
    for node in reversed(path):
        if rule_of(node) is None:
            raise NoDerivativeError.at(node)
    seed = ir.Value(name="seed", type=ir.TensorType(ir.DataType.FLOAT), shape=_with_k(known, ends[0]))
    rename(seed, "seed", graph)
    b = Backward(
        Builder({*taken_names(graph), *(value.name for value in graph.inputs)}),
        known,
        seed,
        reached,
        model.opset_imports,
    )
    adjoints = _sweep(b, path, ends[0], seed, [*layers, *others])
    _assemble(model, b, layers, {**_gradients(layers, others, also or {}, adjoints)}, _shown(shown, forward or {}))
    return model


def _values(graph: ir.Graph, names: Sequence[str] | Mapping[str, str]) -> list[ir.Value]:
    by_name = {value.name: value for value in graph.inputs}
    by_name |= {value.name: value for node in graph for value in node.outputs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"no tensor of the graph is called {missing[0]!r}")
    return [by_name[name] for name in names]


def _path(
    graph: ir.Graph, output: ir.Value, sources: Sequence[ir.Value], known: Mapping[ir.Value, Extent]
) -> tuple[list[ir.Node], set[ir.Value]]:
    """The nodes that carry the derivative, in order, and the tensors that have adjoints.

    Raises:
        NoDerivativeError: every path from a source to the output is cut by an operator whose derivative is 0.
    """
    reached = set(sources)
    forward: list[ir.Node] = []
    cut: list[ir.Node] = []
    for node in graph:
        if not any(value in reached for value in inputs_of(node)):
            continue
        smooth = [value for value in node.outputs if _is_floating(value, known)]
        if node.op_type in _FLAT or not smooth:
            cut.append(node)
            continue
        forward.append(node)
        reached.update(smooth)
    needed = {output}
    path: list[ir.Node] = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            path.append(node)
            needed.update(value for value in inputs_of(node) if value in reached)
    if not any(source in needed for source in sources):
        if cut:
            raise NoDerivativeError.at(next((node for node in cut if node.op_type not in ("Shape", "Size")), cut[0]))
        raise NoDerivativeError(f"{output.name!r} does not depend on {sources[0].name!r}")
    return path[::-1], reached & needed


def _is_floating(value: ir.Value, known: Mapping[ir.Value, Extent]) -> bool:
    dtype = known[value].dtype if value in known else value.dtype
    return dtype is None or dtype.is_floating_point()


def _with_k(known: Mapping[ir.Value, Extent], value: ir.Value) -> ir.Shape:
    """The shape of a tensor's adjoint."""
    return ir.Shape(["K" if side == "N" else side for side in _sides(known, value)])


def _sides(known: Mapping[ir.Value, Extent], value: ir.Value) -> list[int | str | None]:
    if value not in known:
        raise NoDerivativeError(f"the shape of {value.name!r} is not known")
    return [side if isinstance(side, int) else str(side) for side in symbolic_shape(known[value])]


def _sweep(
    b: Backward, path: Sequence[ir.Node], output: ir.Value, seed: ir.Value, sources: Sequence[ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Go back through the nodes. Returns the adjoints of the sources."""
    parts: dict[ir.Value, list[ir.Value]] = {output: [seed]}
    for node in reversed(path):
        adjoints = {value: _sum(b, parts[value]) for value in node.outputs if value in parts}
        for value, adjoint in adjoints.items():
            parts[value] = [adjoint]
        if not adjoints:
            continue
        b.node, b.adjoints = node, adjoints
        rule = rule_of(node)
        assert rule is not None
        if node.op_type != "Split" and any(value in adjoints for value in node.outputs[1:]):
            raise b.refusal("has a second output that the logits depend on")
        first = node.outputs[0] if node.op_type != "Split" else next(iter(adjoints))
        g = adjoints[first] if is_thin(node) else b.full(adjoints[first], first)
        if node.op_type == "Split":
            b.adjoints = {value: b.full(adjoint, value) for value, adjoint in adjoints.items()}
        for operand, result in zip(node.inputs, rule(b, node, g), strict=False):
            if operand is not None and result is not None and b.wants(operand):
                parts.setdefault(operand, []).append(result)
    missing = [value for value in sources if value not in parts]
    if missing:
        raise NoDerivativeError(f"{output.name!r} does not depend on {missing[0].name!r}")
    return {value: b.full(_sum(b, parts[value]), value) for value in sources}


def _sum(b: Backward, parts: Sequence[ir.Value]) -> ir.Value:
    total = parts[0]
    for part in parts[1:]:
        thin = total in b.thin and part in b.thin
        total = b.op("Add", [total, part])
        if thin:
            b.thin.add(total)
    return total


def _gradients(
    layers: Sequence[ir.Value],
    others: Sequence[ir.Value],
    also: Mapping[str, str],
    adjoints: Mapping[ir.Value, ir.Value],
) -> dict[str, tuple[ir.Value, ir.Value]]:
    """The name of each output -> the tensor, and its adjoint."""
    names = [f"gradient_{index}" if index else "gradient" for index in range(len(layers))]
    pairs = zip([*names, *also.values()], [*layers, *others], strict=True)
    return {name: (value, adjoints[value]) for name, value in pairs}


def _shown(values: Sequence[ir.Value], names: Mapping[str, str]) -> dict[str, ir.Value]:
    return dict(zip(names.values(), values, strict=True))


def _assemble(
    model: ir.Model,
    b: Backward,
    layers: Sequence[ir.Value],
    gradients: Mapping[str, tuple[ir.Value, ir.Value]],
    shown: Mapping[str, ir.Value],
) -> None:
    """Put the backward pass behind the forward pass, let both begin at the layers, and drop what nothing needs."""
    graph, known = model.graph, b.extents
    outputs: list[ir.Value] = []
    for name, (value, adjoint) in gradients.items():
        own = b.op("Identity", [adjoint])  # an adjoint may be the seed, or that of another tensor
        outputs.append(_output(own, name, graph, _with_k(known, value)))
    for name, value in shown.items():
        outputs.append(_output(b.op("Identity", [value]), name, graph, ir.Shape(_sides(known, value))))
    graph.extend(b.build.take_nodes())
    for constant in b.build.initializers:
        graph.register_initializer(constant)
    inputs = []
    for index, layer in enumerate(layers):
        formal = ir.Value(type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(_sides(known, layer)))
        layer.replace_all_uses_with(formal)
        inputs.append((formal, f"features_{index}" if index else "features"))
    images = [value for value in graph.inputs if value not in layers]
    take_batch_from(graph, images, inputs[0][0], known)
    graph.outputs[:] = outputs
    graph.inputs[:] = [b.seed, *(formal for formal, _ in inputs), *images]
    for formal, name in inputs:
        rename(formal, name, graph)
    graph.name = "gradient"
    clean(model)
    for formal in list(graph.inputs):
        if formal is not b.seed and not list(formal.uses()):
            graph.inputs.remove(formal)


def _output(value: ir.Value, name: str, graph: ir.Graph, shape: ir.Shape) -> ir.Value:
    rename(value, name, graph)
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), shape
    return value
