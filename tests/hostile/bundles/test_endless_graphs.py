"""Graphs that would not end are refused when a bundle is loaded."""

from pathlib import Path

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper
from tests.hostile.bundles.graphs import (
    IDENTITY,
    TRUE,
    attribute,
    body,
    branches,
    doubling,
    head,
    loop,
    put,
    refusal,
    with_function,
)

import ortcam
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import demo_image
from ortcam.cli import main


def scan() -> onnx.NodeProto:
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["state"], ["out"])], "s", [state], [])
    graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
    return helper.make_node("Scan", ["x"], ["logits"], body=graph, num_scan_inputs=1)


def nested(depth: int) -> onnx.NodeProto:
    node = branches()
    for _ in range(depth):
        outer = branches()
        outer.attribute[0].g.ClearField("node")
        outer.attribute[0].g.node.append(node)
        node = outer
    return node


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "word"),
    [
        (head([loop()], [TRUE]), "'Loop'"),
        (head([branches()], [TRUE]), "'If'"),
        (head([nested(30)], [TRUE]), "'If'"),
        (head([scan()]), "'Scan'"),
        (head([helper.make_node("Loop", ["", "true", "x"], ["logits"])]), "'Loop'"),
        (head([helper.make_node("SequenceMap", ["x"], ["logits"], body=body("b", [], "y"))]), "'SequenceMap'"),
        (
            head(
                [helper.make_node("BeamSearch", ["x"], ["logits"], domain="com.microsoft", decoder=body("b", [], "y"))]
            ),
            "'BeamSearch'",
        ),
        (with_function([helper.make_node("Identity", ["a"], ["b"])]), "functions"),
        (with_function([helper.make_node("F", ["a"], ["b"], domain="own")]), "functions"),
        (doubling(28), "functions"),
        (head([IDENTITY, attribute(AttributeProto.GRAPHS, graphs=[body("b", [], "y")])]), "'Constant'"),
        (head([helper.make_node("ReorderInput", ["x"], ["logits"], domain="com.microsoft.nchwc")]), "nchwc"),
        (head([helper.make_node("Load", ["x"], ["logits"], domain="own")]), "'own'"),
        (head([helper.make_node("TreeEnsembleRegressor", ["x"], ["logits"], domain="ai.onnx.ml")]), "'ai.onnx.ml'"),
        (
            head([helper.make_node("EPContext", ["x"], ["logits"], domain="com.microsoft", ep_cache_context="../a")]),
            "'EPContext'",
        ),
        (head([IDENTITY, *(helper.make_node("Tanh", ["x"], [f"y{i}"]) for i in range(20_001))]), "nodes"),
        (head([IDENTITY, helper.make_node("Constant", [], ["y"], value_ints=[1] * 1_000_001)]), "fields"),
    ],
    ids=lambda value: value if isinstance(value, str) else "graph",
)
def test_a_graph_that_may_run_for_ever_is_refused_when_it_is_loaded(
    bundle: Path, model: onnx.ModelProto, word: str
) -> None:
    assert word in refusal(lambda: ortcam.load(put(bundle, model)))


def test_all_graphs_are_looked_at_when_a_bundle_is_loaded(bundle: Path) -> None:
    """Those of methods that nobody has asked for, too."""
    model = onnx.load(bundle / "scorer-mish.onnx", load_external_data=False)
    model.graph.node.append(branches())
    put(bundle, model, "scorer-mish.onnx")
    for read in (ortcam.load, read_bundle):
        assert "scorer-mish.onnx" in refusal(lambda read=read: read(bundle))


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{bundle}"],
        ["inspect", "{bundle}", "--verify"],
        ["explain", "{bundle}", "{picture}", "-o", "{output}"],
        ["benchmark", "{bundle}"],
        ["fuse", "{bundle}", "-o", "{output}.onnx"],
    ],
    ids=lambda command: "-".join(command[::2]),
)
def test_every_command_refuses_it_in_a_line(
    bundle: Path, tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    put(bundle, head([loop()], [TRUE]))
    places = {"bundle": bundle, "picture": demo_image(), "output": tmp_path / "output"}
    assert main([word.format_map(places) for word in command]) == 2
    output = capfd.readouterr()
    assert "holds a graph, which may run for ever" in output.err
    assert output.err.count("\n") == 1
    assert not output.out
    assert {path.name for path in tmp_path.iterdir()} == {bundle.name}
