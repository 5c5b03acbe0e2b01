"""How far a gradient graph is from central differences in float64, entry by entry, for one image and row by row."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ortcam_export.graphs.gradient import differentiate
from ortcam_export.graphs.gradient.float64 import Float64Graph
from ortcam_export.graphs.running import quiet_session

SEEDS = 3
STEP = 1e-6


class Graph:
    """A function features [N,...] -> logits [N,classes], written node by node; weights are random but seeded."""

    def __init__(self, *shape: int, opset: int = 20, seed: int = 0) -> None:
        self.shape = shape
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, array: Any) -> str:
        values = np.asarray(array)
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return str(self.weights[-1].name)

    def weight(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> str:
        return self.constant(self.random.normal(offset, scale, shape))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def op(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [f"{op_type.lower()}{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, name=f"node {len(self.nodes)}", domain=domain, **attributes)
        )
        return names[0] if outputs == 1 else names

    def batch(self) -> str:
        """The number of images, int64 [1]."""
        return str(self.op("Shape", "features", start=0, end=1))

    def elements(self, value: str) -> int:
        """How many elements of a tensor belong to one image."""
        self.nodes.append(helper.make_node("Identity", [value], ["logits"]))
        model = self.model(0)
        self.nodes.pop()
        zeros = np.ones((1, *self.shape), np.float32)
        return int(quiet_session(model).run(None, {"features": zeros})[0].size)

    def finish(self, value: str, size: int, *, classes: int = 4) -> ir.Model:
        """Flatten a tensor of `size` elements an image, and let a random matrix make logits of its squares and it."""
        flat = self.op("Reshape", value, self.integers(-1, size))
        both = self.op("Add", flat, self.op("Mul", self.op("Tanh", flat), self.constant(0.5)))
        self.nodes.append(helper.make_node("MatMul", [both, self.weight(size, classes)], ["logits"], name="last"))
        return self.model(classes)

    def model(self, classes: int) -> ir.Model:
        graph = helper.make_graph(
            self.nodes,
            "head",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes] if classes else None)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


class Cases(dict[str, Callable[[], ir.Model]]):
    """Heads to differentiate, by name."""

    def case(self, name: str, *shape: int, opset: int = 20) -> Callable[[Callable[[Graph], str]], None]:
        """Enter a function that builds one tensor [N,...] from features of a shape."""

        def enter(build: Callable[[Graph], str]) -> None:
            def make() -> ir.Model:
                graph = Graph(*shape, opset=opset, seed=zlib.crc32(name.encode()))
                value = build(graph)
                return graph.finish(value, graph.elements(value))

            assert name not in self
            self[name] = make

        return enter


def gradients(
    model: ir.Model, features: NDArray[Any], seeds: NDArray[Any], wrt: Sequence[str] = ("features",)
) -> list[NDArray[np.float32]]:
    """What the gradient graph gives in ONNX Runtime."""
    session = quiet_session(differentiate(model, wrt=wrt))
    feeds = {"seed": seeds, "features": features}
    return list(session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()}))


def differences(
    graph: Float64Graph, features: NDArray[Any], seeds: NDArray[Any], *, step: float = STEP
) -> NDArray[np.float64]:
    """Central differences of every entry: float64 [K,...], with `features` [1 or K,...]."""
    rows = np.broadcast_to(features, (len(seeds), *features.shape[1:])).astype(np.float64)
    steps = step * np.eye(rows[0].size).reshape(-1, *rows.shape[1:])
    result = np.empty(rows.shape)
    for k, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        change = graph.run({"features": row + steps})[0] - graph.run({"features": row - steps})[0]
        result[k] = (change @ seed.astype(np.float64)).reshape(row.shape) / (2 * step)
    return result


def error(
    model: ir.Model, *, low: float | None = None, features: NDArray[Any] | None = None, seed: int = 1
) -> tuple[float, float]:
    """Max |gradient - differences| / max |gradient|, for one image that holds for all seeds, and row by row.

    Args:
        model: with the input `features`.
        seed: of the random numbers.
        low: features are uniform between it and it + 2, else normal.
        features: [K,...], if they are given.
    """
    random = np.random.default_rng(seed)
    sides = [side for side in (model.graph.inputs[0].shape or ()) if isinstance(side, int)]
    if features is None:
        shape = SEEDS, *sides
        features = random.normal(size=shape) if low is None else random.uniform(low, low + 2, shape)
    features = features.astype(np.float32)
    classes = (model.graph.outputs[0].shape or [0])[-1]
    seeds = random.normal(size=(SEEDS, int(str(classes)))).astype(np.float32)
    graph = Float64Graph(model)
    errors = []
    for rows in (features[:1], features):
        expected = differences(graph, rows, seeds)
        (found,) = gradients(model, rows, seeds)
        assert found.shape == expected.shape
        assert np.abs(expected).max() > 0
        errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    return errors[0], errors[1]


__all__ = ["SEEDS", "STEP", "Cases", "Graph", "differences", "error", "gradients"]
