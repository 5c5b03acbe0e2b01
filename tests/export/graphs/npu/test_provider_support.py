"""What providers would take of a bundle, by the documents of ONNX Runtime: operators, shapes, types, partitions."""

import json
from pathlib import Path

import onnx_ir as ir
import pytest
from tests.conftest import TINY_BUNDLE
from tests.export.graphs.npu.fixed_bundles import fixed_bundle

import ortcam_export
from ortcam.bundle import Bundle, read_bundle
from ortcam.cli import main
from ortcam.errors import OptionError
from ortcam_export.providers import GraphSupport
from ortcam_export.providers.conditions import refusal
from ortcam_export.providers.documented import NAMES, Documented, documented
from ortcam_export.providers.partitions import count_partitions


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fixed_bundle(TINY_BUNDLE, tmp_path_factory.mktemp("fixed") / "tiny.ortcam", 4)


def of_graph(bundle: Bundle, provider: str, name: str) -> GraphSupport:
    support = ortcam_export.inspect_provider(bundle, provider)
    return next(graph for graph in support.graphs if graph.graph == name)


def floating(name: str, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def chain(*operators: str) -> ir.Graph:
    """A graph of operators with one input, one behind the other."""
    value = first = floating("x", [1, 3])
    nodes = []
    for index, operator in enumerate(operators):
        node = ir.node(operator, [value])
        value = node.outputs[0]
        value.name, value.shape, value.type = f"v{index}", first.shape, first.type
        nodes.append(node)
    return ir.Graph([first], [value], nodes=nodes, opset_imports={"": 20})


@pytest.mark.slow
def test_qnn_takes_scorers_with_fixed_shapes_whole_and_those_with_open_ones_not(fixed: Bundle) -> None:
    found = of_graph(fixed, "qnn", "scorer-linear.onnx")
    assert (found.taken, found.partitions, found.refused, found.open_dimensions) == (found.nodes, 1, {}, 0)
    found = of_graph(read_bundle(TINY_BUNDLE), "qnn", "scorer-linear.onnx")
    assert ("Conv", "dynamic shape") in found.refused
    assert found.taken < 3
    assert found.open_dimensions > 30


@pytest.mark.slow
def test_what_is_in_no_list_cuts_a_graph_in_pieces(fixed: Bundle) -> None:
    found = of_graph(fixed, "nnapi", "scorer-linear.onnx")
    assert found.refused[("Gather", "input 1 of int64 is not constant")] == 3
    assert found.refused[("LogSoftmax", "operator not in the list")] == 1
    assert found.taken == found.nodes - sum(found.refused.values())
    assert found.partitions > 1


@pytest.mark.parametrize(
    ("operators", "lacking", "partitions"),
    [
        ("abc", "", 1),
        ("abc", "b", 2),
        ("abc", "a", 1),
        ("abc", "ac", 1),
        ("abc", "abc", 0),
        ("ababa", "b", 3),
    ],
)
def test_a_chain_has_a_partition_per_stretch(operators: str, lacking: str, partitions: int) -> None:
    graph = chain(*operators)
    assert count_partitions(graph, [node for node in graph if node.op_type not in lacking]) == partitions


def test_two_branches_side_by_side_are_one_partition() -> None:
    x = floating("x", [1, 3])
    left, right = ir.node("a", [x]), ir.node("b", [x])
    both = ir.node("c", [left.outputs[0], right.outputs[0]])
    graph = ir.Graph([x], [both.outputs[0]], nodes=[left, right, both], opset_imports={"": 20})
    assert count_partitions(graph, [left, right, both]) == 1
    assert count_partitions(graph, [left, both]) == 1  # `right` runs first, on the CPU: it waits for nothing
    assert count_partitions(graph, [left, right]) == 1


def test_conditions_on_ranks_types_and_constants() -> None:
    def asked(operator: str, *inputs: ir.Value, **known: object) -> str | None:
        node = ir.node(operator, inputs)
        node.outputs[0].name, node.outputs[0].type = "y", inputs[0].type
        node.outputs[0].shape = inputs[0].shape
        provider = Documented(**{"name": "NnapiExecutionProvider", "source": "", "operators": {operator: ""}} | known)
        return refusal(node, provider, provider.operators, {"dynamic"})

    image, open_one = floating("x", [1, 3, 8, 8]), floating("dynamic", ["N", 3, 8, 8])
    weight = ir.Value(name="w", const_value=ir.tensor([1.0]))
    whole = ir.Value(name="i", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    assert asked("Relu", image, static=True) is None
    assert asked("Relu", image, static=True, operators={}) == "operator not in the list"
    assert asked("Relu", open_one, static=True) == "dynamic shape"
    assert asked("Relu", open_one, static=False) is None
    assert asked("Relu", floating("x", [1] * 6), static=True, most_axes=5) == "6 axes; accepted are 5"
    assert asked("Conv", image, weight, static=True) is None
    assert asked("Conv", image, image, static=True) == "input 1 is not constant"
    assert asked("MaxPool", floating("x", [1, 3, 8]), static=True) == "3 axes; accepted are 4"
    assert asked("Neg", whole, static=True) == "type int64"
    assert asked("Neg", whole, static=True, integers=True) is None
    assert asked("Gather", image, whole, static=True) == "input 1 of int64 is not constant"


@pytest.mark.parametrize("short", [*NAMES])
def test_every_provider_has_a_list_by_either_name(short: str) -> None:
    known = documented(short)
    assert known == documented(NAMES[short])
    assert {"Conv", "MaxPool", "Softmax"} <= set(known.operators)
    assert "Loop" not in known.operators


def test_an_unknown_provider_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(OptionError, match="accepted is qnn, nnapi, coreml, xnnpack; did you mean 'qnn'"):
        documented("qnm")


def test_the_command_line_says_what_is_refused_and_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(TINY_BUNDLE), "--provider", "QNNExecutionProvider"]) == 0
    said = capsys.readouterr().out
    assert "features.onnx: takes 0 of 6 nodes, in 0 partitions" in said
    assert "  dynamic shape: Conv (3), Relu (3)" in said
    assert "`ortcam export --static-batch 8` fixes them all" in said
    assert main(["inspect", str(TINY_BUNDLE), "--provider", "xnnpack", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provider"] == "XnnpackExecutionProvider"
    assert {"operator": "Relu", "reason": "operator not in the list", "nodes": 3} in found["graphs"][0]["refused"]


def test_a_provider_goes_with_a_bundle_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").touch()
    assert main(["inspect", str(tmp_path / "m.onnx"), "--provider", "qnn"]) == 2
    assert main(["inspect", str(TINY_BUNDLE), "--provider", "qnn", "--verify"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "--provider: goes with a bundle" in errors[0]
    assert "--provider and --verify: give one of the two" in errors[1]
