"""Names in a graph: nobody else's, none of the bundle's own, and module paths of each exporter."""

import numpy as np
import onnx_ir as ir
import pytest

from ortcam_export.graphs.builder import Builder, add_constant
from ortcam_export.graphs.layers.operators import scale_of
from ortcam_export.graphs.names import NAME_SCOPES, fresh_name, module_path, scopes_in_name, set_aside_reserved_names


def test_a_fresh_name_is_taken_from_then_on() -> None:
    taken: set[str | None] = {"a", "a_1"}
    assert [fresh_name(name, taken) for name in ("a", "a", "b")] == ["a_2", "a_3", "b"]


def test_a_builder_gives_no_name_twice_and_each_constant_once() -> None:
    build = Builder({"ortcam_add"})
    one = build.constant(np.float32(1))
    names = [build.op("Add", [one, build.constant(np.float32(1))]).name for _ in range(2)]
    assert names == ["ortcam_add_1", "ortcam_add_2"]
    assert build.initializers == [one]


def test_constants_of_one_name_get_different_ones() -> None:
    graph = ir.Graph([], [], nodes=[])
    assert [add_constant(graph, np.zeros(2), "c").name for _ in range(3)] == ["c", "c_1", "c_2"]


def test_a_tensor_with_a_name_of_the_bundles_own_gets_another() -> None:
    node = ir.node("Relu", [ir.Value(name="maps")])
    node.outputs[0].name = "features"
    graph = ir.Graph(list(node.inputs), [], nodes=[node])  # type: ignore[arg-type]
    set_aside_reserved_names(graph)
    assert [graph.inputs[0].name, node.outputs[0].name] == ["maps_inner", "features_inner"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/features/features.3/conv/conv.0/Conv", ("features", "features.3", "features.3.conv", "features.3.conv.0")),
        ("model/block_1/Relu", ("model", "model/block_1")),
        ("Conv_12", ()),
    ],
)
def test_the_module_path_is_read_off_the_names_of_other_exporters(name: str, expected: tuple[str, ...]) -> None:
    node = ir.node("Conv", [], name=name)
    if (scopes := scopes_in_name(name)) is not None:
        node.metadata_props[NAME_SCOPES] = scopes
    assert module_path(node) == expected


@pytest.mark.parametrize(
    ("operator", "inputs", "places"),
    [
        ("QuantizeLinear", 3, (1, 2)),
        ("QLinearConv", 9, (6, 7)),
        ("QLinearAdd", 8, (6, 7)),
        ("QLinearConcat", 5, (0, 1)),
        ("QLinearSigmoid", 5, (3, 4)),
        ("QLinearAdd", 7, None),
        ("QLinearSigmoid", 3, None),
        ("Conv", 9, None),
    ],
)
def test_the_scale_of_a_quantized_tensor_is_found_by_its_operator(
    operator: str, inputs: int, places: tuple[int, int] | None
) -> None:
    values = [ir.Value(name=f"input_{place}") for place in range(inputs)]
    quantized = ir.node(operator, values).outputs[0]
    expected = None if places is None else tuple(values[place] for place in places)
    assert scale_of(quantized) == expected
    assert scale_of(ir.node("MaxPool", [quantized]).outputs[0]) == expected, "it keeps the scale of what it pools"
