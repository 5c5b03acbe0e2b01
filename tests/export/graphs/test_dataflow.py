"""Data flow in a graph: which tensors all data pass, and which nodes compute a tensor."""

import onnx_ir as ir
import pytest

from ortcam_export.graphs.dataflow import constant_of, data_nodes, dominators, nodes_in_front


def graph(text: str) -> ir.Graph:
    """A graph of a text in ONNX's own language."""
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 18]> g {text}').graph


SKIPPED = """(float[N,3,4,4] image) => (float[N,3,4,4] logits) <float[1] one = {1.0}> {
    a = Relu(image)
    b = Mul(a, one)
    c = Add(a, b)
    shape = Shape(c)
    logits = Reshape(c, shape)
}"""


def test_a_tensor_that_data_go_around_is_no_dominator() -> None:
    found = graph(SKIPPED)
    data = data_nodes(found)
    assert [node.op_type for node in data] == ["Relu", "Mul", "Add", "Reshape"], "shape arithmetic is no data"
    assert [value.name for value in dominators(found.inputs[0], data)] == ["a", "c"]


@pytest.mark.parametrize(("name", "expected"), [("a", ["Relu"]), ("b", ["Relu", "Mul"]), ("c", ["Relu", "Mul", "Add"])])
def test_the_nodes_in_front_of_a_tensor_are_those_that_compute_it(name: str, expected: list[str]) -> None:
    data = data_nodes(found := graph(SKIPPED))
    value = next(value for node in found for value in node.outputs if value.name == name)
    assert [node.op_type for node in nodes_in_front(value, data)] == expected


def test_a_constant_is_an_initializer_and_nothing_else() -> None:
    found = graph(SKIPPED)
    assert constant_of(found.initializers["one"]).tolist() == [1.0]  # type: ignore[union-attr]
    assert constant_of(found.inputs[0]) is None
    assert constant_of(None) is None
