"""The batch dimension of a graph: every shape at two batch sizes, a fixed batch opened, shape arithmetic folded."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from ortcam_export.errors import ExportError
from ortcam_export.graphs.builder import add_constant

__all__ = ["Extent", "batch_axis_after_reshape", "sides_for_one", "trace_batch"]

Shape = tuple[int, ...]

# Tensors up to this many elements are computed where all that they depend on is known: shapes, not data.
_SHAPE_ARITHMETIC: Final = 4096
_BATCH: Final = (1, 3)
_RANDOM: Final = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_INTEGERS: Final = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


@dataclasses.dataclass(frozen=True)
class Extent:
    """What is known of a tensor.

    Attributes:
        dtype: of its elements.
        shapes: at batch size 1 and at batch size 3.
        inner: where a dimension holds the batch and something else, how many of its elements belong to one image and
            lie together: 3 in [N * 3 heads, T, d], 1 in [T * N, d].
        values: where it is shape arithmetic, its values at both batch sizes.
    """

    dtype: ir.DataType
    shapes: tuple[Shape, Shape]
    inner: int = 1
    values: tuple[NDArray[Any], NDArray[Any]] | None = None

    @property
    def batch_axis(self) -> int | None:
        """The dimension that grows with the batch, or None."""
        one, three = self.shapes
        if len(one) != len(three):
            return None
        grown = [axis for axis, (a, b) in enumerate(zip(one, three, strict=True)) if a != b]
        return grown[0] if len(grown) == 1 and three[grown[0]] == 3 * one[grown[0]] else None

    @property
    def per_image(self) -> bool:
        """Whether it depends on the batch size at all."""
        return self.shapes[0] != self.shapes[1]


def trace_batch(model: ir.Model, *, fixed: bool) -> dict[ir.Value, Extent]:
    """Follow the batch through a graph image [N,...] -> ..., and fold the shape arithmetic on the way.

    Every operator is looked at for batch sizes 1 and 3. Integer tensors that follow from shapes alone are computed;
    those that do not depend on the batch become constants, and a reshape whose one open dimension is the batch gets the
    constant -1 there. Where the batch was fixed at 1, what has it baked in is rewritten: target shapes of reshapes,
    sizes of a resize, constants joined to the images' tensors, squeezes.

    Args:
        model: one input, whose first dimension is the batch and whose others are fixed.
        fixed: whether the batch was fixed at 1 and has to be opened.

    Returns:
        What is known of every tensor; tensors behind an operator that nobody can infer are missing.

    Raises:
        ExportError: an operator loses the batch, or cannot be opened.
    """
    graph = model.graph
    image = graph.inputs[0]
    assert image.shape is not None
    assert image.dtype is not None
    size = tuple(side for side in image.shape if isinstance(side, int))
    assert len(size) == 3
    known: dict[ir.Value, Extent] = {
        image: Extent(image.dtype, ((_BATCH[0], *size), (_BATCH[1], *size))),
        **{value: _constant(value) for value in graph.initializers.values()},
    }
    tracer = _Tracer(model, known, fixed=fixed)
    for node in list(graph):
        tracer.visit(node)
    tracer.settle_batch_sizes()
    for value, extent in known.items():
        if not value.is_initializer():
            value.dtype = extent.dtype
            value.shape = _symbolic(extent)
    return known


def _constant(value: ir.Value) -> Extent:
    tensor = value.const_value
    assert tensor is not None
    shape = tuple(side for side in tensor.shape if isinstance(side, int))
    values = None
    if tensor.size <= _SHAPE_ARITHMETIC:
        array = tensor.numpy()
        values = (array, array)
    return Extent(tensor.dtype, (shape, shape), values=values)


def sides_for_one(value: ir.Value) -> Shape | None:
    """The shape of a traced tensor for one image; None where it is not known."""
    if value.shape is None:
        return None
    sides = []
    for side in value.shape:
        if isinstance(side, int):
            sides.append(side)
        elif (text := str(side)) == "N":
            sides.append(1)
        elif text.endswith("*N"):
            sides.append(int(text.removesuffix("*N")))
        else:
            return None
    return tuple(sides)


def _symbolic(extent: Extent) -> ir.Shape:
    sides: list[int | str | None] = []
    for one, three in zip(*extent.shapes, strict=True):
        if one == three:
            sides.append(one)
        else:
            sides.append("N" if one == 1 else f"{one}*N")
    return ir.Shape(sides)


class _Tracer:
    """Visits nodes in the order of the graph and keeps what is known of their outputs."""

    def __init__(self, model: ir.Model, known: dict[ir.Value, Extent], *, fixed: bool) -> None:
        self._graph = model.graph
        self._opsets = model.opset_imports
        self._ir_version = model.ir_version
        self._known = known
        self._fixed = fixed

    def visit(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "If" and self._inline_branch(node):
            return
        if any(value not in self._known for value in inputs) or _subgraphs(node):
            return
        if node.op_type in ("Shape", "Size") and node.domain == "":
            self._fold(node, [self._shape_of(node, index) for index in (0, 1)])
            return
        if self._is_arithmetic(node, inputs):
            self._fold(node, [self._compute(node, index) for index in (0, 1)])
            return
        if self._fixed:
            self._open(node)
        if node.graph is None:
            return  # opened as another
        if node.outputs[0] not in self._known:
            self._infer(node)
        if node.op_type == "Reshape":
            self._settle_reshape(node)
        self._check_batch(node)

    def _is_arithmetic(self, node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
        """Whether a node computes with shapes: all its inputs known, one at least no plain weight."""
        if node.op_type in _RANDOM or node.domain != "" or any(self._known[value].values is None for value in inputs):
            return False
        integers = all(self._known[value].dtype in _INTEGERS for value in inputs)
        return integers or any(not value.is_initializer() for value in inputs)

    def _shape_of(self, node: ir.Node, index: int) -> list[NDArray[Any]]:
        value = node.inputs[0]
        assert value is not None
        shape = self._known[value].shapes[index]
        if node.op_type == "Size":
            return [np.array(math.prod(shape), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape[start:end], np.int64)]

    def _compute(self, node: ir.Node, index: int) -> list[NDArray[Any]] | None:
        feeds = {}
        for value in node.inputs:
            if value is not None:
                values = self._known[value].values
                assert values is not None
                feeds[value.name or ""] = values[index]
        try:
            return [np.asarray(item) for item in ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)]
        except Exception:  # noqa: BLE001 - an operator the evaluator does not know stays in the graph
            return None

    def _fold(self, node: ir.Node, results: Sequence[list[NDArray[Any]] | None]) -> None:
        """Keep the values of a node's outputs, and make constants of those that are the same for any batch."""
        one, three = results
        if one is None or three is None:
            self._infer(node)
            return
        for output, a, b in zip(node.outputs, one, three, strict=True):
            values = (a, b) if max(a.size, b.size) <= _SHAPE_ARITHMETIC else None
            self._known[output] = Extent(ir.DataType.from_numpy(a.dtype), (a.shape, b.shape), values=values)
            if values is not None and a.shape == b.shape and np.array_equal(a, b) and not output.is_graph_output():
                self._replace_by_constant(output, a)

    def _replace_by_constant(self, value: ir.Value, array: NDArray[Any]) -> ir.Value:
        constant = self.constant(array, f"{value.name}_folded")
        value.replace_all_uses_with(constant)
        return constant

    def constant(self, array: NDArray[Any], name: str) -> ir.Value:
        """A new initializer; its name is made unique, and unlike those that ONNX Runtime makes of tensors' names."""
        value = add_constant(self._graph, array, f"ortcam/{name}")
        self._known[value] = _constant(value)
        return value

    def _infer(self, node: ir.Node) -> None:
        """Infer the outputs of a node at both batch sizes."""
        results = [self._infer_at(node, index) for index in (0, 1)]
        if results[0] is None or results[1] is None:
            if self._fixed and any(self._known[value].per_image for value in node.inputs if value is not None):
                raise ExportError(
                    f"the batch size is fixed in the graph and {_describe(node)} cannot be opened; export the model "
                    "with an open batch dimension"
                )
            return
        for output in node.outputs:
            if output.name not in results[0] or output.name not in results[1]:
                continue
            (dtype, one), (_, three) = results[0][output.name], results[1][output.name]
            self._known[output] = self._with_inner(node, Extent(dtype, (one, three)))

    def _with_inner(self, node: ir.Node, extent: Extent) -> Extent:
        axis = extent.batch_axis
        if axis is None:
            return extent
        side = extent.shapes[0][axis]
        for value in node.inputs:
            if value is None:
                continue
            before = self._known[value]
            if before.batch_axis is not None and before.shapes[0][before.batch_axis] == side:
                return dataclasses.replace(extent, inner=before.inner)
        return dataclasses.replace(extent, inner=side)

    def _infer_at(self, node: ir.Node, index: int) -> dict[str, tuple[ir.DataType, Shape]] | None:
        inferred = self._infer_by_schema(node, index)
        return inferred if inferred is not None else self._infer_by_running(node, index)

    def _infer_by_schema(self, node: ir.Node, index: int) -> dict[str, tuple[ir.DataType, Shape]] | None:
        version = self._opsets.get(node.domain)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)  # type: ignore[arg-type]
        except onnx.defs.SchemaError:
            return None
        types, data = {}, {}
        for value in node.inputs:
            if value is None:
                continue
            extent = self._known[value]
            types[value.name] = onnx.helper.make_tensor_type_proto(int(extent.dtype), extent.shapes[index])
            if extent.values is not None:
                data[value.name] = onnx.numpy_helper.from_array(np.asarray(extent.values[index]), value.name)
        imports = [onnx.helper.make_opsetid(domain, number) for domain, number in self._opsets.items()]
        try:
            outputs = onnx.shape_inference.infer_node_outputs(
                schema,
                ir.to_proto(node),
                types,  # type: ignore[arg-type]
                data,  # type: ignore[arg-type]
                opset_imports=imports,
                ir_version=self._ir_version,
            )
        except Exception:  # noqa: BLE001 - shapes that do not fit, or an operator without inference
            return None
        result = {}
        for value in node.outputs:
            if not value.name:
                continue
            if value.name not in outputs:
                return None
            tensor = outputs[value.name].tensor_type
            sides = tensor.shape.dim
            if not tensor.HasField("shape") or any(not side.HasField("dim_value") for side in sides):
                return None
            result[value.name] = (ir.DataType(tensor.elem_type), tuple(side.dim_value for side in sides))
        return result

    def _infer_by_running(self, node: ir.Node, index: int) -> dict[str, tuple[ir.DataType, Shape]] | None:
        """Run the one operator on zeros: for operators that ONNX Runtime has beyond the standard's."""
        inputs, initializers = [], []
        feeds = {}
        for value in dict.fromkeys(value for value in node.inputs if value is not None):
            extent = self._known[value]
            if value.is_initializer() or extent.values is not None:
                tensor = extent.values[index] if value.const_value is None and extent.values else _numpy(value)
                initializers.append(onnx.numpy_helper.from_array(np.asarray(tensor), value.name))
            else:
                inputs.append(
                    onnx.helper.make_tensor_value_info(value.name or "", int(extent.dtype), extent.shapes[index])
                )
                feeds[value.name] = np.zeros(extent.shapes[index], extent.dtype.numpy())
        outputs = [onnx.ValueInfoProto(name=value.name) for value in node.outputs if value.name]
        graph = onnx.helper.make_graph([ir.to_proto(node)], "node", inputs, outputs, initializers)
        imports = [onnx.helper.make_opsetid(domain, number) for domain, number in self._opsets.items()]
        proto = onnx.helper.make_model(graph, opset_imports=imports, ir_version=min(self._ir_version, 10))
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
            results = session.run(None, feeds)
        except Exception:  # noqa: BLE001 - ONNX Runtime raises its own types
            return None
        names = [value.name for value in outputs]
        return {
            name: (ir.DataType.from_numpy(result.dtype), result.shape)
            for name, result in zip(names, results, strict=True)
        }

    def _check_batch(self, node: ir.Node) -> None:
        """A tensor computed from the images has to have one dimension for them."""
        if not any(self._known[value].per_image for value in node.inputs if value is not None):
            return
        for output in node.outputs:
            extent = self._known.get(output)
            if extent is not None and extent.batch_axis is None and extent.values is None:
                raise ExportError(
                    f"{_describe(node)} mixes or drops the images of a batch: its output is {list(extent.shapes[0])} "
                    f"for one image and {list(extent.shapes[1])} for three; accepted is a graph that treats each on "
                    "its own"
                )

    def _settle_reshape(self, node: ir.Node) -> None:
        """Give a reshape whose target depends on the batch alone a constant target, with -1 for the batch."""
        target, output = node.inputs[1], node.outputs[0]
        assert target is not None
        extent = self._known.get(output)
        if target.is_initializer() or extent is None or extent.batch_axis is None or 0 in extent.shapes[0]:
            return
        self._set_target(node, extent.shapes[0], extent.batch_axis)

    def _set_target(self, node: ir.Node, shape: Shape, axis: int) -> None:
        sides = np.array(shape, np.int64)
        sides[axis] = -1
        node.replace_input_with(1, self.constant(sides, f"{node.outputs[0].name}_shape"))
        node.attributes.pop("allowzero", None)

    def settle_batch_sizes(self) -> None:
        """Read the batch size off the image wherever it is needed, so that no tensor is kept for its shape alone."""
        image = self._graph.inputs[0]
        for node in [node for node in self._graph if node.op_type == "Shape" and node.domain == ""]:
            value, output = node.inputs[0], node.outputs[0]
            if value is None or value is image or value not in self._known or self._known[value].batch_axis is None:
                continue
            values = self._known[output].values if output in self._known else None
            if values is None:
                continue
            tape = ir.tape.Tape()
            parts = []
            for one, three in zip(*values, strict=True):
                if one == three:
                    parts.append(self.constant(np.array([one]), f"{output.name}_side"))
                    continue
                side = tape.op("Shape", [image], {"start": 0, "end": 1})
                factor = self.constant(np.array([one]), f"{output.name}_factor")
                parts.append(side if one == 1 else tape.op("Mul", [side, factor]))
            shape = parts[0] if len(parts) == 1 else tape.op("Concat", parts, {"axis": 0})
            for index, new in enumerate(tape.nodes):
                new.outputs[0].name = new.name = f"{output.name}_{index}"
            self._graph.insert_before(node, tape.nodes)
            output.replace_all_uses_with(shape)
            self._known[shape] = Extent(ir.DataType.INT64, ((len(parts),), (len(parts),)), values=values)
            self._graph.remove(node, safe=True)

    # What has a batch of 1 baked in.

    def _open(self, node: ir.Node) -> None:
        openers = {
            "Reshape": self._open_reshape,
            "Resize": self._open_resize,
            "Concat": self._open_concat,
            "Gather": self._open_gather,
            "Squeeze": self._open_squeeze,
        }
        if node.domain == "" and node.op_type in openers:
            openers[node.op_type](node)

    def _open_reshape(self, node: ir.Node) -> None:
        data, target = node.inputs[0], node.inputs[1]
        assert data is not None
        assert target is not None
        extent, aim = self._known[data], self._known[target]
        axis = extent.batch_axis
        if axis is None or aim.values is None or not np.array_equal(*aim.values):
            return  # nothing of the images, or a target that already follows the batch
        one = self._infer_at(node, 0)
        if one is None:
            return
        shape = one[node.outputs[0].name or ""][1]
        found = batch_axis_after_reshape(extent.shapes[0], axis, extent.inner, shape)
        if found is None:
            raise ExportError(
                f"the batch size is fixed in the graph, and {_describe(node)} from {list(extent.shapes[0])} to "
                f"{list(shape)} cannot be opened; export the model with an open batch dimension"
            )
        after, inner = found
        self._set_target(node, shape, after)
        grown = tuple(3 * side if index == after else side for index, side in enumerate(shape))
        self._known[node.outputs[0]] = Extent(extent.dtype, (shape, grown), inner=inner)

    def _open_resize(self, node: ir.Node) -> None:
        """Sizes of all dimensions take the batch from the image.

        Sizes of the others alone, with `axes`, would say the same, but ONNX Runtime's optimiser moves transpositions
        through a Resize as if its sizes were of all dimensions.
        """
        if len(node.inputs) < 4 or node.inputs[3] is None or "axes" in node.attributes:
            return
        data = node.inputs[0]
        assert data is not None
        sizes = self._known[node.inputs[3]].values
        axis = self._known[data].batch_axis
        if sizes is None or axis is None or not np.array_equal(*sizes):
            return
        name = f"{node.outputs[0].name}_sizes"
        tape = ir.tape.Tape()
        batch = tape.op("Shape", [data], {"start": axis, "end": axis + 1})
        parts = [self.constant(sizes[0][:axis], name)] if axis else []
        parts += [batch, self.constant(sizes[0][axis + 1 :], name)]
        whole = tape.op("Concat", parts, {"axis": 0})
        for new, suffix in zip(tape.nodes, ("batch", "whole"), strict=True):
            new.outputs[0].name = new.name = f"{name}_{suffix}"
        self._graph.insert_before(node, tape.nodes)
        node.replace_input_with(3, whole)
        for new in tape.nodes:
            self.visit(new)

    def _open_concat(self, node: ir.Node) -> None:
        """What is joined to the images' tensors along another dimension, say a class token, is repeated for each."""
        extents = [self._known[value] for value in node.inputs if value is not None]
        axes = {extent.batch_axis for extent in extents} - {None}
        if len(axes) != 1 or all(extent.per_image for extent in extents):
            return
        (axis,) = axes
        assert axis is not None
        joined = node.attributes.get_int("axis", 0)
        if joined % len(extents[0].shapes[0]) == axis:
            return
        template = next(value for value in node.inputs if value is not None and self._known[value].per_image)
        for index, (value, extent) in enumerate(zip(node.inputs, extents, strict=True)):
            if extent.per_image or extent.shapes[0][axis] != self._known[template].shapes[0][axis]:
                continue
            assert value is not None
            tape = ir.tape.Tape()
            batch = tape.op("Shape", [template], {"start": axis, "end": axis + 1})
            ones = np.ones(1, np.int64)
            rank = len(extent.shapes[0])
            parts = [self.constant(ones, "one") if side != axis else batch for side in range(rank)]
            shape = tape.op("Concat", parts, {"axis": 0})
            expanded = tape.op("Expand", [value, shape])
            for new, suffix in zip(tape.nodes, ("batch", "shape", "expanded"), strict=True):
                new.outputs[0].name = f"{node.outputs[0].name}_{index}_{suffix}"
                new.name = new.outputs[0].name
            self._graph.insert_before(node, tape.nodes)
            node.replace_input_with(index, expanded)
            for new in tape.nodes:
                self.visit(new)

    def _open_gather(self, node: ir.Node) -> None:
        """A gather of all elements of an image in their order, which torch makes of some views, becomes a reshape."""
        data, picked = node.inputs[0], node.inputs[1]
        assert data is not None
        assert picked is not None
        extent, indices = self._known[data], self._known[picked].values
        if (
            extent.batch_axis != 0
            or len(extent.shapes[0]) != 1
            or indices is None
            or extent.shapes[0] != (indices[0].size,)
        ):
            return
        if not np.array_equal(indices[0].reshape(-1), np.arange(indices[0].size)):
            return
        reshape = ir.node("Reshape", [data, picked], name=node.name, metadata_props=dict(node.metadata_props))
        reshape.outputs[0].name = f"{node.outputs[0].name}_view"
        reshape.replace_input_with(
            1, self.constant(np.array(indices[0].shape, np.int64), f"{node.outputs[0].name}_shape")
        )
        self._graph.insert_before(node, reshape)
        node.outputs[0].replace_all_uses_with(reshape.outputs[0], replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        self.visit(reshape)

    def _open_squeeze(self, node: ir.Node) -> None:
        """Squeeze all dimensions of size 1 but the batch."""
        data = node.inputs[0]
        assert data is not None
        extent = self._known[data]
        axis = extent.batch_axis
        if axis is None or extent.shapes[0][axis] != 1:
            return
        rank = len(extent.shapes[0])
        axes: list[int] = [index for index, side in enumerate(extent.shapes[0]) if side == 1]
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            given = self._known[node.inputs[1]].values
            if given is None:
                return
            axes = [int(index) % rank for index in given[0]]
        axes = [index for index in axes if index != axis]
        if not axes:  # without any, ONNX Runtime squeezes a batch of one image, too
            same = ir.node("Identity", [data], name=node.name, metadata_props=dict(node.metadata_props))
            same.outputs[0].name = f"{node.outputs[0].name}_same"
            self._graph.insert_before(node, same)
            node.outputs[0].replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
            self._graph.remove(node, safe=True)
            self.visit(same)
            return
        constant = self.constant(np.array(axes, np.int64), f"{node.outputs[0].name}_axes")
        if len(node.inputs) > 1:
            node.replace_input_with(1, constant)
        else:
            node.resize_inputs(2)
            node.replace_input_with(1, constant)

    def _inline_branch(self, node: ir.Node) -> bool:
        """Put the branch of an If whose condition is known in its place."""
        condition = node.inputs[0]
        if condition is None or condition not in self._known:
            return False
        values = self._known[condition].values
        if values is None or not np.array_equal(*values):
            return False
        branch = node.attributes["then_branch" if bool(values[0]) else "else_branch"].as_graph()
        outputs = list(branch.outputs)
        nodes = list(branch)
        # Names are a branch's own: another may have the same.
        prefix = node.outputs[0].name
        for value in list(branch.initializers.values()):
            branch.initializers.pop(value.name or "")
            value.name = f"{prefix}/{value.name}"
            self._graph.register_initializer(value)
            self._known[value] = _constant(value)
        for value in (value for inner in nodes for value in inner.outputs if value.name):
            value.name = f"{prefix}/{value.name}"
        branch.outputs.clear()
        branch.remove(nodes)
        self._graph.insert_before(node, nodes)
        for before, after in zip(node.outputs, outputs, strict=True):
            before.replace_all_uses_with(after, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        for inner in nodes:
            self.visit(inner)
        return True


def batch_axis_after_reshape(before: Shape, axis: int, inner: int, after: Shape) -> tuple[int, int] | None:
    """Where the batch goes in a reshape that was recorded for one image.

    The elements of one image that lie together, `inner` times what lies behind `axis`, are a stride in the flat order;
    the batch goes to the dimension of `after` where that stride falls. Where it falls between two dimensions, the batch
    joins the one before if the dimensions behind stay as they are or only one, the features, is left behind; else it
    leads the one behind, as in [T, N, heads * d] -> [T, N * heads, d].

    Args:
        before: shape of the input for one image.
        axis: of `before` with the batch.
        inner: see `Extent`.
        after: shape of the output for one image.

    Returns:
        The axis of `after` that holds the batch, and its `inner`; None where the batch does not fit in.
    """
    behind = (*((inner,) if inner > 1 else ()), *before[axis + 1 :])
    stride = math.prod(behind)
    strides = [math.prod(after[index + 1 :]) for index in range(len(after))]
    free = [index for index, side in enumerate(after) if side == 1 and strides[index] == stride]
    if free:
        return (axis if axis in free else free[0]), 1
    for index, (side, step) in enumerate(zip(after, strides, strict=True)):
        if step < stride < step * side and stride % step == 0 and (step * side) % stride == 0:
            return index, stride // step
    left = [index for index, (side, step) in enumerate(zip(after, strides, strict=True)) if step == stride and side > 1]
    right = [index for index, (side, step) in enumerate(zip(after, strides, strict=True)) if step * side == stride]
    right = [index for index in right if after[index] > 1]
    if left and right:
        kept = tuple(side for side in after[right[0] :] if side > 1) == tuple(side for side in behind if side > 1)
        if kept or right[0] == len(after) - 1:
            return left[-1], 1
    if right:
        return right[0], after[right[0]]
    return (left[-1], 1) if left else None


def _numpy(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _subgraphs(node: ir.Node) -> bool:
    return any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    )


def _describe(node: ir.Node) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"the {node.op_type} that makes {node.outputs[0].name!r}"
